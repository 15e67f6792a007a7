"""Ends of a run, answers and workers: single schedules that the random ones rarely meet, each at an exact point."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_flow import Context, Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from durable_flow.records import (
    CallRecorded,
    EventEmitted,
    RunCancelled,
    RunCompleted,
    StepCompleted,
    StepDiverged,
    TimerFired,
    TimerSet,
    WaitAnswered,
    WaitClosed,
    WaitOpened,
)
from durable_flow.retry_policy import ConstantDelayRetryPolicy

from .programs import SimAsk, SimReply
from .simulation import Simulation, World, answering


class Simulated(Workflow):
    world: World


class SimSide(Event):
    pass


class SimOther(Event):
    n: int


class SimConfirm(InputRequiredEvent):
    text: str


class SimConfirmed(HumanResponseEvent):
    ok: bool


class EndsEarly(Simulated):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> SimSide | SimOther:
        ctx.send_event(SimSide())
        return SimOther(n=1)

    @step
    async def slow(self, ctx: Context, ev: SimSide) -> None:
        ctx.data["draft"] = "slow"
        items = ctx.data["items"] = [1]
        items.append(2)
        await self.world.at("slow")
        ctx.data["after"] = "the end"

    @step
    async def last(self, ctx: Context, ev: SimOther) -> StopEvent:
        await self.world.at("last")
        return StopEvent(result="early")


def test_the_end_carries_the_drafts_of_steps_in_flight_and_nothing_follows_it() -> None:
    run = Simulation(EndsEarly)
    run.world.closed.update(("slow", "last"))
    run.until(lambda: run.world.reached["slow"] > 0 and run.world.reached["last"] > 0)
    run.world.open("last")
    run.finish()
    assert run.result() == "early"
    assert run.context() == {"draft": "slow", "items": [1, 2]}
    assert isinstance(run.store.records[-1].fact, RunCompleted)
    assert "slow" not in run.world.passed
    assert all(f.task.step != "slow" for f in run.facts(StepCompleted))


class AsksForConfirmation(Simulated):
    @step
    async def begin(self, ev: StartEvent) -> SimConfirm:
        return SimConfirm(text="really?")

    @step
    async def go(self, ctx: Context, ev: SimConfirmed) -> StopEvent:
        await ctx.call("act", self.world.fn("go", "act", bool), ev.ok)
        return StopEvent(result=ev.ok)


def test_a_run_cancelled_while_it_was_parked_and_dead_never_goes_on() -> None:
    run = Simulation(AsksForConfirmation)
    run.until(lambda: run.state.status == "waiting").stay_dead()
    run.store.send("cancel", None)
    run.come_back()
    run.finish()
    assert run.state.status == "cancelled"
    assert isinstance(run.store.records[-1].fact, RunCancelled)
    assert not run.world.log


def test_a_parked_run_is_released_and_taken_up_when_the_answer_comes() -> None:
    run = Simulation(AsksForConfirmation, human=answering(lambda ask: SimConfirmed(ok=True)), idle_release_seconds=60.0)
    run.human.eager = 0.0
    run.until(lambda: run.state.status == "waiting" and run.run is None and run.lives == 1)
    assert run.runs[0].closed
    assert run.loop.now >= 60.0
    run.finish()
    assert run.result() is True
    assert run.lives == 2
    assert len(run.facts(WaitAnswered)) == 1


class WaitsThenActs(Simulated):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question="q"), timeout=None)
        await ctx.call("act", self.world.fn("ask", "act", str, pauses=False), reply.text)
        return StopEvent(result=reply.text)


@pytest.mark.parametrize("workflow", [WaitsThenActs, AsksForConfirmation])
def test_nothing_is_done_with_an_answer_before_the_answer_is_durable(workflow: type[Simulated]) -> None:
    run = Simulation(workflow)
    run.until(lambda: bool(run.facts(WaitOpened))).stay_dead()
    (opened,) = run.facts(WaitOpened)
    answer = SimReply(text="yes") if workflow is WaitsThenActs else SimConfirmed(ok=True)
    run.store.send("event", run.codec.encode_event(answer), opened.wait_id)
    run.store.delays = [40, 40]  # the answer's commit takes longer than a replaying step
    run.come_back()
    run.until(lambda: bool(run.world.log))
    assert run.facts(WaitAnswered)
    run.finish()
    assert len(run.world.log) == 1


class WaitsLate(Simulated):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await self.world.at("before the wait")
        reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question="q"), timeout=None)
        self.world.log.append(("ask", "acts", (reply.text,)))
        await self.world.at("after the wait")
        return StopEvent(result=reply.text)


def test_a_wait_that_is_met_again_while_its_answer_is_being_written_is_not_over() -> None:
    run = Simulation(WaitsLate)
    run.until(lambda: bool(run.facts(WaitOpened))).stay_dead()
    run.world.closed.add("before the wait")
    run.come_back().until(lambda: run.world.reached["before the wait"] == 2)
    run.store.delays = [40, 40]
    assert run.run is not None
    run.run.receive(SimReply(text="yes"))
    run.until(lambda: run.store.busy)
    run.world.open("before the wait")
    run.until(lambda: bool(run.world.log))
    assert run.facts(WaitAnswered)
    run.finish()
    assert run.result() == "yes"


class NapsLate(Simulated):
    @step
    async def nap(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await self.world.at("before the nap")
        await ctx.sleep(10)
        self.world.log.append(("nap", "woke", ()))
        return StopEvent()


def test_a_sleep_that_is_met_again_while_its_end_is_being_written_is_not_over() -> None:
    run = Simulation(NapsLate)
    run.until(lambda: bool(run.facts(TimerSet))).stay_dead()
    run.world.closed.add("before the nap")
    run.store.delays = [40, 40]
    run.come_back()
    assert run.run is not None
    run.until(lambda: any(t.fired_at for t in run.run.state.timers.values()) and run.store.busy)  # type: ignore[union-attr]
    run.world.open("before the nap")
    run.until(lambda: bool(run.world.log))
    assert run.facts(TimerFired)
    run.finish()


class SendsAndReturns(Simulated):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> SimSide | SimOther | None:
        ctx.send_event(SimSide())
        await self.world.at("begin")
        ctx.send_event(SimOther(n=1))
        return SimOther(n=2)

    @step
    async def waits(self, ctx: Context, ev: SimSide) -> StopEvent:
        first = await ctx.wait_for_event(SimOther, timeout=None)
        return StopEvent(result=first.n)

    @step
    async def takes(self, ev: SimOther) -> None:
        self.world.log.append(("takes", "takes", (ev.n,)))


def test_an_event_sent_and_one_returned_do_not_both_answer_one_wait() -> None:
    run = Simulation(SendsAndReturns)
    run.world.closed.add("begin")
    run.until(lambda: bool(run.facts(WaitOpened)))
    run.world.open("begin")
    run.finish()
    assert run.result() == 1
    assert len(run.facts(WaitAnswered)) == 1
    assert [f.answers is not None for f in run.facts(EventEmitted) if f.event.name == "SimOther"] == [True, False]


class ChangesItsMind(Simulated):
    """Asks the questions that the test puts into `questions`, one per life."""

    questions: list[str]

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        question = self.world.questions.pop(0)  # type: ignore[attr-defined]
        reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question=question), timeout=None)
        return StopEvent(result=[question, reply.text])


@pytest.mark.parametrize("kill_after", range(1, 6))
def test_a_question_that_changes_and_changes_back_is_asked_again(kill_after: int) -> None:
    run = Simulation(ChangesItsMind)
    run.world.questions = ["one", "two", "one", "one"]  # type: ignore[attr-defined]
    run.until(lambda: bool(run.facts(WaitOpened))).stay_dead()
    seq = run.state.seq
    run.come_back()
    run.until(lambda: run.state.seq >= seq + 1 + kill_after or (run.state.parked and len(run.facts(WaitOpened)) > 1))
    run.stay_dead()
    run.human.answer = answering(lambda ask: SimReply(text=f"re:{ask.question}")).answer  # type: ignore[attr-defined]
    run.come_back()
    run.finish()
    assert run.result() == ["one", "re:one"]
    assert not [w for w in run.state.waits.values() if w.is_open]
    assert len(run.facts(WaitClosed)) == len(run.facts(WaitOpened)) - 1


class ThreeAsk(Simulated):
    """Three suspended steps and one worker."""

    @step
    async def begin(self, ev: StartEvent) -> list[SimOther]:
        return [SimOther(n=n) for n in range(3)]

    @step(num_workers=1)
    async def ask(self, ctx: Context, ev: SimOther) -> SimSide | None:
        self.world.log.append(("ask", "asks", (ev.n,)))
        reply = await ctx.wait_for_event(SimReply, waiter_event=SimAsk(question=str(ev.n)), timeout=None)
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        await self.world.pause()
        self.at_work -= 1
        ctx.data[str(ev.n)] = reply.text
        return SimSide()

    @step
    async def join(self, ctx: Context, ev: SimSide) -> StopEvent | None:
        return None if ctx.collect_events(ev, [SimSide] * 3) is None else StopEvent(result=self.most)

    at_work = 0
    most = 0


def test_waiting_steps_hold_no_worker_and_go_on_only_with_one() -> None:
    run = Simulation(ThreeAsk)
    run.until(lambda: len(run.facts(WaitOpened)) == 3)
    run.human.answer = answering(lambda ask: SimReply(text=f"re:{ask.question}")).answer  # type: ignore[attr-defined]
    run.finish()
    assert run.context() == {str(n): f"re:{n}" for n in range(3)}
    assert run.result() == 1


class ReusesInStrands(Simulated):
    """Attempt 2 takes over both strands' first calls; then it is killed in the midst of the second ones."""

    @step(retry_policy=ConstantDelayRetryPolicy(3, 1))
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async def one(name: str) -> None:
            await ctx.call(f"{name}1", self.world.fn("begin", f"{name}1", str, pauses=False), name)
            if not self.world.fails("once", 2):
                ctx.data["log"] = [*ctx.data.get("log", []), name]
                await self.world.at(f"{name} in attempt 2")
                await ctx.call(f"{name}2", self.world.fn("begin", f"{name}2", str, pauses=False), name)

        await asyncio.gather(one("x"), one("y"))
        if not self.world.reached["x in attempt 2"]:
            raise ValueError("attempt 1")
        return StopEvent(result=ctx.data["log"])


def test_what_a_strand_takes_over_comes_after_what_is_recorded() -> None:
    run = Simulation(ReusesInStrands)
    run.world.closed.add("y in attempt 2")
    run.until(lambda: bool(run.calls("x2")) and run.world.reached["y in attempt 2"] > 0)
    run.stay_dead()
    run.world.open("y in attempt 2")
    run.come_back()
    run.finish()
    assert run.result() == ["x", "y"]
    assert not run.facts(StepDiverged)
    assert [c.name for c in run.facts(CallRecorded)] == ["x1", "y1", "x2", "y2"]


def test_a_fenced_process_writes_nothing_more() -> None:
    found: list[Any] = []
    for seed in range(40):
        run = Simulation(ThreeAsk, seed=seed, crashes=2, human=answering(lambda ask: SimReply(text="yes")))
        run.finish()
        epochs = [r.fact.epoch for r in run.store.records if type(r.fact).__name__ == "RunClaimed"]
        assert epochs == list(range(2, run.lives + 1))
        found += [r.claim.epoch for r in run.runs if r.error is not None]
    assert found, "no schedule fenced a living process"
