"""Each example on SQLite and on Postgres, named by the environment: the programs themselves know no database."""

from __future__ import annotations

from pathlib import Path

import pytest
from deadlines import limit

from . import standins

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every asynchronous test of this folder a deadline."""
    limit((item for item in items if HERE in item.path.parents), seconds=40)


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
