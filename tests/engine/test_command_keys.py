"""Commands on journals that need keys: they take them from the environment, and without them they show nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_flow import Context, EncryptedSeal, Journal, PickleSerializer, StartEvent, StopEvent, Workflow, step
from durable_flow.cli import main

SECRET = "Xanadu"
OLD, NEW = EncryptedSeal.new_key(), EncryptedSeal.new_key()


class KeptSecret(Workflow):
    @step
    async def keep(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.store.set("word", ev.word)
        return StopEvent(result=ev.word)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command with these keys in its environment: gives exit code, output, errors."""

    def run(*arguments: str, keys: str | None = None, key: str | None = None, url: str = url) -> tuple[int, str, str]:
        for name, value in {"DURABLE_FLOW_SEAL_KEYS": keys, "DURABLE_FLOW_SERIALIZER_KEY": key}.items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        code = main([*arguments, "--url", url])
        return code, *capsys.readouterr()

    return run


def made(url: str, run_id: str = "film", **options: Any) -> None:
    async def work() -> None:
        async with Journal(url, **options) as journal:
            assert await KeptSecret(journal=journal).run(run_id=run_id, word=SECRET) == SECRET

    asyncio.run(work())


@pytest.mark.parametrize("keys", [OLD, f"{NEW},{OLD}", f"  {NEW}\n{OLD}\n"], ids=["one", "commas", "blanks"])
def test_an_encrypted_run_is_shown_with_its_key_wherever_it_stands(url: str, command: Command, keys: str) -> None:
    made(url, seal=EncryptedSeal(keys=[OLD]))
    code, out, _ = command("checkpoints", "film", keys=keys)
    assert (code, "StartEvent" in out) == (0, True)
    assert SECRET in command("blame", "film", "word", keys=keys)[1]
    assert SECRET in command("diff", "film", "2", keys=keys)[1]


@pytest.mark.parametrize("arguments", [["checkpoints"], ["blame", "word"], ["diff", "2"], ["fork"], ["export", "FILE"]])
def test_without_the_key_nothing_is_shown_and_the_variable_is_named(
    url: str, command: Command, arguments: list[str], tmp_path: Path
) -> None:
    made(url, seal=EncryptedSeal(keys=[OLD]))
    name, *rest = arguments
    file = tmp_path / "film.jsonl"
    rest = [str(file) if part == "FILE" else part for part in rest]
    code, out, told = command(name, "film", *rest)
    assert (code, out) == (1, "")
    assert "run film, seq 1 " in told
    assert "'aes-gcm', and none is configured" in told
    assert "DURABLE_FLOW_SEAL_KEYS" in told
    code, out, told = command(name, "film", *rest, keys=NEW)
    assert (code, out) == (1, "")
    assert "is not among the keys" in told
    assert not file.exists()


def test_other_errors_say_nothing_of_keys(url: str, command: Command) -> None:
    made(url)
    code, _, told = command("checkpoints", "sealed")
    assert (code, "there is no run sealed" in told, "DURABLE_FLOW_SEAL_KEYS" in told) == (1, True, False)


def test_a_fork_is_written_with_the_first_key(url: str, command: Command, tmp_path: Path) -> None:
    made(url, seal=EncryptedSeal(keys=[OLD]))
    assert (
        command("fork", "film", "2", "--set", f'word="{SECRET}"', "--new-run-id", "copy", keys=f"{NEW} {OLD}")[0] == 0
    )
    assert SECRET.encode() not in everything(tmp_path)
    assert SECRET in command("blame", "copy", "word", keys=NEW)[1]
    assert command("blame", "copy", "word", keys=OLD)[0] == 1


def test_a_run_is_moved_between_encrypted_journals_and_is_plain_text_nowhere(
    url: str, command: Command, tmp_path: Path
) -> None:
    made(url, seal=EncryptedSeal(keys=[OLD]))
    there, file = f"sqlite:///{tmp_path}/there.db", tmp_path / "film.jsonl"
    assert command("export", "film", str(file), keys=OLD)[0] == 0
    code, _, told = command("import", str(file), url=there)
    assert (code, "DURABLE_FLOW_SEAL_KEYS" in told) == (1, True)
    assert command("import", str(file), url=there, keys=f"{NEW},{OLD}")[0] == 0
    assert SECRET.encode() not in everything(tmp_path)
    # It was sealed anew, by the first key.
    assert SECRET in command("blame", "film", "word", url=there, keys=NEW)[1]


def everything(folder: Path) -> bytes:
    """Return all bytes of all files of a folder: databases, their logs, archives."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    return b"".join(path.read_bytes() for path in files)


def test_what_is_plain_in_an_encrypted_journal_is_shown_if_asked_for(url: str, command: Command) -> None:
    made(url)
    code, _, told = command("blame", "film", "word", keys=OLD)
    assert (code, "which this journal requires" in told) == (1, True)
    assert SECRET in command("blame", "film", "word", "--allow-plaintext", keys=OLD)[1]


def test_a_key_of_another_form_is_told_without_repeating_it(url: str, command: Command) -> None:
    made(url)
    code, out, told = command("checkpoints", "film", keys="swordfish")
    assert (code, out) == (1, "")
    assert "32 random bytes" in told
    assert "swordfish" not in told


def test_a_variable_without_a_key_is_no_leave_to_write_plain_text(url: str, command: Command, tmp_path: Path) -> None:
    """As from DURABLE_FLOW_SEAL_KEYS="$NEW_KEY,$OLD_KEY" where neither is set."""
    made(url)
    assert command("export", "film", str(tmp_path / "film.jsonl"))[0] == 0
    there = f"sqlite:///{tmp_path}/there.db"
    code, out, told = command("import", str(tmp_path / "film.jsonl"), url=there, keys=" , ")
    assert (code, out) == (1, "")
    assert "DURABLE_FLOW_SEAL_KEYS is set and has no key in it" in told
    assert not (tmp_path / "there.db").exists()


def test_nothing_is_imported_into_what_keeps_nothing(url: str, command: Command, tmp_path: Path) -> None:
    made(url)
    assert command("export", "film", str(tmp_path / "film.jsonl"))[0] == 0
    code, out, told = command("import", str(tmp_path / "film.jsonl"), url="memory://")
    assert (code, out) == (1, "")
    assert "memory:// keeps nothing" in told


def test_pickles_are_read_with_the_key_and_shown_as_they_are_stored_without(url: str, command: Command) -> None:
    made(url, serializer=PickleSerializer(key="open sesame"))
    assert SECRET in command("blame", "film", "word", key="open sesame")[1]
    for key in (None, "another"):
        code, out, _ = command("blame", "film", "word", key=key)
        assert (code, "EncodedValue(" in out) == (0, True)


def test_no_command_takes_a_key_as_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("checkpoints", "diff", "blame", "fork", "export", "import"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        said = capsys.readouterr().out
        assert "DURABLE_FLOW_SEAL_KEYS" in said
        assert not any(word.startswith("--key") or word.startswith("--seal") for word in said.split())
