"""Who this process is, and whether the process of another worker still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from ..journal.protocol import WorkerId

UNSEEN = "unseen "


def new_worker(id: str) -> WorkerId:
    """Return the identity of an engine in this process."""
    boot, namespace = _machine()
    pid = os.getpid()
    # Where /proc is another namespace's, the pid may mean nobody there; nobody will compare it either.
    seen = not namespace.startswith(UNSEEN)
    return WorkerId(id, socket.gethostname(), boot, namespace, pid, (started_at(pid) or 0) if seen else 0)


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str]:
    """Return the boot id and the pid namespace: within both, pids mean the same processes."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if os.readlink("/proc/self") != str(os.getpid()):
            # This /proc shows the processes of another namespace; nobody can be looked at, and nobody can look.
            return boot, f"{UNSEEN}{os.urandom(16).hex()}"
        return boot, os.readlink("/proc/self/ns/pid")
    boot = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True).stdout
    return f"{socket.gethostname()} {boot.strip()}", "host"


def started_at(pid: int) -> int | None:
    """Return when the process started (Linux: clock ticks since boot, macOS: seconds since 1970), None if it is gone.

    A zombie is gone: it only waits for its parent. Raises PermissionError for a process that may not be looked at.
    """
    if sys.platform == "linux":
        try:
            # The command's name may contain spaces and parentheses; the fields follow the last one.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
            # Mounted with `hidepid`, /proc does not show the processes of other users.
            raise PermissionError(f"process {pid} exists and is not to be seen in /proc") from None
        return None if fields[0] in "ZX" else int(fields[19])
    shown = subprocess.run(["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    text = shown.stdout.strip()
    if shown.returncode != 0 or not text or text.split()[-1].startswith("Z"):
        return None
    return int.from_bytes(text.rpartition(" ")[0].encode()) % (1 << 62)


def is_here(worker: WorkerId, me: WorkerId) -> bool:
    """Tell whether both are engines of one process."""
    names = ("boot", "namespace", "pid", "started")
    return all(getattr(worker, name) == getattr(me, name) for name in names)


def is_gone(worker: WorkerId) -> bool | None:
    """Tell whether the worker's process is gone; None if it lives where this process cannot see it."""
    if (worker.boot, worker.namespace) != _machine() or worker.namespace.startswith(UNSEEN):
        return None
    try:
        return started_at(worker.pid) != worker.started
    except PermissionError:
        return None
