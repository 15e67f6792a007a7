"""Random valid histories: a small model of a run drives `decide` and `evolve` with everything that may reach them.

An `Actor` stands for a step that runs: it makes effects in any order, meets its records again after a crash as design
section 3 says, and reaches commit points. What a history is made of comes from a list of moves, so that hypothesis can
shrink it and a plain generator of random numbers can make many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any, NamedTuple

from given import ERROR, SECOND, event, value
from hypothesis import strategies as st

from durable_flow.branching import all_dropped
from durable_flow.decide import decide
from durable_flow.engine.drafts import Drafts
from durable_flow.engine.history import History
from durable_flow.engine.splicing import spliced
from durable_flow.fold import evolve
from durable_flow.incoming import (
    AttentionNeeded,
    CameToRest,
    CancelRequested,
    ChildAsks,
    ChildOver,
    Collectors,
    EditRequested,
    EffectsCommitted,
    EventReceived,
    ImportRequested,
    Incoming,
    Question,
    ResumeRequested,
    StartRequested,
    StepRaised,
    StepReturned,
    TimeIsUp,
    TimerDue,
    WaitDue,
)
from durable_flow.joins import due_joins
from durable_flow.records import (
    CALL,
    CHECKPOINT,
    CHILD,
    COLLECT,
    SENT,
    SLEEP,
    STREAM,
    WAIT,
    WRITE,
    BufferReleased,
    CallRecorded,
    CheckpointNamed,
    ChildStarted,
    ContextDeleted,
    ContextSet,
    EffectReused,
    EncodedEvent,
    EventCollected,
    EventEmitted,
    Fact,
    Place,
    Record,
    RunClaimed,
    StateEdited,
    StepDiverged,
    StreamPublished,
    StreamReset,
    TaskId,
    TimerSet,
    WaitClosed,
    WaitOpened,
)
from durable_flow.snapshot import encode_state
from durable_flow.state import Effect, RunState, Task, Wait

ROUTES = {"Start": ("first",), "Work": ("work",), "Both": ("first", "work"), "Answer": ("first",), "Lost": ()}
EVENTS = ("Work", "Both", "Lost")
# What collects: "gather" a whole list, "few" the first two, "pair" one each of two events.
JOINS = {"Work": ("gather", "few", "pair.a/2"), "Both": ("gather",), "Lost": ("pair.b/2",), "Answer": ("few",)}
STEPS = ("first", "work", "gather", "few", "pair")
LIST = Collectors(("gather", "few"), (0, 2))
KEYS = ("n", "m")
BUFFER = "\0buffer:both"


class Move(NamedTuple):
    """What happens next, how it is chosen among what is possible, and after how long."""

    name: str
    a: int
    b: int
    microseconds: int


class Actor:
    """One execution of one attempt of a step."""

    def __init__(self, run: Simulation, task: Task):
        self.run = run
        self.task = task.id
        self.attempt = task.attempt
        self.history = History(run.state, task)
        self.keys: set[str] = set()
        self.reads_all = False
        self.done: list[tuple[str, int, int]] = []
        self.todo = deque(run.done.get(task.id, ()))
        self._waits_for: str | int | None = None
        self._awaited_child: int | None = None
        run.done[task.id] = self.done

    def read(self, key: str) -> None:
        self.keys.add(key)

    def write(self, key: str, data: int | None) -> None:
        self.keys.add(key)
        place, record = self.history.take(WRITE, key)
        content = None if data is None else value(data)
        if record is not None:
            self.history.repeat_write(key)
            self._compared(record, content)
        elif content is None:
            self._draft(ContextDeleted(key, self.task, self.attempt, place.k), key)
        else:
            self._draft(ContextSet(key, content, self.task, self.attempt, place.k), key)

    def send(self, sent: EncodedEvent) -> None:
        place, record = self.history.take(SENT, sent.name)
        content = (sent, None)
        if self._recorded(place, record, content) is None:
            joins = joins_in(sent.name, ())
            fact = EventEmitted(sent, self.task, self.attempt, place.k, ROUTES[sent.name], joins=joins)
            self._draft(fact)

    def collect(self, collected: EncodedEvent) -> None:
        self.keys.add(BUFFER)
        place, record = self.history.take(COLLECT, "both")
        if self._recorded(place, record, collected) is not None:
            return
        self._draft(EventCollected(self.task, self.attempt, "both", place.k, collected), BUFFER)
        self.run.buffer.append(collected.name)
        if {"Work", "Both"} <= set(self.run.buffer):
            self.run.buffer.remove("Work")
            self.run.buffer.remove("Both")
            self._draft(BufferReleased(self.task, self.attempt, "both", place.k, ("Work", "Both")), BUFFER)

    def publish(self, item: EncodedEvent) -> None:
        record = self.history.next_stream_item()
        if record is not None and record.content == item.name:
            self.history.take(STREAM, "")
            return
        if record is not None:
            self._reset(record)
        place, _ = self.history.take(STREAM, "")
        self.run.accept(
            EffectsCommitted((StreamPublished(0, (item.name,), self.task, self.attempt, place.k, (item,)),))
        )

    def call(self, name: str, arguments: str) -> None:
        place, record = self.history.take(CALL, name)
        if record is not None and record.content != arguments:
            self.raises(None, "the step diverged")
        elif self._recorded(place, record, arguments) is None:
            self.commit(CallRecorded(self.task, self.attempt, name, place.k, arguments, value(self.run.now)))

    def sleep(self, seconds: int) -> None:
        place, record = self.history.take(SLEEP, "")
        if record is None:
            self.commit(TimerSet(self.task, self.attempt, place.k, self.run.now + seconds * SECOND))
        self._waits_for = self._outcome_at(place)

    def wait_for(self, wanted: str, prompt: EncodedEvent | None, waiter_id: str | None, deadline: int | None) -> None:
        """Wait until the move after the one that settles it."""
        name = waiter_id or wanted
        content = ((wanted,), prompt, None)
        place, record = self.history.take(WAIT, name)
        if record is not None and record.content != content and waiter_id is None:
            if record.outcome in self.run.state.waits:
                self.commit(WaitClosed(record.outcome))
            record = None
        elif record is None:
            record = self._recorded(place, None, content)
            if record is not None:
                self.commit()
        if record is None:
            fact = WaitOpened(
                "", self.task, self.attempt, name, place.k, waiter_id is not None, (wanted,), None,
                None if deadline is None else self.run.now + deadline * SECOND, prompt, prompt is not None,
            )  # fmt: skip
            self.commit(fact)
        self._waits_for = self._outcome_at(place)

    def start_child(self, workflow: str, arguments: int, run_id: str | None) -> None:
        """Wait until the move after the one that ends it."""
        place, record = self.history.take(CHILD, workflow)
        content = (value(arguments), run_id)
        record = self._recorded(place, record, content)
        if record is not None:
            self.commit()
            self._awaited_child = record.outcome
            return
        child = run_id or f"{self.task.seq}-{self.task.step}-{self.attempt}-{place.k}-{self.run.state.revivals}"
        independent = run_id is not None
        self.commit(ChildStarted(self.task, self.attempt, place.k, workflow, child, value(arguments), independent))
        seq = self._outcome_at(place)
        assert seq is None or isinstance(seq, int)
        self._awaited_child = seq

    def checkpoint(self, name: str) -> None:
        place, record = self.history.take(CHECKPOINT, name)
        if record is None:
            self.commit(CheckpointNamed(self.task, self.attempt, name, place.k))

    def commit(self, *facts: Fact) -> None:
        self.run.accept(EffectsCommitted((*self.run.drafts.take(self.task, self.run.actors), *facts)))

    def returns(self, events: tuple[EncodedEvent, ...], ask: bool, stop: bool, as_list: bool) -> None:
        drafts = self._finish(completed=True)
        if stop:
            drafts += self.run.drafts.take_all()
        around = self.run.state.tasks[self.task].scope if self.task in self.run.state.tasks else 0
        bound = LIST.joins if as_list else self.run.joins_of(around)
        returned: list[EventEmitted | Question] = [
            EventEmitted(e, self.task, self.attempt, None, ROUTES[e.name], joins=joins_in(e.name, bound))
            for e in events
        ]
        if ask:
            question = EventEmitted(event("Question"), self.task, self.attempt, None, ())
            returned.append(Question(question, ("Answer",), None))
        end = event("Stop") if stop else None
        fan_out = LIST if as_list else None
        self.run.accept(StepReturned(self.task, self.attempt, drafts, tuple(returned), end, fan_out))

    def raises(self, retry_after: int | None, attention: str | None = None, handler: str | None = None) -> None:
        drafts = self._finish(completed=False)
        retry_at = None if retry_after is None else self.run.now + retry_after * SECOND
        if retry_at is None and attention is None and handler is None:
            drafts += self.run.drafts.take_all()
        failure = None if handler is None else event("StepFailedEvent")
        self.run.accept(
            StepRaised(self.task, self.attempt, drafts, ERROR, retry_at, attention, handler, failure, value("it"), 7)
        )

    def is_suspended(self) -> bool:
        waits_for, state = self._waits_for, self.run.state
        child = state.children.get(self._awaited_child or 0)
        if child is not None and not child.ended_at:
            return True
        if isinstance(waits_for, int):
            return waits_for in state.timers and not state.timers[waits_for].fired_at
        return waits_for in state.waits and state.waits[waits_for].is_open

    def _outcome_at(self, place: Place) -> str | int | None:
        task = self.run.state.tasks.get(self.task)
        effects = (task.effects if task is not None else None) or {}
        effect = effects.get(self.attempt, {}).get(place)
        return None if effect is None else effect.outcome  # None: the run had ended, nothing was recorded

    def _finish(self, completed: bool) -> tuple[Fact, ...]:
        left = self.history.next_stream_item()
        if left is not None:
            self._reset(left)
        if completed:
            for effect in self.history.unmet():
                self._diverged(effect.place)
        drafts = self.run.drafts.take(self.task, self.run.actors)
        del self.run.actors[self.task]
        return drafts

    def _reset(self, record: Effect) -> None:
        self.run.accept(EffectsCommitted((StreamReset(self.task, self.attempt, record.place.k, 0, record.outcome),)))
        self.history.forget_stream()

    def _recorded(self, place: Place, record: Effect | None, content: object) -> Effect | None:
        if record is not None:
            self._compared(record, content)
            return record
        old = self.history.equal(place.kind, place.name, content)
        if old is not None:
            self._draft(EffectReused(self.task, self.attempt, place.kind, place.name, place.k, old.seq))
        return old

    def _compared(self, record: Effect, content: object) -> None:
        if record.content != content:
            self._diverged(record.place)

    def _diverged(self, place: Place) -> None:
        if (self.task, place) not in self.run.diverged:
            self.run.diverged.add((self.task, place))
            self._draft(StepDiverged(self.task, self.attempt, place.kind, place.name, place.k))

    def _draft(self, fact: Fact, key: str | None = None) -> None:
        self.run.drafts.add(self.task, key, fact)


class Simulation:
    """A run that lives, dies and is taken up again; `records` is its journal."""

    def __init__(self) -> None:
        self.state = RunState()
        self.records: list[Record] = []
        self.now = 1000 * SECOND
        self.messages = 0
        self.done: dict[TaskId, list[tuple[str, int, int]]] = {}
        self.boot()
        self.accept(StartRequested("Flow", "uid", "shape", value(1), event("Start"), ("first", "work")))

    def continued(self, *, drop_pending: bool = False) -> Simulation:
        """Return a run that begins with the state of this one, in which nothing runs at the moment."""
        other = Simulation.__new__(Simulation)
        other.state, other.records = RunState(), []
        other.now, other.messages = self.now, self.messages
        other.done = {task: list(done) for task, done in self.done.items()}
        other.boot()
        imported = encode_state(self.state)
        dropped = tuple(all_dropped(self.state)) if drop_pending else ()
        other.accept(ImportRequested("Flow", "other uid", "shape", None, "uid", self.state.seq, imported, dropped))
        other.boot()
        return other

    def boot(self) -> None:
        """Memory is lost, the journal stays."""
        self.actors: dict[TaskId, Actor] = {}
        self.drafts = Drafts()
        self.buffer = [e.name for e in self.state.buffers.get("both", ())]
        self.diverged = {(t.id, place) for t in self.state.tasks.values() for place in t.diverged or ()}

    def accept(self, incoming: Incoming) -> None:
        taken: set[str] = set()
        if isinstance(incoming, EffectsCommitted | StepReturned | StepRaised):
            incoming = incoming._replace(drafts=self._matched(incoming.drafts, taken))
        if isinstance(incoming, StepReturned):
            incoming = incoming._replace(emitted=self._matched(incoming.emitted, taken))
        if isinstance(incoming, EventReceived) and incoming.stop is None:
            incoming = incoming._replace(emitted=self._matched((incoming.emitted,), taken)[0])
        self._append(decide(self.state, incoming))
        while facts := due_joins(self.state):
            self._append(facts)

    def joins_of(self, scope: int) -> Collection[str]:
        """Return what still collects the list of a fan-out."""
        return self.state.fan_outs[scope].joins if scope else ()

    def _append(self, facts: Sequence[Fact]) -> None:
        for n, fact in enumerate(facts, 1):
            record = Record(self.state.seq + 1, self.now, n == len(facts), fact)
            spliced_or_not = record
            if isinstance(fact, ContextSet):
                spliced_or_not = spliced(record, fact, self.state.context.get(fact.key))
            evolve(self.state, record)
            self.records.append(spliced_or_not)

    def _matched(self, facts: tuple[Any, ...], taken: set[str]) -> tuple[Any, ...]:
        """Let each event answer the oldest open wait that wants it; a step's wait keeps it from everybody else."""
        result = []
        for fact in facts:
            if isinstance(fact, EventEmitted):
                for wait in self._open_waits():
                    if fact.event.name in wait.wanted and wait.wait_id not in taken:
                        taken.add(wait.wait_id)
                        own = wait.task is not None
                        targets = () if own else fact.targets
                        joins = () if own else joins_in(fact.event.name, self.joins_of(wait.scope))
                        fact = fact._replace(answers=wait.wait_id, targets=targets, joins=joins)
                        break
            result.append(fact)
        return tuple(result)

    def _open_waits(self) -> list[Wait]:
        return [w for w in self.state.waits.values() if w.is_open]

    # -- Moves ---------------------------------------------------------------------------------------------------------

    def play(self, move: Move) -> None:
        self.now += move.microseconds
        getattr(self, move.name)(move.a, move.b)

    def _actor(self, n: int) -> Actor | None:
        awake = [actor for actor in self.actors.values() if not actor.is_suspended()]
        return awake[n % len(awake)] if awake else None

    def begin(self, a: int, b: int) -> None:
        idle = [task for task in self.state.tasks.values() if task.id not in self.actors]
        if not idle or self.state.ended or self.state.attention:
            return
        chosen = idle[a % len(idle)]
        if chosen.id in self.state.delayed:
            self.now = max(self.now, self.state.delayed[chosen.id])
        self.actors[chosen.id] = Actor(self, chosen)

    def effect(self, a: int, b: int) -> None:
        self._act("effect", a, b)

    def suspend(self, a: int, b: int) -> None:
        self._act("suspend", a, b)

    def _act(self, kind: str, a: int, b: int) -> None:
        actor = self._actor(a)
        if actor is None:
            return
        if actor.todo and a % 4 != 3:
            kind, a, b = actor.todo.popleft()  # most of the time a step does again what it did the last time
        actor.done.append((kind, a, b))
        if kind == "suspend":
            _suspend(actor, a, b)
        else:
            _effect(actor, a, b)

    def end_step(self, a: int, b: int) -> None:
        actor = self._actor(a)
        if actor is None:
            return
        if b % 3 == 0:
            actor.raises(a % 3)
        elif b == 5 and a < 4:
            actor.raises(None)
        elif b == 5:
            actor.raises(None, handler=("first", "work")[a % 2])
        elif b == 6 and a < 4:
            actor.raises(None, "look at it")
        else:
            events = tuple(event(name) for name in EVENTS[: a % 3])
            actor.returns(events, ask=b in (1, 8), stop=b == 7 and a < 4, as_list=b in (4, 8))

    def outside(self, a: int, b: int) -> None:
        if b % 4 == 3:
            key = KEYS[a % 2]
            fact: Fact = ContextDeleted(key, None, 0, 0) if a % 3 == 0 else ContextSet(key, value(a), None, 0, 0)
            self.accept(EffectsCommitted((fact,)))
            return
        self.messages += 1
        message = (self.messages, f"mail-{self.messages}") if b % 2 else None
        if b == 6 and a == 0:
            stop = EventEmitted(event("Stop"), None, 0, None, ())
            self.accept(EventReceived(stop, message, event("Stop"), self.drafts.take_all()))
            return
        name = ("Answer", "Answer", *EVENTS)[a % 5]
        emitted = EventEmitted(event(name), None, 0, None, ROUTES[name], joins=joins_in(name, ()))
        self.accept(EventReceived(emitted, message))

    def child(self, a: int, b: int) -> None:
        children = [c for c in self.state.children.values() if not c.ended_at]
        if not children:
            return
        child = children[a % len(children)]
        if b % 3 == 0:
            self.accept(ChildAsks(child.seq, child.asked + a % 2, event("Question"), f"{child.run_id}/w3"))
        else:
            self.accept(ChildOver(child.seq, ("completed", "failed")[b % 2]))

    def time(self, a: int, b: int) -> None:
        timers = [t for t in self.state.timers.values() if not t.fired_at]
        waits = [w for w in self._open_waits() if w.deadline is not None]
        if b % 2 and timers:
            timer = timers[a % len(timers)]
            self.now = max(self.now, timer.due_at)
            self.accept(TimerDue(timer.seq))
        elif waits:
            wait = waits[a % len(waits)]
            self.now = max(self.now, wait.deadline or 0)
            self.accept(WaitDue(wait.wait_id))
        elif a == 0 and b == 0:
            self.accept(TimeIsUp("too slow", self.drafts.take_all()))

    def crash(self, a: int, b: int) -> None:
        self.boot()
        gone = f"worker-{b}" if b % 2 else None
        self._append([RunClaimed(self.state.epoch + 1, f"worker-{a}", gone)])
        if a % 2:
            self.accept(CameToRest())

    def someone(self, a: int, b: int) -> None:
        if b == 0 and a < 4:
            self.accept(CancelRequested("enough", self.drafts.take_all(), (99, None) if a % 2 else None))
        elif b == 1:
            self.accept(AttentionNeeded("the step is gone"))
        elif b == 2:
            key = KEYS[a % 2]
            change: Fact = ContextDeleted(key, None, 0, 0) if a % 3 == 0 else ContextSet(key, value(a), None, 0, 0)
            self.accept(EditRequested((StateEdited("kim", value(a) if a % 4 else None), change)))
        elif b > 3:
            self.resume(a, b)

    def resume(self, a: int, b: int) -> None:
        if self.state.ended or self.state.attention:
            self.boot()
        resume = ResumeRequested("a person")
        assert len(decide(self.state, resume)) <= 1
        self.accept(resume)


def joins_in(name: str, bound: Collection[str]) -> tuple[str, ...]:
    return tuple(join for join in JOINS.get(name, ()) if "." in join or join in bound)


def _effect(actor: Actor, a: int, b: int) -> None:
    n = a // 4 % 2
    effects: list[Callable[[], None]] = [
        lambda: actor.read(KEYS[n]),
        lambda: actor.write(KEYS[n], a % 3),
        lambda: actor.write(KEYS[n], None),
        lambda: actor.send(event(EVENTS[a % 3])),
        lambda: actor.collect(event(("Work", "Both")[n])),
        lambda: actor.publish(event(f"Item{a % 3}")),
        lambda: actor.call(("search", "ask")[n], str(a // 8)),
        lambda: actor.checkpoint("half"),
        lambda: actor.commit(),
    ]
    effects[b % len(effects)]()


def _suspend(actor: Actor, a: int, b: int) -> None:
    if b % 4 == 0:
        actor.sleep(a % 5)
        return
    if b % 4 == 2:
        actor.start_child(("Leg", "Stop")[a % 2], a // 2 % 2, (None, None, "mine")[a % 3])
        return
    prompt = event("Question", str(a % 2)) if b % 2 else None
    wanted, waiter_id, deadline = ("Answer", "Work")[b % 2], (None, None, "mine")[b % 3], (None, 3)[a // 2 % 2]
    actor.wait_for(wanted, prompt, waiter_id, deadline)


# Each move with its weight: runs that end early teach little.
MOVES = [
    *["begin"] * 8,
    *["effect"] * 12,
    *["suspend"] * 5,
    *["end_step"] * 4,
    *["outside"] * 5,
    *["time"] * 3,
    *["child"] * 3,
    *["crash"] * 2,
    "someone",
]


def simulated(moves: Sequence[Move]) -> list[Record]:
    """Return the journal of a run to which all this happened."""
    run = Simulation()
    for move in moves:
        run.play(move)
    return run.records


def random_moves(seed: int, length: int = 80) -> list[Move]:
    """Return a long list of moves from a plain generator of random numbers."""
    dice = Random(seed)
    return [
        Move(dice.choice(MOVES), dice.randrange(12), dice.randrange(9), dice.randrange(2 * SECOND))
        for _ in range(length)
    ]


def random_history(seed: int, length: int = 80) -> list[Record]:
    """Return the long journal that such moves make."""
    return simulated(random_moves(seed, length))


moves = st.lists(
    st.builds(Move, st.sampled_from(MOVES), st.integers(0, 11), st.integers(0, 8), st.integers(0, 2 * SECOND)),
    max_size=50,
)


def histories() -> st.SearchStrategy[list[Record]]:
    """Journals of runs: short ones that shrink well, and long ones where more comes together."""
    return moves.map(simulated) | st.integers(0, 100_000).map(random_history)
