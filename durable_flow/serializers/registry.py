"""The registry: which class a stored name means for one serializer, and how its objects are stored."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SerializationError
from ..events import Event, event_name, find_event_class
from .names import find_loaded, stored_name
from .plans import EnumPlan, Plan, plan_for
from .refusal import Refusal


class Registry:
    """Finds classes by stored name: first those given explicitly, then all that the program has loaded.

    `allowed`, if given, closes the set: classes, and names of classes, that alone may be stored and built.

    A name is used for writing only if it leads back to the same class at that moment, because reading could give an
    object of another class otherwise.
    """

    def __init__(self, types: Iterable[type] = (), allowed: Iterable[type | str] | None = None):
        self._own: dict[str, type] = {}
        self._allowed: frozenset[type | str] | None = None
        if allowed is not None:
            self._allowed = frozenset(allowed)
            types = (*types, *(cls for cls in self._allowed if isinstance(cls, type)))
        self._plans: dict[type, Plan | EnumPlan | None] = {}
        for cls in types:
            name = event_name(cls) if issubclass(cls, Event) else stored_name(cls)
            if self._own.setdefault(name, cls) is not cls:
                raise SerializationError(
                    f"two classes have the stored name {name!r}: {stored_name(self._own[name])} and "
                    f"{stored_name(cls)}; give one of them an event_name of its own"
                )

        for cls in types:
            for alias in vars(cls).get("event_aliases", ()) if issubclass(cls, Event) else ():
                self._own.setdefault(alias, cls)

    def permits(self, cls: type) -> bool:
        """Tell whether objects of this class may be stored and built: durable_flow's own always may."""
        if self._allowed is None or cls in self._allowed or (cls.__module__ + ".").startswith("durable_flow."):
            return True
        return not self._allowed.isdisjoint((stored_name(cls), f"{cls.__module__}.{cls.__qualname__}"))

    def require_permitted(self, cls: type) -> None:
        """Raise Refusal for a class whose objects may not be stored."""
        if not self.permits(cls):
            raise Refusal(f"class {stored_name(cls)} is not among the allowed_types of this JsonSerializer")

    def find_event(self, name: str) -> type[Event] | None:
        """Return the event class that stored events of this name belong to."""
        found = self._own.get(name) or find_event_class(name) or (find_loaded(name) if ":" in name else None)
        if found is not None and issubclass(found, Event):
            return found if self._allowed is None or self.permits(found) else None
        return Event if name == "Event" else None  # the base class is the only one that did not register itself

    def find_class(self, name: str) -> type | None:
        """Return the class of this name ("module:qualname")."""
        found = self._own.get(name) or find_loaded(name)
        return found if found is None or self.permits(found) else None

    def name_of_event(self, cls: type[Event]) -> str:
        """Return the name under which events of this class are stored. Raises Refusal."""
        self.require_permitted(cls)
        for name in (event_name(cls), stored_name(cls)):
            if self.find_event(name) is cls:
                return name
        raise Refusal(
            f"event class {stored_name(cls)} would not be found when the event is read: another class is called "
            f"{event_name(cls)!r} now; give one of them an event_name of its own, or define it at module level"
        )

    def name_of_class(self, cls: type) -> str:
        """Return the name under which objects of this class are stored. Raises Refusal."""
        self.require_permitted(cls)
        name = stored_name(cls)
        found = self.find_class(name)
        if found is cls:
            return name
        problem = "is not found in its module" if found is None else "is no longer what its module has under this name"
        raise Refusal(
            f"class {name} {problem}, so the object could not be read again; define the class at module level, once, "
            "annotate a field of an event or of the state class with it, "
            f"or register_adapter({cls.__qualname__}, encode, decode)"
        )

    def plan(self, cls: type) -> Plan | EnumPlan | None:
        """Return how objects of this class are stored; None if only an adapter could do it. Raises Refusal."""
        try:
            return self._plans[cls]
        except KeyError:
            plan = self._plans[cls] = plan_for(cls)
            return plan
