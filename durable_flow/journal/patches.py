"""A run's context as JSON: what differs between two checkpoints, and changes from outside as facts.

The JSON form of a value is what the JSON serializer stores: values beyond JSON's own types are objects with a tag, as
in `{"$tuple": [1, 2]}`. A value of another codec is opaque: `{"$encoded": {"codec": ..., "data": base64}}`. No class is
needed to make either.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jsonpatch
import jsonpointer

from ..errors import DeserializationError, SerializationError, StateEditError
from ..records import ContextDeleted, ContextSet, EncodedValue, Fact, StateEdited
from ..serializers.codec import Codec
from .text import is_fit, unfit

Patch = Sequence[Mapping[str, Any]]
Validate = Callable[[Mapping[str, EncodedValue], Mapping[str, Any]], Mapping[str, Any]]
"""Gets the context and the values that change, and returns these as they are to be kept. Raises StateEditError."""

_JSON = "json"
_OPAQUE = "$encoded"


def json_form(context: Mapping[str, EncodedValue]) -> dict[str, Any]:
    """Return a context as JSON values by key."""
    return {key: _json_of(value) for key, value in context.items()}


def _json_of(value: EncodedValue) -> Any:
    if value.codec == _JSON:
        return json.loads(value.data)
    return {_OPAQUE: {"codec": value.codec, "data": base64.b64encode(value.data).decode("ascii")}}


def difference(a: Mapping[str, EncodedValue], b: Mapping[str, EncodedValue]) -> list[dict[str, Any]]:
    """Return the JSON Patch (RFC 6902) that leads from one context to another."""
    # What is stored as the same bytes is left out: nothing to compare, and NaN is equal to itself.
    same = {key for key, value in a.items() if b.get(key) == value}
    one, other = (json_form({k: v for k, v in context.items() if k not in same}) for context in (a, b))
    patch: list[dict[str, Any]] = jsonpatch.make_patch(one, other).patch
    return patch


def edit_facts(
    context: Mapping[str, EncodedValue],
    codec: Codec,
    *,
    run_id: str,
    by: str,
    values: Mapping[str, Any] | None = None,
    patch: Patch | None = None,
    validate: Validate | None = None,
) -> list[Fact]:
    """Return the facts that change a context: first the values are set, then the patch is applied to the result.

    Raises StateEditError for a patch that does not apply and for what `validate` refuses, SerializationError for a
    value that cannot be encoded.
    """
    if values is None and patch is None:
        raise StateEditError(f"run {run_id}: nothing is changed; pass set= or patch=")
    if type(by) is not str:
        raise StateEditError(f"run {run_id}: by= says who edits as a text, not {by!r:.80}. Nothing was written")
    if not is_fit(by):
        raise unfit(f"run {run_id}: by", by, path="by")
    if values is not None and not isinstance(values, Mapping):
        raise StateEditError(
            f"run {run_id}: set= takes a dict of values by context key, not {type(values).__name__}. Nothing was "
            "written"
        )
    operations = None if patch is None else _operations(run_id, patch)
    changed: dict[str, Any] = {}
    for key, value in (values or {}).items():
        _require_key(run_id, key)
        changed[key] = value
    kept: dict[str, EncodedValue] = {}
    deleted: list[str] = []
    if operations is not None:
        base = dict(context) | {key: codec.encode_value(value, key) for key, value in changed.items()}
        before, after = json_form(base), _patched(run_id, json_form(base), operations)
        opaque = {_text(_json_of(value)): value for value in base.values() if value.codec != _JSON}
        deleted = [key for key in base if key not in after]
        for key, form in after.items():
            _require_key(run_id, key)
            text = _text(form)
            if key in before and text == _text(before[key]):
                continue
            if text in opaque:
                kept[key] = opaque[text]
            elif _has_opaque(form):
                raise StateEditError(
                    f"run {run_id}: the patch changes {key!r} within a value that is not stored as JSON. Set the whole "
                    "key instead. Nothing was written"
                )
            else:
                changed[key] = _decoded(run_id, codec, key, text)
        for key in deleted:
            changed.pop(key, None)
    if validate is not None:
        changed = dict(validate({k: v for k, v in context.items() if k not in deleted}, changed))
    encoded = {key: codec.encode_value(value, key) for key, value in changed.items()} | kept
    asked = None if operations is None else codec.encode_value(operations, "patch")
    facts: list[Fact] = [StateEdited(by, asked)]
    facts += [ContextSet(key, value, None, 0, 0) for key, value in encoded.items() if context.get(key) != value]
    facts += [ContextDeleted(key, None, 0, 0) for key in deleted if key in context]
    return facts


def _operations(run_id: str, patch: Patch) -> list[dict[str, Any]]:
    """Return a patch as JSON has it, a copy of its own. Raises StateEditError for what is none."""
    if isinstance(patch, str | bytes | Mapping) or not isinstance(patch, Iterable):
        raise StateEditError(
            f'run {run_id}: patch= takes a list of operations, as [{{"op": "add", "path": "/name", "value": "Ann"}}], '
            f"not {type(patch).__name__}. Nothing was written"
        )
    operations = []
    for operation in patch:
        if not isinstance(operation, Mapping):
            raise StateEditError(
                f"run {run_id}: the patch holds {operation!r:.80}, which is no operation: each is an object with op, "
                "path and value. Nothing was written"
            )
        operations.append(dict(operation))
    try:
        text = _text(operations)
        _require_json(operations)
    except (TypeError, ValueError, RecursionError) as error:
        raise StateEditError(
            f"run {run_id}: a patch holds values as JSON has them, and this one does not: {error!s:.300}. Nothing was "
            'written. Pass other values with set=, or in the form that journal.diff shows, as {"$tuple": [1, 2]}'
        ) from error
    copied: list[dict[str, Any]] = json.loads(text)
    return copied


def _require_json(form: Any) -> None:
    """Raise TypeError for what JSON would make something else of."""
    kind = type(form)
    if kind is dict:
        for key, value in form.items():
            if type(key) is not str:
                raise TypeError(f"the key {key!r:.80} is no text")
            _require_json(value)
    elif kind is list:
        for value in form:
            _require_json(value)
    elif form is not None and kind not in (str, int, float, bool):
        raise TypeError(f"{form!r:.80} is a {kind.__name__}")


def _patched(run_id: str, form: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    try:
        after = jsonpatch.JsonPatch(operations).apply(form)
    except (
        jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, LookupError, TypeError, ValueError,
        AttributeError, RecursionError,
    ) as error:  # fmt: skip
        said = f"{type(error).__name__}: {error}"[:300]
        raise StateEditError(
            f"run {run_id}: the patch does not apply to its context: {said}. Nothing was written. The context as JSON "
            "is what journal.diff compares; a path begins with the key, as in /user/name"
        ) from error
    if not isinstance(after, dict):
        raise StateEditError(f"run {run_id}: the patch makes the context a {type(after).__name__}; it is an object")
    return after


def _text(form: Any) -> str:
    return json.dumps(form, separators=(",", ":"), ensure_ascii=False)


def _has_opaque(form: Any) -> bool:
    if isinstance(form, dict):
        return _OPAQUE in form or any(map(_has_opaque, form.values()))
    return isinstance(form, list) and any(map(_has_opaque, form))


def _decoded(run_id: str, codec: Codec, key: str, text: str) -> Any:
    try:
        return codec.decode_value(EncodedValue(_JSON, text.encode()))
    except (DeserializationError, UnicodeEncodeError) as error:
        raise StateEditError(
            f"run {run_id}: what the patch makes of {key!r} cannot be read: {error}. Nothing was written. Where a "
            "class is missing, do it through its workflow"
        ) from error


def _require_key(run_id: str, key: object) -> None:
    if type(key) is not str or not is_fit(key):
        raise SerializationError(
            f"run {run_id}: {key!r:.80} is no context key, which is a text without NUL and half surrogate pairs. "
            "Nothing was written",
            path=f"context[{key!r:.80}]",
        )
