"""The run's row follows the run: what `Journal.runs` tells and what decides whether a run is taken up."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_flow import (
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.engine.engine import MAX_GONE_WORKERS
from durable_flow.engine.identity import new_worker
from durable_flow.journal.protocol import NewMessage
from durable_flow.journal.sqlite import SqliteStore
from durable_flow.records import EncodedEvent, MessageReceived


class RowFlow(Workflow):
    """Asks, then does what the test wants."""

    def __init__(self, url: str, *, fail: bool = False, begun: asyncio.Event | None = None):
        super().__init__(journal=url)
        self.fail, self.begun = fail, begun

    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="go on?")

    @step
    async def work(self, ev: HumanResponseEvent) -> StopEvent:
        if self.fail:
            raise ValueError("not today")
        if self.begun is not None:
            self.begun.set()
            await asyncio.get_running_loop().create_future()
        return StopEvent(result="done")


async def status(url: str) -> str:
    async with Journal(url) as journal:
        return (await journal.run("row")).status


async def ask_and_leave(url: str) -> None:
    async for _ in RowFlow(url).run(run_id="row").stream_events():
        return


async def taken_into_the_journal(journal: Journal) -> None:
    async with asyncio.timeout(20):
        while not any(  # noqa: ASYNC110  # the journal is the only witness
            isinstance(record.fact, MessageReceived) for record in await journal.history("row")
        ):
            await asyncio.sleep(0.02)


async def test_a_message_that_is_not_json_is_never_parsed_and_answers_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    handler = RowFlow(url).run(run_id="row")
    async for _ in handler.stream_events():
        break
    async with Journal(url) as journal:
        store = journal._shared.store
        row = await store.find("row")
        assert row is not None
        hostile = EncodedEvent("HumanResponseEvent", "pickle", 1, b"cos\nsystem\n(S'exit 1'\ntR.")
        await store.send(row.run, NewMessage("event", None, hostile, human=True))
        await taken_into_the_journal(journal)
        assert [question.prompt.get("prefix") for question in await journal.pending() if question.prompt] == ["go on?"]
        await journal.send("row", HumanResponseEvent(response="yes"))
    assert await handler == "done"


async def answer_and_hang(url: str) -> str:
    begun = asyncio.Event()
    handler = await RowFlow(url, begun=begun).resume("row")
    handler.ctx.send_event(HumanResponseEvent(response="yes"))
    await begun.wait()
    return await status(url)


def test_a_run_that_was_taken_up_while_it_waited_is_running_once_it_is_answered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    asyncio.run(ask_and_leave(url))
    assert asyncio.run(status(url)) == "waiting"
    assert asyncio.run(answer_and_hang(url)) == "running"
    assert asyncio.run(status(url)) == "running"  # released as it was: whoever recovers runs takes it up


def test_a_retried_run_whose_process_ends_is_unfinished_and_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"

    async def fail() -> None:
        handler = await RowFlow(url, fail=True).resume("row")
        handler.ctx.send_event(HumanResponseEvent(response="yes"))
        with pytest.raises(ValueError, match="not today"):
            await handler

    async def retry_and_hang() -> str:
        begun = asyncio.Event()
        await RowFlow(url, begun=begun).retry("row")
        await begun.wait()
        return await status(url)

    async def recover() -> list[object]:
        return [await handler for handler in await RowFlow(url).recover()]

    asyncio.run(ask_and_leave(url))
    asyncio.run(fail())
    assert asyncio.run(status(url)) == "failed"
    assert asyncio.run(retry_and_hang()) == "running"
    assert asyncio.run(status(url)) == "running"
    assert asyncio.run(recover()) == ["done"]


async def test_rows_of_killed_processes_are_swept_up_when_many_lie_about(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    mine = new_worker("mine")
    killed = [replace(mine, id=f"killed-{n}", started=mine.started + 1) for n in range(MAX_GONE_WORKERS + 1)]
    async with Journal(url) as journal:
        store = journal._shared.store
        for worker in killed:
            await store.heartbeat(worker)
        async for _ in RowFlow(url).run(run_id="row").stream_events():
            break
        assert {worker.id for worker, _ in await store.workers()}.isdisjoint({worker.id for worker in killed})


async def test_a_run_taken_up_again_before_its_release_is_durable_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    slow = asyncio.Event()
    release = SqliteStore.release

    async def delayed(self: SqliteStore, *args: Any) -> None:
        await slow.wait()
        await release(self, *args)

    monkeypatch.setattr(SqliteStore, "release", delayed)
    handler = RowFlow(url).run(run_id="row")
    async for _ in handler.stream_events():
        break
    waiting = asyncio.ensure_future(handler)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    resumed = asyncio.create_task(RowFlow(url).resume("row"))
    asyncio.get_running_loop().call_later(0.2, slow.set)
    second = await resumed
    second.ctx.send_event(HumanResponseEvent(response="yes"))
    async with asyncio.timeout(20):
        assert second.ctx.is_running
        assert await second == "done"
