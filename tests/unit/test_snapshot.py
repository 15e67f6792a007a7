"""A run's state as JSON and back, and runs that begin with the state of another one."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass

import pytest
from given import SECOND, at, emitted, event, given, published, started, task, value, wait
from hypothesis import assume
from hypothesis import given as for_all
from hypothesis import strategies as st
from strategies import MOVES, Move, Simulation, histories, random_history, random_moves

from durable_flow import snapshot
from durable_flow.errors import DeserializationError
from durable_flow.fold import evolve, fold
from durable_flow.incoming import ChildOver, EffectsCommitted, ImportRequested
from durable_flow.records import (
    CALL,
    CallRecorded,
    CheckpointNamed,
    ChildEnded,
    ChildStarted,
    ContextSet,
    EncodedEvent,
    EncodedValue,
    Place,
    RunClaimed,
    RunParked,
    RunResumed,
    RunStarted,
    StateImported,
    TaskId,
    TimerFired,
    TimerSet,
    WaitAnswered,
)
from durable_flow.snapshot import copied, decode_state, dump, encode_state, load
from durable_flow.state import Effect, RunState, Task

A, B = task("a"), task("b")

# What a run is by itself, and where it stands in its own journal.
OWN = {"workflow", "uid", "shape", "arguments", "seq", "boundary", "offset", "epoch", "claims", "created_at", "last_at"}
OWN |= {"checkpoints", "streamed_before", "parent"}


# -- The codec ---------------------------------------------------------------------------------------------------------


@for_all(histories(), st.data())
def test_a_state_comes_back_as_it_was(records, data):
    state = fold(records[: data.draw(st.integers(0, len(records)))])
    back = load(json.loads(json.dumps(dump(state))))
    assert back == state
    assert decode_state(encode_state(state)) == state


@for_all(histories())
def test_order_comes_back_too(records):
    state = fold(records)
    back = decode_state(encode_state(state))
    assert orders(back) == orders(state)


def orders(value):
    """The keys of every dict in a state, in order."""
    if isinstance(value, dict):
        return [(key, orders(inner)) for key, inner in value.items()]
    if is_dataclass(value):
        return [orders(getattr(value, field.name)) for field in fields(value)]
    return [orders(inner) for inner in value] if isinstance(value, list | tuple) else None


@for_all(histories(), st.data())
def test_what_comes_after_is_folded_the_same(records, data):
    cut = data.draw(st.integers(0, len(records)))
    assert fold(records[cut:], decode_state(encode_state(fold(records[:cut])))) == fold(records)


@for_all(histories())
def test_equal_states_are_equal_bytes(records):
    state = fold(records)
    assert encode_state(decode_state(encode_state(state))) == encode_state(state)


@for_all(histories(), st.data())
def test_a_copy_is_not_reached_by_what_happens_later(records, data):
    cut = data.draw(st.integers(0, len(records)))
    state = fold(records[:cut])
    copy, encoded = copied(state), encode_state(state)
    assert copy == state
    fold(records[cut:], state)
    assert encode_state(copy) == encoded


def test_a_copy_shares_what_is_never_changed():
    state = fold(random_history(3))
    state.context["large"] = value(1)
    copy = copied(state)
    assert copy.context["large"] is state.context["large"]
    assert copy.context is not state.context


@for_all(histories())
def test_the_parts_of_an_encoded_state_are_what_the_whole_is(records):
    state = fold(records)
    whole = json.dumps(dump(state), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert encode_state(state).data == whole


NOT_JSON = (b"\x80\x05K\x01.", b"\x00", b"", b"\xff", "größe 🦄".encode(), bytes(range(256)))


@pytest.mark.parametrize("data", NOT_JSON, ids=repr)
def test_any_bytes_and_any_text_come_back(data: bytes):
    key = 'k.ey "\ud800\0'
    state = RunState(context={key: EncodedValue("pickle", data)}, error_step="\ud83d")
    assert load(json.loads(json.dumps(dump(state)))) == state
    assert decode_state(encode_state(state)) == state


def test_json_stays_text_that_people_can_read():
    assert json.dumps(dump(given(*started("a")).state)).count("base64") == 0


def test_fields_at_their_defaults_are_left_out():
    assert dump(RunState()) == {"version": snapshot.VERSION}


def test_a_set_is_written_in_one_order():
    places = [Place(CALL, name, 0) for name in "abcdefgh"]
    states = [RunState(tasks={A: Task(A, event(), 0, diverged=set(order))}) for order in (places, places[::-1])]
    assert encode_state(states[0]) == encode_state(states[1])


CONTENTS = [None, True, 7, 1.5, "text", b"\xff", (), (1, ("two", None)), [1], {"k": (1,)}, {1, 2}, frozenset("ab"),
            A, event(), (("Answer",), event(), None), value(1)]  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: type(content).__name__)
def test_what_an_effect_holds_keeps_its_type(content):
    place = Place(CALL, "charge", 0)
    state = RunState(tasks={A: Task(A, event(), 0, effects={1: {place: Effect(place, 3, content, content)}})})
    back = load(json.loads(json.dumps(dump(state)))).tasks[A].effects[1][place]
    assert (back.content, type(back.content)) == (content, type(content))
    assert (back.outcome, type(back.outcome)) == (content, type(content))


def test_a_field_that_is_added_needs_no_change(monkeypatch: pytest.MonkeyPatch):
    @dataclass
    class Batch:
        members: dict[TaskId, tuple[EncodedEvent, ...]]
        size: int | None = None

    monkeypatch.setitem(snapshot._CLASSES, "Batch", Batch)
    batch = Batch({A: (event("One"), event("Two")), B: ()}, 2)
    form = snapshot._form(Batch)
    assert form.load(json.loads(json.dumps(form.dump(batch)))) == batch


def test_a_class_of_the_user_is_never_in_a_state():
    place = Place(CALL, "charge", 0)
    state = RunState(tasks={A: Task(A, event(), 0, effects={1: {place: Effect(place, 3, object())}})})
    with pytest.raises(TypeError, match="no plain value"):
        dump(state)


GOOD = dump(given(started("a"), CallRecorded(A, 1, "charge", 0, "digest", value(1))).state)


def broken(change):
    data = json.loads(json.dumps(GOOD))
    change(data)
    return data


NEWER = {
    "a version": lambda data: data.update(version=snapshot.VERSION + 1),
    "a field of a run": lambda data: data.update(mood={}),
    "a field of a task": lambda data: data["tasks"][0][1].update(mood="good"),
    "a field of an event": lambda data: data["tasks"][0][1]["event"].append(1),
    "a class": lambda data: data["tasks"][0][1]["effects"][0][1][0][1].update(outcome={"Surprise": []}),
}
BAD = {
    "no version": lambda data: data.pop("version"),
    "a version of another type": lambda data: data.update(version="1"),
    "version 0": lambda data: data.update(version=0),
    "a text where a number belongs": lambda data: data.update(seq="7"),
    "a flag where a number belongs": lambda data: data.update(seq=True),
    "a number where text belongs": lambda data: data.update(workflow=1),
    "a list where pairs belong": lambda data: data.update(context=["ab", 1]),
    "an object where a list belongs": lambda data: data.update(context={"n": 1}),
    "an event cut short": lambda data: data["tasks"][0][1].update(event=["Start"]),
    "no base64": lambda data: data.update(context=[["n", ["json", {"base64": "%"}]]]),
    "a task without its event": lambda data: data["tasks"][0][1].pop("event"),
    "an effect with two kinds": lambda data: data["tasks"][0][1]["effects"][0][1][0][1].update(
        outcome={"a": 1, "b": 2}
    ),
    "an effect without a kind": lambda data: data["tasks"][0][1]["effects"][0][1][0][1].update(outcome=[1]),
}


@pytest.mark.parametrize("change", NEWER.values(), ids=NEWER)
def test_what_is_not_known_is_of_a_newer_version(change):
    with pytest.raises(DeserializationError, match=r"newer one wrote it.*Upgrade the package"):
        load(broken(change))


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_what_is_no_state_is_refused(change):
    with pytest.raises(DeserializationError):
        load(broken(change))


@pytest.mark.parametrize("data", [None, [], "state", 1, {}], ids=repr)
def test_other_data_are_no_state(data):
    with pytest.raises(DeserializationError, match="no state of a run"):
        load(data)


@pytest.mark.parametrize("encoded", [EncodedValue("json", b"{"), EncodedValue("json", b"\xff")], ids=repr)
def test_bytes_that_are_no_json_are_refused(encoded):
    with pytest.raises(DeserializationError, match="no state of a run"):
        decode_state(encoded)


def test_another_codec_is_of_a_newer_version():
    with pytest.raises(DeserializationError, match=r"'zip'.*Upgrade"):
        decode_state(EncodedValue("zip", b"{}"))


# -- Runs that go on from a state --------------------------------------------------------------------------------------


@for_all(st.integers(0, 100_000), st.lists(
    st.builds(Move, st.sampled_from(MOVES), st.integers(0, 11), st.integers(0, 8), st.integers(0, 2 * SECOND)),
    max_size=40,
))  # fmt: skip
def test_a_run_goes_on_from_a_state_as_the_one_that_it_comes_from(seed, moves):
    first = Simulation()
    for move in random_moves(seed, seed % 60):
        first.play(move)
    first.crash(0, 0)
    for child in children_under_way(first.state):
        first.accept(ChildOver(child.seq, "completed"))
    assume(not children_under_way(first.state))  # they stay with the run that started them
    second = first.continued()
    before = len(first.records), len(second.records)
    assert as_found(second.state) == as_found(first.state)
    for move in moves:
        first.play(move)
        second.play(move)
    assert as_said(second.records[before[1] :]) == as_said(first.records[before[0] :])
    assert as_found(second.state) == as_found(first.state)
    assert as_found(fold(second.records)) == as_found(second.state)
    third, again = second.continued(), first.continued()
    assert as_found(third.state) == as_found(again.state)


def children_under_way(state):
    return [child for child in state.children.values() if not child.ended_at and not child.independent]


def test_a_child_that_has_not_ended_stays_with_the_run_that_started_it():
    own, named = (ChildStarted(A, 1, 0, name, f"run-{name}", value(1), name == "named") for name in ("own", "named"))
    ended = ChildStarted(A, 1, 1, "own", "run-ended", value(2), False)
    before = given(started("a"), own, named, ended, ChildEnded(5, "completed"))
    state = given((NEW, StateImported("uid", before.state.seq, encode_state(before.state)))).state
    assert [child.run_id for child in state.children.values()] == ["run-named", "run-ended"]
    assert [(place.name, place.k) for place in state.tasks[A].effects[1]] == [("named", 0), ("own", 1)]
    assert (before.state.tasks[A].open, state.tasks[A].open, state.waiting_tasks) == (2, 1, 1)


def as_found(state):
    """A state without what two runs never share."""
    return {field.name: getattr(state, field.name) for field in fields(state) if field.name not in OWN}


def as_said(records):
    return [r.fact._replace(epoch=0) if isinstance(r.fact, RunClaimed) else r.fact for r in records]


def imported(*groups, seq=None):
    """The fact that brings the state after these groups into another run."""
    state = given(*groups).state
    return StateImported(state.uid, state.seq if seq is None else seq, encode_state(state))


NEW = RunStarted("Flow", "new uid", "new shape", value("new"))


def test_a_run_stays_itself():
    fact = imported(started("a"), ContextSet("n", value(1), A, 1, 0), RunClaimed(7, "worker"))
    state = given(at(100, NEW, fact)).state
    assert (state.workflow, state.uid, state.shape, state.arguments) == ("Flow", "new uid", "new shape", value("new"))
    assert (state.seq, state.boundary, state.epoch, state.created_at) == (2, 2, 1, 100 * SECOND)
    assert state.context == {"n": value(1)}
    assert list(state.tasks) == [A]


def test_nothing_new_has_the_number_of_something_imported():
    fact = imported(started("a"), emitted("Work", "b", by=A), emitted("Work", "b", by=A))
    state = given((NEW, fact), emitted("Work", "b"), emitted("Work", "b")).state
    assert [id.seq for id in state.tasks] == [2, 3, 4, 5, 6]
    assert (state.seq, state.offset) == (4, 2)


def test_a_state_with_fewer_records_than_the_new_run_has_collides_with_nothing():
    fact = StateImported("uid", 0, encode_state(RunState()))
    state = given((NEW, fact), emitted("Work", "b")).state
    assert state.seq + state.offset == 1
    assert [id.seq for id in state.tasks] == [1]


def test_a_new_wait_has_an_id_of_its_own():
    first = given(started("a"), wait("w3", "Answer", A), wait("w4", "Other", A))
    fact = StateImported("uid", first.state.seq, encode_state(first.state))
    state = given((NEW, fact)).state
    assert list(state.waits) == ["w3", "w4"]
    asked = wait("", "Third", A)
    second = given((NEW, fact)).when(EffectsCommitted((asked,)))
    assert [w.wait_id for w in second.state.waits.values()] == ["w3", "w4", "w5"]


def test_an_imported_wait_is_answered_and_an_imported_timer_fires():
    fact = imported(started("a", "b"), wait("w3", "Answer", A), TimerSet(B, 1, 0, 50 * SECOND))
    state = given(at(100, NEW, fact), (emitted("Answer", answers="w3"), WaitAnswered("w3")), TimerFired(4)).state
    assert state.waits["w3"].answer == event("Answer")
    assert state.timers[4].fired_at
    assert not state.waiting_tasks


def test_times_stay_what_they_are():
    fact = imported(
        at(10, *started("a")), at(20, TimerSet(A, 1, 0, 50 * SECOND)), at(30, wait("w", "X", A, deadline=70))
    )
    state = given(at(1000, NEW, fact)).state
    assert state.timers[3].due_at == 50 * SECOND
    assert state.waits["w"].deadline == 70 * SECOND
    assert (state.waits["w"].opened_at, state.tasks[A].created_at) == (30 * SECOND, 10 * SECOND)


def test_the_budget_goes_on_and_the_time_in_between_does_not_count():
    fact = imported(at(0, *started("a")), at(40, ContextSet("n", value(1), A, 1, 0)))
    state = given(at(1000, NEW, fact), at(1005, ContextSet("n", value(2), A, 1, 1))).state
    assert state.active_us == 45 * SECOND


def test_stream_positions_go_on():
    state = given((NEW, imported(started("a"), published(1, "x", "y", by=A))), published(3, "z", by=A, k=2)).state
    assert (state.position, state.streamed_before) == (3, 2)


def test_checkpoints_are_places_in_the_journal_that_has_them():
    fact = imported(started("a"), CheckpointNamed(A, 1, "old", 0))
    state = given((NEW, fact), CheckpointNamed(A, 1, "new", 0)).state
    assert state.checkpoints == {"new": 3}


def test_what_needed_attention_goes_on_if_that_is_asked_for():
    parked = encode_state(given(started("a"), RunParked("look at it")).state)
    changed = ContextSet("n", value(1), None, 0, 0)
    request = ImportRequested("Flow", "new", "shape", value("new"), "uid", 3, parked, (changed,))
    out = given().when(request)
    out.then(RunStarted("Flow", "new", "shape", value("new")), StateImported("uid", 3, parked), changed)
    out.then_status("needs_attention")
    resumed = given().when(request._replace(resume=True))
    assert resumed.facts[-1] == RunResumed("run")
    resumed.then_status("running")


def test_a_state_of_a_newer_version_stops_the_fold():
    newer = json.dumps({"version": snapshot.VERSION + 1}).encode()
    with pytest.raises(DeserializationError, match="Upgrade the package"):
        given((NEW, StateImported("uid", 1, EncodedValue("json", newer))))


def test_evolve_changes_the_state_in_place():
    records = given((NEW, imported(started("a")))).records
    state = RunState()
    for record in records:
        assert evolve(state, record) is None
    assert list(state.tasks) == [A]
