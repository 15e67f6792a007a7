"""Changes of a typed state from outside of the steps: checked by the state's class before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import DeserializationError, StateEditError
from ..records import EncodedValue
from ..serializers.codec import Codec
from .paths import defaults_of, may_have


def validated(
    run_id: str,
    cls: type[BaseModel] | None,
    codec: Codec,
    context: Mapping[str, EncodedValue],
    changed: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return the values that change, as a state of this class keeps them. Untyped state keeps what it is given.

    Raises StateEditError for a key that the class has no field for, or a value that it does not take.
    """
    if cls is None:
        return changed
    unknown = [key for key in changed if not may_have(cls, key) and key not in context]
    if unknown:
        raise StateEditError(
            f"run {run_id}: the state {cls.__name__} has no field {', '.join(map(repr, unknown))}; its fields are "
            f"{', '.join(cls.model_fields)}. Nothing was written"
        )
    state = cls.model_construct(**defaults_of(cls))
    for key, encoded in context.items():
        if key in cls.model_fields and key not in changed:
            try:
                state.__dict__[key] = codec.decode_value(encoded)
            except DeserializationError:
                continue  # its class is not known here; what is changed is checked without it
    fields = [key for key in changed if key in cls.model_fields]
    if (refused := _assigned(state, fields, changed)) is not None:
        key, error = refused
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or key}: {e['msg']}" for e in error.errors(include_url=False))
        raise StateEditError(
            f"run {run_id}: the state {cls.__name__} does not take {key} = {changed[key]!r:.200}: {said}. Nothing was "
            "written"
        ) from error
    return {**changed, **{key: state.__dict__[key] for key in fields}}


def _assigned(state: BaseModel, keys: list[str], changed: Mapping[str, Any]) -> tuple[str, ValidationError] | None:
    """Assign the values in an order in which the state takes them; return one that it does not take after the others.

    A validator of the whole state may take two values together, and one of them alone not.
    """
    left, refused = keys, None
    while left:
        again = []
        for key in left:
            before = dict(state.__dict__)
            try:
                type(state).__pydantic_validator__.validate_assignment(state, key, changed[key])
            except ValidationError as error:
                # A validator of the whole state is asked when the value is there already.
                state.__dict__.clear()
                state.__dict__.update(before)
                again.append(key)
                refused = key, error
        if len(again) == len(left):
            return refused
        left = again
    return None
