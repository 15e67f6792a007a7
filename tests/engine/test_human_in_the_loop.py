"""Questions and answers: returned questions, `wait_for_event`, answers from everywhere, release and waking up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from durable_flow import (
    AlreadyAnsweredError,
    ConstantDelayRetryPolicy,
    Context,
    ContextStateError,
    Event,
    Journal,
    RunFinishedError,
    RunNotFoundError,
    SerializationError,
    StartEvent,
    StepReleased,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.records import MessageReceived, StepFailed, WaitAnswered, WaitOpened

from .conftest import Log
from .flows import Answer, Asking, Question, in_another_loop, question, records_of, released, until


class Waiting(Workflow):
    """Asks from inside a step, `count` times one after another."""

    def __init__(self, count: int = 1, *, timeout_seconds: float | None = None, **kwargs: Any):
        super().__init__(**{"workflow_name": "Waiting", **kwargs})
        self.count = count
        self.timeout_seconds = timeout_seconds
        self.began = 0
        self.unwound: list[type[BaseException]] = []
        self.unwinding = asyncio.Event()

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.began += 1
        got = []
        try:
            for n in range(self.count):
                answer = await ctx.wait_for_event(
                    Answer, waiter_event=Question(text=f"{n}?"), timeout=self.timeout_seconds
                )
                got.append(answer.text)
        except BaseException as error:
            self.unwound.append(type(error))
            self.unwinding.set()
            raise
        return StopEvent(result=got)


# -- Answers to returned questions -------------------------------------------------------------------------------------


async def test_the_answer_starts_the_step_that_takes_it(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    assert (await journal.run("r")).status == "waiting"
    handler.ctx.send_event(Answer(text="yes"))
    assert await handler == "yes"
    assert flow.ran == ["ask", "answered yes"]
    assert len(await records_of(journal, "r", WaitAnswered)) == 1


@pytest.mark.parametrize("by", ["wait_id", "type"])
async def test_a_second_answer_is_refused_and_starts_nothing(journal: Journal, by: str) -> None:
    class Slow(Asking):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.answering, self.go = asyncio.Event(), asyncio.Event()

        @step
        async def answered(self, ev: Answer) -> StopEvent:
            self.ran.append(f"answered {ev.text}")
            self.answering.set()
            await self.go.wait()
            return StopEvent(result=ev.text)

    flow = Slow()
    handler = flow.run(run_id="r")
    asked = await question(handler)
    extra = {"wait_id": asked.wait_id} if by == "wait_id" else {}
    await handler.send_event(Answer(text="yes", **extra))
    await flow.answering.wait()
    with pytest.raises(AlreadyAnsweredError):
        await handler.send_event(Answer(text="no", **extra))
    with pytest.raises(AlreadyAnsweredError):
        handler.ctx.send_event(Answer(text="no", **extra))
    with pytest.raises(AlreadyAnsweredError):
        await journal.send("r", Answer(text="no", **extra))
    flow.go.set()
    assert await handler == "yes"
    assert flow.ran == ["ask", "answered yes"]


@pytest.mark.parametrize("by", ["wait_id", "type"])
async def test_of_two_answers_at_the_same_moment_one_counts(journal: Journal, by: str) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    asked = await question(handler)
    extra = {"wait_id": asked.wait_id} if by == "wait_id" else {}
    outcomes = await asyncio.gather(
        handler.send_event(Answer(text="1", **extra)),
        handler.send_event(Answer(text="2", **extra)),
        return_exceptions=True,
    )
    assert await handler == "1"
    assert flow.ran == ["ask", "answered 1"]
    assert outcomes[0] is None
    assert isinstance(outcomes[1], AlreadyAnsweredError | RunFinishedError)


async def test_of_two_answers_by_the_journal_at_the_same_moment_one_counts(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    outcomes = await asyncio.gather(
        journal.send("r", Answer(text="1")), journal.send("r", Answer(text="2")), return_exceptions=True
    )
    result = await handler
    assert flow.ran == ["ask", f"answered {result}"]
    taken, refused = outcomes if result == "1" else reversed(outcomes)
    assert taken is True
    assert isinstance(refused, AlreadyAnsweredError | RunFinishedError)


@pytest.mark.parametrize("how", ["handler", "context", "journal"])
async def test_a_finished_run_takes_no_answer(journal: Journal, how: str) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    await handler.send_event(Answer(text="yes"))
    await handler
    before = await journal.history("r")
    answer = Answer(text="again")
    sends: dict[str, Callable[[], Any]] = {
        "handler": lambda: handler.send_event(answer),
        "context": lambda: asyncio.to_thread(handler.ctx.send_event, answer),
        "journal": lambda: journal.send("r", answer),
    }
    with pytest.raises(RunFinishedError, match=r"run r.* ended"):
        await sends[how]()
    assert await journal.history("r") == before


async def test_a_handler_of_a_run_finished_earlier_takes_no_answer(journal: Journal) -> None:
    flow = Asking(journal=journal)
    handler = flow.run(run_id="r")
    await question(handler)
    await handler.send_event(Answer(text="yes"))
    await handler
    late = Asking(journal=journal).run(run_id="r")
    with pytest.raises(RunFinishedError):
        await late.send_event(Answer(text="again"))
    with pytest.raises(RunFinishedError):
        late.ctx.send_event(Answer(text="again"))


async def test_an_unknown_wait_id_is_refused(journal: Journal) -> None:
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    with pytest.raises(AlreadyAnsweredError, match="w999"):
        await handler.send_event(Answer(text="x"), wait_id="w999")
    with pytest.raises(AlreadyAnsweredError, match="w999"):
        await journal.send("r", Answer(text="x"), wait_id="w999")
    assert len(await journal.pending()) == 1


async def test_several_questions_are_answered_oldest_first_or_by_their_id(journal: Journal) -> None:
    class Three(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.got: list[str] = []

        @step
        async def ask(self, ev: StartEvent) -> list[Question]:
            return [Question(text=str(n)) for n in range(3)]

        @step
        async def answered(self, ctx: Context, ev: Answer) -> StopEvent | None:
            self.got.append(ev.text)
            return StopEvent(result=self.got) if ctx.collect_events(ev, [Answer] * 3) else None

    flow = Three()
    handler = flow.run(run_id="r")
    asked = [await question(handler) for _ in range(3)]
    assert [q.text for q in asked] == ["0", "1", "2"]
    assert [w.prompt.text for w in await journal.pending()] == ["0", "1", "2"]
    await journal.send("r", Answer(text="for 1", wait_id=asked[1].wait_id))
    await handler.send_event(Answer(text="for the oldest"))
    await until(lambda: open_questions(journal, 1))
    assert [w.prompt.text for w in await journal.pending()] == ["2"]
    await handler.send_event(Answer(text="last"), wait_id=asked[2].wait_id)
    assert sorted(await handler) == ["for 1", "for the oldest", "last"]


async def open_questions(journal: Journal, count: int) -> bool:
    return len(await journal.pending()) == count


# -- wait_for_event ----------------------------------------------------------------------------------------------------


async def test_a_step_waits_and_goes_on_without_running_again(journal: Journal) -> None:
    flow = Waiting(3, journal=journal)
    handler = flow.run(run_id="r")
    for n in range(3):
        asked = await question(handler)
        assert asked.text == f"{n}?"
        await handler.send_event(Answer(text=f"answer {n}"))
    assert await handler == ["answer 0", "answer 1", "answer 2"]
    assert flow.began == 1


async def test_an_event_for_a_waiter_is_not_given_to_steps_too(journal: Journal) -> None:
    class Both(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.also: list[str] = []

        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"))
            return StopEvent(result=answer.text)

        @step
        async def take(self, ev: Answer) -> None:
            self.also.append(ev.text)

    flow = Both()
    handler = flow.run()
    await question(handler)
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"
    assert flow.also == []


async def test_requirements_must_be_met(journal: Journal) -> None:
    class Picky(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(
                Answer, waiter_event=Question(text="?"), requirements={"user": "ada", "level": 2}
            )
            return StopEvent(result=answer.text)

    handler = Picky(journal=journal).run(run_id="r")
    await question(handler)
    await handler.send_event(Answer(text="a", user="bob", level=2))
    await handler.send_event(Answer(text="b", user="ada"))
    await journal.send("r", Answer(text="c", user="ada", level=3))
    assert not handler.is_done()
    await handler.send_event(Answer(text="d", user="ada", level=2))
    assert await handler == "d"


async def test_requirements_look_at_fields_too(journal: Journal) -> None:
    class Picky(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"), requirements={"text": "magic"})
            return StopEvent(result=answer.text)

    handler = Picky(journal=journal).run()
    await question(handler)
    await handler.send_event(Answer(text="no"))
    await handler.send_event(Answer(text="magic"))
    assert await handler == "magic"


async def test_a_wait_that_nobody_answers_in_time_raises_in_the_step(journal: Journal) -> None:
    class Impatient(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer, waiter_event=Question(text="?"), timeout=0.05)
            except TimeoutError as error:
                return StopEvent(result=str(error))
            return StopEvent(result="answered")

    loop = asyncio.get_running_loop()
    began = loop.time()
    handler = Impatient(journal=journal).run(run_id="r")
    assert "no Answer came before the deadline" in await handler
    assert loop.time() - began >= 0.05
    assert await journal.pending() == []


async def test_an_answer_that_comes_after_the_deadline_is_refused(journal: Journal) -> None:
    class Impatient(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.late, self.go = asyncio.Event(), asyncio.Event()

        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(TimeoutError):
                await ctx.wait_for_event(Answer, waiter_event=Question(text="?"), timeout=0.01)
            self.late.set()
            await self.go.wait()
            return StopEvent(result="went on")

    flow = Impatient()
    handler = flow.run(run_id="r")
    asked = await question(handler)
    await flow.late.wait()
    with pytest.raises(AlreadyAnsweredError):
        await handler.send_event(Answer(text="late", wait_id=asked.wait_id))
    flow.go.set()
    assert await handler == "went on"


async def test_a_waiting_step_holds_no_worker(journal: Journal) -> None:
    class Item(Event):
        n: int

    class OneWorker(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.now = self.most = 0

        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=n) for n in range(3)]

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Item) -> StopEvent | None:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text=str(ev.n)), waiter_id=f"q{ev.n}")
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(3):
                await asyncio.sleep(0)
            self.now -= 1
            got = ctx.collect_events(Item(n=int(answer.text)), [Item] * 3)
            return StopEvent(result=sorted(e.n for e in got)) if got else None

    flow = OneWorker()
    handler = flow.run(run_id="r")
    asked = [await question(handler) for _ in range(3)]
    assert sorted(q.text for q in asked) == ["0", "1", "2"]
    for n, q in enumerate(asked):
        handler.ctx.send_event(Answer(text=str(n), wait_id=q.wait_id))
    assert await handler == [0, 1, 2]
    assert flow.most == 1, "to go on a step needs a free worker"


async def test_two_waiters_in_one_step(journal: Journal) -> None:
    class Two(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            got = await asyncio.gather(
                ctx.wait_for_event(Answer, waiter_event=Question(text="a"), waiter_id="a"),
                ctx.wait_for_event(Answer, waiter_event=Question(text="b"), waiter_id="b"),
            )
            return StopEvent(result=[answer.text for answer in got])

    handler = Two(journal=journal).run()
    asked = {q.text: q.wait_id for q in [await question(handler) for _ in range(2)]}
    await handler.send_event(Answer(text="to b", wait_id=asked["b"]))
    await handler.send_event(Answer(text="to a", wait_id=asked["a"]))
    assert await handler == ["to a", "to b"]


async def test_two_steps_that_wait_for_one_type_are_served_oldest_first(journal: Journal) -> None:
    class Item(Event):
        n: int

    class Two(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(n=0), Item(n=1)]

        @step
        async def ask(self, ctx: Context, ev: Item) -> StopEvent | None:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text=str(ev.n)))
            ctx.data[answer.text] = ev.n
            return StopEvent(result=dict(ctx.data)) if ctx.collect_events(ev, [Item, Item]) else None

    handler = Two(journal=journal).run()
    first, second = [await question(handler) for _ in range(2)]
    handler.ctx.send_event(Answer(text="x"))
    handler.ctx.send_event(Answer(text="y"))
    assert await handler == {"x": int(first.text), "y": int(second.text)}


async def test_an_event_from_another_step_ends_a_wait(journal: Journal) -> None:
    class Signal(Event):
        n: int

    class Item(Event):
        pass

    class Talks(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(Item())
            signal = await ctx.wait_for_event(Signal)
            return StopEvent(result=signal.n)

        @step
        async def signal(self, ev: Item) -> Signal:
            return Signal(n=3)

    flow = Talks(journal=journal, disable_validation=True)
    assert await flow.run(run_id="r") == 3
    assert [w.human for w in await records_of(journal, "r", WaitOpened)] == [False]


async def test_a_wait_for_no_human_is_no_open_question(journal: Journal) -> None:
    class Signal(Event):
        pass

    class Waits(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, disable_validation=True)
            self.begun = asyncio.Event()

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.begun.set()
            await ctx.wait_for_event(Signal)
            return StopEvent(result="signalled")

    flow = Waits()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await until(lambda: records_of(journal, "r", WaitOpened))
    assert [w.wanted for w in (await journal.run("r")).waits] == [(Signal.__qualname__,)]
    assert await journal.pending() == []
    await journal.send("r", Signal())
    assert await handler == "signalled"


async def test_waiting_inside_the_lock_is_an_error(memory: Journal) -> None:
    class Locked(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with ctx.lock:
                for wait in (lambda: ctx.wait_for_event(Answer), lambda: ctx.sleep(0.01)):
                    with pytest.raises(ContextStateError, match=r"inside ctx\.lock"):
                        await wait()
            return StopEvent(result="refused")

    assert await Locked(journal=memory).run() == "refused"


async def test_an_answer_sent_while_the_step_is_restarted_is_returned_without_asking_again(journal: Journal) -> None:
    flow = Waiting(1, journal=journal)
    handler = flow.run(run_id="r")
    asked = await question(handler)
    await released(handler)
    await journal.send("r", Answer(text="meanwhile", wait_id=asked.wait_id))
    assert await (await flow.resume("r")) == ["meanwhile"]
    assert flow.began == 2
    assert len(await records_of(journal, "r", WaitOpened)) == 1


async def test_a_waiter_that_fails_and_is_tried_again_does_not_ask_twice(journal: Journal) -> None:
    class Retries(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.attempts = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.attempts += 1
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"))
            if self.attempts == 1:
                raise ValueError("after the answer")
            return StopEvent(result=answer.text)

    flow = Retries()
    handler = flow.run(run_id="r")
    await question(handler)
    await handler.send_event(Answer(text="once"))
    assert await handler == "once"
    assert flow.attempts == 2
    assert len(await records_of(journal, "r", WaitOpened)) == 1
    assert len(await records_of(journal, "r", StepFailed)) == 1


# -- The journal as a mailbox ------------------------------------------------------------------------------------------


async def test_pending_shows_open_questions_over_all_runs_oldest_first(journal: Journal) -> None:
    asking, waiting = Asking(journal=journal), Waiting(1, timeout_seconds=3600, journal=journal)
    first = asking.run(run_id="first")
    await question(first)
    second = waiting.run(run_id="second")
    await question(second)
    one, two = await journal.pending()
    assert (one.run_id, one.workflow, one.step, one.prompt.text) == ("first", "Asking", None, "go on?")
    assert (two.run_id, two.workflow, two.step, two.prompt.text) == ("second", "Waiting", "ask", "0?")
    assert one.wanted == two.wanted == ("Answer",)
    assert one.schema["properties"]["text"]["type"] == "string"
    assert one.deadline is None
    assert (two.deadline - two.opened_at).total_seconds() == pytest.approx(3600, abs=5)
    assert one.human
    assert two.human
    assert [w.run_id for w in await journal.pending(limit=1)] == ["first"]
    await first.send_event(Answer(text="x"))
    await first
    assert [w.run_id for w in await journal.pending()] == ["second"]
    await second.cancel_run()
    assert await journal.pending() == []


async def test_pending_leaves_out_what_was_answered_although_nobody_has_taken_it_yet(url: str) -> None:
    async def begin() -> None:
        await question(Asking(journal=url).run(run_id="a"))
        await question(Asking(journal=url).run(run_id="b"))

    await in_another_loop(begin)
    async with Journal(url) as journal:
        assert len(await journal.pending()) == 2
        await journal.send("a", Answer(text="yes"))
        assert [w.run_id for w in await journal.pending()] == ["b"]
        assert [w.run_id for w in await journal.pending(limit=1)] == ["b"]
        with pytest.raises(AlreadyAnsweredError):
            await journal.send("a", Answer(text="no"))
        assert await (await Asking(journal=url).resume("a")) == "yes"


async def test_the_same_message_id_counts_once(journal: Journal) -> None:
    class Counts(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, disable_validation=True)
            self.begun = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> None:
            self.begun.set()

        @step(num_workers=1)
        async def take(self, ctx: Context, ev: Answer) -> StopEvent | None:
            ctx.data.setdefault("got", []).append(ev.text)
            return StopEvent(result=list(ctx.data["got"])) if ev.text == "end" else None

    flow = Counts()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    assert await journal.send("r", Answer(text="one"), message_id="mail-7") is True
    assert await journal.send("r", Answer(text="one"), message_id="mail-7") is False
    await until(lambda: records_of(journal, "r", MessageReceived))
    assert await journal.send("r", Answer(text="one"), message_id="mail-7") is False  # also after it was taken
    assert await journal.send("r", Answer(text="end"), message_id="mail-8") is True
    assert await handler == ["one", "end"]


async def test_a_message_id_belongs_to_its_run(journal: Journal) -> None:
    handlers = [Asking(journal=journal).run(run_id=run_id) for run_id in ("a", "b")]
    for handler in handlers:
        await question(handler)
    assert await journal.send("a", Answer(text="1"), message_id="mail-7")
    assert await journal.send("b", Answer(text="2"), message_id="mail-7")
    assert await asyncio.gather(*handlers) == ["1", "2"]


async def test_a_message_can_name_its_step(journal: Journal) -> None:
    class Two(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal, disable_validation=True)
            self.begun = asyncio.Event()

        @step
        async def begin(self, ev: StartEvent) -> None:
            self.begun.set()

        @step
        async def a(self, ev: Event) -> StopEvent:
            return StopEvent(result="a")

        @step
        async def b(self, ev: Event) -> StopEvent:
            return StopEvent(result="b")

    flow = Two()
    handler = flow.run(run_id="r")
    await flow.begun.wait()
    await journal.send("r", Event(), step="b")
    assert await handler == "b"


async def test_messages_to_nobody_or_of_no_event_are_refused(journal: Journal) -> None:
    with pytest.raises(RunNotFoundError, match="nowhere"):
        await journal.send("nowhere", Answer(text="x"))
    handler = Asking(journal=journal).run(run_id="r")
    await question(handler)
    with pytest.raises(SerializationError, match="dict"):
        await journal.send("r", {"text": "x"})  # type: ignore[arg-type]
    await handler.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def unowned(journal: Journal, run_id: str) -> bool:
    return (await journal.run(run_id)).owner is None


# -- Leaving memory ----------------------------------------------------------------------------------------------------


async def test_an_idle_run_leaves_memory_and_an_answer_brings_it_back_while_it_is_awaited(
    new_journal: Callable[..., Journal], log: Log
) -> None:
    async with new_journal(idle_release_seconds=0.05) as journal:
        handler = Asking(journal=journal).run(run_id="r")
        waiting = asyncio.ensure_future(handler)
        await question(handler)
        await log.seen("run_released")
        assert not waiting.done()
        await until(lambda: unowned(journal, "r"))
        with pytest.raises(ContextStateError, match="not live in this process"):
            _ = handler.ctx.data
        await handler.send_event(Answer(text="yes"))
        assert await waiting == "yes"
        assert len(await log.seen("run_recovered")) == 1


@pytest.mark.parametrize("how", ["context", "journal"])
async def test_however_the_answer_is_sent_a_released_run_comes_back(
    new_journal: Callable[..., Journal], log: Log, how: str
) -> None:
    async with new_journal(idle_release_seconds=0.01) as journal:
        handler = Asking(journal=journal).run(run_id="r")
        await question(handler)
        await log.seen("run_released")
        if how == "context":
            handler.ctx.send_event(Answer(text="yes"))
        else:
            await journal.send("r", Answer(text="yes"))
        assert await handler == "yes"


async def test_a_stream_goes_on_through_a_release(new_journal: Callable[..., Journal], log: Log) -> None:
    async with new_journal(idle_release_seconds=0.01) as journal:
        handler = Asking(journal=journal).run(run_id="r")
        seen: list[Event] = []

        async def read() -> None:
            async for event in handler.stream_events():
                seen.append(event)

        reader = asyncio.create_task(read())
        await log.seen("run_released")
        await journal.send("r", Answer(text="yes"))
        await reader
        assert [type(event) for event in seen] == [Question, StopEvent]
        assert await handler == "yes"


async def test_a_second_answer_to_a_released_run_is_refused(new_journal: Callable[..., Journal], log: Log) -> None:
    async with new_journal(idle_release_seconds=0.01) as journal:
        handler = Asking(journal=journal).run(run_id="r")
        asked = await question(handler)
        await log.seen("run_released")
        await handler.send_event(Answer(text="yes", wait_id=asked.wait_id))
        with pytest.raises(AlreadyAnsweredError):
            await handler.send_event(Answer(text="no", wait_id=asked.wait_id))
        assert await handler == "yes"


async def test_a_run_with_a_waiting_step_stays_in_memory(new_journal: Callable[..., Journal], log: Log) -> None:
    async with new_journal(idle_release_seconds=0.01) as journal:
        flow = Waiting(1, journal=journal)
        handler = flow.run(run_id="waits")
        asked = await question(handler)
        idle = Asking(journal=journal).run(run_id="idle")
        await question(idle)
        await log.seen("run_released")  # the other one, later
        assert (await journal.run("waits")).owner is not None
        await handler.send_event(Answer(text="yes", wait_id=asked.wait_id))
        assert await handler == ["yes"]
        assert flow.began == 1


async def test_above_max_suspended_steps_the_run_that_waits_longest_is_released(
    new_journal: Callable[..., Journal],
) -> None:
    async with new_journal(max_suspended_steps=2) as journal:
        flows = [Waiting(1, journal=journal) for _ in range(4)]
        handlers = []
        for n, flow in enumerate(flows):
            handlers.append(flow.run(run_id=f"r{n}"))
            await question(handlers[-1])
        await flows[1].unwinding.wait()
        assert [flow.unwound for flow in flows] == [[StepReleased], [StepReleased], [], []]
        for n in range(4):
            await journal.send(f"r{n}", Answer(text=str(n)))
        assert await asyncio.gather(*handlers) == [["0"], ["1"], ["2"], ["3"]]
        assert [flow.began for flow in flows] == [2, 2, 1, 1]


async def test_a_released_step_cannot_use_its_context_any_more(new_journal: Callable[..., Journal]) -> None:
    class Tries(Workflow):
        def __init__(self) -> None:
            super().__init__(journal=journal)
            self.errors: list[BaseException] = []
            self.unwinding = asyncio.Event()
            self.began = 0

        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.began += 1
            try:
                answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"))
            except Exception:
                self.errors.append(AssertionError("a release is no Exception"))
                raise
            finally:
                try:
                    ctx.data["cleanup"] = True
                except ContextStateError as error:
                    self.errors.append(error)
                self.unwinding.set()
            return StopEvent(result=answer.text)

    async with new_journal(max_suspended_steps=0) as journal:
        flow = Tries()
        handler = flow.run(run_id="r")
        waiting = asyncio.ensure_future(handler)
        await question(handler)
        await flow.unwinding.wait()
        assert [type(error) for error in flow.errors] == [ContextStateError]
        assert "detached" in str(flow.errors[0])
        await journal.send("r", Answer(text="yes"))
        assert await waiting == "yes"
        assert flow.began == 2


@pytest.mark.parametrize("by", ["wait_id", "type"])
@pytest.mark.parametrize("how", ["handler", "context"])
async def test_an_answer_that_was_acknowledged_elsewhere_counts_before_one_of_the_owner(
    url: str, by: str, how: str, log: Log
) -> None:
    async with Journal(url) as mine, Journal(url, max_payload_bytes=1 << 20) as others:  # a store of its own
        flow = Asking(journal=mine)
        handler = flow.run(run_id="r")
        asked = await question(handler)
        extra = {"wait_id": asked.wait_id} if by == "wait_id" else {}
        # The owner hears of it a moment later; what comes next does not wait for that.
        assert await others.send("r", Answer(text="theirs", **extra)) is True
        if how == "handler":
            with pytest.raises((AlreadyAnsweredError, RunFinishedError)):
                await handler.send_event(Answer(text="mine", **extra))
        else:
            try:
                handler.ctx.send_event(Answer(text="mine", **extra))
            except (AlreadyAnsweredError, RunFinishedError):
                pass
            else:
                await log.seen("send_failed")
        assert await handler == "theirs"
        assert flow.ran == ["ask", "answered theirs"]


async def test_a_strand_that_outlives_its_step_is_told_so_and_keeps_no_worker(journal: Journal) -> None:
    class Round(Event):
        n: int

    class Leaves(Workflow):
        strands: ClassVar[list[asyncio.Future[Any]]] = []

        @step
        async def begin(self, ev: StartEvent) -> Round:
            return Round(n=0)

        @step(num_workers=1)
        async def rounds(self, ctx: Context, ev: Round) -> Round | StopEvent:
            if self.strands:
                await asyncio.wait(self.strands)  # the one before has gone on, in whichever way
            self.strands.append(asyncio.ensure_future(ctx.wait_for_event(Answer, timeout=None)))
            await ctx.checkpoint("the strand waits")
            return Round(n=ev.n + 1) if ev.n < 2 else StopEvent()

    await Leaves(journal=journal, timeout=20).run()
    strands, Leaves.strands = Leaves.strands, []
    for strand in strands[:2]:
        with pytest.raises(ContextStateError, match="is detached"):
            await strand
    strands[2].cancel()
