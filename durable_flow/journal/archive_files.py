"""The files of archives: written whole or not at all, read with an eye on their size. Plain, or compressed by gzip."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import ArchiveError

MAX_COMPRESSION = 100
"""How many times larger an archive may be than its compressed form."""

ArchiveFile = str | os.PathLike[str] | BinaryIO
"""A path, or a file opened for bytes."""

# To so much of what is read the limit of compression does not apply.
_SLACK_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
# For zlib: with the header and the checksum of gzip.
_GZIP_WINDOW = 31


class Output:
    """Where an archive is written to, compressed if asked for; `bytes` counts what was given to it."""

    def __init__(self, file: BinaryIO, *, compressed: bool = False, durable: bool = False):
        self._file = file
        self._durable = durable
        self._compressor = zlib.compressobj(wbits=_GZIP_WINDOW) if compressed else None
        self._written = 0
        self._ended = False
        self.bytes = 0

    def write(self, line: bytes) -> None:
        """Write a line."""
        self.bytes += len(line)
        if self._compressor is None:
            self._file.write(line)
            return
        self._put(self._compressor.compress(line))
        if len(line) >= _SLACK_BYTES:
            self._put(self._compressor.flush(zlib.Z_SYNC_FLUSH))
            self._check()

    def end(self) -> None:
        """Write what is left, and make it durable if it is a file of ours. May take a while, and may be called twice.

        Raises ArchiveError if it was compressed more than an import accepts.
        """
        if self._ended:
            return
        if self._compressor is not None:
            self._put(self._compressor.flush())
            self._check()
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())
        self._ended = True

    def _put(self, data: bytes) -> None:
        self._written += len(data)
        self._file.write(data)

    def _check(self) -> None:
        if _is_inflated(self.bytes, self._written):
            raise ArchiveError(
                f"this archive would be compressed more than {MAX_COMPRESSION}-fold, which an import refuses. "
                "Nothing was kept; export it to a file whose name does not end in .gz"
            )


def _is_inflated(plain: int, compressed: int) -> bool:
    return plain > MAX_COMPRESSION * compressed + _SLACK_BYTES


@contextmanager
def writing(file: ArchiveFile) -> Iterator[Output]:
    """Give an Output. A path has the whole archive at the block's end, and what it had before if the block raises.

    Its file is readable by its owner alone, and compressed if its name ends in ".gz". Raises TypeError for a file that
    was opened for text, OSError.
    """
    if not isinstance(file, str | os.PathLike):
        output = Output(_require_bytes(file))
        yield output
        output.end()
        return
    path = Path(file)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to export to")
    if path.exists() and not path.is_file():
        # A device or a pipe would be replaced by the archive.
        raise ArchiveError(f"{path} is no regular file. Nothing was exported; open it and pass the file object instead")
    # In the same folder, because a file is not renamed from one disk to another; mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as target:
            output = Output(target, compressed=path.name.endswith(".gz"), durable=True)
            yield output
            output.end()
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system has that notion."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _require_bytes(file: BinaryIO) -> BinaryIO:
    if isinstance(file, io.TextIOBase) or not (hasattr(file, "read") or hasattr(file, "write")):
        raise TypeError(f"file={file!r:.200}: it must be a path or a file opened for bytes")
    return file


def lines(file: ArchiveFile, *, max_line_bytes: int, max_total_bytes: int) -> Iterator[bytes]:
    """Yield the lines of an archive, each with its line feed. Raises ArchiveError, TypeError, OSError."""
    if not isinstance(file, str | os.PathLike):
        yield from _lines(_require_bytes(file), max_line_bytes, max_total_bytes)
        return
    # Without waiting for the other end of a pipe.
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        # Before it is opened as a file, which a folder cannot be.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ArchiveError(f"{os.fspath(file)} is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as source:
            yield from _lines(source, max_line_bytes, max_total_bytes)
    finally:
        os.close(descriptor)


def _lines(source: BinaryIO, max_line_bytes: int, max_total_bytes: int) -> Iterator[bytes]:
    total = size = 0
    parts: list[bytes] = []
    for chunk in _chunks(source):
        total += len(chunk)
        if total > max_total_bytes:
            raise ArchiveError(f"it holds more than max_total_bytes = {max_total_bytes:,} bytes")
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            if size + len(part) >= max_line_bytes:
                raise _too_long(max_line_bytes)
            yield b"".join((*parts, part, b"\n"))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size >= max_line_bytes:
            raise _too_long(max_line_bytes)
    if size:
        raise ArchiveError("it ends in the middle of a line: it was cut off")


def _too_long(max_line_bytes: int) -> ArchiveError:
    return ArchiveError(f"it has a line of more than max_line_bytes = {max_line_bytes:,} bytes")


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    """Yield what is in a file, a little at a time."""
    data = source.read(_CHUNK_BYTES)
    if not isinstance(data, bytes):
        raise TypeError(f"file={source!r:.200}: it must be opened for bytes")
    if not data.startswith(_GZIP):
        while data:
            yield data
            data = source.read(_CHUNK_BYTES)
        return
    inflate = zlib.decompressobj(wbits=_GZIP_WINDOW)
    taken = given = 0
    while True:
        try:
            # Also without data: there may be more to give of what was taken before.
            plain = inflate.decompress(data, _CHUNK_BYTES)
        except zlib.error as error:
            raise ArchiveError(f"its compression is damaged ({error})") from error
        taken += len(data) - len(inflate.unconsumed_tail)
        given += len(plain)
        if _is_inflated(given, taken):
            raise ArchiveError(f"it is compressed more than {MAX_COMPRESSION}-fold")
        if plain:
            yield plain
        if inflate.eof:
            if inflate.unused_data or source.read(1):
                raise ArchiveError("something follows the end of the compressed archive")
            return
        if not plain and not data:
            raise ArchiveError("its compression ends too early: it was cut off")
        data = inflate.unconsumed_tail or source.read(_CHUNK_BYTES)
