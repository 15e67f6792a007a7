"""Which fan-ins collect an event: lists only what a step returns and what answers a question, each in its fan-out."""

from __future__ import annotations

import logging
from collections.abc import Collection

from ..events import Event
from ..logs import fields
from ..records import EventEmitted
from ..state import RunState
from .program import Program

logger = logging.getLogger("durable_flow")


def is_slot(join: str) -> bool:
    """Tell whether an entry of `EventEmitted.joins` is one of several event parameters of a step."""
    return "." in join


def joins_in(program: Program, cls: type[Event] | None, bound: Collection[str]) -> tuple[str, ...]:
    """Return the fan-ins that collect a returned event, or an answer, where the lists of `bound` are collected."""
    possible = () if cls is None else program.joins(cls)
    return tuple(join for join in possible if is_slot(join) or join in bound)


def joins_of_sent(program: Program, event: Event, step: str | None) -> tuple[str, ...]:
    """Return the fan-ins that collect what `send_event` sends: steps with several event parameters, no lists."""
    return tuple(
        join
        for join in program.joins(type(event))
        if is_slot(join) and (step is None or join.partition(".")[0] == step)
    )


def joins_of_answer(program: Program, state: RunState, name: str, scope: int) -> tuple[str, ...]:
    """Return the fan-ins that collect the answer to a question which belongs to this fan-out (0: to none)."""
    fan_out = state.fan_outs.get(scope)
    return joins_in(program, program.event_class(name), () if fan_out is None else fan_out.joins)


def warn_if_ignored(program: Program, run_id: str, fact: EventEmitted) -> None:
    """Log an event that nobody takes although some step collects its class."""
    cls = program.event_class(fact.event.name)
    collectors = [join for join in program.joins(cls) if not is_slot(join)] if cls is not None else []
    if not collectors:
        return
    why = "it was sent, not returned" if fact.k is not None or fact.task is None else "it is in none of their fan-outs"
    logger.warning(
        "run %s: ignoring %s (record of step %r) for the collecting step %s: %s. What a step returns while it handles "
        "an element of a returned list is collected",
        run_id, fact.event.name, None if fact.task is None else fact.task.step, ", ".join(map(repr, collectors)), why,
        extra=fields("event_ignored", run_id, None if fact.task is None else fact.task.step, fact.attempt or None),
    )  # fmt: skip


def incomplete_sets(state: RunState) -> str:
    """Say which steps with several event parameters still wait for the rest of a set; "" if none does."""
    levels = [state.slots, *(fan_out.slots for fan_out in state.fan_outs.values())]
    waiting = {step: ", ".join(sorted(slots.events)) for by_step in levels for step, slots in by_step.items()}
    if not waiting:
        return ""
    return ". Incomplete sets of events: " + "; ".join(f"step {step!r} has only {had}" for step, had in waiting.items())
