"""Whether what a step does again is what it did before, although classes were renamed or changed in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import DeserializationError
from ..events import current_name
from ..records import SENT, WAIT, EncodedEvent, EncodedValue, Place
from ..serializers.codec import Codec
from ..state import Effect


def is_same(codec: Codec, recorded: Any, now: Any) -> bool:
    """Tell whether recorded content is what is recorded now: the same bytes, or equal when both are read today."""
    if recorded == now:
        return True
    cls = type(now)
    if type(recorded) is not cls:
        return False
    try:
        if cls is EncodedEvent:
            return bool(codec.decode_event(recorded) == codec.decode_event(now))
        if cls is EncodedValue:
            return bool(codec.decode_value(recorded) == codec.decode_value(now))
    except DeserializationError:
        return False
    return cls is tuple and len(recorded) == len(now) and all(map(is_same, (codec,) * len(now), recorded, now))


def under_todays_names(effect: Effect) -> Effect:
    """Return the effect as today's program records it, where the class of its event was renamed."""
    kind, name, k = effect.place
    if kind not in (SENT, WAIT):
        return effect
    content = effect.content
    if kind == WAIT:
        wanted, *rest = content
        content = (tuple(map(current_name, wanted)), *rest)
    return replace(effect, place=Place(kind, current_name(name), k), content=content)
