"""Eight runs at once, killed several times at moments that nobody chose, are recovered to the same end."""

from __future__ import annotations

import random

import pytest

from .checks import problems
from .histories import KILLED, History, Laboratory
from .kills import POINTS
from .runs import EIGHT, MOMENTS


@pytest.mark.parametrize("seed", range(6))
def test_eight_runs_killed_at_random_moments_are_recovered(lab: Laboratory, eight_undisturbed: History, seed: int):
    chance = random.Random(seed)
    with lab.new_history() as history:
        for moments in MOMENTS:
            kill = (chance.randrange(1, 4), chance.choice(POINTS))
            lab.live(history, EIGHT, recover=True, moment=chance.choice(moments), kill=kill)
        assert lab.live(history, EIGHT, recover=True) == 0, history.output()

        # One of eight may be so far ahead that there is nothing left to kill behind the last moment.
        assert history.exits.count(KILLED) >= 2, history.exits
        assert problems(history, eight_undisturbed, EIGHT) == []
