"""What a workload hands to the table: one sample, and marks around the measured part in a system call trace."""

from __future__ import annotations

from dataclasses import dataclass

# Looked up as files and never found: the two calls stand in a trace where the measured part begins and ends.
BEGIN_MARK, END_MARK = "durable-flow-benchmark-begin", "durable-flow-benchmark-end"


@dataclass(frozen=True)
class Sample:
    """One measured part: how many units of work took how many seconds.

    `cpu_seconds` is that of the whole process, `commits` those of the journal, `disk_bytes` what the database's used
    pages grew by; both are None for a system in memory.
    """

    units: int
    seconds: float
    cpu_seconds: float
    commits: int | None = None
    disk_bytes: int | None = None
