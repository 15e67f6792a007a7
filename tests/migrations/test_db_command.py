"""`durable-flow db`, on both kinds of database."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from databases import TOMORROW, rows, tomorrow
from postgres import PostgresServer

from durable_flow.cli import main
from durable_flow.journal import migrate


def test_a_database_is_checked_upgraded_and_checked_again(new_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "current", "--url", new_url]) == 0
    assert capsys.readouterr() == ("none\n", "")
    assert main(["db", "check", "--url", new_url]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{new_url} has no tables of durable_flow yet. Run: durable-flow db upgrade" in told.err
    for _ in range(2):
        assert main(["db", "upgrade", "--url", new_url]) == 0
        assert capsys.readouterr() == (f"{new_url} has schema {migrate.HEAD}.\n", "")
    assert main(["db", "check", "--url", new_url]) == 0
    assert capsys.readouterr() == (f"{new_url} is up to date: it has schema {migrate.HEAD}.\n", "")
    assert main(["db", "current", "--url", new_url]) == 0
    assert capsys.readouterr() == (f"{migrate.HEAD}\n", "")
    assert rows(new_url, "SELECT * FROM journal") == [[]]


def test_looking_creates_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    codes = [main(["db", command, "--url", url]) for command in ("current", "check", "sql")]
    assert codes == [0, 1, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_tomorrow_is_not_up_to_date(
    new_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tomorrow(tmp_path):
        migrate.upgrade_url(new_url)
    for command in ("check", "upgrade"):
        assert main(["db", command, "--url", new_url]) == 1
        assert "pip install --upgrade durable-flow" in capsys.readouterr().err
    assert main(["db", "current", "--url", new_url]) == 0
    assert capsys.readouterr().out == f"{TOMORROW}\n"


def test_the_sql_is_printed_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://nobody:s3cret@nowhere.invalid/jobs"
    assert main(["db", "sql", "--url", url]) == 0
    assert capsys.readouterr() == (migrate.sql_of(url), "")


def test_the_database_is_that_of_the_environment_else_one_in_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DURABLE_FLOW_DATABASE_URL", "sqlite:///mine.db")
    assert main(["db", "upgrade"]) == 0
    monkeypatch.delenv("DURABLE_FLOW_DATABASE_URL")
    assert main(["db", "upgrade"]) == 0
    assert {path.name for path in tmp_path.glob("*.db")} == {"mine.db", "durable_flow.db"}


@pytest.mark.parametrize("command", ["upgrade", "current", "check", "sql"])
@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "mysql://me:s3cret@host/jobs",
        "postgresql://me:s3cret@host:port/jobs",
        "postgresql://me:s3c/ret@h/d",
    ],
)
def test_a_url_that_names_no_database_is_refused_in_one_line(
    command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", command, "--url", url]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"durable-flow db {command}: ")
    assert told.err.count("\n") == 1
    assert "s3c" not in told.err


@pytest.mark.parametrize("command", ["upgrade", "current", "check"])
def test_a_server_that_lets_nobody_in_is_told_of_in_one_line(
    command: str, tcp_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = tcp_server.tcp_url(user=tcp_server.USER, password="s3cret:/@?")
    assert main(["db", command, "--url", url]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"postgresql://{tcp_server.USER}:***@127.0.0.1" in told.err
    assert "does not take this user and password" in told.err
    assert told.err.count("\n") == 1
    assert "s3cret" not in told.err


def test_alembic_prints_and_configures_no_log(new_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers), logging.getLogger("alembic").level
    main(["db", "upgrade", "--url", new_url])
    assert capsys.readouterr() == (f"{new_url} has schema {migrate.HEAD}.\n", "")
    assert (list(logging.getLogger().handlers), logging.getLogger("alembic").level) == before


@pytest.mark.parametrize("words", [["db"], ["db", "downgrade"], ["db", "upgrade", "now"]])
def test_wrong_words_are_answered_with_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: durable-flow" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["upgrade", "current", "check", "sql"])
def test_every_command_tells_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["db", command, "--help"])
    assert ended.value.code == 0
    assert "DURABLE_FLOW_DATABASE_URL" in capsys.readouterr().out
