from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forking import ForkServer

from .databases import Place, PostgresPlace, SqlitePlace
from .histories import History, Laboratory, laboratory
from .processes import Home
from .runs import ALONE, EIGHT, LAPS

# On SQLite processes are killed at every commit. A life on Postgres takes longer, as the server starts a process for
# each connection: of all its tests to end within a minute, each kills at so many commits, others each time.
KILLS_ON_POSTGRES = int(os.environ.get("DURABLE_FLOW_TEST_KILLS", "8"))


KINDS: dict[str, Callable[[pytest.FixtureRequest, Path], Place]] = {
    "sqlite": lambda request, folder: SqlitePlace(folder, kills=None),
    "postgres": lambda request, folder: PostgresPlace(
        request.getfixturevalue("postgres_server"),
        request.getfixturevalue("postgres_template"),
        kills=KILLS_ON_POSTGRES,
    ),
}


@pytest.fixture(scope="session", params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place for databases of each kind that outlives a process."""
    return KINDS[request.param](request, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def lab(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with laboratory(tmp_path_factory.mktemp("lives"), place) as lab:
        yield lab


@pytest.fixture
def home(place: Place, tmp_path: Path, forks: ForkServer) -> Iterator[Home]:
    """A folder and a database of the test's own."""
    with place.new(tmp_path) as database:
        yield Home(tmp_path, database, forks)


@pytest.fixture(scope="session")
def undisturbed(lab: Laboratory) -> History:
    """A history of one run that nobody killed."""
    return lived_in_one_go(lab, ALONE, laps=LAPS)


@pytest.fixture(scope="session")
def eight_undisturbed(lab: Laboratory) -> History:
    """A history of eight runs at once that nobody killed."""
    return lived_in_one_go(lab, EIGHT)


def lived_in_one_go(lab: Laboratory, runs: list[str], **more: Any) -> History:
    with lab.new_history() as history:
        assert lab.live(history, runs, **more) == 0, history.output()
        assert history.last_books.runs.keys() == set(runs)
    return history
