"""A Context as JSON-able data: the layout of `Context.to_dict`, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..branching import BranchPoint
from ..engine.beginning import Beginning
from ..errors import ContextSerdeError, DeserializationError, DurableFlowError
from ..records import EncodedEvent, EncodedValue, Record
from ..serializers.codec import Codec
from ..snapshot import dump, dump_value, load, load_value, with_payloads
from ..state import RunState

if TYPE_CHECKING:
    from ..engine.program import Program
    from ..serializers import Serializer
    from .face import Outside

VERSION = 1
FORMAT = "durable_flow.Context"


def saved(face: Outside, serializer: Serializer | None, *, include_state: bool) -> dict[str, Any]:
    """Return a context as data.

    At a checkpoint these are the state before its group of records, the group, and the context if it was changed since:
    so what came into being there can still be told from the rest.
    """
    (state, is_running), codec = face.saved(), face.run.program.codec
    point = getattr(face.run, "point", None) if include_state else None
    if not include_state:
        state = replace(state, context={})
    if serializer is not None:
        write = Codec(serializer, max_payload_bytes=codec.max_payload_bytes)
        state = _rewritten(state, codec, write)
        point = None if point is None else _moved(point.without_splices(), codec, write)
    return {
        "format": FORMAT,
        "version": VERSION,
        "workflow": state.workflow,
        "is_running": is_running,
        "serializer": (serializer or codec.serializer).codec,
        **({"state": dump(state)} if point is None else _at_point(point, state)),
    }


def _at_point(point: BranchPoint, state: RunState) -> dict[str, Any]:
    changed = {} if point.state.context == state.context else {"context": dump_value(state.context)}
    return {"state": dump(point.before), "group": dump_value(point.group), **changed}


def restored(program: Program, data: Mapping[str, Any], serializer: Serializer | None) -> Beginning:
    """Return what `saved` data say, for the next run. Raises ContextSerdeError."""
    state, is_running, point = _checked(data)
    codec = program.codec
    if serializer is not None:
        codec = Codec(serializer, readers=(program.codec.serializer,), max_payload_bytes=codec.max_payload_bytes)
    try:
        # All that is read now cannot fail later, in a run.
        for value in state.context.values():
            codec.decode_value(value)
        if serializer is not None:
            state = _rewritten(state, codec, program.codec)
            point = None if point is None else _moved(point, codec, program.codec)
    except DurableFlowError as error:
        raise ContextSerdeError(
            f"the saved context of workflow {state.workflow} cannot be read: {error}. from_dict takes the serializer "
            f"that to_dict was given (here {data.get('serializer')!r})"
        ) from error
    beginning = Beginning.of(program, state.context, state if is_running else None)
    beginning.point = point
    return beginning


def _checked(data: Any) -> tuple[RunState, bool, BranchPoint | None]:
    """Return the state in saved data, whether it is that of an unfinished run, and where it comes from."""
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
        point = _point(state, data["group"]) if "group" in data else None
        if point is not None:
            state = point.state
            if "context" in data:
                state.context = _values(data["context"])
    except DeserializationError as error:
        raise ContextSerdeError(f"a saved context cannot be read: {error}") from error
    is_running = data.get("is_running")
    if type(is_running) is not bool or (is_running and state.ended):
        raise ContextSerdeError("a saved context does not say truly whether its run was finished: it was changed")
    return state, is_running, point


def _point(before: RunState, data: Any) -> BranchPoint:
    """Return a checkpoint in saved data, tried: its group can be folded. Raises DeserializationError."""
    group = load_value(data)
    try:
        if not group or not all(isinstance(record, Record) for record in group):
            raise DeserializationError("its group of records is none")
        point = BranchPoint(before, tuple(group))
        _ = point.state
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise DeserializationError(f"its group of records does not follow its state: {error!r}") from error
    return point


def _values(data: Any) -> dict[str, EncodedValue]:
    values = load_value(data)
    if not isinstance(values, dict) or not all(isinstance(value, EncodedValue) for value in values.values()):
        raise DeserializationError("the values of its context are none")
    return values


def _moved(point: BranchPoint, read: Codec, write: Codec) -> BranchPoint:
    """Return the same point with every payload written by another serializer."""
    rewrite = partial(_rewritten_payload, read, write)
    return BranchPoint(with_payloads(point.before, rewrite), with_payloads(point.group, rewrite))


def _rewritten(state: RunState, read: Codec, write: Codec) -> RunState:
    """Return the same state, with every value and event written by another serializer."""
    return with_payloads(state, partial(_rewritten_payload, read, write))


def _rewritten_payload(read: Codec, write: Codec, payload: EncodedValue | EncodedEvent) -> EncodedValue | EncodedEvent:
    if isinstance(payload, EncodedValue):
        return write.encode_value(read.decode_value(payload))
    return write.encode_event(read.decode_event(payload))
