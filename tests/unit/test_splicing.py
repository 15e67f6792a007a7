"""Writes that are journaled as what differs from the value before."""

from __future__ import annotations

import pytest
from given import given as run
from given import started, task
from hypothesis import given
from hypothesis import strategies as st
from strategies import Simulation, moves

from durable_flow.engine.splicing import common_prefix, spliced
from durable_flow.fold import evolve, fold
from durable_flow.records import ContextDeleted, ContextSet, ContextSpliced, EncodedValue, Place, Record, TaskId
from durable_flow.snapshot import encode_state
from durable_flow.state import RunState

few = st.binary(max_size=40) | st.text("ab", max_size=60).map(str.encode)


def same_at_the_beginning(old: bytes, new: bytes) -> int:
    count = 0
    while count < min(len(old), len(new)) and old[count] == new[count]:
        count += 1
    return count


@given(few, few, few)
def test_the_common_prefix_is_as_long_as_it_can_be(head, old, new):
    for a, b in ((head + old, head + new), (head, head + new), (head + old, head), (old, new)):
        assert common_prefix(a, b) == same_at_the_beginning(a, b)


def written(data: bytes, task: TaskId | None = None) -> ContextSet:
    return ContextSet("notes", value_of(data), task, 0 if task is None else 1, 0)


def value_of(data: bytes, codec: str = "json") -> EncodedValue:
    return EncodedValue(codec, data)


@pytest.mark.parametrize(
    ("before", "after", "keep", "tail"),
    [
        (b'["a","b"]', b'["a","b","c"]', 8, b',"c"]'),
        (b'{"x":["a","b"]}', b'{"x":["a","b","c"]}', 13, b',"c"]}'),
        (b"[1,2,3,4,5,6]", b"[1,2,3,4,5]", 10, b"]"),
        (b"the same", b"the same", 8, b""),
    ],
)
def test_what_differs_is_written(before, after, keep, tail):
    record = Record(7, 0, True, written(after))
    assert spliced(record, written(after), value_of(before)) == Record(
        7, 0, True, ContextSpliced("notes", keep, value_of(tail), None, 0, 0)
    )


@pytest.mark.parametrize("before", [None, value_of(b"[9,2,3,4]"), value_of(b"[1,2,3,4]", "pickle")])
def test_a_value_that_is_new_in_most_is_written_whole(before):
    record = Record(7, 0, True, written(b"[1,2,3,4,5]"))
    assert spliced(record, written(b"[1,2,3,4,5]"), before) is record


def test_a_step_that_runs_again_finds_the_whole_value_and_the_one_before():
    a = task("a")
    state = run(*started("a"), written(b"[1,2,3]", a), ContextSpliced("notes", 6, value_of(b",4]"), a, 1, 1)).state
    effect = state.tasks[a].effects[1][Place("write", "notes", 1)]
    assert state.context["notes"] == effect.content == value_of(b"[1,2,3,4]")
    assert effect.before == value_of(b"[1,2,3]")


@given(st.lists(few | st.none(), max_size=12))
def test_a_history_with_splices_folds_to_what_the_writes_fold_to(values):
    """`None` deletes the key; every write is spliced where it can be."""
    whole, records = RunState(), []
    for seq, data in enumerate(values, 1):
        fact = ContextDeleted("notes", None, 0, 0) if data is None else written(data)
        record = Record(seq, seq, True, fact)
        records.append(spliced(record, fact, whole.context.get("notes")) if data is not None else record)
        evolve(whole, record)
    assert fold(records) == whole
    assert encode_state(fold(records)) == encode_state(whole)


@given(moves)
def test_random_histories_with_splices_fold_to_the_state_of_their_run(moves):
    simulation = Simulation()
    for move in moves:
        simulation.play(move)
    assert encode_state(fold(simulation.records)) == encode_state(simulation.state)
