"""How long the import of what a workflow file needs takes in a fresh process; a unit is an import."""

from __future__ import annotations

import json
import sys
import time

cpu, wall = time.process_time(), time.perf_counter()
if sys.argv[1] == "ours":
    from durable_flow import Context, Event, Workflow, step
else:
    from workflows import Context, Workflow, step  # noqa: F401
    from workflows.events import Event  # noqa: F401
print(json.dumps({"units": 1, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}))
