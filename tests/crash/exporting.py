"""A process that exports the run "long" and is killed in the middle of it.

    python -m crash.exporting FILE WHEN NUMBER

WHEN is "line" (killed before that line is written), "complete" (before the file gets its name) or "named" (after it).
The database is that of the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from durable_flow import Journal
from durable_flow.journal import archive_files

LINE, COMPLETE, NAMED = "line", "complete", "named"


def kill(*_: Any) -> None:
    """End this process as a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_line(number: int) -> None:
    """Kill this process when that line is written; those before are in the file."""
    write, lines = archive_files.Output.write, iter(range(number))

    def counted(output: archive_files.Output, line: bytes) -> None:
        if next(lines, None) is None:
            output._file.flush()
            kill()
        write(output, line)

    archive_files.Output.write = counted  # type: ignore[method-assign]


async def main(file: str, when: str, number: int) -> None:
    if when == LINE:
        kill_at_line(number)
    elif when == COMPLETE:
        os.replace = kill
    else:
        archive_files._sync_folder = kill
    async with Journal() as journal:
        await journal.export("long", file)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
