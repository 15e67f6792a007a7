from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .histories import History, Laboratory, laboratory

ALONE = ["alone"]
EIGHT = [f"run-{number}" for number in range(8)]
# A run alone is long enough for many appends.
LAPS = 14


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with laboratory(tmp_path_factory.mktemp("lives")) as lab:
        yield lab


@pytest.fixture(scope="session")
def undisturbed(lab: Laboratory) -> History:
    """A history of one run that nobody killed."""
    return lived_in_one_go(lab, ALONE, laps=LAPS)


@pytest.fixture(scope="session")
def eight_undisturbed(lab: Laboratory) -> History:
    """A history of eight runs at once that nobody killed."""
    return lived_in_one_go(lab, EIGHT)


def lived_in_one_go(lab: Laboratory, runs: list[str], **more: Any) -> History:
    history = lab.new_history()
    assert lab.live(history, runs, **more) == 0, history.output()
    return history
