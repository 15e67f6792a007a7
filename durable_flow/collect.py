"""How a step takes the elements of a fan-out together: `list[E]`, or `Annotated[list[E], Collect(Take(n))]`."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["All", "Cardinality", "Collect", "Take"]


class Cardinality:
    """Base of what says when a join fires: `All()` or `Take(n)`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class All(Cardinality):
    """Fire once, when nothing in the fan-out is pending any more, with every event collected; the default.

    The events come in the order in which they were emitted. Nothing collected is `[]`.
    """


@dataclass(frozen=True, slots=True)
class Take(Cardinality):
    """Fire once, at the n-th event, with the first `n`; or with what came, when nothing is pending any more.

    The rest of the fan-out goes on and never reaches this step. Raises ValueError unless `n` is a whole number of at
    least 1.
    """

    n: int

    def __post_init__(self) -> None:
        """Refuse what could never fire."""
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Take({self.n!r}): the number must be a whole number of at least 1.")


@dataclass(frozen=True, slots=True)
class Collect:
    """Says on a `list[E]` parameter when the step fires; `list[E]` alone means `Collect(All())`.

    As in `async def fastest(self, found: Annotated[list[Found], Collect(Take(3))]) -> StopEvent`.
    """

    cardinality: Cardinality = field(default_factory=All)
