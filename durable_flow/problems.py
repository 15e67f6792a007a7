"""Several problems told at once: every check is made, and one error lists what each of them found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from .errors import WorkflowConfigurationError, WorkflowValidationError

P = ParamSpec("P")
T = TypeVar("T")

_HEAD = " cannot run:"
_ITEM = "\n  - "


class Problems:
    """What is wrong with `subject` ("workflow Review", "step 'rank'"), as its checks find it.

    A single error is raised as it was. What else there is becomes one WorkflowValidationError with a line for each,
    which is a WorkflowConfigurationError if one of them is.
    """

    def __init__(self, subject: str):
        self._subject = subject
        self._errors: list[WorkflowValidationError] = []
        self._sentences: list[str] = []

    def __bool__(self) -> bool:
        """Tell whether a problem was found."""
        return bool(self._sentences)

    def check(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what the function returns; None if it raises a WorkflowValidationError, which is kept."""
        try:
            return function(*args, **kwargs)
        except WorkflowValidationError as error:
            self.keep(error)
            return None

    def keep(self, error: WorkflowValidationError) -> None:
        """Keep a problem that was raised, or each of those that an error of this class lists."""
        self._errors.append(error)
        told, _, listed = str(error).partition(_HEAD + _ITEM)
        self._sentences += listed.split(_ITEM) if listed else [told]

    def add(self, sentences: Iterable[str]) -> None:
        """Keep problems that were not raised."""
        self._sentences += sentences

    def raise_any(self) -> None:
        """Raise what was found, if anything was."""
        if not self._sentences:
            return
        if len(self._errors) == 1 and self._sentences == [str(self._errors[0])]:
            raise self._errors[0]
        configuration = any(isinstance(error, WorkflowConfigurationError) for error in self._errors)
        kind = WorkflowConfigurationError if configuration else WorkflowValidationError
        raise kind(self._subject + _HEAD + "".join(_ITEM + sentence for sentence in self._sentences))
