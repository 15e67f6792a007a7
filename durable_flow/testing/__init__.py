"""For tests of workflows."""

from .replays import assert_replays
from .runner import WorkflowTestResult, WorkflowTestRunner

__all__ = ["WorkflowTestResult", "WorkflowTestRunner", "assert_replays"]
