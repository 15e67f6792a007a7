"""Each example on SQLite and on Postgres, named by the environment: the programs themselves know no database."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import standins

HERE = Path(__file__).parent
# Generous: it only matters when something hangs.
DEADLINE_SECONDS = 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every asynchronous test of this folder a deadline."""
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _with_deadline(item.obj)


def _with_deadline(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await test(*args, **kwargs)

    return limited


@pytest.fixture(params=["sqlite", "postgres"], autouse=True)
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The journal of the test, as the environment names it."""
    url = f"sqlite:///{tmp_path}/seeds.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    monkeypatch.setenv("DURABLE_FLOW_DATABASE_URL", url)
    return url


@pytest.fixture(autouse=True)
def _fresh_standins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs set `Settings.llm`, and nobody counts the calls of another test."""
    monkeypatch.setattr(standins.Settings, "llm", None)
    monkeypatch.setattr(standins.Settings, "embed_model", None)
    monkeypatch.setattr(standins.OpenAI, "prompts", [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the documents that the examples read from `data/`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name, text in standins.DOCUMENTS.items():
        (tmp_path / "data" / name).write_text(text)
    return tmp_path
