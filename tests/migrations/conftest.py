"""Databases that have no journal yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Server, new_database


@pytest.fixture
def empty_url(postgres_server: Server) -> Iterator[str]:
    """The URL of an empty Postgres database."""
    with new_database(postgres_server) as name:
        yield postgres_server.url(name)


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of either kind: an empty one, or a file that does not exist."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.db"
    url: str = request.getfixturevalue("empty_url")
    return url
