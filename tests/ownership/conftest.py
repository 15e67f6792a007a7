"""A database of each kind that several processes can use, a folder for their notes, and a journal to look into it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from forking import ForkServer

from durable_flow import Journal

from .processes import Process, living
from .program import lines


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database of each kind that several processes can share."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
async def journal(database_url: str) -> AsyncIterator[Journal]:
    """An open journal of the test's own: it owns nothing."""
    async with Journal(database_url) as journal:
        yield journal


@pytest.fixture
def alive(database_url: str, tmp_path: Path, forks: ForkServer) -> Callable[..., AbstractAsyncContextManager[Process]]:
    """Start processes on the database: `alive("owner", do="run", hold="file")`."""

    def start(who: str, *, prefix: tuple[str, ...] = (), **life: Any) -> AbstractAsyncContextManager[Process]:
        life = {"url": database_url, "folder": str(tmp_path), "who": who, "do": "run", "runs": ["r"], **life}
        return living(life, forks, prefix=prefix)

    return start


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[], list[str]]:
    """What the steps have done to the outside world, by whom, in order."""
    return functools.partial(lines, tmp_path / "notes.txt")
