"""Which errors are tried again: conditions over the error, combined by `|` and `&`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import tenacity
from tenacity.retry import retry_base

from ..errors import WorkflowValidationError
from .moment import Moment, require_blocks

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


class RetryCondition(Protocol):
    """Anything that tells from the error whether to try again; also a plain function."""

    def __call__(self, error: BaseException) -> bool:
        """Tell whether to try again after this error."""


class _Condition:
    """A condition over one of tenacity's."""

    def __init__(self, strategy: Callable[[tenacity.RetryCallState], bool]):
        self._strategy = strategy

    def __call__(self, error: BaseException) -> bool:
        """Tell whether to try again after this error."""
        return bool(self._strategy(Moment(error=error)))

    def __or__(self, other: RetryCondition) -> retry_any:
        return retry_any(self, other)

    def __ror__(self, other: RetryCondition) -> retry_any:
        return retry_any(other, self)

    def __and__(self, other: RetryCondition) -> retry_all:
        return retry_all(self, other)

    def __rand__(self, other: RetryCondition) -> retry_all:
        return retry_all(other, self)


class retry_always(_Condition):
    """Every error."""

    def __init__(self) -> None:
        super().__init__(tenacity.retry_always)


class retry_never(_Condition):
    """No error."""

    def __init__(self) -> None:
        super().__init__(tenacity.retry_never)


class retry_if_exception(_Condition):
    """Errors of which `predicate` says so. What it raises fails the step, as every error of a policy does."""

    def __init__(self, predicate: Callable[[BaseException], bool]):
        require_blocks("retry_if_exception", (predicate,), retry_base, "lambda error: ...")
        super().__init__(tenacity.retry_if_exception(predicate))


class retry_if_exception_type(_Condition):
    """Errors of one of these classes."""

    def __init__(self, exception_types: ExceptionTypes = Exception):
        _require_types("retry_if_exception_type", exception_types)
        super().__init__(tenacity.retry_if_exception_type(exception_types))


class retry_if_not_exception_type(_Condition):
    """Errors of none of these classes."""

    def __init__(self, exception_types: ExceptionTypes = Exception):
        _require_types("retry_if_not_exception_type", exception_types)
        super().__init__(tenacity.retry_if_not_exception_type(exception_types))


class retry_unless_exception_type(_Condition):
    """Errors of none of these classes; the other name of `retry_if_not_exception_type`."""

    def __init__(self, exception_types: ExceptionTypes = Exception):
        _require_types("retry_unless_exception_type", exception_types)
        super().__init__(tenacity.retry_unless_exception_type(exception_types))


class retry_if_exception_cause_type(_Condition):
    """Errors with one of these classes anywhere in their chain of `__cause__`."""

    def __init__(self, exception_types: ExceptionTypes = Exception):
        _require_types("retry_if_exception_cause_type", exception_types)
        super().__init__(tenacity.retry_if_exception_cause_type(exception_types))


class retry_if_exception_message(_Condition):
    """Errors whose text is `message`, or begins with what the regular expression `match` matches. Give one of both."""

    def __init__(self, message: str | None = None, match: str | re.Pattern[str] | None = None):
        super().__init__(tenacity.retry_if_exception_message(message, match))


class retry_if_not_exception_message(_Condition):
    """Errors whose text is not `message`, or does not begin with what `match` matches. Give one of both."""

    def __init__(self, message: str | None = None, match: str | re.Pattern[str] | None = None):
        super().__init__(tenacity.retry_if_not_exception_message(message, match))


class retry_any(_Condition):
    """Errors that at least one of the conditions takes; also `a | b`."""

    def __init__(self, *retries: RetryCondition):
        require_blocks("retry_any", retries, retry_base, "retry_if_exception_type(OSError)")
        super().__init__(tenacity.retry_any(*map(_strategy_of, retries)))


class retry_all(_Condition):
    """Errors that every condition takes; also `a & b`."""

    def __init__(self, *retries: RetryCondition):
        require_blocks("retry_all", retries, retry_base, "retry_if_exception_type(OSError)")
        super().__init__(tenacity.retry_all(*map(_strategy_of, retries)))


def _strategy_of(condition: RetryCondition) -> Callable[[Any], bool]:
    if isinstance(condition, _Condition):
        return condition._strategy
    return lambda moment: condition(moment.outcome.exception())


def _require_types(block: str, types: object) -> None:
    for cls in types if isinstance(types, tuple) else (types,):
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise WorkflowValidationError(f"{block}({types!r}): give an exception class, or a tuple of such.")
