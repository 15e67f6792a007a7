"""The database's server, killed in the same moment as the processes that use it, and started again."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from postgres import PostgresServer

from durable_flow.journal.migrate import upgrade_url

from .checks import problems
from .databases import DyingDatabase
from .histories import KILLED, History, Laboratory
from .kills import POINTS
from .runs import EIGHT, MOMENTS

# Only a server can die by itself.
pytestmark = pytest.mark.parametrize("place", ["postgres"], indirect=True)


@pytest.fixture
def dying(new_server: Callable[..., PostgresServer]) -> DyingDatabase:
    database = DyingDatabase(new_server(fsync=True), "jobs")
    database.server.create(database.name)
    with ThreadPoolExecutor() as threads:
        threads.submit(upgrade_url, database.url).result()
    # Nobody in this process is connected to it when it dies.
    database.server.stop()
    database.server.start()
    return database


@pytest.mark.parametrize("seed", range(2))
def test_eight_runs_whose_server_dies_with_their_process_are_recovered(
    lab: Laboratory, eight_undisturbed: History, dying: DyingDatabase, tmp_path: Path, seed: int
):
    chance = random.Random(seed)
    history = History(tmp_path, dying)
    for moments in MOMENTS:
        kill = (chance.randrange(1, 4), chance.choice(POINTS))
        lab.live(history, EIGHT, recover=True, moment=chance.choice(moments), kill=kill, dies_with=dying.server_pid)
    assert lab.live(history, EIGHT, recover=True) == 0, history.output()

    assert history.exits.count(KILLED) >= 2, history.exits
    assert problems(history, eight_undisturbed, EIGHT) == []
