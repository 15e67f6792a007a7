"""A process that imports an archive and is killed in the middle of it.

    python -m crash.importing ARCHIVE WHEN NUMBER

WHEN is "page" (killed before that page of records is read, within the transaction), or one of the points of a commit.
The database is that of the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from durable_flow import Journal
from durable_flow.journal import archives
from durable_flow.journal.protocol import ImportedPage

from .kills import Commits

PAGE = "page"


def kill_at_page(number: int) -> None:
    """Kill this process when that page is asked for; what was given before has been sent to the database."""
    pages = archives._imported_pages

    def counted(*arguments: Any) -> Iterator[ImportedPage]:
        for at, page in enumerate(pages(*arguments)):
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)
            yield page

    archives._imported_pages = counted


async def main(archive: str, when: str, number: int) -> None:
    commits = Commits()
    async with Journal() as journal:
        if when == PAGE:
            kill_at_page(number)
        else:
            commits.kill_at(commits.count + 1, when)
        await journal.import_(archive)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
