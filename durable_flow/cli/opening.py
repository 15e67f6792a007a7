"""Opening the journal that a command works on, with the keys that the environment has.

Keys come by the environment alone: everybody on a machine sees the arguments of its processes.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from ..errors import ArchiveError, DeserializationError, DurableFlowError, JournalUnavailableError, SerializationError
from ..journal.journal import DEFAULT_URL, URL_VARIABLE, Journal
from ..journal.migrate import kept_url, version_at
from ..journal.url import is_postgres, masked
from ..serializers.base import Seal, Serializer

SEAL_VARIABLE = "DURABLE_FLOW_SEAL_KEYS"
SERIALIZER_VARIABLE = "DURABLE_FLOW_SERIALIZER_KEY"


@asynccontextmanager
async def opened(url: str | None, *, allow_plaintext: bool = False, create: bool = False) -> AsyncIterator[Journal]:
    """Open the journal at `url` (None: the default) with the environment's keys, and close it.

    Where there is none, none is made unless `create`: a command that looks for something has the wrong name then.

    Raises JournalUnavailableError there, JournalUrlError for memory://, SerializationError if the variable of the keys
    is set and has none, ImportError if there are keys of a seal and the package cryptography is missing, and as Journal
    and EncryptedSeal do.
    """
    where = kept_url(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    if not create and not is_postgres(where) and await asyncio.to_thread(version_at, where) is None:
        raise JournalUnavailableError(
            f"{masked(where)} has no journal. Name the database by --url or {URL_VARIABLE}; nothing was done"
        )
    async with Journal(url, seal=_seal(allow_plaintext), readers=_readers()) as journal:
        yield journal


def told(command: str, work: Coroutine[Any, Any, str | None]) -> int:
    """Run a command, print what it returns, or what went wrong in one line, and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal does not know is shown as an escape, as it is on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        said = asyncio.run(work)
        if said is not None:
            print(said)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough, as `head` has; the interpreter is not to say so at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (DurableFlowError, ImportError, OSError) as error:
        of_data = isinstance(error, (ArchiveError, DeserializationError))
        lacks_keys = of_data and "seal" in str(error) and not _seal_keys()
        more = f". Commands take the keys of an EncryptedSeal from the environment's {SEAL_VARIABLE}"
        print(f"durable-flow {command}: {error}{more if lacks_keys else ''}", file=sys.stderr)
        return 1
    return 0


def _seal(allow_plaintext: bool) -> Seal | None:
    keys = _seal_keys()
    if not keys:
        if os.environ.get(SEAL_VARIABLE):
            raise SerializationError(
                f"{SEAL_VARIABLE} is set and has no key in it. Name the keys, or unset it: then nothing is encrypted"
            )
        return None
    from ..serializers import EncryptedSeal

    return EncryptedSeal(keys, allow_plaintext=allow_plaintext)


def _seal_keys() -> list[str]:
    return re.findall(r"[^\s,]+", os.environ.get(SEAL_VARIABLE, ""))


def _readers() -> list[Serializer]:
    """Return what reads signed pickles if there is a key; without one they are shown as they are stored."""
    if not os.environ.get(SERIALIZER_VARIABLE):
        return []
    from ..serializers import JsonPickleSerializer, PickleSerializer

    return [PickleSerializer(), JsonPickleSerializer()]
