"""One run of a workflow in simulated processes that die, are fenced and come back, from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from unittest import mock

from durable_flow import Event, HumanResponseEvent, Workflow
from durable_flow.branching import Branch, edited
from durable_flow.decide import decide
from durable_flow.engine import run as engine_run
from durable_flow.engine.drafts import Drafts
from durable_flow.engine.execution import Execution
from durable_flow.engine.run import Run
from durable_flow.errors import AlreadyAnsweredError, RunFenced
from durable_flow.fold import evolve, fold
from durable_flow.incoming import (
    EffectsCommitted,
    ImportRequested,
    Incoming,
    ResumeRequested,
    StartRequested,
    StepRaised,
    StepReturned,
)
from durable_flow.journal.protocol import Append, Claim
from durable_flow.program import WorkflowProgram
from durable_flow.records import (
    CallRecorded,
    ContextDeleted,
    ContextSet,
    ContextSpliced,
    EncodedEvent,
    EventEmitted,
    Fact,
    Record,
    StepCompleted,
    TaskId,
)
from durable_flow.serializers.codec import Codec
from durable_flow.serializers.json import JsonSerializer
from durable_flow.snapshot import copied, decode_state, encode_state
from durable_flow.state import RunState, Wait
from durable_flow.steps import step_table

from .loop import Hang, VirtualLoop
from .store import UID, Killed, SimulatedStore

MAX_TURNS = 60_000
# In so many turns the journal is compacted, if it may be.
_OFTEN = 0.05


class CallFailed(Exception):
    """What a called function raises."""


class World:
    """What is outside the run and outlives its processes: chance, flaky services, and a log of what was called."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.log: list[tuple[str, str, tuple[Any, ...]]] = []
        self.reached: Counter[str] = Counter()
        self.passed: list[str] = []
        self.closed: set[str] = set()
        self._opened: dict[str, list[asyncio.Event]] = {}
        self._nonce = 0
        self._failed: Counter[Any] = Counter()

    def llm(self) -> str:
        """Return another value every time."""
        self._nonce += 1
        return f"v{self._nonce}"

    def coin(self) -> str:
        return self.rng.choice("ab")

    def fails(self, what: Any, times: int = 1) -> bool:
        """Tell whether something that fails a number of times fails now."""
        self._failed[what] += 1
        return self._failed[what] <= times

    async def pause(self) -> None:
        """Await something that is no effect, for a while."""
        if self.rng.random() < 0.5:
            for _ in range(self.rng.randrange(1, 4)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.rng.random() / 100)

    async def at(self, place: str) -> None:
        """Pass a place where a test may hold steps: while it is in `closed` nobody gets on."""
        self.reached[place] += 1
        if place in self.closed:
            opened = asyncio.Event()
            self._opened.setdefault(place, []).append(opened)
            await opened.wait()
        self.passed.append(place)

    def open(self, place: str) -> None:
        self.closed.discard(place)
        for opened in self._opened.pop(place, ()):
            opened.set()

    def fn(self, task: str, name: str, fn: Callable[..., Any], pauses: bool = True) -> Callable[..., Awaitable[Any]]:
        """Return an async function for `ctx.call` that notes in the log that it ran."""

        async def called(*args: Any) -> Any:
            self.log.append((task, name, args))
            if pauses:
                await self.pause()
            result = fn(*args)
            if pauses:
                await self.pause()
            return result

        return called

    def ran(self, name: str) -> list[tuple[Any, ...]]:
        return [args for _, called, args in self.log if called == name]


class Watch:
    """Checks rule 2 in one process: what is handed over rests on nothing that is not, in the order of visibility."""

    def __init__(self, broken: Counter[str]):
        self.broken = broken
        self.durable: set[int] = set()
        self.visible: dict[str, int] = {}
        self._order: dict[int, int] = {}
        self._writes: dict[tuple[str, TaskId | None, int, int], int] = {}
        self._keep: list[Fact] = []
        self._seen: dict[TaskId, list[int]] = {}
        self._seen_at: dict[int, tuple[int, ...]] = {}
        self._handed: set[int] = set()
        self._last: dict[str, int] = {}

    def drafted(self, task: TaskId, key: str | None, fact: Fact) -> None:
        n = len(self._keep) + 1
        self._keep.append(fact)
        self._order[id(fact)] = n
        if isinstance(fact, ContextSet):
            self._writes[fact.key, fact.task, fact.attempt, fact.k] = n
        self._seen_at[n] = tuple(self._seen.get(task, ()))
        if key is not None:
            self.visible[key] = n

    def read(self, task: TaskId, keys: Iterable[str]) -> None:
        self._seen.setdefault(task, []).extend(self.visible[key] for key in keys if key in self.visible)

    def accepted(self, incoming: Incoming) -> None:
        if not isinstance(incoming, EffectsCommitted | StepReturned | StepRaised):
            return
        numbers = [(fact, self._order.get(id(fact))) for fact in incoming.drafts]
        self._handed.update(n for _, n in numbers if n is not None)
        for fact, n in numbers:
            if isinstance(fact, ContextSet | ContextDeleted) and n is not None:
                if self._last.get(fact.key, 0) > n:
                    self.broken["existed"] += 1
                self._last[fact.key] = n
            if n is not None:
                self._require(self._seen_at[n])
            elif isinstance(fact, CallRecorded):
                self._require(self._seen.get(fact.task, ()))
        if not isinstance(incoming, EffectsCommitted):
            self._require(self._seen.get(incoming.task, ()))

    def _require(self, seen: Iterable[int]) -> None:
        if not self._handed.issuperset(seen):
            self.broken["causality"] += 1

    def committed(self, append: Append) -> None:
        self.durable.update(n for r in append.records if (n := self._number(r.fact)) is not None)

    def _number(self, fact: Fact) -> int | None:
        if isinstance(fact, ContextSpliced):
            return self._writes.get((fact.key, fact.task, fact.attempt, fact.k))
        return self._order.get(id(fact))


class WatchedDrafts(Drafts):
    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def add(self, task: TaskId, key: str | None, fact: Fact) -> None:
        self._watch.drafted(task, key, fact)
        super().add(task, key, fact)


class WatchedProgram(WorkflowProgram):
    """A workflow's program that tells what its steps read."""

    def call(self, step: str, event: Event, execution: Any, given: Any = None) -> Any:
        assert isinstance(execution, Execution)
        watch = execution.run.watch  # type: ignore[attr-defined]
        store = execution.run.store
        if execution.task_id.seq > store.state.offset + len(store.records):  # type: ignore[attr-defined]
            watch.broken["started before its event was durable"] += 1
        read, visible_keys, collect = execution.read, execution.visible_keys, execution.collect

        def watched_read(key: str, *default: Any) -> Any:
            value = read(key, *default)
            watch.read(execution.task_id, (key,))
            return value

        def watched_keys() -> list[str]:
            watch.read(execution.task_id, watch.visible)
            return visible_keys()

        def watched_collect(event: Event, expected: Any, buffer_id: str | None) -> Any:
            watch.read(execution.task_id, (f"\0buffer:{buffer_id or execution.step}",))
            return collect(event, expected, buffer_id)

        execution.read = watched_read  # type: ignore[assignment,method-assign]
        execution.visible_keys = watched_keys  # type: ignore[method-assign]
        execution.collect = watched_collect  # type: ignore[method-assign]
        return super().call(step, event, execution, given)


class Human:
    """Answers open questions sooner or later: by message, or through the live run; also while no process lives."""

    def __init__(self, answer: Callable[[Wait, Codec], Event | None] | None = None, eager: float = 0.3):
        self.answer = answer or (lambda wait, codec: None)
        self.eager = eager


class Simulation:
    """Drives one run of a workflow. `crashes` kills it that often at random points, at most.

    Its journal is compacted `compactions` times, at most, anywhere in between. `goes_on` is a simulation whose run was
    given up: this one begins with what is durable of it, at the same time and in the same world; or, if it is given,
    with this branch of it.
    """

    def __init__(
        self,
        workflow: type[Workflow],
        *,
        seed: int = 0,
        crashes: int = 0,
        compactions: int = 0,
        human: Human | None = None,
        timeout: float | None = None,
        idle_release_seconds: float | None = None,
        takeovers: bool = True,
        slow: bool | None = None,
        goes_on: Simulation | None = None,
        branch: Branch | None = None,
        **arguments: Any,
    ):
        self.rng = random.Random(seed)
        self.crashes = crashes
        self.compactions = compactions
        self._compacting = random.Random(seed)
        self.crash_probability = self.rng.choice((0.01, 0.03, 0.1))
        self.takeovers = takeovers
        self.broken: Counter[str] = Counter()
        self.loop = VirtualLoop(self._turn, self._idle)
        slow = crashes > 0 if slow is None else slow
        self.store = SimulatedStore(self.loop, self.rng, self._kill_point, 4 if slow else 0)
        self.world = World(self.rng)
        self.human = human or Human()
        self.run: Run | None = None
        self.runs: list[Run] = []
        self.lives = 0
        self.snapshot: RunState | None = None
        self.errors: list[BaseException] = []
        self.killed_at: list[str] = []
        self._branch = branch
        self._imported = goes_on.state if goes_on is not None else None
        if branch is not None:
            self._imported = decode_state(branch.start.state)
        if goes_on is not None:
            self.loop.now, self.world = goes_on.loop.now, goes_on.world
        self._arguments = arguments
        self._idle_release_seconds = idle_release_seconds
        self._until: Callable[[], bool] = lambda: False
        self._turns = 0
        self._delivered: set[tuple[int, int]] = set()
        self._dead = True
        self._resume = False
        self._waiting_for_message = False
        self.loop.set_exception_handler(self._unhandled)
        instance = workflow(timeout=timeout, disable_validation=True)
        instance.world = self.world  # type: ignore[attr-defined]
        table = step_table(workflow)
        self.codec = Codec(JsonSerializer(types=table.event_classes))
        self.program = WatchedProgram(instance, table, self.codec, name="Simulated", timeout=timeout, verbose=False)

    # -- Driving -------------------------------------------------------------------------------------------------------

    def until(self, reached: Callable[[], bool]) -> Simulation:
        """Let the run go on until something is so."""
        self._until = reached
        self._turns = 0
        if not reached():
            # Also short values are spliced, so that every process meets such records.
            with mock.patch.object(engine_run, "LEAST_BYTES", 0):
                self.loop.run_forever()
        self._until = lambda: False
        if self.errors:
            raise self.errors[0]
        return self

    def finish(self) -> Simulation:
        """Let the run go on to its end, close everything and check what holds at every end."""
        try:
            self.until(lambda: bool(self.state.ended or self.state.attention) and self.run is None)
            for run in self.runs:
                if not run.closed:
                    self._kill(run)
            self.until(lambda: not self._tasks())
            self._check_journal()
        finally:
            self.close()
        return self

    def close(self) -> None:
        """Throw away what is left."""
        if self.loop.is_closed():
            return
        for run in self.runs:
            run.closed = True
        for task in self._tasks():
            task.cancel()
        self.crashes, self._dead, self.errors = 0, False, []
        self._turns = 0
        self._until = lambda: not self._tasks()
        if self._tasks():
            self.loop.run_forever()
        self.loop.close()

    def kill(self) -> Simulation:
        """Kill the live process now; the next one begins at the next turn."""
        self.until(lambda: self.run is not None)
        assert self.run is not None
        self._die(self.run)
        return self

    def adopt(self, other: Simulation, to: int) -> Simulation:
        """Begin where the journal of another simulation stood at a boundary, as after a kill there."""
        self.store.adopt(other.store, to)
        self.loop.now = other.loop.now
        self.lives = 1
        return self

    def edit(self, facts: Iterable[Fact]) -> Simulation:
        """Kill the live process; somebody claims the run, edits its context in one append, and gives it back."""
        self.kill()
        self.store.claim()
        self.lives += 1  # as many as there are epochs
        facts, at = edited(self.state, facts), max(self.store.now(), self.state.last_at)
        first = len(self.store.records) + 1
        self.store._keep([Record(first + n, at, n == len(facts) - 1, fact) for n, fact in enumerate(facts)])
        return self

    def stay_dead(self) -> Simulation:
        """Kill the live process; nobody takes the run up before `come_back`."""
        self.kill()
        self._dead = False
        return self

    def come_back(self, *, resume: bool = False) -> Simulation:
        self._dead, self._resume = True, resume
        return self.until(lambda: self.run is not None)

    @property
    def state(self) -> RunState:
        """The fold of what is durable."""
        return self.store.state

    # -- The host of a Run ---------------------------------------------------------------------------------------------

    def run_ended(self, run: Run) -> None:
        if run is self.run:
            self.run = None

    def run_dropped(self, run: Run, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, RunFenced):
            self.errors.append(error)
            self.loop.stop()
        if run is self.run:
            self.run = None
            self._waiting_for_message = error is None

    def snapshot_is_due(self, run: Run) -> None:
        """Keep one after every few appends: a process that takes the run up may find it at any place."""
        self.snapshot = copied(run.state)
        run.snapshot_due = run.state.seq + run.state.seq % 5

    def step_left(self, run: Run, task: TaskId, attempt: int) -> None:
        pass

    def step_suspended(self, run: Run) -> None:
        pass

    def step_resumed(self, run: Run) -> None:
        pass

    # -- Turns ---------------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        self._turns += 1
        if self._turns > MAX_TURNS:
            self.errors.append(Hang("the run makes no end"))
        if self.errors or self._until():
            self.loop.stop()
            return True
        before = self.lives, self.run
        busy = self.store.busy
        try:
            self.store.turn()
            self._kill_point("between two turns")
        except Killed:
            self._perish()
        if self.compactions and self.store.kept and self._compacting.random() < _OFTEN:
            self.compactions -= 1
            self.store.compact(self._compacting)
        answered = self._answer()
        over = (self.state.ended or self.state.attention) and not self._resume
        if self._dead and self.run is None and not over and not self._old_tasks():
            self.loop.call_soon(self._boot)
            self._dead = False
            return True
        if self._waiting_for_message and self.run is None and (self.store.messages() or self._is_due()):
            self.loop.call_soon(self._boot)
            self._waiting_for_message = False
            return True
        return busy or answered or (self.lives, self.run) != before

    def _idle(self) -> None:
        """Nothing is ready and no timer is set: only somebody outside can bring the run on."""
        wake_at = self.state.wake_at
        if self._answer(force=True) or self._dead:
            return
        if self.run is None and self._waiting_for_message and wake_at is not None:
            self.loop.now = max(self.loop.now, (wake_at - self.store.now()) / 1_000_000 + self.loop.now)
            return
        self.errors.append(Hang(f"nothing to do; pending: {list(self.state.tasks)}"))

    def _is_due(self) -> bool:
        wake_at = self.state.wake_at
        return self.state.status == "running" or (wake_at is not None and wake_at <= self.store.now())

    def _kill_point(self, where: str) -> None:
        if self.crashes and self.run is not None and self.rng.random() < self.crash_probability:
            self.crashes -= 1
            self.killed_at.append(where)
            raise Killed(where)

    def _perish(self) -> None:
        assert self.run is not None
        if self.takeovers and self.rng.random() < 0.2:
            # The process lives on, but another one has taken the run from it.
            self._check_view(self.run)
            self.run = None
        else:
            self._die(self.run)
        self._dead = True

    def _die(self, run: Run) -> None:
        self._check_view(run)
        self._kill(run)
        self.store.disconnect(run.claim.epoch)
        self.loop.now += self.rng.choice((0.0, 0.5, 60.0))
        self.run, self._dead = None, True

    def _kill(self, run: Run) -> None:
        """Nothing that this process still does has an effect."""
        run.closed = True
        for execution in run.executions.values():
            execution.attached = False
        for task in self._tasks():
            if getattr(task, "life", None) == run.claim.epoch:
                task.cancel()

    def _tasks(self) -> list[asyncio.Task[Any]]:
        found = asyncio.all_tasks(self.loop)
        return sorted(found, key=lambda task: getattr(task, "born", 0))

    def _old_tasks(self) -> bool:
        fenced = {run.claim.epoch for run in self.runs if not run.closed}
        return any(getattr(task, "life", None) not in fenced for task in self._tasks())

    def _boot(self) -> None:
        """What `Engine._create` and `Engine._claim` do."""
        self.lives += 1
        self.loop.set_task_factory(_tasks_of_life(self.lives))
        if self.lives == 1:
            claim, state, event = self._create()
            run = self._new_run(claim, state)
            if event is not None:
                run.keep_live(*event)
            run.begin()
            return
        claim = self.store.claim()
        state = fold(self.store.kept)
        assert encode_state(state) == encode_state(fold(self.store.records)), "what is kept is not the whole"
        if self.snapshot is not None:
            # What an engine does with one.
            cached = fold(self.store.records[self.snapshot.seq :], decode_state(encode_state(self.snapshot)))
            assert encode_state(cached) == encode_state(state), "a snapshot and what follows are not the whole"
            state = cached
        run = self._new_run(claim, state)
        run.take_messages(self.store.messages())
        if self._resume and (state.ended or state.attention):
            self._resume = False
            run.accept(ResumeRequested("retry" if state.ended else "resume"))
        else:
            run.begin()

    def _create(self) -> tuple[Claim, RunState, tuple[EncodedEvent, Event, tuple[str, ...]] | None]:
        start: StartRequested | ImportRequested
        live = None
        if self._branch is not None:
            start = self._branch.start
        elif self._imported is not None:
            seq, imported = self._imported.seq, encode_state(self._imported)
            start = ImportRequested("Simulated", UID[::-1], self.program.shape, None, UID, seq, imported)
        else:
            event = self.program.table.start_event_class(**self._arguments)
            live = self.codec.encode_event(event), event, self.program.targets(event)
            start = StartRequested("Simulated", UID, self.program.shape, None, live[0], live[2])
        state, records = RunState(), []
        facts = decide(state, start)
        for at, fact in enumerate(facts, 1):
            records.append(Record(at, self.store.now(), at == len(facts), fact))
            evolve(state, records[-1])
        return self.store.create(records), state, live

    def _new_run(self, claim: Claim, state: RunState) -> Run:
        run = Run(
            self, self.store, self.store, self.program, claim, state, idle_release_seconds=self._idle_release_seconds
        )  # type: ignore[arg-type]
        run.snapshot_due = 0
        watch = run.watch = Watch(self.broken)  # type: ignore[attr-defined]
        run.drafts = WatchedDrafts(watch)
        accept = run.accept

        def watched_accept(incoming: Incoming, reply: asyncio.Future[None] | None = None) -> None:
            watch.accepted(incoming)
            accept(incoming, reply)

        run.accept = watched_accept  # type: ignore[method-assign]
        self.store.on_commit = watch.committed
        self.runs.append(run)
        self.run = run
        return run

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, AlreadyAnsweredError) or "never retrieved" in context["message"]:
            return
        self.errors.append(error or RuntimeError(context["message"]))

    # -- People --------------------------------------------------------------------------------------------------------

    def _answer(self, force: bool = False) -> bool:
        """Answer open questions and deliver messages, now and then; tell whether anything was done."""
        done = False
        for wait in list(self.state.waits.values()):
            if not wait.is_open or self.store.has_answer_for(wait.wait_id):
                continue
            if not force and self.rng.random() >= self.human.eager:
                continue
            event = self.human.answer(wait, self.codec)
            if event is None:
                continue
            done = True
            if self.run is not None and self.rng.random() < 0.3 and not self.run.closed:
                with contextlib.suppress(AlreadyAnsweredError):  # known here a moment before it is durable
                    self.run.receive(event, wait_id=wait.wait_id).add_done_callback(_looked_at)
            else:
                self.store.send("event", self.codec.encode_event(event), wait.wait_id)
        if self.run is None or self.run.closed or not (force or self.rng.random() < 0.5):
            return done
        new = [m for m in self.store.messages() if (self.run.claim.epoch, m.id) not in self._delivered]
        self._delivered.update((self.run.claim.epoch, m.id) for m in new)
        self.run.take_messages(new)
        return done or bool(new)

    # -- What always holds ---------------------------------------------------------------------------------------------

    def _check_view(self, run: Run) -> None:
        """What the dying process showed of keys without drafts is what the journal says."""
        watch: Watch = run.watch  # type: ignore[attr-defined]
        shown = run.live.encoded()
        if run.state.ended:
            return
        for key in {*shown, *self.state.context}:
            n = watch.visible.get(key)
            if (n is None or n in watch.durable) and shown.get(key) != self.state.context.get(key):
                self.broken["view"] += 1

    def _check_journal(self) -> None:
        records = self.store.records
        assert [r.seq for r in records] == list(range(1, len(records) + 1))
        assert fold(records) == self.state
        assert encode_state(fold(self.store.kept)) == encode_state(self.state)
        at = self.rng.randrange(len(records))
        assert fold(records[at:], fold(records[:at])) == self.state
        first = 1 if self._imported is None else self._imported.position + 1
        assert [item[0] for item in self.store.stream] == list(range(first, first + len(self.store.stream)))
        ended = Counter(r.fact.task for r in records if isinstance(r.fact, StepCompleted))
        assert all(n == 1 for n in ended.values()), "a task completed twice"

    # -- What tests look at --------------------------------------------------------------------------------------------

    def facts(self, kind: Any) -> list[Any]:
        return [r.fact for r in self.store.records if isinstance(r.fact, kind)]

    def value(self, key: str, default: Any = None) -> Any:
        """Return the durable value of a context key."""
        encoded = self.state.context.get(key)
        return default if encoded is None else self.codec.decode_value(encoded)

    def context(self) -> dict[str, Any]:
        return {key: self.value(key) for key in self.state.context}

    def sent(self, cls: type[Event]) -> list[Event]:
        """Return the events of a class that steps sent with `send_event`."""
        found = [f for f in self.facts(EventEmitted) if f.k is not None and f.event.name == cls.__name__]
        return [self.codec.decode_event(f.event) for f in found]

    def emitted(self, cls: type[Event]) -> list[Event]:
        """Return the events of a class, sent or returned."""
        found = [f for f in self.facts(EventEmitted) if f.event.name == cls.__name__]
        return [self.codec.decode_event(f.event) for f in found]

    def emitted_by_completion(self, name: str) -> list[Any]:
        """Return the events of a name that steps returned."""
        found = [f for f in self.facts(EventEmitted) if f.k is None and f.task is not None and f.event.name == name]
        return [self.codec.decode_event(f.event) for f in found]

    def all_calls(self) -> list[CallRecorded]:
        return self.facts(CallRecorded)

    def calls(self, name: str) -> list[CallRecorded]:
        return [f for f in self.facts(CallRecorded) if f.name == name]

    def result(self) -> Any:
        assert self.state.result is not None, self.state.error or self.state.attention
        return self.codec.decode_event(self.state.result).result  # type: ignore[attr-defined]

    def reader(self) -> list[Event]:
        """Return what a reader of the stream holds after the resets."""
        held: list[tuple[int, TaskId | None, EncodedEvent]] = []
        for position, task, item, since in self.store.stream:
            if since is not None:
                held = [h for h in held if h[1] != task or h[0] < since]
            else:
                assert item is not None
                held.append((position, task, item))
        return [self.codec.decode_event(item) for _, _, item in held]

    def streamed(self) -> list[Any]:
        """Return the stream as published: items, and the position that a reset names."""
        return [since if item is None else self.codec.decode_event(item) for _, _, item, since in self.store.stream]


def _tasks_of_life(life: int) -> Callable[..., asyncio.Task[Any]]:
    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        task = _Task(coroutine, loop=loop, **more)
        current = asyncio.current_task(loop)
        task.life = getattr(current, "life", life)
        task.born = next(_births)
        return task

    return factory


# Orders tasks in all versions of Python; their names do not.
_births = itertools.count(1)


class _Task(asyncio.Task[Any]):
    life: int = 0
    born: int = 0


def _looked_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def answering(answer: Callable[[Event], HumanResponseEvent]) -> Human:
    """Return a human who answers every question that has a prompt."""

    def reply(wait: Wait, codec: Codec) -> Event | None:
        return None if wait.prompt is None else answer(codec.decode_event(wait.prompt))

    return Human(reply)
