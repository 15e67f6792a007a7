"""How much an archive may hold, unless its reader says otherwise."""

from __future__ import annotations

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
# A transaction of so many takes SQLite below half a minute, in which nobody else writes to that database.
MAX_RECORDS = 500_000
