"""Which fan-ins are due: from the state alone, so that a run that is taken up goes on where it stood. Pure."""

from __future__ import annotations

from .records import Fact, FanOutClosed, JoinFired
from .state import Member, RunState


def due_joins(state: RunState) -> list[Fact]:
    """Return the facts of the next fan-in that is due, one group; empty if there is none.

    First what has enough to fire, then the fan-outs in which nothing is pending: those fire every join that has not
    fired yet with what came, and close. Ask again when they are folded: one may make another due.
    """
    if state.ended or state.attention:
        return []
    for scope, step in state.ripe:
        fan_out = state.fan_outs.get(scope)
        if fan_out is not None and step in fan_out.members:
            return [JoinFired(step, scope, fan_out.parent, _seqs(fan_out.members[step][: fan_out.takes[step]]))]
        slots = (state.slots if fan_out is None else fan_out.slots)[step]
        return [JoinFired(step, 0, scope, _seqs([slots.events[name][0] for name in sorted(slots.events)]))]
    for scope in state.idle:
        fan_out = state.fan_outs[scope]
        fired = [JoinFired(step, scope, fan_out.parent, _seqs(members)) for step, members in fan_out.members.items()]
        return [*fired, FanOutClosed(scope)]
    return []


def _seqs(members: list[Member]) -> tuple[int, ...]:
    return tuple(member.seq for member in members)
