"""Branches: at every boundary of any history a run goes on as another one, with its output replaced or all dropped."""

from __future__ import annotations

from collections import Counter

import pytest
from given import event, value
from hypothesis import given
from strategies import histories, random_history

from durable_flow.branching import (
    Emission,
    Output,
    all_dropped,
    branch,
    edited,
    emitted_events,
    output_of,
    without_output,
)
from durable_flow.fold import fold
from durable_flow.joins import due_joins
from durable_flow.journal.forking import emit_like
from durable_flow.records import (
    ContextSet,
    EventEmitted,
    Fact,
    Record,
    RunResumed,
    RunStarted,
    StateEdited,
    StateImported,
    StepCompleted,
    WaitClosed,
)
from durable_flow.snapshot import copied, dump
from durable_flow.state import CANCELLED, COMPLETED, RunState


def groups_of(records: list[Record]) -> list[list[Record]]:
    groups: list[list[Record]] = [[]]
    for record in records:
        groups[-1].append(record)
        if record.boundary:
            groups.append([])
    return [group for group in groups if group]


def pending(state: RunState) -> object:
    """What is pending, without what the time of its records gave it."""
    content = dump(state)
    kept = ("context", "tasks", "waits", "timers", "buffers", "fan_outs", "slots", "ripe", "idle", "waiting_tasks")
    found = {key: content.get(key) for key in kept}
    return _without_times(found)


def _without_times(data: object) -> object:
    if isinstance(data, dict):
        return {key: _without_times(part) for key, part in data.items() if key not in ("created_at", "opened_at")}
    return list(map(_without_times, data)) if isinstance(data, list) else data


def each_boundary(records: list[Record]):
    before: list[Record] = []
    for group in groups_of(records):
        yield fold(before), group
        before = [*before, *group]


@given(histories())
def test_a_branch_has_what_was_pending_at_every_boundary(records: list[Record]):
    for before, group in each_boundary(records):
        state = fold(group, before)
        if state.ended in (COMPLETED, CANCELLED):
            continue
        made = branch(state, None, "uid of the fork", "shape")
        assert [type(fact) for fact in made.facts[:2]] == [RunStarted, StateImported]
        assert (made.state.uid, made.state.ended, made.state.attention) == ("uid of the fork", None, None)
        resumed = isinstance(made.facts[-1], RunResumed)
        assert resumed == bool(state.ended or state.attention)
        assert made.state.context == state.context
        if not resumed and not state.children:
            assert pending(made.state) == pending(state)


@given(histories())
def test_the_output_of_every_completion_can_be_replaced(records: list[Record]):
    replaced = event("Work", "of the fork")
    for before, group in each_boundary(records):
        output = output_of(group)
        if output is None:
            continue
        tasks = {task.seq for task in fold(group, fold([])).tasks} if output.task is None else set()
        base = without_output(group, output) if output.task is None else before

        def emit(state: RunState, found: Output | None, returned: bool) -> Emission:
            assert found is not None
            task, attempt = (found.task, found.attempt) if returned else (None, 0)
            return Emission(EventEmitted(replaced, task, attempt, None, ("work",)))

        made = branch(base, output, "uid of the fork", "shape", emit=emit)
        new = [task for task in made.state.tasks.values() if task.event == replaced]
        assert len(new) == 1
        assert output.task not in made.state.tasks
        assert not tasks & {task.id.seq for task in made.state.tasks.values() if task is not new[0]}
        emitted = [fact for fact in made.facts if isinstance(fact, EventEmitted) and fact.k is None]
        assert [fact.event for fact in emitted] == [replaced]
        # What the step wrote stands.
        writes = [record.fact for record in group if isinstance(record.fact, ContextSet)]
        assert [fact for fact in made.facts if isinstance(fact, ContextSet)] == (writes if output.task else [])
        due_joins(made.state)


def to_do(state: RunState) -> object:
    """What a run has before it, without the numbers of its records."""
    tasks = Counter((task.id.step, task.event, task.joined, task.attempt) for task in state.tasks.values())
    asked = Counter((wait.prompt, wait.wanted) for wait in state.waits.values() if wait.is_open)
    opened = Counter((frozenset(fan_out.joins.items()), fan_out.open) for fan_out in state.fan_outs.values())
    return tasks, asked, opened, state.context, state.ended, state.result


@given(histories())
def test_an_output_that_is_replaced_by_itself_leaves_the_same_to_do(records: list[Record]):
    for before, group in each_boundary(records):
        output = output_of(group)
        if output is None or before.children or len(output.emitted) + (output.result is not None) != 1:
            continue
        if any(emitted.k is not None for emitted in output.emitted):
            continue  # sent, not returned: in the place of the output it is returned
        same = output.result if output.result is not None else output.emitted[0].event
        base = copied(before) if before.seq else without_output(group, output)
        made = branch(base, output, "uid of the fork", "shape", emit=emit_like(same, "r"))
        assert to_do(made.state) == to_do(fold(group, before))


@given(histories())
def test_all_that_is_pending_can_be_dropped_at_every_boundary(records: list[Record]):
    alone = EventEmitted(event("Work"), None, 0, None, ("work",))
    for before, group in each_boundary(records):
        state = fold(group, before)
        if state.ended in (COMPLETED, CANCELLED):
            continue
        made = branch(state, None, "uid", "shape", emit=lambda *_: Emission(alone), drop_pending=True)
        assert [task.event for task in made.state.tasks.values()] == [alone.event]
        assert not made.state.waits
        assert not made.state.timers
        assert not made.state.fan_outs
        assert not made.state.slots
        assert not made.state.buffers
        assert not due_joins(made.state)
        assert made.state.context == state.context


def test_an_edit_is_journaled_unless_the_run_has_ended_for_good():
    facts: list[Fact] = [StateEdited("kim", None), ContextSet("n", value(2), None, 0, 0)]
    found = set()
    for seed in range(60):
        state = fold(random_history(seed))
        found.add(state.ended)
        assert edited(state, facts) == ([] if state.ended in (COMPLETED, CANCELLED) else facts)
    assert {None, COMPLETED} < found


def test_waits_are_closed_before_all_is_dropped():
    states = [fold(records) for records in map(random_history, range(40))]
    state = next(state for state in states if not state.ended and any(wait.is_open for wait in state.waits.values()))
    *closed, dropped = all_dropped(state)
    assert closed == [WaitClosed(wait.wait_id) for wait in state.waits.values() if wait.is_open]
    assert dropped.tasks == len(state.tasks)


@pytest.mark.parametrize("seed", range(20))
def test_events_are_told_of_who_emitted_them(seed: int):
    for _, group in each_boundary(random_history(seed)):
        output = output_of(group)
        events = emitted_events(group, output)
        if any(isinstance(record.fact, StepCompleted) for record in group):
            assert output is not None
            assert events[: len(output.emitted)] == [fact.event for fact in output.emitted]
