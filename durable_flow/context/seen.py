"""A Context that shows a run as it was at a checkpoint: what a `checkpoint_callback` is given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Never

from ..engine.beginning import Beginning
from ..errors import ContextStateError
from ..events import Event
from ..state import RunState
from .context import Context
from .face import Outside
from .saved import saved

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.checkpointing import Completion
    from ..journal.checkpoint import Checkpoint
    from ..program import WorkflowProgram
    from ..serializers import Serializer
    from .alone import Alone


class Seen(Outside):
    """The context of a run at a checkpoint. It is looked at and saved; what it holds belongs to the journal."""

    def __init__(self, program: WorkflowProgram, completion: Completion):
        self.checkpoint = completion.checkpoint
        self._state = completion.point.state
        beginning = Beginning.of(program, self._state.context, None if self._state.ended else self._state)
        beginning.point = completion.point
        beginning.run_id = completion.checkpoint.run_id
        super().__init__(None, beginning)

    @property
    def run_id(self) -> str:
        """The id of the run that it shows."""
        return self.checkpoint.run_id

    def saved(self) -> tuple[RunState, bool]:
        """Return the state at the checkpoint, and whether it is an unfinished run's."""
        return self._state, self._state.ended is None

    def fill(self, names: Collection[str], defaults: Callable[[], Mapping[str, Any]]) -> None:
        """Show those of these keys that are missing with their defaults."""
        live, codec = self.run.live, self.run.program.codec
        missing = [key for key in names if key not in live]
        values = defaults() if missing else {}
        for key in missing:
            live.set(key, values[key], codec.encode_value(values[key], key))

    def write(self, key: str, value: Any) -> None:
        """Refuse it."""
        self._refuse("write to")

    def delete(self, key: str) -> None:
        """Refuse it."""
        self._refuse("delete from")

    def send(self, event: Event, step: str | None = None) -> None:
        """Refuse it."""
        self._refuse("send events by")

    def next_beginning(self) -> Beginning:
        """Refuse to be the context of another run."""
        raise ContextStateError(
            f"run(ctx=...) got the context of a checkpoint_callback, which {self._shown}. Give the other run a copy, "
            "Context.from_dict(flow, ctx.to_dict()), or go on from the checkpoint: flow.run_from(checkpoint)"
        )

    def alone_for(self, method: str) -> Alone:
        """Refuse what is for steps."""
        raise ContextStateError(
            f"ctx.{method} works inside a step only; this is the context of a checkpoint_callback, which "
            f"{self._shown}. What is for the run goes by its handler, as in handler.send_event"
        )

    def of_no_run(self, cure: str) -> ContextStateError:
        """Return the error for what only the context of a live run can tell."""
        return ContextStateError(
            f"the context of a checkpoint_callback {self._shown}. Ask the run's handler, or handler.ctx"
        )

    @property
    def _shown(self) -> str:
        return f"shows run {self.run_id} as it was at {self.checkpoint.id}"

    def _refuse(self, what: str) -> Never:
        raise ContextStateError(
            f"a checkpoint_callback cannot {what} its context: that {self._shown}. Use the context of the run's "
            "handler, handler.ctx"
        )


def seen(program: WorkflowProgram, completion: Completion) -> Context[Any]:
    """Return the context of a run at a checkpoint."""
    face = Seen(program, completion)
    context: Context[Any] = Context.__new__(Context)
    context._face = face
    context._run_of = lambda: face.run
    context._state_class = program.table.state_class
    return context


def checkpoint_seen(ctx: Context[Any], serializer: Serializer | None) -> Checkpoint | None:
    """Return the checkpoint that such a context shows, with its state; None if it is another context."""
    face = ctx._face
    if not isinstance(face, Seen):
        return None
    checkpoint = face.checkpoint.model_copy()
    checkpoint.ctx_state = saved(face, serializer, include_state=True)
    return checkpoint
