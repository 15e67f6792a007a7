"""Plain text for a terminal: tables and paragraphs that fit its width."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

INDENT = "   "


def width() -> int:
    """Return how many columns to use: those of the terminal, at least 60 and at most 120."""
    return max(60, min(120, shutil.get_terminal_size().columns))


def paragraph(text: str, indent: str = INDENT) -> str:
    """Return the text wrapped to the terminal."""
    return textwrap.fill(text, width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], columns: int | None = None) -> str:
    """Return a table of at most `columns` characters a line (default: the terminal's).

    Columns of numbers are set to the right. The last column is cut where a line would be too long. Line ends and other
    characters that a terminal obeys are shown as escapes.
    """
    columns = columns or width()
    cells = [[_printable(str(cell)) for cell in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    lines = [list(head), ["-" * size for size in widths], *cells]
    return "\n".join(_line(line, widths, right, columns) for line in lines)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], columns: int) -> str:
    padded = [
        cell.rjust(size) if flush else cell.ljust(size) for cell, size, flush in zip(cells, widths, right, strict=True)
    ]
    line = (INDENT + "  ".join(padded)).rstrip()
    if len(line) <= columns:
        return line
    # A rule is cut silently; words that are missing are announced.
    return line[:columns] if set(cells[-1]) == {"-"} else line[: columns - 3] + "..."
