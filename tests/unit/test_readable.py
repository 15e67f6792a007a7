"""What of a run's state is looked at before a program without some serializer takes the run up."""

from durable_flow.engine.readable import held
from durable_flow.records import EncodedEvent
from durable_flow.state import FanOut, Member, RunState, Slots


def test_half_a_set_of_events_is_looked_at_in_a_fan_out_and_outside_of_any():
    left, right = (EncodedEvent(name, "other", 1, b"{}") for name in ("Left", "Right"))
    state = RunState(
        slots={"meet": Slots(2, {"left": [Member(3, left)]})},
        fan_outs={5: FanOut(0, {}, {}, slots={"meet": Slots(2, {"right": [Member(6, right)]})})},
    )
    assert list(held(state)) == [left, right]
