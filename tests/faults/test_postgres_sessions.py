"""Sessions that the server ends: of the writer also in the middle of a commit, of readers, of the listener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal

import pytest
from contract.samples import answer, item_at, owned, try_create, worker
from postgres import PostgresServer

from durable_flow import Journal
from durable_flow.journal.postgres import PostgresStore

from .flows import LAST, RESULT, Count, Counting
from .looking import Writer, until, values_of, whole_run, written, wrote_number
from .others import gate, kill_sessions

pytestmark = pytest.mark.usefixtures("discreet")

Store = Callable[..., Any]


@pytest.mark.parametrize("where", ["statement", "commit"])
async def test_a_batch_whose_session_is_ended_in_the_middle_is_written_once(
    url: str, new_store: Store, where: Literal["statement", "commit"]
) -> None:
    store: PostgresStore = await new_store(f"{url}?lock_timeout=60s")
    runs = [await owned(store, f"run-{n}") for n in range(10)]
    async with gate(url, "journal", where) as kept:
        work = asyncio.gather(
            *(run.append(wrote_number(1), item_at(1)) for run in runs),
            *(try_create(store, f"new-{n}") for n in range(10)),
        )
        await kept.kept()
        assert not work.done()
        await kept.kill()
        await work
    for run in runs:
        assert await values_of(store, run.run) == ["key 1"]
        assert len(await store.stream(run.run)) == 1
    assert len(await store.list_runs()) == 20


@pytest.mark.parametrize("where", ["statement", "commit"])
async def test_calls_whose_session_is_ended_in_the_middle_are_made_once(
    url: str, new_store: Store, where: Literal["statement", "commit"]
) -> None:
    store: PostgresStore = await new_store(f"{url}?lock_timeout=60s")
    run = await owned(store)
    async with gate(url, "messages", where) as kept:
        sending = asyncio.ensure_future(store.send(run.run, answer()))
        await kept.kept()
        await kept.kill()
        assert await sending
    assert len(await store.messages([run.run])) == 1


@pytest.mark.parametrize("where", ["statement", "commit"])
async def test_a_claim_whose_session_is_ended_in_the_middle_is_made_once(
    url: str, new_store: Store, where: Literal["statement", "commit"]
) -> None:
    store: PostgresStore = await new_store(f"{url}?lock_timeout=60s")
    run = await owned(store)
    async with gate(url, "journal", where) as kept:
        claiming = asyncio.ensure_future(store.claim(run.run, worker("other"), epoch=1, status="running"))
        await kept.kept()
        await kept.kill()
        claim = await claiming
    assert claim is not None
    assert (claim.epoch, claim.seq) == (2, 2)
    assert len(await whole_run(store, run.run)) == 2


async def test_writers_do_not_notice_that_their_sessions_are_ended_again_and_again(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    store: PostgresStore = await new_store(url)
    writers = [Writer(await owned(store, f"run-{n}")) for n in range(10)]
    writing = asyncio.gather(*(writer.write() for writer in writers))
    for _ in range(10):
        await written(writers, 20)
        assert await asyncio.to_thread(kill_sessions, tcp_server, database) > 0
    await written(writers, 20)
    for writer in writers:
        writer.enough = True
    await writing
    for writer in writers:
        assert writer.error is None
        assert await values_of(store, writer.owner.run) == writer.acknowledged


async def test_runs_do_not_notice_that_their_sessions_are_ended_again_and_again(
    tcp_server: PostgresServer, database: str, url: str
) -> None:
    flow = Counting(journal=url)
    running = asyncio.gather(*(flow.run(run_id=f"run-{n}", start_event=Count(name=f"run-{n}")) for n in range(20)))
    await flow.begun.wait()
    killed = 0
    while not running.done():
        killed += await asyncio.to_thread(kill_sessions, tcp_server, database)
    assert killed > 0
    assert await running == [RESULT] * 20
    assert set(flow.ran.values()) == {1}
    async with Journal(url) as journal:
        lengths = [len(await journal.history(f"run-{n}")) for n in range(20)]
    assert len(set(lengths)) == 1
    assert lengths[0] > LAST


async def test_a_listener_hears_again_after_its_session_was_ended(
    tcp_server: PostgresServer, database: str, url: str, new_store: Store
) -> None:
    listening, telling = await new_store(url), await new_store(url)
    run = await owned(telling)
    heard: list[Collection[int] | None] = []
    end_listening = listening.listen(heard.append)

    async def told(after: int) -> bool:
        return len(heard) > after

    await until(partial(told, 0))
    assert heard == [None]  # it listens from now on
    assert await asyncio.to_thread(kill_sessions, tcp_server, database) > 0
    await until(partial(told, 1))
    assert heard[1] is None
    await telling.send(run.run, answer())
    await until(partial(told, 2))
    assert heard[2] == [run.run]
    end_listening()
