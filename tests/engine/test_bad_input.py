"""Bad input: a clear error at the place of the mistake, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    Context,
    Event,
    Journal,
    JournalUnavailableError,
    JournalUrlError,
    PayloadTooLargeError,
    RunNotFoundError,
    SchemaVersionError,
    SerializationError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)

from .flows import Answer, Asking, Shop, in_another_loop, question

# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("jobs.db", "is not a URL"),
        ("", "is not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://host/jobs.db", "third slash"),
        ("sqlite:///jobs.db?mode=ro", "no options"),
        ("oracle://scott:tiger@host/db", "oracle"),
        ("nosuch://x", "nosuch"),
        (7, "text"),
    ],
)
async def test_a_wrong_url_is_refused_where_it_is_given_or_first_used(url: Any, says: str) -> None:
    with pytest.raises(JournalUrlError, match=says) as raised:
        Journal(url)
    assert "sqlite:///relative.db" in str(raised.value)
    assert isinstance(raised.value, ValueError)
    with pytest.raises(JournalUrlError, match=says):
        Shop(journal=url).run(item="lamp")


async def test_a_password_is_never_shown() -> None:
    with pytest.raises(JournalUrlError) as raised:
        Journal("oracle://scott:tiger@host/db")
    assert "tiger" not in str(raised.value)


async def test_a_missing_or_relative_url_means_the_environment_or_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await Shop().run(run_id="default", item="lamp")
    await Shop(journal="sqlite:///mine.db").run(run_id="relative", item="lamp")
    monkeypatch.setenv("DURABLE_FLOW_DATABASE_URL", f"sqlite:///{tmp_path}/named.db")
    await Shop().run(run_id="environment", item="lamp")
    for name, run_id in (("durable_flow", "default"), ("mine", "relative"), ("named", "environment")):
        async with Journal(f"sqlite:///{tmp_path}/{name}.db") as journal:
            assert [info.run_id for info in await journal.runs()] == [run_id]


async def test_an_unreachable_database_is_told_by_awaiting_and_can_be_reached_later(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    flow = Shop(journal=f"sqlite:///{folder}/jobs.db")
    handler = flow.run(item="lamp")
    with pytest.raises(JournalUnavailableError, match=r"later.*does not exist"):
        await handler
    with pytest.raises(JournalUnavailableError, match="does not exist"):
        _ = [event async for event in handler.stream_events()]
    with pytest.raises(JournalUnavailableError, match="does not exist"):
        await flow.resume("r")
    with pytest.raises(JournalUnavailableError, match="does not exist"):
        async with Journal(f"sqlite:///{folder}/jobs.db"):
            pass
    assert flow.ran == []
    folder.mkdir()
    assert await flow.run(item="lamp") == "shipped 1 lamp"


@pytest.mark.parametrize("what", ["directory", "text"])
async def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "jobs.db"
    if what == "directory":
        path.mkdir()
    else:
        path.write_text("dear diary, " * 100)
    with pytest.raises(JournalUnavailableError, match=r"jobs\.db"):
        await Shop(journal=f"sqlite:///{path}").run(item="lamp")
    assert path.is_dir() if what == "directory" else path.read_text() == "dear diary, " * 100


async def test_a_newer_schema_is_refused_and_names_the_upgrade(url: str, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
        connection.execute("UPDATE durable_flow_version SET version_num = '9999'")
    flow = Shop(journal=url)
    with pytest.raises(SchemaVersionError, match=r"9999.*pip install --upgrade"):
        await flow.run(item="lamp")
    with pytest.raises(SchemaVersionError, match="9999"):
        async with Journal(url):
            pass
    assert flow.ran == []


# -- Files -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Do something as a user to whom the rights of files apply."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_a_read_only_file_is_refused_with_the_remedy(open_folder: Path, empty_database: Path) -> None:
    path = open_folder / "jobs.db"
    shutil.copy(empty_database / "jobs.db", path)
    path.chmod(0o444)
    before = path.read_bytes()
    flow = Shop(journal=f"sqlite:///{path}")
    with unprivileged(), pytest.raises(JournalUnavailableError, match=r"jobs\.db.*right to write"):
        await flow.run(item="lamp")
    assert flow.ran == []
    assert path.read_bytes() == before


async def test_a_locked_file_only_delays_a_run(file: Journal, tmp_path: Path) -> None:
    flow = Shop(journal=file)
    await flow.run(item="lamp")  # the writer is open
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        handler = flow.run(run_id="r", item="chair")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(handler), 0.2)
        assert flow.ran == ["pack", "ship"]
        with pytest.raises(RunNotFoundError):
            await file.run("r")  # reading goes on
        other.execute("ROLLBACK")
    assert await handler == "shipped 1 chair"


async def test_a_lock_in_the_middle_of_a_run_loses_nothing(file: Journal, tmp_path: Path) -> None:
    flow = Shop(journal=file, hold=asyncio.Event())
    handler = flow.run(run_id="r", item="chair")
    await flow.shipping.wait()
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        flow.hold.set()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(handler), 0.2)
        assert not handler.is_done()
        other.execute("ROLLBACK")
    assert await handler == "shipped 1 chair"
    assert flow.ran == ["pack", "ship"]


async def test_a_file_that_is_missing_is_no_journal_of_known_runs(url: str, tmp_path: Path) -> None:
    async def begin() -> None:
        await Shop(journal=url).run(run_id="r", item="lamp")

    await in_another_loop(begin)
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    with pytest.raises(RunNotFoundError, match=r"no run r in .*jobs\.db"):
        await Shop(journal=url).resume("r")


# -- What cannot be encoded --------------------------------------------------------------------------------------------


class Item(Event):
    things: Any = None


class Opaque:
    """Nothing that a serializer knows."""


NESTED = {"a": [1, {"b": Opaque()}]}


def doing(act: Callable[[Context], Any], journal: Journal) -> Workflow:
    """A workflow whose step does this, after a good write and before a good end."""

    class Does(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | StopEvent:
            ctx.data["good"] = 1
            try:
                returned = act(ctx)
                if asyncio.iscoroutine(returned):
                    returned = await returned
            except SerializationError as error:
                return StopEvent(result=error.path)
            return returned or StopEvent(result="nothing happened")

        @step
        async def take(self, ev: Item) -> StopEvent:
            raise AssertionError("an event that cannot be stored was delivered")

    return Does(journal=journal, disable_validation=True)


@pytest.mark.parametrize(
    ("act", "head"),
    [
        (lambda ctx: ctx.send_event(Item(things=NESTED)), "Item.things"),
        (lambda ctx: ctx.send_event(Item(extra=NESTED)), "Item.extra"),
        (lambda ctx: ctx.write_event_to_stream(Item(things=NESTED)), "Item.things"),
        (lambda ctx: ctx.collect_events(Item(things=NESTED), [Item]), "Item.things"),
        (lambda ctx: ctx.wait_for_event(Answer, requirements=NESTED), "requirements"),
        (lambda ctx: ctx.wait_for_event(Answer, waiter_event=Item(things=NESTED)), "Item.things"),
        (lambda ctx: ctx.data.__setitem__("bad", NESTED), "bad"),
        (lambda ctx: ctx.data.update({"bad": NESTED}), "bad"),
        (lambda ctx: ctx.data.setdefault("bad", NESTED), "bad"),
        (lambda ctx: ctx.set("bad", NESTED), "bad"),
        (lambda ctx: ctx.store.set("bad", NESTED), "bad"),
        (lambda ctx: ctx.call("fetch", lambda: NESTED), "result of call 'fetch'"),
    ],
)
async def test_the_path_is_named_where_it_is_emitted_or_set(
    journal: Journal, act: Callable[[Context], Any], head: str
) -> None:
    path = await doing(act, journal).run(run_id="r")
    assert path == f"{head}['a'][1]['b']"
    assert (await journal.state("r")).context == {"good": 1}


async def test_a_returned_event_that_cannot_be_encoded_fails_its_step(journal: Journal) -> None:
    for run_id, event, path in (
        ("item", Item(things=NESTED), "Item.things"),
        ("stop", StopEvent(result=NESTED), "StopEvent.result"),
    ):
        with pytest.raises(SerializationError) as raised:
            await doing(lambda ctx, event=event: event, journal).run(run_id=run_id)
        assert raised.value.path == f"{path}['a'][1]['b']"
        assert raised.value.path in str(raised.value)
        assert (await journal.run(run_id)).status == "failed"


async def test_a_value_changed_in_place_into_something_that_cannot_be_encoded_fails_its_step(
    journal: Journal,
) -> None:
    class Changes(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["list"] = []
            ctx.data["list"].append(Opaque())
            return StopEvent()

    with pytest.raises(SerializationError) as raised:
        await Changes(journal=journal).run(run_id="r")
    assert raised.value.path == "list[0]"
    assert (await journal.run("r")).status == "failed"


async def test_arguments_that_cannot_be_encoded_are_refused_by_run_itself(journal: Journal) -> None:
    flow = Shop(journal=journal)
    with pytest.raises(SerializationError, match="item"):
        Asking(journal=journal).run(item=NESTED)
    with pytest.raises(WorkflowRuntimeError):
        flow.run(item=NESTED)
    assert await journal.runs() == []


async def test_what_is_sent_from_outside_is_refused_where_it_is_sent(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    bad = Answer(text="x", more=NESTED)
    with pytest.raises(SerializationError, match="more"):
        handler.ctx.send_event(bad)
    with pytest.raises(SerializationError, match="more"):
        await handler.send_event(bad)
    with pytest.raises(SerializationError, match="more"):
        await journal.send("r", bad)
    with pytest.raises(SerializationError, match="bad"):
        handler.ctx.data["bad"] = NESTED
    await handler.send_event(Answer(text="good"))
    assert await handler == "good"


@pytest.mark.parametrize("key", [1, None, ("a",), b"a", 1.5, True])
async def test_keys_of_the_context_are_strings(journal: Journal, key: Any) -> None:
    class Keys(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["good"] = 1
            for act in (
                lambda: ctx.data.__setitem__(key, 1),
                lambda: ctx.data.update({key: 1}),
                lambda: ctx.data.setdefault(key, 1),
                lambda: ctx.update({key: 1}),
            ):
                with pytest.raises(SerializationError, match="context keys are strings"):
                    act()
            with pytest.raises(SerializationError, match="context keys are strings"):
                await ctx.set(key, 1)
            with pytest.raises(ValueError, match="string"):
                await ctx.store.set(key, 1)
            return StopEvent(result=dict(ctx.data))

    handler = Keys(journal=journal).run(run_id="r")
    assert await handler == {"good": 1}
    assert (await journal.state("r")).context == {"good": 1}


@pytest.mark.parametrize("text", ["nul \0", "half \ud800"])
async def test_text_that_no_database_takes_harms_nobody(journal: Journal, text: str) -> None:
    class Texts(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            outcomes = []
            for act in (
                lambda: ctx.data.__setitem__("value", text),
                lambda: ctx.data.__setitem__(text, 1),
                lambda: ctx.send_event(Item(things=text)),
            ):
                try:
                    act()
                    outcomes.append("kept")
                except SerializationError:
                    outcomes.append("refused")
            ctx.data["value"] = "good"
            return StopEvent(result=outcomes)

    handlers = [Texts(journal=journal).run(run_id="r"), *(Shop(journal=journal).run(item="lamp") for _ in range(3))]
    outcomes = await asyncio.gather(*handlers, return_exceptions=True)
    assert outcomes[1:] == ["shipped 1 lamp"] * 3
    assert outcomes[0][1] == "refused"
    assert (await journal.state("r")).status == "completed"


async def test_an_error_with_odd_characters_is_recorded(journal: Journal) -> None:
    with pytest.raises(ValueError, match="bad"):
        await Shop(journal=journal, fail=ValueError("bad \0 \ud800 text")).run(run_id="r", item="lamp")
    assert (await journal.run("r")).status == "failed"
    assert "bad" in (await journal.state("r")).error.message


# -- The payload limit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda ctx: ctx.send_event(Item(things="x" * 3000)),
        lambda ctx: ctx.write_event_to_stream(Item(things="x" * 3000)),
        lambda ctx: ctx.data.__setitem__("big", "x" * 3000),
        lambda ctx: ctx.set("big", "x" * 3000),
        lambda ctx: ctx.call("fetch", lambda: "x" * 3000),
    ],
)
async def test_a_payload_above_the_limit_is_refused_where_it_is_emitted_or_set(
    new_journal: Callable[..., Journal], act: Callable[[Context], Any]
) -> None:
    async with new_journal(max_payload_bytes=2000) as journal:
        path = await doing(act, journal).run(run_id="r")
        assert path in ("Item", "big", "result of call 'fetch'")
        assert (await journal.state("r")).context == {"good": 1}


async def test_a_result_above_the_limit_fails_the_run(new_journal: Callable[..., Journal]) -> None:
    async with new_journal(max_payload_bytes=2000) as journal:
        with pytest.raises(PayloadTooLargeError, match=r"StopEvent.*3,0\d\d bytes.*max_payload_bytes is 2,000"):
            await doing(lambda ctx: StopEvent(result="x" * 3000), journal).run(run_id="r")
        assert (await journal.run("r")).status == "failed"


async def test_arguments_and_messages_above_the_limit_are_refused(new_journal: Callable[..., Journal]) -> None:
    async with new_journal(max_payload_bytes=2000) as journal:
        with pytest.raises(PayloadTooLargeError):
            Shop(journal=journal).run(item="x" * 3000)
        handler = Asking(journal=journal).run(run_id="r")
        await question(handler)
        for send in (handler.send_event, lambda event: journal.send("r", event)):
            with pytest.raises(PayloadTooLargeError):
                await send(Answer(text="x" * 3000))
        await handler.send_event(Answer(text="short"))
        assert await handler == "short"


async def test_the_limit_is_32_mib_by_default(memory: Journal) -> None:
    assert memory.max_payload_bytes == 32 * 1024 * 1024
    size = 32 * 1024 * 1024

    class Big(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(PayloadTooLargeError, match="33,554,4"):
                ctx.data["big"] = "x" * size
            ctx.data["fits"] = "x" * (size - 1000)
            return StopEvent(result=len(ctx.data["fits"]))

    assert await Big(journal=memory).run() == size - 1000
