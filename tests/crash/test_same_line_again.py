"""A script that is killed again and again, each time run anew by the same command line, comes to the same end."""

from __future__ import annotations

import json
import random

import pytest
from forking import ForkServer

from .checks import problems
from .histories import KILLED, History, Laboratory
from .kills import POINTS
from .processes import ORDERS, Home
from .runs import ALONE, MOMENTS


@pytest.mark.parametrize("seed", range(2))
def test_a_script_killed_at_random_moments_is_finished_by_the_same_line(
    lab: Laboratory, undisturbed: History, forks: ForkServer, seed: int
):
    chance = random.Random(seed)
    with lab.new_history() as history:
        home = Home(history.folder, history.database, forks)
        for moments in MOMENTS:
            death = {"moment": chance.choice(moments), "kill": [chance.randrange(1, 4), chance.choice(POINTS)]}
            code, _, errors = home.run_to_end(ORDERS, ORDERS_DEATH=json.dumps(death))
            assert code == KILLED, errors
            history.ended(code)
        code, _, errors = home.run_to_end(ORDERS)
        assert code == 0, errors
        assert problems(history, undisturbed, ALONE) == []
