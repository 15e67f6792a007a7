"""Branch points: the state before a group of records and the group, kept as data, lead to the state after it."""

from __future__ import annotations

import json

from hypothesis import given
from strategies import histories
from test_branching import each_boundary

from durable_flow.branching import BranchPoint
from durable_flow.fold import fold
from durable_flow.records import ContextSet, ContextSpliced, EncodedValue, Record
from durable_flow.snapshot import copied, dump, dump_value, load, load_value


@given(histories())
def test_a_point_comes_back_as_it_was_and_gives_the_state_after_its_group(records: list[Record]):
    for before, group in each_boundary(records):
        point = BranchPoint(before, tuple(group))
        unchanged = dump(before)
        after = fold(group, copied(before))
        assert point.state == after
        assert point.state == after  # each time anew: nothing of it has reached the state before
        assert dump(point.before) == unchanged
        content = json.loads(json.dumps([dump(point.before), dump_value(point.group)]))
        assert BranchPoint(load(content[0]), load_value(content[1])) == point
        whole = point.without_splices()
        assert whole.state == after
        assert not any(isinstance(record.fact, ContextSpliced) for record in whole.group)


def test_each_splice_becomes_the_value_that_it_made():
    facts = [
        ContextSet("key", EncodedValue("json", b"[1]"), None, 0, 0),
        ContextSpliced("key", 2, EncodedValue("json", b",2]"), None, 0, 0),
        ContextSpliced("key", 4, EncodedValue("json", b",3]"), None, 0, 1),
    ]
    records = [Record(n, n, True, fact) for n, fact in enumerate(facts, 1)]
    before = fold(records[:1])
    group = BranchPoint(before, tuple(records[1:])).without_splices().group
    assert [record.fact for record in group] == [
        ContextSet("key", EncodedValue("json", b"[1,2]"), None, 0, 0),
        ContextSet("key", EncodedValue("json", b"[1,2,3]"), None, 0, 1),
    ]
    assert [(record.seq, record.at, record.boundary) for record in group] == [(2, 2, True), (3, 3, True)]
