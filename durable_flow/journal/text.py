"""Text that every database takes: without NUL, without half surrogate pairs."""

from __future__ import annotations

from ..errors import SerializationError


def is_fit(text: str) -> bool:
    """Tell whether a database stores the text as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def unfit(where: str, text: str, *, path: str) -> SerializationError:
    """Return the error for text that is not fit; `where` begins its message."""
    return SerializationError(
        f"{where} {text[:80]!r} holds a NUL character or half a surrogate pair, which no database takes as text. "
        "Nothing was written; leave that character out or pass the text as bytes.",
        path=path,
    )


def line(text: str | None) -> str | None:
    """Return a summary made fit: an error must be told, whatever is in its message."""
    return None if text is None else text.replace("\0", "\ufffd").encode(errors="replace").decode()
