"""Questions and answers: which open wait an event satisfies, and which answers come too late."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from ..errors import AlreadyAnsweredError
from ..events import Event, HumanResponseEvent, all_names, event_name, names_differ
from ..journal.delivery import is_wanted
from ..records import EncodedEvent, EventEmitted
from ..state import RunState, Wait
from .collecting import joins_of_answer
from .program import Program


class Answers:
    """Finds the waits of one run that events answer. Only live code can tell: requirements are compared as objects."""

    __slots__ = ("_codec", "_program", "_run_id", "_state")

    def __init__(self, run_id: str, state: RunState, program: Program):
        self._run_id = run_id
        self._state = state
        self._program = program
        self._codec = program.codec

    def matched(self, facts: tuple[Any, ...], taken: set[str]) -> tuple[Any, ...]:
        """Let each event that satisfies an open wait answer it: the oldest one, each once."""
        result = []
        for fact in facts:
            if isinstance(fact, EventEmitted):
                wait = next((w for w in self._state.waits.values() if self._satisfies(fact.event, w, taken)), None)
                if wait is not None:
                    taken.add(wait.wait_id)
                    fact = self._answering(fact, wait)
            result.append(fact)
        return tuple(result)

    def received(self, emitted: EventEmitted) -> tuple[EventEmitted, AlreadyAnsweredError | None]:
        """Let an event from outside answer its wait. What comes too late gets an error and reaches no step."""
        if emitted.answers is None:
            emitted = self.matched((emitted,), set())[0]
            before = self._answered_wait(emitted.event.name) if emitted.answers is None else None
            if before is None:
                return emitted, None
        else:
            wait = self._state.waits.get(emitted.answers)
            if wait is not None and wait.is_open:
                return self._answering(emitted, wait), None
            before = emitted.answers
        # It was open when the answer was sent.
        error = AlreadyAnsweredError(f"run {self._run_id}: wait {before} is no longer open; answer dropped")
        return emitted._replace(targets=(), answers=None, joins=()), error

    def asks_for(self, event: Event, wait_id: str | None) -> bool:
        """Tell whether the event would answer an open wait as a human's answer: one of its type, or the one named."""
        if wait_id is not None:
            wait = self._state.waits.get(wait_id)
            return wait is not None and wait.is_open
        if not isinstance(event, HumanResponseEvent):
            return False
        return self._is_asked_for(event_name(type(event)))

    def require_open(self, event: Event, wait_id: str | None) -> None:
        """Raise AlreadyAnsweredError for an answer to a wait that is not open, by its id or by the event's type."""
        if wait_id is not None:
            wait = self._state.waits.get(wait_id)
            if wait is None or not wait.is_open:
                raise AlreadyAnsweredError(
                    f"run {self._run_id}: wait {wait_id} is not open; it was answered before, timed out or was closed. "
                    "Nothing was recorded"
                )
        elif isinstance(event, HumanResponseEvent):
            name = event_name(type(event))
            before = self._answered_wait(name)
            if before is not None:
                raise AlreadyAnsweredError(
                    f"run {self._run_id}: no open question takes a {name}; wait {before} was answered before. "
                    "Nothing was recorded"
                )

    def _answered_wait(self, name: str) -> str | None:
        """Return the wait that an earlier answer of this name closed, if none is open and these events are answers."""
        before = next((self._state.answered[each] for each in all_names(name) if each in self._state.answered), None)
        cls = self._program.event_class(name)
        if before is None or cls is None or not issubclass(cls, HumanResponseEvent):
            return None
        return None if self._is_asked_for(name) else before

    def _is_asked_for(self, name: str) -> bool:
        names = all_names(name)
        return any(wait.is_open and is_wanted(names, wait.wanted) for wait in self._state.waits.values())

    def _satisfies(self, encoded: EncodedEvent, wait: Wait, taken: set[str]) -> bool:
        if not wait.is_open or wait.wait_id in taken or not _is_wanted(encoded.name, wait.wanted):
            return False
        if wait.requirements is None:
            return True
        event = self._codec.decode_event(encoded)
        return meets(event, self._codec.decode_value(wait.requirements))

    def _answering(self, emitted: EventEmitted, wait: Wait) -> EventEmitted:
        """A step's wait consumes the event; the answer to a returned question also goes to the steps that take it.

        It belongs to the question's fan-out, so what collects there collects it.
        """
        if wait.task is not None:
            return emitted._replace(answers=wait.wait_id, targets=(), joins=())
        joins = emitted.joins
        if self._program.has_joins:
            joins = joins_of_answer(self._program, self._state, emitted.event.name, wait.scope)
        return emitted._replace(answers=wait.wait_id, joins=joins)


def _is_wanted(name: str, wanted: tuple[str, ...]) -> bool:
    return name in wanted or (names_differ() and is_wanted(all_names(name), wanted))


def meets(event: Event, requirements: Mapping[str, Any]) -> bool:
    """Tell whether an event has the values that a wait requires."""
    return all(getattr(event, name, event.get(name)) == value for name, value in requirements.items())


def answer_names(program: Program) -> tuple[str, ...]:
    """Return the names of the events that answer a question which a step returns.

    Where a step accepts subclasses, those that the program has defined by now are among them.
    """
    classes: dict[type[Event], None] = dict.fromkeys(program.answer_types or (HumanResponseEvent,))
    pending = list(program.answer_bases)
    while pending:
        subclasses = pending.pop().__subclasses__()
        classes.update(dict.fromkeys(subclasses))
        pending += subclasses
    return tuple(dict.fromkeys(event_name(cls) for cls in classes))


@lru_cache(maxsize=256)
def answer_schema(classes: tuple[type[Event], ...]) -> str | None:
    """Return the JSON schema of events that answer a question, as text; None if their fields have none."""
    try:
        schemas = [cls.model_json_schema() for cls in classes]
    except PydanticInvalidForJsonSchema:
        return None
    return json.dumps(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})
