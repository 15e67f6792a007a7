"""Cursors and limits as callers give them, made such that every database takes them."""

from __future__ import annotations

# Nothing has as many rows, and every database takes the number.
MOST = 1 << 62


def cursor(after: int) -> int:
    """Return a cursor: a number below all others for a negative one. Raises TypeError for what is no int."""
    if type(after) is not int:
        raise TypeError(f"after={after!r:.80}: it is a number, that of the last one that is known already; 0 for none")
    return max(0, min(after, MOST))


def limited(limit: int | None) -> int | None:
    """Return a limit; None is none. Raises TypeError for what is no int, ValueError for a negative one."""
    if limit is None:
        return None
    if type(limit) is not int:
        raise TypeError(f"limit={limit!r:.80}: it is a number, or None for all")
    if limit < 0:
        raise ValueError(f"limit={limit}: it is 0 or more, or None for all")
    return min(limit, MOST)
