"""Journaled times, microseconds since 1970, as aware datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at_moment(microseconds: int) -> datetime:
    """Return a journaled time as an aware datetime: the first or last that there is, for one beyond the calendar."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        # A wait of ten thousand years is nothing that hides all other runs.
        return (datetime.max if microseconds > 0 else datetime.min).replace(tzinfo=UTC)


def moment(microseconds: int | None) -> datetime | None:
    """Return a journaled time, if there is one, as an aware datetime."""
    return None if microseconds is None else at_moment(microseconds)
