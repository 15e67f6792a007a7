"""`ctx.data`: the run's state as a dict, every change journaled."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, ClassVar

from ..engine.live import MISSING
from .face import Face


class ContextData(dict[str, Any]):
    """A dict that is a live view of the context.

    Reads and writes go to the run, so that it knows what a step has read. The underlying dict mirrors the values, for
    code that looks past Python methods (`json.dumps`, pydantic). Changes to nested objects are found when the step
    commits. It is journaled and copied as a plain dict.
    """

    __durable_plain__: ClassVar[bool] = True
    __slots__ = ("__weakref__", "_face")
    __hash__ = object.__hash__  # type: ignore[assignment]  # views are kept in a weak set, by identity

    def __init__(self, face: Face):
        dict.__init__(self)
        self._face = face
        face.show(self)

    def mirror(self, key: str) -> None:
        """Take over what is now seen of a key: the real value, or a replaying step's own."""
        value = self._face.peek(key)
        if value is MISSING:
            dict.pop(self, key, None)
        else:
            dict.__setitem__(self, key, value)

    def mirror_all(self, values: Mapping[str, Any]) -> None:
        """Take over what is now seen of many keys."""
        dict.update(self, values)

    def forget(self) -> None:
        """Hold no values any more; they are to be shown anew."""
        dict.clear(self)

    def shows(self, face: object) -> bool:
        """Tell whether this is a view of what `face` sees."""
        return self._face is face

    def __getitem__(self, key: str) -> Any:
        return self._face.read(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        return self._face.read(key, default)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._face.read(key, MISSING) is not MISSING

    def __setitem__(self, key: str, value: Any) -> None:
        self._face.write(key, value)

    def __delitem__(self, key: str) -> None:
        self._face.delete(key)

    def _copy(self) -> dict[str, Any]:
        return {key: self._face.read(key) for key in self._face.visible_keys()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._face.visible_keys())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._face.visible_keys())

    def __len__(self) -> int:
        return len(self._face.visible_keys())

    def __bool__(self) -> bool:
        return len(self) > 0

    def __eq__(self, other: object) -> bool:
        return self._copy() == (other._copy() if isinstance(other, ContextData) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return repr(self._copy())

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """Return the keys."""
        return self._copy().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return the live values."""
        return self._copy().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return keys and live values."""
        return self._copy().items()

    def copy(self) -> dict[str, Any]:
        """Return a plain, shallow copy."""
        return self._copy()

    def __copy__(self) -> dict[str, Any]:
        return self._copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        from copy import deepcopy

        return deepcopy(self._copy(), memo)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return (dict, (self._copy(),))

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {**self._copy(), **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {**other, **self._copy()}

    def __ior__(self, other: Any) -> ContextData:  # type: ignore[override,misc]
        self.update(other)
        return self

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value; KeyError without a default."""
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {1 + len(default)}")
        value = self._face.read(key, MISSING)
        if value is MISSING:
            if default:
                return default[0]
            raise KeyError(key)
        self._face.delete(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last key and return it with its value."""
        keys = self._face.visible_keys()
        if not keys:
            raise KeyError("popitem(): the context is empty")
        return keys[-1], self.pop(keys[-1])

    def clear(self) -> None:
        """Remove every key."""
        for key in self._face.visible_keys():
            self._face.delete(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, setting it first if it is absent."""
        value = self._face.read(key, MISSING)
        if value is not MISSING:
            return value
        self._face.write(key, default)
        return self._face.read(key)

    def update(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:  # type: ignore[override]
        """Set several keys."""
        for key, value in {**dict(other), **more}.items():
            self._face.write(key, value)
