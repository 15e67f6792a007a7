"""The Postgres server of a benchmark: one of its own, as the tests have it but with fsync, or one that a URL names."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from postgres import PostgresServer, Server

__all__ = ["Server", "described", "fresh_database", "running_server"]


@contextmanager
def running_server(url: str, directory: Path) -> Iterator[Server]:
    """Give the server that the URL names; for an empty one start a server whose data lies in this directory."""
    if not url:
        with tempfile.TemporaryDirectory(dir=directory, prefix="pg-") as folder:
            # Others must get in: the server does not run as root.
            Path(folder).chmod(0o755)
            with PostgresServer(Path(folder) / "server", fsync=True) as server:
                yield server
        return
    given = Server(url)
    try:
        yield given
    finally:
        given.close()


@contextmanager
def fresh_database(server: Server) -> Iterator[str]:
    """Give the URL of an empty database, which is dropped afterwards."""
    name = f"durable_flow_benchmark_{uuid4().hex[:12]}"
    server.create(name)
    try:
        yield server.url(name)
    finally:
        server.drop(name)


def described(server: Server) -> str:
    """Return the version, and the settings that decide how fast a commit is."""
    settings = ["server_version", "fsync", "synchronous_commit", "shared_buffers"]
    version, *others = (server.execute(f"SHOW {name}")[0][0] for name in settings)
    return f"Postgres {version} ({', '.join(f'{n}={v}' for n, v in zip(settings[1:], others, strict=True))})"
