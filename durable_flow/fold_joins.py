"""Fan-outs in the fold: what belongs to each, what its joins have collected, and when nothing in it is pending."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .records import EncodedEvent, FanOutClosed, FanOutOpened, JoinFired
from .state import FanOut, Member, RunState, ScopedStep, Slots


class SlotRoute(NamedTuple):
    """Where an event goes in a step with several event parameters: one of `parameters`, of `number` in all."""

    step: str
    parameters: tuple[str, ...]
    number: int

    def __str__(self) -> str:
        """Return it as it stands in `EventEmitted.joins`."""
        return f"{self.step}.{'|'.join(self.parameters)}/{self.number}"


@lru_cache(maxsize=1024)
def slot_route(join: str) -> SlotRoute | None:
    """Read an entry of `EventEmitted.joins`; None if it names a step that collects a list."""
    step, dot, rest = join.partition(".")
    if not dot:
        return None
    parameters, _, number = rest.rpartition("/")
    return SlotRoute(step, tuple(parameters.split("|")), int(number))


def open_fan_out(state: RunState, fact: FanOutOpened, seq: int) -> None:
    """Add a fan-out to that of the task which returned the list."""
    task = state.tasks[fact.task]
    takes = {step: take for step, take in zip(fact.joins, fact.takes, strict=True) if take}
    state.fan_outs[seq] = FanOut(task.scope, takes, {step: [] for step in fact.joins}, task.recoveries)
    state.idle[seq] = None
    task.opened = seq
    if task.scope:
        hold(state, task.scope, 1)


def hold(state: RunState, scope: int, change: int) -> None:
    """Count what keeps a fan-out open."""
    fan_out = state.fan_outs[scope]
    fan_out.open += change
    if fan_out.open:
        state.idle.pop(scope, None)
    else:
        state.idle[scope] = None


def add_to_joins(state: RunState, joins: tuple[str, ...], member: Member, scope: int) -> None:
    """Let the fan-ins of a fan-out (scope 0: of none) collect an event. A join that has fired takes no more."""
    fan_out = state.fan_outs.get(scope)
    for join in joins:
        route = slot_route(join)
        if route is not None:
            _add_to_slots(state, fan_out, member, route, scope)
        elif fan_out is not None and join in fan_out.members:
            collected = fan_out.members[join]
            collected.append(member)
            if len(collected) == fan_out.takes.get(join):
                state.ripe[ScopedStep(scope, join)] = None


def _add_to_slots(state: RunState, fan_out: FanOut | None, member: Member, route: SlotRoute, scope: int) -> None:
    by_step = state.slots if fan_out is None else fan_out.slots
    slots = by_step.get(route.step)
    if slots is None:
        slots = by_step[route.step] = Slots(route.number)
    slots.number = route.number
    # Of several parameters that take it, the one that waits for its next event; of those the first.
    parameter = min(route.parameters, key=lambda name: len(slots.events.get(name, ())))
    slots.events.setdefault(parameter, []).append(member)
    if len(slots.events) >= slots.number:
        state.ripe[ScopedStep(scope, route.step)] = None


def fire_join(state: RunState, fact: JoinFired) -> tuple[tuple[EncodedEvent, ...], dict[str, int] | None]:
    """Take out what a fan-in has collected; return the events of its task, and the recoveries among its ancestors."""
    state.ripe.pop(ScopedStep(fact.source or fact.scope, fact.step), None)
    if fact.source:
        fan_out = state.fan_outs[fact.source]
        return _of_task(fan_out.members.pop(fact.step), fact, fan_out.recoveries)
    by_step = state.fan_outs[fact.scope].slots if fact.scope else state.slots
    slots = by_step[fact.step]
    taken = [slots.events[name].pop(0) for name in sorted(slots.events)]
    slots.events = {name: members for name, members in slots.events.items() if members}
    if len(slots.events) >= slots.number:
        state.ripe[ScopedStep(fact.scope, fact.step)] = None
    elif not slots.events:
        del by_step[fact.step]
    return _of_task(taken, fact, None)


def _of_task(
    members: list[Member], fact: JoinFired, recoveries: dict[str, int] | None
) -> tuple[tuple[EncodedEvent, ...], dict[str, int] | None]:
    by_seq = {member.seq: member for member in members}
    taken = [by_seq[seq] for seq in fact.events]
    for member in taken:
        if member.recoveries and member.recoveries != recoveries:
            # Of several lines of ancestors the one with the most failures counts.
            before = recoveries or {}
            most = {name: max(before.get(name, 0), count) for name, count in member.recoveries.items()}
            recoveries = {**before, **most}
    return tuple(member.event for member in taken), recoveries


def close_fan_out(state: RunState, fact: FanOutClosed) -> None:
    """Forget a fan-out, with what its steps with several event parameters have left over."""
    fan_out = state.fan_outs.pop(fact.source)
    state.idle.pop(fact.source, None)
    if fan_out.parent:
        hold(state, fan_out.parent, -1)
