"""Who this process is, and whether the process of another worker still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from ..journal.protocol import WorkerId


def new_worker(id: str) -> WorkerId:
    """Return the identity of an engine in this process."""
    boot, namespace = _machine()
    pid = os.getpid()
    return WorkerId(id, socket.gethostname(), boot, namespace, pid, started_at(pid) or 0)


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str]:
    """Return the boot id and the pid namespace: within both, pids mean the same processes."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink("/proc/self/ns/pid")
    boot = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True).stdout
    return f"{socket.gethostname()} {boot.strip()}", "host"


def started_at(pid: int) -> int | None:
    """Return when the process started (Linux: clock ticks since boot, macOS: seconds since 1970), None if it is gone.

    A zombie is gone: it only waits for its parent.
    """
    if sys.platform == "linux":
        try:
            # The command's name may contain spaces and parentheses; the fields follow the last one.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else int(fields[19])
    shown = subprocess.run(["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    text = shown.stdout.strip()
    if shown.returncode != 0 or not text or text.split()[-1].startswith("Z"):
        return None
    return int.from_bytes(text.rpartition(" ")[0].encode()) % (1 << 62)


def is_gone(worker: WorkerId) -> bool | None:
    """Tell whether the worker's process is gone; None if it lives where this process cannot see it."""
    if (worker.boot, worker.namespace) != _machine():
        return None
    return started_at(worker.pid) != worker.started
