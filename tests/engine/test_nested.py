"""Runs within runs: started by steps, found again, awaited, asked through their parents, ended with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durable_flow import (
    AlreadyAnsweredError,
    ChildInfo,
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    Journal,
    NeedsAttentionError,
    RunConflictError,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowHandler,
    WorkflowTimeoutError,
    catch_error,
    step,
)
from durable_flow.engine import engine as engine_module
from durable_flow.records import ChildEnded, ChildStarted, EffectReused, RunCancelled, RunClaimed, StepDiverged

from .flows import Answer, Question, in_another_loop, question, records_of, released, streamed, time_stands_still, until


class Leg(Workflow):
    """Notes what runs; waits at `hold`, fails with `fail`, asks if told to."""

    def __init__(self, *, hold: asyncio.Event | None = None, fail: Exception | None = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "Leg", **kwargs})
        self.hold, self.fail = hold, fail
        self.ran: list[int] = []
        self.begun, self.both = asyncio.Event(), asyncio.Event()

    @step
    async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.ran.append(ev.n)
        (self.both if self.begun.is_set() else self.begun).set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fail is not None:
            raise self.fail
        if ev.get("ask"):
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text=f"leg {ev.n}?"), timeout=None)
            return StopEvent(result=f"leg {ev.n} {answer.text}")
        return StopEvent(result=f"leg {ev.n}")


class Ends(Event):
    pass


Body = Callable[["Trip", Context], Awaitable[Any]]


class Trip(Workflow):
    """Runs `body` as its only step; `legs` are the children's workflow."""

    def __init__(self, body: Body, legs: Workflow, **kwargs: Any):
        super().__init__(**{"workflow_name": "Trip", **kwargs})
        self.body, self.legs = body, legs
        self.began = 0
        self.after = asyncio.Event()
        self.go_on = asyncio.Event()

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
    async def travel(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.began += 1
        return StopEvent(result=await self.body(self, ctx))

    async def held(self) -> None:
        """A place where a test holds the step."""
        self.after.set()
        await self.go_on.wait()


async def one_leg(trip: Trip, ctx: Context) -> Any:
    return await trip.legs.run(n=1)


async def one_that_asks(trip: Trip, ctx: Context) -> Any:
    return await trip.legs.run(n=1, ask=True)


async def children_of(journal: Journal, run_id: str) -> list[ChildStarted]:
    return await records_of(journal, run_id, ChildStarted)


async def the_child(journal: Journal, run_id: str) -> str:
    """Return the run id of the only child, as soon as that exists."""

    async def exists() -> bool:
        started = {child.run_id for child in await children_of(journal, run_id)}
        return bool(started & {info.run_id for info in await journal.runs()})

    await until(exists)
    (child,) = await children_of(journal, run_id)
    return child.run_id


async def has_status(journal: Journal, run_id: str, status: str) -> None:
    async def reached() -> bool:
        return (await journal.run(run_id)).status == status

    await until(reached)


# -- Started and awaited -----------------------------------------------------------------------------------------------


async def test_a_step_gets_the_result_of_the_run_that_it_starts(journal: Journal) -> None:
    legs = Leg()  # without a journal of its own
    assert await Trip(one_leg, legs, journal=journal).run(run_id="trip") == "leg 1"
    (started,) = await children_of(journal, "trip")
    assert started.run_id.startswith("trip.")
    assert not started.independent
    assert [end.status for end in await records_of(journal, "trip", ChildEnded)] == ["completed"]
    child = await journal.run(started.run_id)
    assert (child.workflow, child.status) == ("Leg", "completed")


async def test_several_runs_at_once_are_told_apart(journal: Journal) -> None:
    async def many(trip: Trip, ctx: Context) -> list[Any]:
        return await asyncio.gather(*(trip.legs.run(n=n) for n in range(5)))

    legs = Leg()
    assert await Trip(many, legs, journal=journal).run(run_id="trip") == [f"leg {n}" for n in range(5)]
    assert len({child.run_id for child in await children_of(journal, "trip")}) == 5
    assert sorted(legs.ran) == list(range(5))


async def test_a_handler_may_be_kept_streamed_and_awaited_twice(journal: Journal) -> None:
    class Tells(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for text in "ab":
                ctx.write_event_to_stream(Question(text=text))
            return StopEvent(result="told")

    async def keeps(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run()
        texts = [event.text async for event in handler.stream_events() if isinstance(event, Question)]
        return [texts, await handler, await handler, handler.is_done()]

    assert await Trip(keeps, Tells(), journal=journal).run() == [["a", "b"], "told", "told", True]


async def test_a_step_that_waits_for_its_child_holds_no_worker(journal: Journal) -> None:
    hold = asyncio.Event()

    class Narrow(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.legs = Leg(hold=hold)

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> list[Ends]:
            return [Ends() for _ in range(3)]

        @step(num_workers=1)
        async def one(self, ctx: Context, ev: Ends) -> StopEvent | None:
            await self.legs.run(n=0)
            return StopEvent(result="all") if ctx.collect_events(ev, [Ends] * 3) else None

    flow = Narrow()
    handler = flow.run()

    async def all_begun() -> bool:
        return len(flow.legs.ran) == 3

    await until(all_begun)
    hold.set()
    assert await handler == "all"


async def test_the_time_of_a_parent_that_waits_does_not_run_and_it_can_be_taken_up(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event(), timeout=None)
    handler = Trip(one_leg, legs, journal=journal, timeout=0.3).run(run_id="trip")
    with time_stands_still():
        await legs.begun.wait()
    assert (await journal.run("trip")).status == "running"  # so recover() finds it
    await asyncio.sleep(0.4)  # the time is what this is about
    with time_stands_still():
        legs.hold.set()
        assert await handler == "leg 1"


async def test_a_run_id_of_its_own_makes_a_child_independent(journal: Journal) -> None:
    async def named(trip: Trip, ctx: Context) -> Any:
        return await trip.legs.run(run_id="leg-7", n=7)

    assert await Trip(named, Leg(), journal=journal).run(run_id="trip") == "leg 7"
    (started,) = await children_of(journal, "trip")
    assert (started.run_id, started.independent) == ("leg-7", True)


async def test_an_independent_run_starts_also_if_its_step_ends_the_run_at_once(journal: Journal) -> None:
    async def starts(trip: Trip, ctx: Context) -> Any:
        trip.legs.run(run_id="leg-7", n=7)
        trip.legs.run(n=8)
        return "gone"

    legs = Leg(journal=journal)
    assert await Trip(starts, legs, journal=journal).run(run_id="trip") == "gone"

    async def started() -> bool:
        return "leg-7" in {info.run_id for info in await journal.runs()}

    await until(started)
    assert await (await legs.resume("leg-7")) == "leg 7"
    assert legs.ran == [7]  # the other had no time to begin


async def test_a_taken_run_id_is_an_error_of_the_step(journal: Journal) -> None:
    legs = Leg(journal=journal)
    await legs.run(run_id="leg-7", n=1)

    async def conflicts(trip: Trip, ctx: Context) -> Any:
        with pytest.raises(RunConflictError, match="other arguments"):
            await trip.legs.run(run_id="leg-7", n=2)
        return "told"

    assert await Trip(conflicts, legs, journal=journal).run() == "told"


async def test_a_child_may_have_a_journal_of_its_own(journal: Journal) -> None:
    async with Journal("memory://") as other:
        assert await Trip(one_leg, Leg(journal=other), journal=journal).run(run_id="trip") == "leg 1"
        (started,) = await children_of(journal, "trip")
        assert (await other.run(started.run_id)).status == "completed"
        assert [info.run_id for info in await journal.runs()] == ["trip"]


async def test_children_have_children(journal: Journal) -> None:
    async def deep(trip: Trip, ctx: Context) -> Any:
        return [await trip.legs.run(n=1)]

    flow: Workflow = Leg()
    for level in range(14):
        flow = Trip(deep, flow, workflow_name=f"Trip{level}")
    expected: Any = "leg 1"
    for _ in range(14):
        expected = [expected]
    top = Trip(deep, flow, journal=journal)
    assert await top.run(run_id="t" * 40) == [expected]
    assert max(len(info.run_id) for info in await journal.runs()) <= 200
    assert len(await journal.runs()) == 16


async def test_a_plain_step_runs_a_child_from_its_thread(journal: Journal) -> None:
    class Threaded(Workflow):
        legs = Leg()

        @step
        def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=self.legs.run_sync(n=3))

    assert await Threaded(journal=journal).run(run_id="trip") == "leg 3"
    assert len(await children_of(journal, "trip")) == 1


async def test_waiting_for_a_child_inside_the_lock_is_refused(memory: Journal) -> None:
    async def locked(trip: Trip, ctx: Context) -> Any:
        async with ctx.lock:
            handler = trip.legs.run(n=1)
            with pytest.raises(ContextStateError, match=r"inside ctx\.lock"):
                await handler
        return await handler

    assert await Trip(locked, Leg(), journal=memory).run() == "leg 1"


async def test_a_run_within_a_call_is_refused(memory: Journal) -> None:
    async def calls(trip: Trip, ctx: Context) -> Any:
        async def leg() -> Any:
            return await trip.legs.run(n=1)

        with pytest.raises(ContextStateError, match="inside the function of its call 'leg'"):
            await ctx.call("leg", leg)
        return await trip.legs.run(n=2)

    assert await Trip(calls, Leg(), journal=memory).run() == "leg 2"


async def test_what_outlives_its_step_starts_nothing(memory: Journal) -> None:
    late: list[asyncio.Task[Any]] = []

    async def leaves(trip: Trip, ctx: Context) -> Any:
        async def start() -> Any:
            await trip.go_on.wait()
            return trip.legs.run(n=1)

        late.append(asyncio.create_task(start()))
        return "left"

    trip = Trip(leaves, Leg(), journal=memory)
    assert await trip.run() == "left"
    trip.go_on.set()
    with pytest.raises(ContextStateError, match="detached"):
        await late[0]


async def test_the_state_tells_of_parents_and_children(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event())
    handler = Trip(one_leg, legs, journal=journal).run(run_id="trip")
    await legs.begun.wait()
    child = await the_child(journal, "trip")
    (told,) = (await journal.state("trip")).children
    assert told == ChildInfo(child, "Leg", "travel", None, independent=False)
    assert (await journal.state(child)).parent == "trip"
    legs.hold.set()
    await handler
    assert (await journal.state("trip")).children == ()


async def test_runs_that_wait_for_children_are_not_released_for_want_of_room(new_journal: Any) -> None:
    async with new_journal(max_suspended_steps=1) as journal:
        legs = Leg(hold=asyncio.Event())
        trip = Trip(one_leg, legs, journal=journal)
        handlers = [trip.run(run_id=f"trip-{n}") for n in range(3)]

        async def all_begun() -> bool:
            return len(legs.ran) == 3

        await until(all_begun)
        legs.hold.set()
        assert await asyncio.gather(*handlers) == ["leg 1"] * 3
        assert trip.began == 3


async def test_a_step_that_reads_how_its_child_ended_is_not_released_for_want_of_room(new_journal: Any) -> None:
    """It waits, but for nothing that somebody else could wait for in its place."""

    async def holds(trip: Trip, ctx: Context) -> Any:
        result = await trip.legs.run(n=1)
        await trip.held()
        return result

    async with new_journal(max_suspended_steps=0) as journal:
        trip = Trip(holds, Leg(), journal=journal)
        handler = trip.run(run_id="trip")
        await trip.after.wait()
        await released(handler)
        trip.go_on.set()
        assert await handler == "leg 1"
        assert trip.began == 2


async def test_a_run_with_an_unfinished_child_is_not_released_when_idle(new_journal: Any) -> None:
    class Asks(Workflow):
        legs = Leg(hold=asyncio.Event(), timeout=None)

        @step
        async def go(self, ev: StartEvent) -> Question:
            self.legs.run(n=1)
            await self.legs.begun.wait()
            return Question(text="go on?")

        @step
        async def answered(self, ev: Answer) -> StopEvent:
            return StopEvent(result=ev.text)

    async with new_journal(idle_release_seconds=0.01) as journal:
        handler = Asks(journal=journal).run(run_id="trip")
        await question(handler)
        child = await the_child(journal, "trip")
        await asyncio.sleep(0.05)  # the time is what this is about
        assert (await journal.run(child)).owner is not None
        Asks.legs.hold.set()
        await has_status(journal, child, "completed")
        await handler.send_event(Answer(text="yes"))
        assert await handler == "yes"


async def test_a_childs_handler_may_be_given_up(journal: Journal) -> None:
    async def gives_up(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run(n=1)
        await legs.begun.wait()
        assert handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler
        return "went on"

    legs = Leg(hold=asyncio.Event())
    assert await Trip(gives_up, legs, journal=journal).run(run_id="trip") == "went on"
    (child,) = await children_of(journal, "trip")
    await has_status(journal, child.run_id, "cancelled")


async def test_the_stream_of_an_instance_within_a_step(journal: Journal) -> None:
    class Tells(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Question(text="told"))
            return StopEvent()

    async def streams(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run()
        texts = [event.text async for event in trip.legs.stream_events() if isinstance(event, Question)]
        await handler
        return texts

    assert await Trip(streams, Tells(), journal=journal).run() == ["told"]


# -- Errors ------------------------------------------------------------------------------------------------------------


async def test_a_childs_error_is_raised_in_the_step_also_when_it_runs_again(journal: Journal) -> None:
    async def catches(trip: Trip, ctx: Context) -> Any:
        with pytest.raises(ValueError, match="no road") as raised:
            await trip.legs.run(n=1)
        await trip.held()
        return type(raised.value).__name__

    legs = Leg(fail=ValueError("no road"))
    trip = Trip(catches, legs, journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    await released(handler)
    trip.go_on.set()
    assert await handler == "ValueError"
    assert (trip.began, legs.ran) == (2, [1])


async def test_an_uncaught_error_of_a_child_is_the_parents(journal: Journal) -> None:
    error = ValueError("no road")

    class Once(Workflow):
        legs = Leg(fail=error)

        @step
        async def go(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await self.legs.run(n=1))

    with pytest.raises(ValueError, match="no road") as raised:
        await Once(journal=journal).run()
    assert raised.value is error


async def test_a_childs_timeout_and_cancellation_are_raised_in_the_step(journal: Journal) -> None:
    slow, endless = Leg(hold=asyncio.Event(), timeout=0.05), Leg(hold=asyncio.Event(), timeout=None)

    async def both(trip: Trip, ctx: Context) -> Any:
        with pytest.raises(WorkflowTimeoutError):
            await slow.run(n=1)
        handler = endless.run(n=2)
        await endless.begun.wait()
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        return "both"

    assert await Trip(both, Leg(), journal=journal).run(run_id="trip") == "both"
    assert [end.status for end in await records_of(journal, "trip", ChildEnded)] == ["timed_out", "cancelled"]


async def test_a_parent_needs_attention_with_its_child_and_goes_on_after_it(journal: Journal) -> None:
    class Odd(Workflow):
        """Makes its recorded call with other arguments when it runs again."""

        def __init__(self) -> None:
            super().__init__(workflow_name="Odd")
            self.began, self.amount = 0, 1
            self.hold, self.called = asyncio.Event(), asyncio.Event()

        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.began += 1
            paid = await ctx.call("pay", lambda amount: amount, self.amount)
            self.called.set()
            await self.hold.wait()
            return StopEvent(result=paid)

    async def pays(trip: Trip, ctx: Context) -> Any:
        return await trip.legs.run()

    odd = Odd()
    trip = Trip(pays, odd, journal=journal)
    handler = trip.run(run_id="trip")
    await odd.called.wait()
    await released(handler)
    odd.amount = 2
    with pytest.raises(NeedsAttentionError, match="waits for run"):
        await handler
    (child,) = await children_of(journal, "trip")
    odd.amount = 1
    odd.hold.set()
    owner = Odd()
    owner.hold.set()
    resumed = await _with_journal(owner, journal).resume(child.run_id)
    assert await resumed == 1
    assert await (await trip.resume("trip")) == 1


def _with_journal(flow: Any, journal: Journal) -> Any:
    """Give a workflow a journal as if it had been constructed with it."""
    Workflow.__init__(flow, workflow_name="Odd", journal=journal)
    return flow


# -- Found again -------------------------------------------------------------------------------------------------------


async def test_a_released_parent_releases_its_child_and_both_go_on(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event())
    trip = Trip(one_leg, legs, journal=journal)
    handler = trip.run(run_id="trip")
    await legs.begun.wait()
    child = await the_child(journal, "trip")
    await released(handler)

    async def free() -> bool:
        return (await journal.run("trip")).owner is None and (await journal.run(child)).owner is None

    await until(free)
    legs.hold.set()
    assert await handler == "leg 1"
    assert (trip.began, legs.ran) == (2, [1, 1])
    assert len(await journal.runs()) == 2
    assert len(await records_of(journal, child, RunClaimed)) == 1


async def test_a_step_that_runs_again_gets_the_recorded_result(journal: Journal) -> None:
    async def twice(trip: Trip, ctx: Context) -> Any:
        first = await trip.legs.run(n=1)
        await trip.held()
        return [first, await trip.legs.run(n=2)]

    legs = Leg()
    trip = Trip(twice, legs, journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    await released(handler)
    trip.go_on.set()
    assert await handler == ["leg 1", "leg 2"]
    assert legs.ran == [1, 2]
    assert len(await children_of(journal, "trip")) == 2


async def test_a_step_that_runs_again_reads_the_context_of_its_child_too(journal: Journal) -> None:
    class Counts(Workflow):
        @step
        async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.data["counted"] = 3
            return StopEvent(result="counted")

    async def reads(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run()
        result = await handler
        await trip.held()
        return [result, dict(handler.ctx.data)]

    trip = Trip(reads, Counts(), journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    await released(handler)
    trip.go_on.set()
    assert await handler == ["counted", {"counted": 3}]
    assert trip.began == 2


async def test_recover_of_the_parents_workflow_takes_its_child_up(file: Journal, url: str) -> None:
    async def begin() -> None:
        legs = Leg(hold=asyncio.Event())
        Trip(one_leg, legs, journal=url).run(run_id="trip")
        await legs.begun.wait()

    await in_another_loop(begin)
    legs = Leg()
    (handler,) = await Trip(one_leg, legs, journal=file).recover()
    assert await handler == "leg 1"
    assert legs.ran == [1]
    assert len(await file.runs()) == 2


async def test_a_child_that_lives_elsewhere_is_awaited_there(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event(), journal=journal)
    trip = Trip(one_leg, legs, journal=journal)
    handler = trip.run(run_id="trip")
    await legs.begun.wait()
    child = await the_child(journal, "trip")
    await released(handler)
    mine = await legs.resume(child)  # somebody else has taken it up
    legs.hold.set()
    assert await mine == "leg 1"
    assert await handler == "leg 1"
    assert legs.ran == [1, 1]


async def test_a_later_attempt_uses_an_equal_child_again_and_starts_others(journal: Journal) -> None:
    async def fails_twice(trip: Trip, ctx: Context) -> Any:
        same = await trip.legs.run(n=0)
        other = await trip.legs.run(n=trip.began)
        if trip.began < 3:
            raise ConnectionError("again")
        return [same, other]

    legs = Leg()
    assert await Trip(fails_twice, legs, journal=journal).run(run_id="trip") == ["leg 0", "leg 3"]
    assert legs.ran == [0, 1, 2, 3]
    assert [reused.kind for reused in await records_of(journal, "trip", EffectReused)] == ["child", "child"]


async def test_what_only_a_failed_attempt_had_started_is_cancelled_when_the_step_completes(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event())

    async def once(trip: Trip, ctx: Context) -> Any:
        if trip.began == 1:
            trip.legs.run(n=1)
            await legs.begun.wait()
            raise ConnectionError("again")
        await trip.held()
        return "done"

    class Longer(Trip):
        """Does not end with its step."""

        @step
        async def travel(self, ctx: Context, ev: StartEvent) -> Ends:
            return Ends()

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def longer(self, ctx: Context, ev: Ends) -> Question:
            self.began += 1
            return Question(text=await self.body(self, ctx))

        @step
        async def answered(self, ev: Answer) -> StopEvent:
            return StopEvent(result=ev.text)

    trip = Longer(once, legs, journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    (child,) = await children_of(journal, "trip")
    assert (await journal.run(child.run_id)).status == "running"
    trip.go_on.set()
    await question(handler)
    await has_status(journal, child.run_id, "cancelled")
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_what_a_step_had_started_is_cancelled_when_a_handler_takes_its_failure(journal: Journal) -> None:
    class Caught(Workflow):
        legs = Leg(hold=asyncio.Event(), timeout=None)

        @step
        async def go(self, ev: StartEvent) -> Ends:
            self.legs.run(n=1)
            await self.legs.begun.wait()
            raise ConnectionError("no line")

        @catch_error
        async def failed(self, ev: StepFailedEvent) -> Question:
            return Question(text="go on?")

        @step
        async def answered(self, ev: Answer | Ends) -> StopEvent:
            return StopEvent(result="went on")

    handler = Caught(journal=journal).run(run_id="trip")
    await question(handler)
    (child,) = await children_of(journal, "trip")
    await has_status(journal, child.run_id, "cancelled")
    await handler.send_event(Answer(text="yes"))
    assert await handler == "went on"


async def test_a_later_attempt_starts_a_failed_child_anew(journal: Journal) -> None:
    legs = Leg(fail=ConnectionError("no line"))

    async def waits(trip: Trip, ctx: Context) -> Any:
        if trip.began == 3:
            legs.fail = None
        return await trip.legs.run(n=1)

    trip = Trip(waits, legs, journal=journal)
    assert await trip.run(run_id="trip") == "leg 1"
    assert (trip.began, legs.ran) == (3, [1, 1, 1])
    ends = [end.status for end in await records_of(journal, "trip", ChildEnded)]
    assert ends == ["failed", "failed", "completed"]


async def test_a_child_of_other_arguments_is_not_started_in_a_re_run(journal: Journal) -> None:
    async def chance(trip: Trip, ctx: Context) -> Any:
        result = await trip.legs.run(n=trip.began)
        await trip.held()
        return result

    legs = Leg()
    trip = Trip(chance, legs, journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    await released(handler)
    with pytest.raises(NeedsAttentionError, match=r"with other arguments\. Nothing was started"):
        await handler
    assert legs.ran == [1]


async def test_a_child_that_a_re_run_does_not_start_is_reported(journal: Journal) -> None:
    async def once(trip: Trip, ctx: Context) -> Any:
        if trip.began == 1:
            await trip.legs.run(n=1)
            await trip.held()
        return "done"

    trip = Trip(once, Leg(), journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    await released(handler)
    assert await handler == "done"
    assert [(d.kind, d.name) for d in await records_of(journal, "trip", StepDiverged)] == [("child", "Leg")]


async def test_a_retried_parent_starts_another_child_in_place_of_the_cancelled_one(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event())

    async def too_long(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run(n=1)
        await trip.legs.begun.wait()  # type: ignore[attr-defined]
        if trip.began == 1:
            raise RuntimeError("no more")
        return await handler

    class Once(Trip):
        @step
        async def travel(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.began += 1
            return StopEvent(result=await self.body(self, ctx))

    trip = Once(too_long, legs, journal=journal)
    with pytest.raises(RuntimeError, match="no more"):
        await trip.run(run_id="trip")
    (child,) = await children_of(journal, "trip")
    await has_status(journal, child.run_id, "cancelled")
    legs.hold.set()
    assert await (await trip.retry("trip")) == "leg 1"
    assert legs.ran == [1, 1]
    assert len({c.run_id for c in await children_of(journal, "trip")}) == 2


# -- The parent's end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["handler", "message"])
async def test_cancelling_a_run_cancels_its_children_and_theirs(journal: Journal, by: str) -> None:
    legs = Leg(hold=asyncio.Event())
    middle = Trip(one_leg, legs, workflow_name="Middle")
    handler = Trip(one_leg_of_nothing, middle, journal=journal).run(run_id="trip")
    await legs.begun.wait()
    if by == "handler":
        await handler.cancel_run()
    else:
        await journal.cancel("trip")
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    for info in await journal.runs():
        await has_status(journal, info.run_id, "cancelled")
    assert len(await journal.runs()) == 3


async def one_leg_of_nothing(trip: Trip, ctx: Context) -> Any:
    return await trip.legs.run()


async def test_the_child_of_a_dead_process_is_cancelled_when_its_parent_is(file: Journal, url: str) -> None:
    async def begin() -> None:
        legs = Leg(hold=asyncio.Event())
        Trip(one_leg, legs, journal=url).run(run_id="trip")
        await legs.begun.wait()

    await in_another_loop(begin)
    await file.cancel("trip")
    trip = Trip(one_leg, Leg(), journal=file)
    await trip.recover()
    await has_status(file, "trip", "cancelled")
    child = await the_child(file, "trip")
    await has_status(file, child, "cancelled")  # nobody has taken it up
    (end,) = await records_of(file, child, RunCancelled)
    assert "trip" in end.reason
    assert (trip.began, trip.legs.ran) == (0, [])


async def test_an_orphan_is_cancelled_when_it_is_taken_up(
    file: Journal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parent's process dies after the end of the parent, before it could tell the child."""

    async def dies() -> None:
        legs = Leg(hold=asyncio.Event())
        trip = Trip(one_leg, legs, journal=url)
        handler = trip.run(run_id="trip")
        await legs.begun.wait()
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "leave_children", lambda engine, run: run.children.close())
            await handler.cancel_run()

    await in_another_loop(dies)
    child = await the_child(file, "trip")
    assert (await file.run(child)).status == "running"
    legs = Leg(journal=file)
    (handler,) = await legs.recover()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert legs.ran == []


async def test_an_orphan_that_only_waits_is_cancelled_by_whoever_recovers_its_workflow(
    file: Journal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would take it up: no process has it, and nothing is due in it."""

    async def dies() -> None:
        handler = Trip(one_that_asks, Leg(), journal=url).run(run_id="trip")
        await question(handler)
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "leave_children", lambda engine, run: run.children.close())
            await handler.cancel_run()

    async def lives_on() -> None:
        await question(Trip(one_that_asks, Leg(), journal=url).run(run_id="other"))

    await in_another_loop(dies)
    await in_another_loop(lives_on)
    child = await the_child(file, "trip")
    row = await file.run(child)
    assert (row.status, row.owner) == ("waiting", None)
    assert len(await file.pending()) == 2
    assert await Leg(journal=file).recover() == []
    await has_status(file, child, "cancelled")
    (end,) = await records_of(file, child, RunCancelled)
    assert end.reason == "its parent run trip has ended (cancelled)"
    (pending,) = await file.pending()
    assert pending.run_id == await the_child(file, "other")
    assert (await file.run(await the_child(file, "other"))).status == "waiting"


async def test_a_run_that_ends_cancels_what_it_has_left_behind_but_no_independent_run(journal: Journal) -> None:
    legs = Leg(hold=asyncio.Event(), journal=journal)

    async def leaves(trip: Trip, ctx: Context) -> Any:
        trip.legs.run(n=1)
        trip.legs.run(n=2, run_id="mine")
        await legs.both.wait()
        return "left"

    assert await Trip(leaves, legs, journal=journal).run(run_id="trip") == "left"
    (child, _) = await children_of(journal, "trip")
    await has_status(journal, child.run_id, "cancelled")
    mine = await legs.resume("mine")
    legs.hold.set()
    assert await mine == "leg 2"


# -- Questions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", ["handler", "event", "context", "journal", "journal of the child", "type", "journal type"]
)
@pytest.mark.parametrize("levels", [1, 2])
async def test_a_childs_question_is_asked_and_answered_through_its_parent(
    journal: Journal, way: str, levels: int
) -> None:
    flow = Trip(one_that_asks, Leg(), journal=journal)
    if levels == 2:
        flow = Trip(one_leg_of_nothing, Trip(one_that_asks, Leg(), workflow_name="Middle"), journal=journal)
    handler = flow.run(run_id="trip")
    asked = await question(handler)
    assert asked.text == "leg 1?"
    assert asked.wait_id is not None
    child, wait_id = asked.wait_id.split("/")
    (pending,) = await journal.pending()
    assert (pending.run_id, pending.wait_id) == (child, wait_id)
    answer = Answer(text="yes")
    match way:
        case "handler":
            await handler.send_event(answer, wait_id=asked.wait_id)
        case "event":
            await handler.send_event(Answer(text="yes", wait_id=asked.wait_id))
        case "context":
            handler.ctx.send_event(Answer(text="yes", wait_id=asked.wait_id))
        case "journal":
            await journal.send("trip", answer, wait_id=asked.wait_id)
        case "journal of the child":
            await journal.send(child, answer)
        case "type":
            await handler.send_event(answer)
        case "journal type":
            await journal.send("trip", answer)
    assert await handler == "leg 1 yes"
    assert await journal.pending() == []


async def test_a_childs_wait_for_any_event_is_answered_by_its_id(journal: Journal) -> None:
    class Waits(Workflow):
        @step
        async def go(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Ends, waiter_event=Question(text="end?"), timeout=None)
            return StopEvent(result="ended")

    for send in ("handler", "journal"):
        handler = Trip(one_leg_of_nothing, Waits(), journal=journal).run(run_id=f"by-{send}")
        asked = await question(handler)
        if send == "handler":
            await handler.send_event(Ends(), wait_id=asked.wait_id)
        else:
            await journal.send(handler.run_id, Ends(), wait_id=asked.wait_id)
        assert await handler == "ended"


async def test_two_children_are_asked_and_answered_each(journal: Journal) -> None:
    async def both(trip: Trip, ctx: Context) -> Any:
        return await asyncio.gather(trip.legs.run(n=1, ask=True), trip.legs.run(n=2, ask=True))

    handler = Trip(both, Leg(), journal=journal).run(run_id="trip")
    asked = [await question(handler), await question(handler)]
    for one in reversed(asked):
        await handler.send_event(Answer(text=one.text), wait_id=one.wait_id)
    assert await handler == ["leg 1 leg 1?", "leg 2 leg 2?"]


async def test_the_oldest_question_of_a_type_is_answered_first_and_each_once(journal: Journal) -> None:
    async def both(trip: Trip, ctx: Context) -> Any:
        return await asyncio.gather(trip.legs.run(n=1, ask=True), trip.legs.run(n=2, ask=True))

    handler = Trip(both, Leg(), journal=journal).run(run_id="trip")
    first, second = await question(handler), await question(handler)
    await journal.send("trip", Answer(text="first"))
    await journal.send("trip", Answer(text="second"))
    results = {first.text: "first", second.text: "second"}
    assert await handler == [f"leg {n} {results[f'leg {n}?']}" for n in (1, 2)]


async def test_an_answer_goes_to_the_next_question_when_the_run_that_asked_the_first_ends_in_that_moment(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def both(trip: Trip, ctx: Context) -> Any:
        return await asyncio.gather(trip.legs.run(n=1, ask=True), trip.legs.run(n=2, ask=True))

    handler = Trip(both, Leg(), journal=journal).run(run_id="trip")
    first, second = await question(handler), await question(handler)
    assert first.wait_id is not None
    child, wait_id = first.wait_id.split("/")
    store, key = journal._shared.store, (await journal._row(child)).run
    look = store.waits

    async def has_ended() -> bool:
        return (await journal.run(child)).status == "completed"

    async def waits(run: int | None = None, **options: Any) -> Any:
        found = await look(run, **options)
        if run == key:
            monkeypatch.undo()
            await journal.send(child, Answer(text="first"), wait_id=wait_id)
            await until(has_ended)
        return found

    monkeypatch.setattr(store, "waits", waits)
    await journal.send("trip", Answer(text="second"))
    results = {first.text: "first", second.text: "second"}
    assert await handler == [f"leg {n} {results[f'leg {n}?']}" for n in (1, 2)]


async def test_a_question_of_the_parent_comes_before_those_of_its_children(journal: Journal) -> None:
    async def asks_too(trip: Trip, ctx: Context) -> Any:
        child = asyncio.create_task(_awaited(trip.legs.run(n=1, ask=True)))
        mine = await ctx.wait_for_event(Answer, waiter_event=Question(text="mine?"), timeout=None)
        return [mine.text, await child]

    handler = Trip(asks_too, Leg(), journal=journal).run(run_id="trip")
    texts = {(await question(handler)).text, (await question(handler)).text}
    assert texts == {"mine?", "leg 1?"}
    await journal.send("trip", Answer(text="to the parent"))
    await journal.send("trip", Answer(text="to the child"))
    assert await handler == ["to the parent", "leg 1 to the child"]


async def _awaited(handler: WorkflowHandler) -> Any:
    return await handler


async def test_a_second_answer_is_refused_whichever_way_it_takes(journal: Journal) -> None:
    legs = Leg(journal=journal)
    handler = Trip(one_that_asks, legs, journal=journal).run(run_id="trip")
    asked = await question(handler)
    assert asked.wait_id is not None
    child, wait_id = asked.wait_id.split("/")
    await released(handler)
    await journal.send(child, Answer(text="first"), wait_id=wait_id)
    for send in (
        lambda: journal.send("trip", Answer(text="second")),
        lambda: journal.send("trip", Answer(text="second"), wait_id=asked.wait_id),
        lambda: journal.send(child, Answer(text="second")),
    ):
        with pytest.raises(AlreadyAnsweredError):
            await send()
    assert await journal.pending() == []
    assert await handler == "leg 1 first"


async def test_a_child_that_was_released_while_it_asked_goes_on_when_it_is_answered(new_journal: Any) -> None:
    class Returns(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> Question:
            return Question(text="?")

        @step
        async def answered(self, ev: Answer) -> StopEvent:
            return StopEvent(result=ev.text)

    async with new_journal(idle_release_seconds=0.01) as journal:
        handler = Trip(one_leg_of_nothing, Returns(), journal=journal).run(run_id="trip")
        asked = await question(handler)
        child = await the_child(journal, "trip")

        async def is_free() -> bool:
            return (await journal.run(child)).owner is None

        await until(is_free)
        await handler.send_event(Answer(text="late"), wait_id=asked.wait_id)
        assert await handler == "late"


async def test_an_answered_question_of_a_child_is_not_shown_to_a_later_process(file: Journal, url: str) -> None:
    async def ask_and_answer(trip: Trip, ctx: Context) -> Any:
        result = await trip.legs.run(n=1, ask=True)
        await trip.held()
        return [result, await trip.legs.run(n=2, ask=True)]

    async def first() -> None:
        trip = Trip(ask_and_answer, Leg(), journal=url)
        handler = trip.run(run_id="trip")
        asked = await question(handler)
        await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
        await trip.after.wait()

    await in_another_loop(first)
    trip = Trip(ask_and_answer, Leg(), journal=file)
    trip.go_on.set()
    handler = trip.run(run_id="trip")
    asked = await question(handler)
    assert asked.text == "leg 2?"
    await handler.send_event(Answer(text="too"), wait_id=asked.wait_id)
    assert await handler == ["leg 1 yes", "leg 2 too"]


async def test_an_open_question_is_shown_again_by_a_later_process_once(file: Journal, url: str) -> None:
    async def first() -> None:
        await question(Trip(one_that_asks, Leg(), journal=url).run(run_id="trip"))

    await in_another_loop(first)
    handler = Trip(one_that_asks, Leg(), journal=file).run(run_id="trip")
    asked = await question(handler)
    await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
    assert await handler == "leg 1 yes"
    assert [type(event) for event in await streamed(handler)] == [StopEvent]
    items = [item async for item in file.stream("trip")]
    assert [type(item.event) for item in items if item.event is not None] == [Question]


async def test_an_answer_sent_while_nobody_lives_is_found_by_the_child(file: Journal, url: str) -> None:
    async def first() -> None:
        await question(Trip(one_that_asks, Leg(), journal=url).run(run_id="trip"))

    await in_another_loop(first)
    await file.send("trip", Answer(text="meanwhile"))
    legs = Leg()
    (handler,) = await Trip(one_that_asks, legs, journal=file).recover()
    assert await handler == "leg 1 meanwhile"


async def test_a_step_that_streams_its_child_shows_its_question_once(journal: Journal) -> None:
    async def forwards(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run(n=1, ask=True)
        async for event in handler.stream_events():
            ctx.write_event_to_stream(event if isinstance(event, Question) else None)
        return await handler

    handler = Trip(forwards, Leg(), journal=journal).run(run_id="trip")
    asked = await question(handler)
    await handler.send_event(Answer(text="yes"), wait_id=asked.wait_id)
    assert await handler == "leg 1 yes"
    assert [type(event) for event in await streamed(handler)] == [StopEvent]


async def test_a_step_may_answer_its_child_itself_once(journal: Journal) -> None:
    async def answers(trip: Trip, ctx: Context) -> Any:
        handler = trip.legs.run(n=1, ask=True)
        seen = []
        async for event in handler.stream_events():
            if isinstance(event, Question):
                seen.append(event.text)
                await handler.send_event(Answer(text="itself"), wait_id=event.wait_id)
        await trip.held()
        return [seen, await handler]

    trip = Trip(answers, Leg(), journal=journal)
    handler = trip.run(run_id="trip")
    await trip.after.wait()
    await released(handler)
    trip.go_on.set()
    assert await handler == [["leg 1?"], "leg 1 itself"]
    assert trip.began == 2
