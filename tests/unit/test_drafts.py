"""Drafts and what a commit carries, compared with the rule's text read as plainly as possible.

Design section 3, rule 2: a commit carries, in order of visibility, the step's own drafts and every draft of another
step on a key that the committing step has read or written, with that step's earlier drafts and, in turn, what that
step had read; no other draft. Reading the whole context reads every key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from given import task, value
from hypothesis import given
from hypothesis import strategies as st

from durable_flow.engine.drafts import Drafts
from durable_flow.records import ContextSet, StepDiverged

A, B, C = task("a"), task("b"), task("c")
STEPS = (A, B, C, task("d"))
KEYS = ("x", "y", "z")


@dataclass
class Step:
    """What a running step has read or written so far."""

    keys: set[str] = field(default_factory=set)
    reads_all: bool = False
    writes: int = 0


class Run:
    """Steps that read and write one context; every draft's fact is told apart by its value."""

    def __init__(self):
        self.steps = {step: Step() for step in STEPS}
        self.drafts = Drafts()
        self.visible = []  # (step, key, fact) of every draft not yet carried, in order of visibility
        self.made = 0

    def read(self, step, key):
        self.steps[step].keys.add(key)

    def read_all(self, step):
        self.steps[step].reads_all = True

    def write(self, step, key):
        self.steps[step].keys.add(key)
        self.made += 1
        return self._draft(step, key, ContextSet(key, value(self.made), step, 1, self.made))

    def note(self, step):
        """A draft that changes nothing for others, such as a divergence or an event sent."""
        self.made += 1
        return self._draft(step, None, StepDiverged(step, 1, "write", "x", self.made))

    def _draft(self, step, key, fact):
        self.drafts.add(step, key, fact)
        self.visible.append((step, key, fact))
        return fact

    def commit(self, step):
        return self.drafts.take(step, self.steps)


def has_read(step, key):
    return key is not None and (step.reads_all or key in step.keys)


def by_the_rule(committing, steps, visible):
    """The rule as a set that grows until it holds everything that something in it rests on."""
    carried = {
        at for at, (author, key, _) in enumerate(visible) if author == committing or has_read(steps[committing], key)
    }
    while True:
        more = {
            earlier
            for at in carried
            for earlier in range(at)
            if visible[earlier][0] == visible[at][0] or has_read(steps[visible[at][0]], visible[earlier][1])
        }
        if more <= carried:
            return [fact for at, (_, _, fact) in enumerate(visible) if at in carried]
        carried |= more


steps_of_runs = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "write", "note", "commit", "read_all"]),
        st.sampled_from(STEPS),
        st.sampled_from(KEYS),
    ),
    max_size=40,
)


@given(steps_of_runs)
def test_a_commit_carries_what_the_rule_says_and_no_other_draft(actions):
    run = Run()
    for action, step, key in actions:
        match action:
            case "read":
                run.read(step, key)
            case "write":
                run.write(step, key)
            case "note":
                run.note(step)
            case "read_all":
                if key == "x":  # seldom, or everything would be carried
                    run.read_all(step)
            case "commit":
                expected = by_the_rule(step, run.steps, run.visible)
                assert list(run.commit(step)) == expected
                run.visible = [draft for draft in run.visible if draft[2] not in expected]
                assert len(run.drafts) == len(run.visible)
    assert list(run.drafts.take_all()) == [fact for _, _, fact in run.visible]


@given(steps_of_runs)
def test_nothing_durable_rests_on_a_write_that_is_not(actions):
    run = Run()
    rests_on = {}  # fact -> the drafts that its step had seen when it was made
    last = {}  # key -> the last write, which is what a reader sees
    seen = {step: set() for step in STEPS}
    durable = set()
    for action, step, key in actions:
        if action == "read":
            run.read(step, key)
            seen[step] |= {last[key]} if key in last else set()
        elif action == "write":
            fact = last[key] = run.write(step, key)
            rests_on[fact] = set(seen[step])
            seen[step].add(fact)
        elif action == "commit":
            durable |= set(run.commit(step))
            assert seen[step] <= durable
            assert all(rests_on[fact] <= durable for fact in durable)


@given(steps_of_runs)
def test_the_writes_of_a_key_become_durable_in_the_order_in_which_they_were_visible(actions):
    run = Run()
    durable = []
    for action, step, key in actions:
        if action == "read":
            run.read(step, key)
        elif action == "write":
            run.write(step, key)
        elif action == "commit":
            durable += run.commit(step)
    for key in KEYS:
        order = [fact.k for fact in durable if fact.key == key]
        assert order == sorted(order)


# -- Examples ----------------------------------------------------------------------------------------------------------


def test_a_commit_carries_the_own_drafts_in_order():
    run = Run()
    facts = (run.write(A, "x"), run.note(A), run.write(A, "x"))
    assert run.commit(A) == facts
    assert run.commit(A) == ()


def test_a_write_that_nobody_has_read_goes_with_its_step():
    run = Run()
    theirs = run.write(A, "x")
    mine = run.write(B, "y")
    assert run.commit(B) == (mine,)
    assert run.drafts.take_all() == (theirs,)


def test_a_value_that_was_read_is_carried():
    run = Run()
    theirs = run.write(A, "x")
    run.read(B, "x")
    assert run.commit(B) == (theirs,)
    assert run.commit(A) == ()


def test_a_value_that_was_overwritten_is_carried_before_the_new_one():
    run = Run()
    theirs, mine = run.write(A, "x"), run.write(B, "x")
    assert run.commit(B) == (theirs, mine)


def test_the_earlier_drafts_of_the_other_step_are_carried_and_the_later_are_not():
    run = Run()
    earlier, note, read, later = run.write(A, "y"), run.note(A), run.write(A, "x"), run.write(A, "z")
    run.read(B, "x")
    assert run.commit(B) == (earlier, note, read)
    assert run.commit(A) == (later,)


def test_what_the_other_step_had_read_is_carried_in_turn():
    run = Run()
    first = run.write(C, "z")
    run.read(B, "z")
    second = run.write(B, "y")
    run.read(A, "y")
    after = run.write(C, "z")
    third = run.write(A, "x")
    assert run.commit(A) == (first, second, third)
    assert run.commit(C) == (after,)


def test_reading_the_whole_context_reads_every_key_and_nothing_that_belongs_to_one_step_alone():
    run = Run()
    theirs, note, other = run.write(A, "x"), run.note(B), run.write(C, "z")
    run.read_all(A)
    assert run.commit(A) == (theirs, other)
    assert run.drafts.take_all() == (note,)


def test_the_end_of_a_run_carries_all_drafts():
    run = Run()
    facts = (run.write(A, "x"), run.note(B), run.write(C, "y"))
    assert run.drafts.take_all() == facts
    assert len(run.drafts) == 0


def test_a_commit_without_drafts_carries_nothing():
    run = Run()
    run.write(B, "x")
    assert run.commit(A) == ()
    assert len(run.drafts) == 1
