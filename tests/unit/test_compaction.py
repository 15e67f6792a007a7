"""Compaction: one record stands for all before it, and whatever follows is folded as if nothing had happened."""

from __future__ import annotations

import random

import pytest
from given import event, given, started, task, value
from hypothesis import given as for_all
from hypothesis import strategies as st
from strategies import histories, random_history

from durable_flow.fold import fold
from durable_flow.records import CallRecorded, ContextSet, JournalCompacted, Record
from durable_flow.snapshot import encode_state

A = task("a")


def compacted(records: list[Record], seq: int) -> Record:
    """Return the record that stands for the first `seq` ones."""
    return Record(seq, records[seq - 1].at, True, JournalCompacted(encode_state(fold(records[:seq]))))


def bounds(records: list[Record]) -> list[int]:
    return [record.seq for record in records if record.boundary]


@for_all(histories(), st.data())
def test_the_state_at_every_later_boundary_is_the_same(records, data):
    cut = data.draw(st.sampled_from(bounds(records)))
    kept = [compacted(records, cut), *records[cut:]]
    at = data.draw(st.sampled_from([seq for seq in bounds(records) if seq >= cut]))
    # As bytes: the order of what is pending counts, and equal dicts may differ in it.
    assert encode_state(fold(kept[: at - cut + 1])) == encode_state(fold(records[:at]))


@pytest.mark.parametrize("seed", range(30))
def test_it_may_strike_again_and_again(seed):
    records, dice = random_history(seed, 120), random.Random(seed)
    kept = list(records)
    for cut in sorted(dice.sample(bounds(records), min(6, len(bounds(records))))):
        first = kept[0].seq
        kept = [compacted_from(kept, cut - first), *kept[cut - first + 1 :]]
        assert kept[0].seq == cut
        assert encode_state(fold(kept)) == encode_state(fold(records))


def compacted_from(kept: list[Record], place: int) -> Record:
    last = kept[place]
    return Record(last.seq, last.at, True, JournalCompacted(encode_state(fold(kept[: place + 1]))))


@for_all(histories(), st.data())
def test_what_is_left_of_the_records_before_changes_nothing(records, data):
    """They are deleted by and by: a reader may see any first part of them, and then the record that stands for all."""
    cut = data.draw(st.sampled_from(bounds(records)))
    left = data.draw(st.integers(0, cut - 1))
    assert encode_state(fold([*records[:left], compacted(records, cut)])) == encode_state(fold(records[:cut]))


def test_effects_of_a_step_that_is_under_way_stand_with_the_values_before_them():
    write = ContextSet("n", value(2), A, 1, 0)
    records = given(
        (*started("a"), ContextSet("n", value(1), None, 0, 0)), write, CallRecorded(A, 1, "ask", 0, "digest", value(7))
    ).records
    state = fold([compacted(records, len(records))])
    effects = list(state.tasks[A].effects[1].values())
    assert [(effect.before, effect.outcome) for effect in effects] == [(value(1), None), (None, value(7))]
    assert state.tasks[A].event == event("Start")
