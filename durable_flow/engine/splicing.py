"""Values that begin as the one before did: only what differs is written to the journal."""

from __future__ import annotations

from ..records import ContextSet, ContextSpliced, EncodedValue, Record

LEAST_BYTES = 512
"""Shorter values are written whole: they cost little, and plain SQL can read them."""


def spliced(record: Record, fact: ContextSet, before: EncodedValue | None) -> Record:
    """Return the record of a context write as a splice of the value that the key had, if that saves at least half."""
    key, (codec, data), task, attempt, k = fact
    if before is None or before.codec != codec:
        return record
    keep = common_prefix(before.data, data)
    if 2 * keep < len(data):
        return record
    return record._replace(fact=ContextSpliced(key, keep, EncodedValue(codec, data[keep:]), task, attempt, k))


def common_prefix(old: bytes, new: bytes) -> int:
    """Return how many bytes two values have in common at their beginning.

    Slices are compared, not bytes: Python does that at the speed of memory.
    """
    same, end = 0, min(len(old), len(new))  # it is one of these or between
    # A list that has grown differs in the last byte of what it was.
    probe = max(1, end - 1)
    while same < end:
        if old[same:probe] == new[same:probe]:
            same = probe
        else:
            end = probe - 1
        probe = (same + end + 1) // 2
    return same
