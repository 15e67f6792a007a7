"""How a run branches off from another one: what a group of records brought about, and what comes instead. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .decide import decide, question_facts
from .fold import evolve, fold
from .incoming import Collectors, EditRequested, EventReceived, ImportRequested, Question, StepReturned
from .records import (
    BufferReleased,
    CheckpointNamed,
    ContextDeleted,
    ContextSet,
    ContextSpliced,
    EffectReused,
    EncodedEvent,
    EventCollected,
    EventEmitted,
    Fact,
    FanOutOpened,
    PendingDropped,
    Record,
    RunCompleted,
    RunResumed,
    RunStarted,
    StateEdited,
    StateImported,
    StepCompleted,
    StepDiverged,
    TaskId,
    WaitClosed,
    WaitOpened,
)
from .snapshot import copied, encode_state
from .state import RunState

# What of a completion is not the output of its step: the writes and collected events that it carried.
_CARRIED = (StateEdited, ContextSet, ContextSpliced, ContextDeleted, EventCollected, BufferReleased, CheckpointNamed)
# Carried for another step, whose effects stand; those of the step itself end with its task.
_OF_OTHERS = (EventEmitted, EffectReused, StepDiverged)


class BranchPoint(NamedTuple):
    """Where a run can branch off: the state before a group of records, and that group, read whole."""

    before: RunState
    group: tuple[Record, ...]

    @property
    def state(self) -> RunState:
        """The state after the group, made anew each time."""
        return fold(self.group, copied(self.before))

    def without_splices(self) -> BranchPoint:
        """Return the same point with whole values in the place of splices, whose parts cannot be read alone."""
        state, group = copied(self.before), []
        for record in self.group:
            evolve(state, record)
            fact = record.fact
            if isinstance(fact, ContextSpliced):
                whole = ContextSet(fact.key, state.context[fact.key], fact.task, fact.attempt, fact.k)
                record = record._replace(fact=whole)
            group.append(record)
        return BranchPoint(self.before, tuple(group))


class Output(NamedTuple):
    """The output of a step that completed (`task`), or of the run's start (None).

    `emitted` are the facts of what it emitted, `questions` of the waits that its questions opened, `result` the event
    by which it ended the run, `fan_out` who was to collect the list that it returned. `carried` is what else the same
    group of records holds.
    """

    task: TaskId | None
    attempt: int
    emitted: tuple[EventEmitted, ...]
    carried: tuple[Fact, ...]
    questions: tuple[WaitOpened, ...] = ()
    result: EncodedEvent | None = None
    fan_out: Collectors | None = None


def output_of(group: Sequence[Record]) -> Output | None:
    """Return what a group, read whole, brought about; None if in it no step completed and no run began.

    The group that a fork began with may hold the completion of a step that its parent made.
    """
    facts = [record.fact for record in group]
    completed = next((fact for fact in facts if isinstance(fact, StepCompleted)), None)
    result = next((f.result for f in facts if isinstance(f, RunCompleted)), None)
    questions = tuple(f for f in facts if isinstance(f, WaitOpened) and f.task is None)
    # A fork for which all was dropped begins with its event, whatever had completed before.
    if completed is not None and not any(isinstance(fact, PendingDropped) for fact in facts):
        task = completed.task
        emitted = tuple(f for f in facts if isinstance(f, EventEmitted) and f.task == task)
        carried = tuple(
            f for f in facts if isinstance(f, _CARRIED) or (isinstance(f, _OF_OTHERS) and f.task not in (None, task))
        )
        opened = next((Collectors(f.joins, f.takes) for f in facts if isinstance(f, FanOutOpened)), None)
        return Output(task, completed.attempt, emitted, carried, questions, result, opened)
    outside = tuple(f for f in facts if isinstance(f, EventEmitted) and f.task is None)
    if isinstance(facts[0], RunStarted) and outside:
        return Output(None, 0, outside, (), questions, result)
    return None


def emitted_events(group: Iterable[Record], output: Output | None) -> list[EncodedEvent]:
    """Return the events that came into being with a group: those of the step that completed, else all of them."""
    events = []
    for _, _, _, fact in group:
        if isinstance(fact, EventEmitted) and (output is None or output.task is None or fact.task == output.task):
            events.append(fact.event)
        elif isinstance(fact, RunCompleted):
            events.append(fact.result)
    return events


def without_output(group: Sequence[Record], output: Output) -> RunState:
    """Return the state of a run that was started by this group of records, as if its output had not come yet.

    The group may be that of a fork, in which a step has completed with another output.
    """
    facts = [record.fact for record in group]
    if output.task is None:
        return fold(group[: facts.index(output.emitted[0])])
    return fold(group[: next(n for n, fact in enumerate(facts, 1) if isinstance(fact, StateImported))])


def carried_by(output: Output, state: RunState) -> tuple[Fact, ...]:
    """Return of what a completion carried that which still makes sense in this state."""
    return tuple(f for f in output.carried if not isinstance(f, EffectReused) or _is_recorded(f, state))


def _is_recorded(reused: EffectReused, state: RunState) -> bool:
    # The start of a run that has not ended is forgotten where a state is imported.
    task = state.tasks.get(reused.task)
    effects = task.effects if task is not None else None
    return any(e.seq == reused.seq for by_place in (effects or {}).values() for e in by_place.values())


def all_dropped(state: RunState) -> list[Fact]:
    """Return the facts that give up all that is pending."""
    closed: list[Fact] = [WaitClosed(wait.wait_id) for wait in state.waits.values() if wait.is_open]
    return [*closed, PendingDropped(len(state.tasks))]


class Emission(NamedTuple):
    """An event that is to be emitted in a fork: to whom, or that it ends the run.

    `fan_out` is given if the step that returns it opens a fan-out, of which it is then the only element.
    """

    emitted: EventEmitted | Question
    stop: EncodedEvent | None = None
    fan_out: Collectors | None = None


def in_place_of(output: Output, emitted: EventEmitted, fact: EventEmitted) -> Emission:
    """Return what emits an event in the place of one of the output: as a question if that was one."""
    asked = next((wait for wait in output.questions if wait.prompt == emitted.event), None)
    if asked is None:
        return Emission(fact, None, output.fan_out)
    return Emission(Question(fact, asked.wanted, asked.schema), None, output.fan_out)


Emit = Callable[[RunState, Output | None, bool], Emission]
"""Says where the event of a fork goes, instead of this output: as what the step returned if the flag is set, else as if
it came from outside."""
Edit = Callable[[RunState], Iterable[Fact]]
"""Says what is changed in the context of a state."""


class Branch(NamedTuple):
    """A run that goes on from a state: what starts it, the facts of its first group, and the state after them.

    The times in the state are not those of the records that are made of the facts.
    """

    start: ImportRequested
    facts: tuple[Fact, ...]
    state: RunState


def branch(
    state: RunState,
    output: Output | None,
    uid: str,
    shape: str,
    *,
    edit: Edit | None = None,
    emit: Emit | None = None,
    drop_pending: bool = False,
) -> Branch:
    """Return the run of this uid that goes on from a state, or, with an output, from the completion after that state.

    The output is replaced by the event of `emit`; without an output that is pending beside the rest. What was pending
    is given up if `drop_pending`, all but that event. A run that failed or needs attention goes on.
    """
    start = ImportRequested(
        state.workflow, uid, shape, state.arguments, state.uid, state.seq, encode_state(state)
    )  # fmt: skip
    group = _Group(decide(RunState(), start))
    begins = len(group.facts)
    returned = output is not None and output.task is not None and not drop_pending
    if state.ended or state.attention:
        group.add([RunResumed("fork")])
    if output is not None and output.task is not None:
        emission = emit(group.state, output, True) if emit is not None and returned else None
        group.add(_completed(group.state, output, output.task, emission))
    if drop_pending:
        group.add(all_dropped(group.state))
    if edit is not None:
        group.add(edit(group.state))
    if emit is not None and not returned:
        emission = emit(group.state, output, False)
        if isinstance(emission.emitted, Question):
            group.add(question_facts(group.state, emission.emitted))
        else:
            group.add(decide(group.state, EventReceived(emission.emitted, None, emission.stop)))
    return Branch(start._replace(context=tuple(group.facts[begins:])), tuple(group.facts), group.state)


def _completed(state: RunState, output: Output, task: TaskId, emission: Emission | None) -> list[Fact]:
    """Return the completion of a step again, with another output, or with none."""
    emitted = () if emission is None or emission.stop is not None else (emission.emitted,)
    stop = None if emission is None else emission.stop
    fan_out = None if emission is None else emission.fan_out
    return decide(state, StepReturned(task, output.attempt, carried_by(output, state), emitted, stop, fan_out))


def edited(state: RunState, facts: Iterable[Fact]) -> list[Fact]:
    """Return what is journaled when somebody edits the context of a run: these facts, if it has not ended for good."""
    return decide(state, EditRequested(tuple(facts)))


class _Group:
    """A group of facts while it is put together: each part is decided about the state after those before."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.state = RunState()
        self.facts: list[Fact] = []
        self.add(facts)

    def add(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            self.facts.append(fact)
            # Times play no part in what is decided; the real ones are given to the records when they are written.
            evolve(self.state, Record(len(self.facts), 0, False, fact))
