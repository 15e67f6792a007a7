"""`ReplayReport`: what today's code did differently from what a run has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...journal.runid import id_of

MAX_DIVERGENCES = 100
"""So many divergences, and so many differing defaults, are kept in a report; all are counted."""

# Values in the text of a report are cut off here.
_MAX_VALUE = 300
# So much of what is equal is shown before a difference that comes late.
_AROUND = 50
_SHOWN = 5


class _Nothing:
    """Stands where one side has no value: an effect that is new, or that did not come."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING: Any = _Nothing()
"""In a Divergence: this side has nothing at this place."""

DivergenceKind = Literal[
    "event", "context", "stream", "call", "wait", "sleep", "collect_events", "checkpoint", "child", "order", "error",
    "timeout", "input", "step",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that a step does differently today.

    `step` and `attempt` say whose it is, `task` is the seq of the event that the step was given, and `seq` that of the
    checkpoint at which the step had completed; `checkpoint` is its id, for `journal.state` and `flow.fork`.

    `kind` says what is different and `what` where: for an "event" that is sent or returned, or a "stream" item, the
    class and field ("Scored.score"); for "context" the key and the path in its value ("totals.sum"); for a "call",
    "wait", "sleep", "collect_events", "checkpoint" or "child" its name. "order": effects come in another order.
    "error": the step raises today, and `traceback` tells where. "timeout": it did not end. "input": it cannot be given
    its event any more. "step": there is no such step any more.

    `recorded` and `new` are the two values, NOTHING where there is none. `note` says more in words. `raced` are context
    keys that the step reads and that other steps changed while it ran: which of the values it saw is not recorded.
    """

    run_id: str
    step: str
    attempt: int
    task: int
    seq: int
    kind: DivergenceKind
    what: str
    recorded: Any = field(hash=False, default=NOTHING)
    new: Any = field(hash=False, default=NOTHING)
    note: str = ""
    traceback: str = field(repr=False, default="")
    raced: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str:
        """The id of the checkpoint at which the step had completed."""
        return id_of(self.run_id, self.seq)

    def __str__(self) -> str:
        """Return a few lines: where, what, both values."""
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        lines = [f"step {self.step!r}{attempt} (completed at {self.checkpoint}): {self.kind} {_shown(self.what)}"]
        if self.kind != "error" and (self.recorded is not NOTHING or self.new is not NOTHING):
            recorded, new = as_text(self.recorded), as_text(self.new)
            start = _where_they_differ(recorded, new)
            lines += [f"  recorded: {_shown(recorded, start)}", f"  new:      {_shown(new, start)}"]
        if self.note:
            lines.append(f"  {self.note}")
        if self.raced:
            lines.append(
                f"  it reads {', '.join(map(repr, self.raced))}, which other steps changed while it ran: which value "
                "it saw then is not recorded"
            )
        lines += [f"  {_shown(line)}" for line in self.traceback.rstrip().splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay found.

    Attributes:
        run_id: the run.
        workflow: its workflow.
        first: the seq of the first record that was read.
        last: that of the last one: a checkpoint.
        replayed: completed steps that today's code was held against; each is one of `equal` or `diverged`.
        equal: those that did the same.
        diverged: those that did something else, or could not be run.
        skipped: completed steps that were not run, because `skip` names them.
        live: those among `replayed` whose effects really happened, because `live` names them.
        failed_attempts: recorded attempts that raised; they are not run again.
        differences: how many divergences there are in all.
        divergences: the first of them, at most 100, in the order of the journal.
        defaults: differing values that the step did not set: defaults of fields, made of the clock or of chance. They
            are no divergences.
    """

    run_id: str
    workflow: str
    first: int
    last: int
    replayed: int
    equal: int
    diverged: int
    skipped: int
    live: int
    failed_attempts: int
    differences: int
    divergences: tuple[Divergence, ...]
    defaults: tuple[Divergence, ...]

    @property
    def ok(self) -> bool:
        """Tell whether every step that was run did what is recorded."""
        return not self.diverged

    @property
    def first_divergence(self) -> Divergence | None:
        """The first divergence, None if there is none."""
        return self.divergences[0] if self.divergences else None

    def __str__(self) -> str:
        """Return the report as text: a line of counts, then the divergences, the first of them whole."""
        counts = f"{self.replayed} completed steps, {self.equal} equal, {self.diverged} diverged"
        for number, words in (
            (self.skipped, "skipped"), (self.live, "live"), (self.failed_attempts, "failed attempts not run again"),
        ):  # fmt: skip
            counts += f", {number} {words}" if number else ""
        lines = [f"replay of run {self.run_id} ({self.workflow}), records {self.first} to {self.last}: {counts}"]
        for n, divergence in enumerate(self.divergences[:_SHOWN], 1):
            lines.append(f"{n}. {divergence}")
        if self.differences > _SHOWN:
            lines.append(f"... and {self.differences - _SHOWN} more (report.divergences)")
        if self.defaults:
            paths = ", ".join(dict.fromkeys(default.what for default in self.defaults))
            lines.append(f"not counted: defaults made of the clock or of chance: {paths}")
        return "\n".join(lines)


def as_text(value: Any) -> str:
    """Return the repr of a value, whatever its class makes of that."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}; its repr() raised {type(error).__name__}>"


def shown_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the arguments of a call as text."""
    shown = [*map(as_text, args), *(f"{name}={as_text(value)}" for name, value in kwargs.items())]
    return ", ".join(shown) or "no arguments"


def _shown(text: str, start: int = 0) -> str:
    if len(text) <= _MAX_VALUE:
        return text
    before = "..." if start else ""
    after = "..." if start + _MAX_VALUE < len(text) else ""
    return f"{before}{text[start : start + _MAX_VALUE]}{after} ({len(text):,} characters)"


def _where_they_differ(one: str, other: str) -> int:
    """Return from where on to show two texts, so that their first difference is among what is shown."""
    shorter = min(len(one), len(other))
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), shorter)
    return 0 if same < _MAX_VALUE - _AROUND else same - _AROUND
