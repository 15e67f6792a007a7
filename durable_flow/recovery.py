"""Which `@catch_error` handler takes the failures of which step, and what is wrong with that: pure data in and out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Recovery(NamedTuple):
    """What makes a step a handler of failures: `for_steps` are the steps it covers, None those that no other covers.

    `max_recoveries` is how often it may run in a lineage: for a task and all that descends from it.
    """

    for_steps: tuple[str, ...] | None
    max_recoveries: int


def handlers_by_step(steps: Collection[str], handlers: Mapping[str, Recovery]) -> dict[str, str]:
    """Return the handler of each step that has one. Handlers have none: their own failure fails the run."""
    covered: dict[str, str] = {}
    for name, recovery in handlers.items():
        for step in recovery.for_steps or ():
            if step in steps and step not in handlers:
                covered.setdefault(step, name)
    for name, recovery in handlers.items():
        if recovery.for_steps is None:
            for step in steps:
                if step not in handlers:
                    covered.setdefault(step, name)
    return covered


def find_recovery_problems(steps: Collection[str], handlers: Mapping[str, Recovery]) -> list[str]:
    """Return everything that is wrong with the handlers, one sentence and its remedy each; empty if they are sound."""
    problems: list[str] = []
    wildcards = [name for name, recovery in handlers.items() if recovery.for_steps is None]
    if len(wildcards) > 1:
        problems.append(
            f"the @catch_error handlers {_listed(wildcards)} all take the failures of every step that no other handler "
            "covers. Only one may: give the others for_steps=[...]."
        )
    claimed: dict[str, list[str]] = {}
    for name, recovery in handlers.items():
        for step in dict.fromkeys(recovery.for_steps or ()):
            if step in handlers:
                problems.append(
                    f"@catch_error handler {name!r} covers {step!r}, which is a handler itself: a handler's failure "
                    "fails the run. Remove it from for_steps."
                )
            elif step not in steps:
                known = ", ".join(other for other in steps if other not in handlers)
                problems.append(
                    f"@catch_error handler {name!r} covers {step!r}, which is no step of this workflow; its steps are "
                    f"{known}. Correct for_steps."
                )
            else:
                claimed.setdefault(step, []).append(name)
    problems += [
        f"step {step!r} is covered by several @catch_error handlers: {_listed(names)}. Leave it to one of them."
        for step, names in claimed.items()
        if len(names) > 1
    ]
    return problems


def _listed(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in names)
