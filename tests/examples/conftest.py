"""Gives the tests of the examples what starts processes quickly."""

from __future__ import annotations

import pytest
from forking import ForkServer

from . import processes


@pytest.fixture(autouse=True)
def _forks(forks: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "forks", forks)
