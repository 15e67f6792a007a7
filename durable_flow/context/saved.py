"""A Context as JSON-able data: the layout of `Context.to_dict`, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..engine.beginning import Beginning
from ..errors import ContextSerdeError, DeserializationError, DurableFlowError
from ..records import EncodedEvent, EncodedValue
from ..serializers.codec import Codec
from ..snapshot import dump, load, with_payloads
from ..state import RunState

if TYPE_CHECKING:
    from ..engine.program import Program
    from ..serializers import Serializer
    from .face import Outside

VERSION = 1
FORMAT = "durable_flow.Context"


def saved(face: Outside, serializer: Serializer | None, *, include_state: bool) -> dict[str, Any]:
    """Return a context as data."""
    (state, is_running), codec = face.saved(), face.run.program.codec
    if not include_state:
        state = replace(state, context={})
    if serializer is not None:
        state = _rewritten(state, codec, Codec(serializer, max_payload_bytes=codec.max_payload_bytes))
    return {
        "format": FORMAT,
        "version": VERSION,
        "workflow": state.workflow,
        "is_running": is_running,
        "serializer": (serializer or codec.serializer).codec,
        "state": dump(state),
    }


def restored(program: Program, data: Mapping[str, Any], serializer: Serializer | None) -> Beginning:
    """Return what `saved` data say, for the next run. Raises ContextSerdeError."""
    state, is_running = _checked(data)
    codec = program.codec
    if serializer is not None:
        codec = Codec(serializer, readers=(program.codec.serializer,), max_payload_bytes=codec.max_payload_bytes)
    try:
        # All that is read now cannot fail later, in a run.
        for value in state.context.values():
            codec.decode_value(value)
        if serializer is not None:
            state = _rewritten(state, codec, program.codec)
    except DurableFlowError as error:
        raise ContextSerdeError(
            f"the saved context of workflow {state.workflow} cannot be read: {error}. from_dict takes the serializer "
            f"that to_dict was given (here {data.get('serializer')!r})"
        ) from error
    return Beginning.of(program, state.context, state if is_running else None)


def _checked(data: Any) -> tuple[RunState, bool]:
    """Return the state in saved data, and whether it is that of an unfinished run."""
    if not isinstance(data, Mapping):
        raise ContextSerdeError(f"a saved context is the dict that ctx.to_dict() returned, not a {type(data).__name__}")
    if data.get("format") != FORMAT:
        keys = ", ".join(map(str, list(data)[:8])) or "none"
        upstream = "; llama-index-workflows wrote it, whose layout is another one" if "workers" in data else ""
        raise ContextSerdeError(
            f"these data are no saved context of durable_flow (keys: {keys}{upstream}). "
            "Give what ctx.to_dict() returned; Context(flow) is a new one"
        )
    version = data.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ContextSerdeError(
            f"this is version {version!r} of a saved context, and this version of durable_flow reads up to {VERSION}: "
            "a newer one wrote it. Upgrade the package to read it."
        )
    try:
        state = load(data.get("state"))
    except DeserializationError as error:
        raise ContextSerdeError(f"a saved context cannot be read: {error}") from error
    is_running = data.get("is_running")
    if type(is_running) is not bool or (is_running and state.ended):
        raise ContextSerdeError("a saved context does not say truly whether its run was finished: it was changed")
    return state, is_running


def _rewritten(state: RunState, read: Codec, write: Codec) -> RunState:
    """Return the same state, with every value and event written by another serializer."""

    def rewrite(payload: EncodedValue | EncodedEvent) -> EncodedValue | EncodedEvent:
        if isinstance(payload, EncodedValue):
            return write.encode_value(read.decode_value(payload))
        return write.encode_event(read.decode_event(payload))

    return with_payloads(state, rewrite)
