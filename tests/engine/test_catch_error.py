"""Handlers of failures: `@catch_error`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from durable_flow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    Journal,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    UnreconstructedException,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    catch_error,
    step,
)
from durable_flow.records import EventEmitted, RunFailed, StepCompleted, StepFailed, TaskId, WaitClosed
from durable_flow.serializers import PickleSerializer
from durable_flow.steps import step_table

from .conftest import Log
from .flows import in_another_loop, records_of, released, until


class Work(Event):
    n: int = 0


class Out(Exception):
    """An exception with a constructor of its own."""

    def __init__(self, code: int, host: str):
        super().__init__(f"{host} is out")
        self.code = code
        self.host = host


class Unstorable(Exception):
    def __init__(self) -> None:
        super().__init__("cannot be stored")
        self.connection = object()


class Flaky(Workflow):
    """Works on `items`; `raises` is what the step raises, `handle` what its handler does."""

    def __init__(self, raises: Any = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "Flaky", **kwargs})
        self.raises = raises or (lambda n: ValueError(f"work {n}"))
        self.worked: list[int] = []
        self.handled: list[StepFailedEvent] = []

    @step
    async def begin(self, ev: StartEvent) -> list[Work]:
        return [Work(n=n) for n in ev.get("items", [0])]

    @step(num_workers=1, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0.01))
    async def work(self, ctx: Context, ev: Work) -> StopEvent | None:
        self.worked.append(ev.n)
        ctx.data["tries"] = ctx.data.get("tries", 0) + 1
        raise self.raises(ev.n)

    @catch_error
    async def recover(self, ctx: Context, ev: StepFailedEvent) -> Work | StopEvent:
        self.handled.append(ev)
        return StopEvent(result=[ev.step_name, ev.attempts, ctx.data["tries"]])


async def test_a_handler_takes_the_failure_when_the_retries_are_used_up(journal: Journal) -> None:
    flow = Flaky(lambda n: Out(3, "db"), journal=journal)
    before = datetime.now(UTC)
    assert await flow.run(run_id="r", items=[7]) == ["work", 2, 2]
    [event] = flow.handled
    assert (event.step_name, event.input_event, event.attempts) == ("work", Work(n=7), 2)
    assert type(event.exception) is Out
    assert event.exception.__traceback__ is not None
    assert (event.exception.code, event.exception.host) == (3, "db")
    assert 0.01 <= event.elapsed_seconds < 30
    assert before - timedelta(seconds=1) < event.failed_at < datetime.now(UTC) + timedelta(seconds=1)
    first, last = await records_of(journal, "r", StepFailed)
    assert (first.handler, first.event) == (None, None)
    assert first.retry_at is not None
    assert (last.handler, last.retry_at, last.event.name) == ("recover", None, "StepFailedEvent")
    assert not await records_of(journal, "r", RunFailed)


async def test_the_record_of_the_failure_is_the_handlers_task(journal: Journal) -> None:
    await Flaky(journal=journal).run(run_id="r")
    records = await journal.history("r")
    [failed] = [r for r in records if isinstance(r.fact, StepFailed) and r.fact.handler is not None]
    completed = [r.fact.task for r in records if isinstance(r.fact, StepCompleted)]
    assert TaskId(failed.seq, "recover") in completed
    assert failed.fact.task not in completed
    assert (await journal.state("r", at=failed.seq)).tasks[0].id == TaskId(failed.seq, "recover")


async def test_what_the_failed_attempts_wrote_stays(journal: Journal) -> None:
    await Flaky(journal=journal).run(run_id="r")
    assert (await journal.state("r")).context == {"tries": 2}


class Again(Flaky):
    @catch_error(max_recoveries=2)
    async def recover(self, ctx: Context, ev: StepFailedEvent) -> Work | StopEvent:
        self.handled.append(ev)
        assert isinstance(ev.input_event, Work)
        return Work(n=ev.input_event.n + 1)


async def test_a_handler_runs_so_often_in_a_lineage_then_the_failure_fails_the_run(journal: Journal) -> None:
    flow = Again(journal=journal)
    with pytest.raises(ValueError, match="work 2") as raised:
        await flow.run(run_id="r")
    assert ["max_recoveries=2" in note and "(run r)" in note for note in raised.value.__notes__] == [True]
    assert flow.worked == [0, 0, 1, 1, 2, 2]
    assert [str(e.exception) for e in flow.handled] == ["work 0", "work 1"]
    [failed] = await records_of(journal, "r", RunFailed)
    assert failed.step == "work"


async def test_the_budget_is_each_lineages_own(journal: Journal) -> None:
    flow = Again(journal=journal)
    with pytest.raises(ValueError, match=r"work (2|12)"):
        await flow.run(items=[0, 10])
    assert {str(e.exception) for e in flow.handled} >= {"work 0", "work 10"}


@pytest.mark.parametrize("send", [True, False])
async def test_events_that_are_sent_and_steps_between_carry_the_lineage_on(memory: Journal, send: bool) -> None:
    class Between(Event):
        n: int

    class Long(Flaky):
        @catch_error(max_recoveries=1)
        async def recover(self, ctx: Context, ev: StepFailedEvent) -> Between | StopEvent | None:
            self.handled.append(ev)
            if send:
                ctx.send_event(Between(n=1))
                return None
            return Between(n=1)

        @step
        async def between(self, ctx: Context, ev: Between) -> Work | None:
            if send:
                ctx.send_event(Work(n=ev.n))
                return None
            return Work(n=ev.n)

    flow = Long(journal=memory)
    with pytest.raises(ValueError, match="work 1"):
        await flow.run()
    assert len(flow.handled) == 1


async def test_one_handlers_runs_are_not_counted_for_another(memory: Journal) -> None:
    class Two(Workflow):
        ran: ClassVar[list[str]] = []

        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            raise ValueError("one")

        @step
        async def two(self, ev: Work) -> StopEvent:
            raise ValueError("two")

        @catch_error(for_steps=["one"])
        async def first(self, ev: StepFailedEvent) -> Work:
            self.ran.append(f"first {ev.exception}")
            return Work()

        @catch_error
        async def second(self, ev: StepFailedEvent) -> StopEvent:
            self.ran.append(f"second {ev.exception}")
            return StopEvent(result="rescued")

    assert await Two(journal=memory).run() == "rescued"
    assert Two.ran == ["first one", "second two"]


async def test_a_handlers_own_failure_fails_the_run(journal: Journal) -> None:
    class Clumsy(Flaky):
        @catch_error(for_steps=["work"])
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            raise KeyError("in the handler")

        @catch_error
        async def others(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result="not this one")

    with pytest.raises(KeyError, match="in the handler"):
        await Clumsy(journal=journal).run(run_id="r")
    assert [f.step for f in await records_of(journal, "r", RunFailed)] == ["recover"]


async def test_a_retried_run_goes_on_in_the_handler_that_failed(journal: Journal) -> None:
    class Clumsy(Flaky):
        broken = True

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            if self.broken:
                raise KeyError("in the handler")
            return StopEvent(result=repr(ev.exception))

    flow = Clumsy(lambda n: Out(1, "mail"), journal=journal)
    with pytest.raises(KeyError):
        await flow.run(run_id="r")
    flow.broken = False
    assert await (await flow.retry("r")) == "Out('mail is out')"
    assert flow.worked == [0, 0]


async def test_a_policys_error_goes_to_the_handler_with_its_cause(memory: Journal) -> None:
    class Broken:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            raise ZeroDivisionError("in the policy")

    class Careless(Workflow):
        @step(retry_policy=Broken())
        async def work(self, ev: StartEvent) -> StopEvent:
            raise ValueError("in the step")

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=[str(ev.exception), str(ev.exception.__cause__)])

    assert await Careless(journal=memory).run() == ["in the policy", "in the step"]


async def test_what_is_no_event_and_what_did_not_come_in_time_are_failures_too(memory: Journal) -> None:
    class Wrong(Workflow):
        @step
        async def waits(self, ctx: Context, ev: StartEvent) -> Work:
            await ctx.wait_for_event(HumanResponseEvent, timeout=0.01)
            return Work()

        @step
        async def returns(self, ev: Work) -> StopEvent:
            return {"result": 1}  # type: ignore[return-value]

        @catch_error(for_steps=["waits"])
        async def late(self, ev: StepFailedEvent) -> Work:
            assert isinstance(ev.exception, TimeoutError)
            return Work()

        @catch_error(for_steps=["returns"])
        async def wrong(self, ev: StepFailedEvent) -> StopEvent:
            assert isinstance(ev.exception, WorkflowRuntimeError)
            return StopEvent(result=str(ev.exception))

    assert "returned dict instead of an Event instance" in await Wrong(journal=memory).run()


async def test_timeouts_and_cancellations_of_the_run_are_not_the_handlers_business(memory: Journal) -> None:
    class Slow(Workflow):
        handled = 0

        def __init__(self, **kwargs: Any):
            super().__init__(journal=memory, **kwargs)
            self.began = asyncio.Event()

        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            self.began.set()
            await asyncio.Event().wait()
            return StopEvent()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            Slow.handled += 1
            return StopEvent()

    with pytest.raises(WorkflowTimeoutError):
        await Slow(timeout=0.02).run()
    flow = Slow()
    handler = flow.run()
    await flow.began.wait()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert Slow.handled == 0


async def test_the_open_waits_of_a_failed_step_are_closed_when_a_handler_takes_it(journal: Journal) -> None:
    class Asks(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            asking = asyncio.ensure_future(ctx.wait_for_event(HumanResponseEvent, timeout=None))
            await until(journal.pending)
            asking.cancel()
            raise ValueError("gave up")

        @catch_error
        async def recover(self, ctx: Context, ev: StepFailedEvent) -> Work:
            return Work()

        @step
        async def after(self, ev: Work) -> StopEvent:
            return StopEvent(result=len(await journal.pending()))

    assert await Asks(journal=journal).run(run_id="r") == 0
    assert len(await records_of(journal, "r", WaitClosed)) == 1


async def test_a_function_outside_the_class_may_be_a_handler(memory: Journal) -> None:
    class Plain(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            raise ValueError("x")

    @catch_error(workflow=Plain)
    def recover(ctx: Context, failed: StepFailedEvent) -> StopEvent:
        return StopEvent(result=f"{failed.step_name}: {failed.exception}")

    assert await Plain(journal=memory).run() == "work: x"


async def test_a_failure_that_an_event_of_its_class_is_sent_for_starts_no_handler(memory: Journal) -> None:
    class Sends(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(
                StepFailedEvent(
                    step_name="x", input_event=ev, exception=ValueError(), attempts=1, elapsed_seconds=0,
                    failed_at=datetime.now(UTC),
                )
            )  # fmt: skip
            await ctx.checkpoint("sent")
            return StopEvent(result="done")

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result="handled")

    assert await Sends(journal=memory).run(run_id="r") == "done"
    assert [f.targets for f in await records_of(memory, "r", EventEmitted) if f.event.name == "StepFailedEvent"] == [()]


# -- In another process ------------------------------------------------------------------------------------------------


class Held(Flaky):
    """Its handler waits to be released at first, and answers with the exception when it runs again."""

    def __init__(self, raises: Any = None, *, hold: bool, **kwargs: Any):
        super().__init__(raises, workflow_name="Held", **kwargs)
        self.hold = hold
        self.handling = asyncio.Event()

    @catch_error
    async def recover(self, ctx: Context, ev: StepFailedEvent) -> StopEvent:
        self.handling.set()
        if self.hold:
            await asyncio.Event().wait()
        error = ev.exception
        assert isinstance(ev.input_event, Work)
        return StopEvent(
            result=[type(error).__name__, str(error), vars(error), ev.attempts, ev.step_name, ev.input_event.n]
        )


async def taken_up_by_another(url: str, raises: Any, **options: Any) -> Any:
    async def dies() -> None:
        async with Journal(url, durability="normal") as journal:
            flow = Held(raises, hold=True, journal=journal, **options)
            handler = flow.run(run_id="r", items=[5])
            waiting = asyncio.ensure_future(handler)
            await flow.handling.wait()
            waiting.cancel()

    async def goes_on() -> Any:
        async with Journal(url, durability="normal") as journal:
            flow = Held(raises, hold=False, journal=journal, **options)
            result = await (await flow.resume("r"))
            assert flow.worked == []
            return result

    await in_another_loop(dies)
    return await in_another_loop(goes_on)


async def test_the_handler_in_another_process_gets_the_exception_as_it_was(url: str) -> None:
    result = await taken_up_by_another(url, lambda n: Out(n, "db"))
    assert result == ["Out", "db is out", {"code": 5, "host": "db"}, 2, "work", 5]


async def test_an_exception_that_cannot_be_rebuilt_is_told_by_class_and_text(url: str) -> None:
    name, text, attributes, attempts, _, _ = await taken_up_by_another(url, lambda n: Unstorable())
    assert (name, text, attempts) == ("UnreconstructedException", "cannot be stored", 2)
    assert attributes == {"original_type": f"{__name__}.Unstorable"}


@pytest.mark.parametrize("raises", [lambda n: Out(n, "db"), lambda n: Unstorable()])
async def test_with_pickle_too_an_exception_comes_back_or_is_told(url: str, raises: Any) -> None:
    name, text, *_ = await taken_up_by_another(url, raises, serializer=PickleSerializer(key="secret"))
    # Pickle would call Out's constructor with the wrong arguments; object() it can store.
    assert (name, text) in {("UnreconstructedException", "db is out"), ("Unstorable", "cannot be stored"),
                            ("UnreconstructedException", "cannot be stored")}  # fmt: skip


async def test_the_process_where_it_failed_gives_the_exception_itself(memory: Journal) -> None:
    flow = Flaky(lambda n: Unstorable(), journal=memory)
    await flow.run()
    assert type(flow.handled[0].exception) is Unstorable


async def test_a_released_run_keeps_its_lineages(journal: Journal) -> None:
    """The budget is counted from the journal, whoever goes on."""

    class Keeps(Flaky):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.between = asyncio.Event()
            self.stop = False

        @catch_error(max_recoveries=1)
        async def recover(self, ev: StepFailedEvent) -> Work | StopEvent:
            return Work(n=1)

        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Work) -> StopEvent | None:
            if ev.n and not self.stop:
                self.between.set()
                await asyncio.Event().wait()
            raise ValueError(f"work {ev.n}")

    flow = Keeps(journal=journal)
    handler = flow.run(run_id="r")
    await flow.between.wait()
    await released(handler)
    flow.stop = True
    with pytest.raises(ValueError, match="work 1"):
        await (await flow.resume("r"))


async def test_the_log_says_who_takes_a_failure(memory: Journal, log: Log) -> None:
    await Flaky(journal=memory).run(run_id="r")
    first, last = log.of("step_failed")
    assert "it is tried again" in first.getMessage()
    assert "recover takes it" in last.getMessage()


# -- Validation --------------------------------------------------------------------------------------------------------


class Reports(Workflow):
    """Everything that can be wrong with handlers."""

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        return StopEvent()

    @catch_error(for_steps=["nope", "second"])
    async def first(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent()

    @catch_error(for_steps=["work"])
    async def second(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent()

    @catch_error(for_steps=["work"])
    async def third(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent()

    @catch_error
    async def fourth(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent()

    @catch_error
    async def fifth(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent()


def test_all_that_is_wrong_with_handlers_is_told_at_once() -> None:
    with pytest.raises(WorkflowValidationError) as raised:
        Reports(journal="memory://").validate()  # nor is any of them called unreachable for it
    told = str(raised.value).splitlines()[1:]
    assert [line.removeprefix("  - ").split(".")[0] for line in told] == [
        "the @catch_error handlers 'fourth', 'fifth' all take the failures of every step that no other handler covers",
        "@catch_error handler 'first' covers 'nope', which is no step of this workflow; its steps are work",
        "@catch_error handler 'first' covers 'second', which is a handler itself: a handler's failure fails the run",
        "step 'work' is covered by several @catch_error handlers: 'second', 'third'",
    ]


def test_a_handler_of_steps_that_are_not_reached_is_not_told_beside_them() -> None:
    class Lost(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def never(self, ev: Work) -> Work:
            return Work()

        @catch_error(for_steps=["never"])
        async def unused(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent()

        @catch_error
        async def used(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError) as raised:
        Lost(journal="memory://").validate()
    told = str(raised.value)
    assert "step 'never' is unreachable" in told
    assert "'unused'" not in told
    assert "'used'" not in told
    # That a handler stops does not make a loop end.
    assert "step 'never' is a dead end" in told


def test_what_a_handler_leads_to_is_not_told_beside_its_for_steps() -> None:
    class Misspelt(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @catch_error(for_steps=["werk"])
        async def handle(self, ev: StepFailedEvent) -> Work:
            return Work()

        @step
        async def instead(self, ev: Work) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError) as raised:
        Misspelt(journal="memory://").validate()
    [problem] = str(raised.value).splitlines()[1:]
    assert "'handle' covers 'werk', which is no step" in problem


def test_a_handler_that_nothing_is_left_for_is_unreachable() -> None:
    class Idle(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @catch_error(for_steps=["work"])
        async def handle(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent()

        @catch_error
        async def rest(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent()

        @catch_error(for_steps=[])
        async def none(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError) as raised:
        Idle(journal="memory://").validate()
    told = str(raised.value).splitlines()[1:]
    assert ["'rest' is unreachable" in told[0], "'none' is unreachable" in told[1]] == [True, True]
    assert len(told) == 2


def test_what_a_handler_returns_is_reached() -> None:
    class Second(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def plan_b(self, ev: Work) -> StopEvent:
            return StopEvent()

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> Work:
            return Work()

    assert Second(journal="memory://").validate() is False


def test_a_plain_step_does_not_take_failures() -> None:
    class Plain(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match="Decorate it with @catch_error instead of @step"):
        Plain(journal="memory://").validate()


@pytest.mark.parametrize("annotation", [StartEvent, StepFailedEvent | StartEvent])
def test_a_handler_takes_failures_and_nothing_else(annotation: Any) -> None:
    with pytest.raises(
        WorkflowValidationError, match=r"recover' is a @catch_error handler and takes .*StepFailedEvent"
    ):

        class Wrong(Workflow):
            @catch_error
            async def recover(self, ev: annotation) -> StopEvent:
                return StopEvent()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_recoveries": 0}, "max_recoveries=0"),
        ({"max_recoveries": True}, "max_recoveries=True"),
        ({"max_recoveries": "1"}, "max_recoveries='1'"),
        ({"for_steps": "work"}, "for_steps='work'.*list of step names"),
        ({"for_steps": [1]}, r"for_steps=\[1\]"),
    ],
)
def test_wrong_arguments_are_refused(options: Any, told: str) -> None:
    with pytest.raises(WorkflowValidationError, match=told):
        catch_error(**options)


def test_a_subclass_may_replace_or_remove_a_handler() -> None:
    class Less(Flaky):
        async def recover(self, ctx: Context, ev: StepFailedEvent) -> Work | StopEvent:
            raise NotImplementedError

    assert "recover" in step_table(Flaky).handlers
    assert not step_table(Less).handlers


def test_the_stand_in_tells_class_and_text() -> None:
    error = UnreconstructedException("gone", original_type="jobs.Gone")
    assert (str(error), error.original_type) == ("gone", "jobs.Gone")
    assert repr(error) == "UnreconstructedException('gone', original_type='jobs.Gone')"
