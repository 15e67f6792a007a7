"""Observers, `verbose=True` and the fields of log records: what is seen of a run from outside, and never harms it."""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import durable_flow
from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Journal,
    RunObserver,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from durable_flow.journal.protocol import Append
from durable_flow.records import Record, RunClaimed, RunCompleted, RunStarted, StepCompleted

from .conftest import Log
from .flows import Answer, Asking, Packed, Shop, question, released, until


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Sequence[Record]]] = []

    def appended(self, run_id: str, workflow: str, records: Sequence[Record]) -> None:
        self.told.append((run_id, workflow, records))

    def of(self, run_id: str) -> list[Record]:
        return [record for told, _, records in self.told for record in records if told == run_id]


class Fails:
    def __init__(self, *errors: BaseException):
        self.errors = list(errors)
        self.calls = 0

    def appended(self, run_id: str, workflow: str, records: Sequence[Record]) -> None:
        self.calls += 1
        raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]


def facts(records: Sequence[Record]) -> list[tuple[int, type, bool]]:
    return [(record.seq, type(record.fact), record.boundary) for record in records]


# -- Observers ---------------------------------------------------------------------------------------------------------


async def test_an_observer_is_told_every_record_in_order(journal: Journal) -> None:
    notes = Notes()
    assert isinstance(notes, RunObserver)
    flow = Shop(journal=journal, observers=[notes])
    await asyncio.gather(flow.run(run_id="a", item="lamp"), flow.run(run_id="b", item="desk"))
    for run_id in ("a", "b"):
        assert facts(notes.of(run_id)) == facts(await journal.history(run_id))
        assert isinstance(notes.of(run_id)[0].fact, RunStarted)
        assert isinstance(notes.of(run_id)[-1].fact, RunCompleted)
    assert {workflow for _, workflow, _ in notes.told} == {"Shop"}
    assert all(type(records) is tuple and records for _, _, records in notes.told)


async def test_what_is_told_is_durable_and_told_before_the_run_goes_on(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Ordered(Notes):
        def appended(self, run_id: str, workflow: str, records: Sequence[Record]) -> None:
            order.extend(f"told {type(r.fact).__name__}" for r in records if isinstance(r.fact, StepCompleted))

    class Flow(Shop):
        @step
        async def ship(self, ev: Packed) -> StopEvent:
            order.append("ship runs")
            return StopEvent()

    flow = Flow(journal=journal, observers=[Ordered()])
    store = flow._durable_engine()
    await store.ready()
    submit = store.store.submit

    def watched(append: Append) -> asyncio.Future[None]:
        durable = submit(append)
        durable.add_done_callback(lambda _: order.append(f"durable {append.records[-1].seq}"))
        return durable

    monkeypatch.setattr(store.store, "submit", watched)
    await flow.run(run_id="r", item="lamp")
    last = (await journal.run("r")).seq
    # The callbacks of an append run in the order in which they were added: this one's before the run's.
    assert [entry for entry in order if entry != f"durable {last}"] == [
        f"durable {next(r.seq for r in await journal.history('r') if isinstance(r.fact, StepCompleted))}",
        "told StepCompleted", "ship runs", "told StepCompleted",
    ]  # fmt: skip


async def test_an_observer_is_told_that_a_run_is_taken_up_and_what_came_before_is_not_told_again(
    journal: Journal,
) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    await released(handler)
    before = (await journal.run("r")).seq
    notes = Notes()
    handler = await Asking(journal=journal, observers=[notes]).resume("r")
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"
    assert facts(notes.of("r")) == facts(await journal.history("r", after=before))
    assert isinstance(notes.of("r")[0].fact, RunClaimed)


async def test_an_append_that_becomes_durable_after_the_run_was_released_is_told(journal: Journal) -> None:
    notes = Notes()
    flow = Shop(journal=journal, observers=[notes], hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    handler.ctx.send_event(Packed(item="another"))
    await released(handler)

    async def is_free() -> bool:
        return (await journal.run("r")).owner is None

    await until(is_free)
    assert facts(notes.of("r")) == facts(await journal.history("r"))


async def test_an_observer_that_raises_is_logged_once_for_each_class_and_harms_nothing(
    journal: Journal, log: Log
) -> None:
    fails, notes = Fails(KeyError("secret"), OSError("secret"), KeyError("secret")), Notes()
    flow = Shop(journal=journal, observers=[fails, notes])
    assert await flow.run(run_id="r", item="lamp") == "shipped 1 lamp"
    assert fails.calls == len(notes.told) > 2
    assert facts(notes.of("r")) == facts(await journal.history("r"))
    logged = log.of("observer_failed")
    assert [record.getMessage().split(" at ")[0] for record in logged] == [
        "observer Fails failed, and is told on: KeyError", "observer Fails failed, and is told on: OSError",
    ]  # fmt: skip
    assert "secret" not in "".join(record.getMessage() for record in logged)


async def test_an_observer_that_raises_what_is_no_exception_does_no_harm_either(memory: Journal) -> None:
    fails = Fails(asyncio.CancelledError())
    assert await Shop(journal=memory, observers=[fails]).run(item="lamp") == "shipped 1 lamp"


async def test_a_refused_append_is_told_nobody(journal: Journal) -> None:
    notes = Notes()
    flow = Shop(journal=journal, observers=[notes], hold=asyncio.Event())
    handler = flow.run(run_id="r", item="lamp")
    await flow.shipping.wait()
    engine = flow._durable_engine()
    row = await engine.store.find("r")
    assert row is not None
    await engine.store.claim(row.run, engine.worker, epoch=row.epoch, status=row.status)
    flow.hold.set()  # type: ignore[union-attr]
    await released(handler)
    known = {(r.seq, type(r.fact)) for r in await journal.history("r")}
    assert {(r.seq, type(r.fact)) for r in notes.of("r")} <= known


@pytest.mark.parametrize("kind", ["async", "class", "nothing"])
def test_what_is_no_observer_is_refused(kind: str) -> None:
    class Async:
        async def appended(self, run_id: str, workflow: str, records: Sequence[Record]) -> None: ...

    wrong: Any = {"async": Async(), "class": Notes, "nothing": print}[kind]
    with pytest.raises(
        WorkflowValidationError, match=r"observer is an object with a plain .*appended\(run_id, workflow, "
    ):
        Shop(observers=[wrong])


def test_an_observer_that_stands_alone_is_refused() -> None:
    with pytest.raises(WorkflowValidationError, match=r"it takes a list, as in observers=\[MyObserver\(\)\]"):
        Shop(observers=Notes())  # type: ignore[arg-type]


# -- verbose -----------------------------------------------------------------------------------------------------------


class Part(Event):
    secret: str


class Talks(Workflow):
    failures = 1

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> list[Part]:
        ctx.data["seen"] = ["hidden"]
        await ctx.set("count", 471147114711471147)
        return [Part(secret="hidden"), Part(secret="hidden")]

    @step(num_workers=1, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0))
    async def work(self, ctx: Context, ev: Part) -> StopEvent | None:
        if Talks.failures:
            Talks.failures -= 1
            ctx.data["tried"] = 1
            raise ValueError("hidden")
        found = ctx.collect_events(ev, [Part] * 2)
        return None if found is None else StopEvent(result="hidden")


LINES = [
    "Running step begin",
    "Step begin produced event Part, Part",
    "Step begin wrote context keys seen, count",
    "Running step work",
    "Step work raised ValueError",
    "Step work wrote context keys tried",
    "Running step work",
    "Step work produced no event",
    "Running step work",
    "Step work produced event StopEvent",
]


async def test_verbose_prints_and_logs_names_and_never_content(
    journal: Journal, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    Talks.failures = 1
    assert await Talks(journal=journal, verbose=True).run(run_id="r") == "hidden"
    assert capsys.readouterr().out.splitlines() == LINES
    told = [record for record in log.records if getattr(record, "step", None) and record.levelno <= logging.INFO]
    assert [record.getMessage().partition(" (run r, attempt ")[0] for record in told] == LINES
    assert {record.name for record in told} == {"durable_flow"}
    assert [record.levelname for record in told] == [
        "DEBUG" if "context keys" in line else "INFO" for line in LINES
    ]  # fmt: skip
    assert [(record.run_id, record.step, record.attempt) for record in told] == [  # type: ignore[attr-defined]
        *[("r", "begin", 1)] * 3, *[("r", "work", 1)] * 3, *[("r", "work", attempt) for attempt in _attempts(told)],
    ]  # fmt: skip
    assert "hidden" not in repr([vars(record) for record in log.records])
    assert "471147114711471147" not in repr([vars(record) for record in log.records])


def _attempts(told: list[logging.LogRecord]) -> list[int]:
    """The second attempt of the first task and the first of the second one may come in either order."""
    found = [record.attempt for record in told[6:]]  # type: ignore[attr-defined]
    assert sorted(found) == [1, 1, 2, 2]
    return found


async def test_without_verbose_nothing_is_printed_or_narrated(
    memory: Journal, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    await Shop(journal=memory).run(item="lamp")
    assert capsys.readouterr().out == ""
    assert [record for record in log.records if record.levelno <= logging.INFO] == []


# -- Fields of log records ---------------------------------------------------------------------------------------------


def test_every_log_call_gives_the_fields() -> None:
    wrong = []
    for path in Path(durable_flow.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if call.startswith("logger.") and call not in ("logger.isEnabledFor",):
                assert isinstance(node, ast.Call)
                extra = [ast.unparse(k.value) for k in node.keywords if k.arg == "extra"]
                if not extra or not (extra[0].startswith("fields(") or extra[0] == "extra"):
                    wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


async def test_a_formatter_may_use_the_fields_of_every_record(
    new_journal: Callable[..., Journal], capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, logger = Lines(), logging.getLogger("durable_flow")
    handler.setFormatter(logging.Formatter("%(run_id)s %(step)s %(attempt)s %(action)s"))
    logger.addHandler(handler)
    try:
        async with new_journal() as journal:
            with pytest.raises(LookupError):
                await Shop(journal=journal, fail=LookupError("x")).run(run_id="r", item="lamp")
    finally:
        logger.removeHandler(handler)
    assert lines == ["r ship 1 step_failed"]
