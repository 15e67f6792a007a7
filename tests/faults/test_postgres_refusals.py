"""What Postgres refuses for a while is tried again; what it refuses for good fails the one it belongs to, alone."""

from __future__ import annotations

import asyncio
import random
import string
import traceback
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import asyncpg
import pytest
from contract.samples import Owner, answer, create, event, item_at, owned, try_create, value, worker, wrote
from postgres import PostgresServer

from durable_flow.errors import (
    JournalError,
    JournalUnavailableError,
    PayloadTooLargeError,
    RunFenced,
    SerializationError,
)
from durable_flow.journal.postgres import PostgresStore
from durable_flow.journal.protocol import NewMessage, RunUpdate
from durable_flow.records import ContextSet, MessageReceived, TaskId

from .looking import Writer, until, values_of, whole_run, written, wrote_number
from .others import blocked, kill_sessions, session

pytestmark = pytest.mark.usefixtures("discreet")

Store = Callable[..., Any]
SHORT_SECONDS = 0.4


# -- For a while -------------------------------------------------------------------------------------------------------


@pytest.fixture
def role(tcp_server: PostgresServer, database: str) -> Iterator[str]:
    """A role that may do no more than what running workflows needs, with the usual password."""
    name = f"role_{uuid.uuid4().hex}"
    tcp_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{tcp_server.PASSWORD}'")
    tcp_server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}", database)
    yield name
    tcp_server.execute(f"DROP OWNED BY {name}", database)
    tcp_server.execute(f"DROP ROLE {name}")


async def test_what_finds_no_connection_free_waits_for_one(
    tcp_server: PostgresServer, database: str, role: str, new_store: Store
) -> None:
    url = tcp_server.tcp_url(database, role, tcp_server.PASSWORD)
    store: PostgresStore = await new_store(url)
    hasty: PostgresStore = await new_store(url, deadline_seconds=SHORT_SECONDS)
    run, other = await owned(store, "run-1"), await owned(hasty, "run-2")
    await asyncio.to_thread(tcp_server.execute, f"ALTER ROLE {role} CONNECTION LIMIT 0")
    await asyncio.to_thread(kill_sessions, tcp_server, database)
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await asyncpg.connect(url)
    work = asyncio.gather(run.append(wrote_number(1)), store.send(run.run, answer()), store.find("run-1"))
    for refused in (other.append(wrote_number(1)), hasty.find("run-2"), hasty.send(other.run, answer())):
        with pytest.raises(JournalUnavailableError, match="no connection left"):
            await refused
    assert not work.done()
    await asyncio.to_thread(tcp_server.execute, f"ALTER ROLE {role} CONNECTION LIMIT -1")
    await work
    assert await values_of(store, run.run) == ["key 1"]
    await other.append(wrote_number(2))
    assert await values_of(store, other.run) == ["key 2"]


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_transactions_of_a_stricter_kind_are_tried_again(url: str, new_store: Store, level: str) -> None:
    strict = f"{url}?default_transaction_isolation={level.replace(' ', '%20')}"
    store, other = await new_store(strict), await new_store(strict)
    writers = [Writer(await owned(store, f"run-{n}")) for n in range(10)]
    writing = asyncio.gather(*(writer.write() for writer in writers))
    for _ in range(5):
        await written(writers, 20)
        await asyncio.gather(*(other.send(writer.owner.run, answer()) for writer in writers))
    for writer in writers[:5]:
        # Refused while an append is under way.
        await until(partial(other.claim, writer.owner.run, worker("other"), epoch=1, status="running"))
    await written(writers[5:], 50)
    for writer in writers:
        writer.enough = True
    await writing
    for n, writer in enumerate(writers):
        assert isinstance(writer.error, RunFenced) if n < 5 else writer.error is None
        assert await values_of(store, writer.owner.run) == writer.acknowledged
        assert len(await store.messages([writer.owner.run])) == 5


async def test_an_append_in_a_deadlock_is_made_when_the_other_has_ended(url: str, new_store: Store) -> None:
    store: PostgresStore = await new_store(url)
    run, bystander = await owned(store, "run-1"), await owned(store, "run-2")
    await store.send(run.run, NewMessage("event", "mail-7", event()))
    (message,) = await store.messages([run.run])
    async with session(url) as other:
        # The other looks for deadlocks later than the writer does, which therefore is the one that gives way.
        await other.execute("SET deadlock_timeout = '60s'; BEGIN; SELECT FROM messages FOR UPDATE")
        appends = asyncio.gather(
            run.append(MessageReceived(message.id, "mail-7", "event")), bystander.append(wrote_number(1))
        )
        await until(partial(blocked, other))
        await other.execute(f"UPDATE runs SET error = 'mine' WHERE run = {run.run}")
        await other.execute("COMMIT")
    await appends
    assert len(await whole_run(store, run.run)) == 2
    assert await values_of(store, bystander.run) == ["key 1"]
    assert await store.messages([run.run]) == []


async def test_a_locked_run_keeps_no_other_waiting_and_goes_on_when_it_is_free(url: str, new_store: Store) -> None:
    store: PostgresStore = await new_store(url)
    hasty: PostgresStore = await new_store(url, deadline_seconds=SHORT_SECONDS)
    locked, *others = [await owned(store, f"run-{n}") for n in range(20)]
    impatient = await owned(hasty, "run-impatient")
    async with session(url) as other:
        await other.execute("BEGIN")
        await other.execute(f"SELECT FROM runs WHERE run IN ({locked.run}, {impatient.run}) FOR UPDATE")
        waiting = asyncio.ensure_future(locked.append(wrote_number(1)))
        for number in range(3):
            await asyncio.gather(*(run.append(wrote_number(number)) for run in others))
        with pytest.raises(JournalUnavailableError, match="another transaction keeps a lock"):
            await impatient.append(wrote_number(1))
        assert not waiting.done()
        await other.execute("COMMIT")
    await waiting
    assert await values_of(store, locked.run) == ["key 1"]
    for run in others:
        assert await values_of(store, run.run) == ["key 0", "key 1", "key 2"]


async def test_a_locked_message_keeps_no_other_run_waiting_for_long(url: str, new_store: Store) -> None:
    store: PostgresStore = await new_store(f"{url}?lock_timeout=100ms")
    guilty, *others = [await owned(store, f"run-{n}") for n in range(5)]
    await store.send(guilty.run, NewMessage("event", "mail-7", event()))
    (message,) = await store.messages([guilty.run])
    async with session(url) as other:
        await other.execute("BEGIN; SELECT FROM messages FOR UPDATE")
        waiting = asyncio.ensure_future(guilty.append(MessageReceived(message.id, "mail-7", "event")))
        for number in range(3):
            await asyncio.gather(*(run.append(wrote_number(number)) for run in others))
        assert not waiting.done()
        await other.execute("COMMIT")
    await waiting
    assert len(await whole_run(store, guilty.run)) == 2
    for run in others:
        assert await values_of(store, run.run) == ["key 0", "key 1", "key 2"]


async def test_statements_that_take_too_long_for_the_server_are_tried_again(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    store: PostgresStore = await new_store(url)
    hasty: PostgresStore = await new_store(url, deadline_seconds=SHORT_SECONDS)
    runs, late = [await owned(store, f"run-{n}") for n in range(5)], await owned(hasty, "run-late")
    await asyncio.to_thread(tcp_server.execute, f'ALTER DATABASE "{database}" SET statement_timeout = 100')
    await asyncio.to_thread(kill_sessions, tcp_server, database)
    async with session(url) as other:
        await other.execute("BEGIN; LOCK TABLE journal")
        work = asyncio.gather(*(run.append(wrote_number(1)) for run in runs), store.read(runs[0].run))
        for refused in (late.append(wrote_number(1)), hasty.read(late.run)):
            with pytest.raises(JournalUnavailableError, match="statement_timeout"):
                await refused
        assert not work.done()
        await other.execute("COMMIT")
    await work
    for run in runs:
        assert await values_of(store, run.run) == ["key 1"]


async def test_a_database_that_takes_no_writes_for_a_while_is_waited_for(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    store: PostgresStore = await new_store(url)
    hasty: PostgresStore = await new_store(url, deadline_seconds=SHORT_SECONDS)
    run, other = await owned(store, "run-1"), await owned(hasty, "run-2")
    read_only = f'ALTER DATABASE "{database}" SET default_transaction_read_only'
    await asyncio.to_thread(tcp_server.execute, f"{read_only} = on")
    await asyncio.to_thread(kill_sessions, tcp_server, database)
    work = asyncio.gather(
        run.append(wrote_number(1)), try_create(store, "run-3"), store.send(run.run, answer()),
        store.claim(other.run, worker("other"), epoch=1, status="running"),
    )  # fmt: skip
    for refused in (other.append(wrote_number(1)), hasty.send(other.run, answer())):
        with pytest.raises(JournalUnavailableError, match="takes no writes"):
            await refused
    assert len(await store.list_runs()) == 2
    assert not work.done()
    await asyncio.to_thread(tcp_server.execute, f"{read_only} = off")
    _, created, sent, claimed = await work
    assert created is not None
    assert sent
    assert claimed is not None
    assert await values_of(store, run.run) == ["key 1"]


async def test_writes_that_find_the_disk_full_are_made_when_there_is_room(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    # Stands for a full disk: the server reports one when a table cannot grow. The connection stays good.
    await asyncio.to_thread(
        tcp_server.execute,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
        database,
    )
    store: PostgresStore = await new_store(url)
    hasty: PostgresStore = await new_store(url, deadline_seconds=SHORT_SECONDS)
    runs, other = [await owned(store, f"run-{n}") for n in range(5)], await owned(hasty, "run-other")
    trigger = "TRIGGER full_disk BEFORE INSERT ON journal EXECUTE FUNCTION full_disk()"
    await asyncio.to_thread(tcp_server.execute, f"CREATE {trigger}", database)
    work = asyncio.gather(*(run.append(wrote_number(1)) for run in runs))
    with pytest.raises(JournalUnavailableError, match=r"disk is full\. Make room"):
        await other.append(wrote_number(1))
    assert not work.done()
    await asyncio.to_thread(tcp_server.execute, "DROP TRIGGER full_disk ON journal", database)
    await work
    for run in runs:
        assert await values_of(store, run.run) == ["key 1"]


# -- For good ----------------------------------------------------------------------------------------------------------

SECRET = b"what nobody else shall see"
_RULES = [
    "ALTER TABLE journal ADD CONSTRAINT no_evil CHECK (name IS DISTINCT FROM 'evil')",
    "CREATE FUNCTION no_worse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF NEW.name = 'worse' THEN RAISE 'nothing worse here'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER no_worse BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION no_worse()",
]


def secret_of(key: str) -> ContextSet:
    return ContextSet(key, value(SECRET), TaskId(1, "a"), 1, 0)


async def test_of_a_batch_of_appends_each_gets_an_outcome_of_its_own(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    store: PostgresStore = await new_store(url, max_payload_bytes=10_000)
    for rule in _RULES:
        await asyncio.to_thread(tcp_server.execute, rule, database)
    good = [await owned(store, f"good-{n}") for n in range(20)]
    fenced, evil, worse, taken, behind, large = [await owned(store, f"bad-{n}") for n in range(6)]
    await store.claim(fenced.run, worker("other"), epoch=1, status="running")
    await taken.append(item_at(1))
    before = store.stats()["commits"]
    outcomes = [store.submit(run.next(wrote_number(1), item_at(1))) for run in good[:10]]
    bad = [
        store.submit(append)
        for append in (
            fenced.next(wrote_number(1)),
            evil.next(secret_of("evil")),
            worse.next(secret_of("worse")),
            taken.next(item_at(1)),
            behind.next(wrote_number(1), after=5),
            evil.next(wrote_number(1))._replace(epoch=0),
        )
    ]
    with pytest.raises(PayloadTooLargeError):
        store.submit(large.next(ContextSet("large", value(bytes(10_001)), TaskId(1, "a"), 1, 0)))
    with pytest.raises(SerializationError):
        store.submit(large.next(wrote("a NUL: \0")))
    outcomes += [store.submit(run.next(wrote_number(1), item_at(1), update=RunUpdate("waiting"))) for run in good[10:]]
    assert await asyncio.gather(*outcomes) == [None] * 20
    errors = await asyncio.gather(*bad, return_exceptions=True)
    # One for all, which fails, and one for each that shared it: nobody waited for a second round.
    assert store.stats()["commits"] - before <= len(outcomes) + len(bad)
    assert [type(error) for error in errors] == [
        RunFenced, JournalError, JournalError, JournalError, RunFenced, RunFenced,
    ]  # fmt: skip
    for error, said in zip(
        errors,
        ("its epoch is 2 now", "no_evil", "nothing worse here", "uq_stream_run_position", "record is 1", "epoch is 1"),
        strict=True,
    ):
        assert said in str(error)
        assert SECRET.decode() not in str(error)
        assert SECRET.hex() not in str(error)
    for run in good:
        assert await values_of(store, run.run) == ["key 1"]
        assert len(await store.stream(run.run)) == 1
    for run in (fenced, evil, worse, taken, behind, large):
        assert await values_of(store, run.run) == []
    # Whoever was refused is none the worse for it.
    await asyncio.gather(*(run.append(wrote_number(2)) for run in (evil, worse, behind, large)))


async def test_of_a_batch_of_creations_each_gets_an_outcome_of_its_own(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    store: PostgresStore = await new_store(url, max_payload_bytes=10_000)
    for rule in _RULES:
        await asyncio.to_thread(tcp_server.execute, rule, database)
    # More than an entry of an index holds, and not to be compressed.
    too_long = "".join(random.Random(1).choices(string.ascii_letters, k=9_000))
    taken = await create(store, "taken")
    run = await owned(store, "run")
    names = [f"good-{n}" for n in range(20)]
    results = await asyncio.gather(
        *(try_create(store, name, wrote_number(1)) for name in names),
        run.append(wrote_number(1)),
        try_create(store, "taken"),
        try_create(store, too_long),
        try_create(store, "evil", secret_of("evil")),
        try_create(store, "large", ContextSet("large", value(bytes(10_001)), TaskId(1, "a"), 1, 0)),
        try_create(store, "a NUL: \0"),
        try_create(store, "twice"),
        try_create(store, "twice"),
        return_exceptions=True,
    )
    claims, (appended, again, long, evil, large, nul, *twice) = results[:20], results[20:]
    assert [claim.run_id for claim in claims] == names
    assert appended is None
    assert again is None
    assert isinstance(long, JournalError)
    assert "index row" in str(long)
    assert isinstance(evil, JournalError)
    assert "no_evil" in str(evil)
    assert SECRET.hex() not in str(evil)
    assert isinstance(large, PayloadTooLargeError)
    assert isinstance(nul, SerializationError)
    assert sorted(claim is None for claim in twice) == [False, True]
    for claim in claims:
        assert await values_of(store, claim.run) == ["key 1"]
    assert await values_of(store, run.run) == ["key 1"]
    assert len(await whole_run(store, taken.run)) == 1
    assert {row.run_id for row in await store.list_runs()} == {*names, "taken", "run", "twice"}


async def test_a_refused_message_tells_nothing_of_what_is_in_it(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    await asyncio.to_thread(
        tcp_server.execute, "ALTER TABLE messages ADD CONSTRAINT no_evil CHECK (name <> 'Evil')", database
    )
    store: PostgresStore = await new_store(url)
    run = await owned(store)
    with pytest.raises(JournalError, match="no_evil") as refused:
        await store.send(run.run, NewMessage("event", None, event("Evil", SECRET)))
    said = "".join(traceback.format_exception(refused.value))
    assert SECRET.decode() not in said
    assert SECRET.hex() not in said
    assert await store.send(run.run, NewMessage("event", None, event("Good", SECRET)))


# -- Passwords ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "there"), [("app", True), ("nobody-there", True), ("app", False)], ids=["password", "user", "server"]
)
async def test_no_error_shows_the_password(tcp_server: PostgresServer, database: str, user: str, there: bool) -> None:
    url = tcp_server.tcp_url(database, user, "not: the/right@one%")
    store = PostgresStore(url if there else url.replace(f":{tcp_server.port}/", ":1/"))
    with pytest.raises(JournalUnavailableError) as refused:
        await store.open()
    said = "".join(traceback.format_exception(refused.value)) + repr(refused.value) + repr(store) + store.url
    assert "right" not in said


async def test_a_store_forgets_no_claim_of_a_run_whose_append_was_refused(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    for rule in _RULES:
        await asyncio.to_thread(tcp_server.execute, rule, database)
    store: PostgresStore = await new_store(url)
    run = Owner(store, await create(store, "run-1"))
    for _ in range(3):
        with pytest.raises(JournalError, match="no_evil"):
            await run.append(wrote("evil"))
        await run.append(wrote("good"))
    assert await values_of(store, run.run) == ["good"] * 3
