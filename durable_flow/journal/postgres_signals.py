"""Hints between the processes on one Postgres database, by LISTEN and NOTIFY: which runs have something new."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..logs import fields
from . import shielded
from .postgres_connections import Connect, Line
from .postgres_trouble import said
from .protocol import Heard

logger = logging.getLogger("durable_flow")

CHANNEL = "durable_flow"
# A payload holds 8,000 bytes; of more runs than this no names are given.
_MAX_RUNS = 300
# What is told within so short a time is told together.
_TOGETHER_SECONDS = 0.005
_RETRY_SECONDS = 1.0
_SECONDS = 10.0
# To lose a hint in a power cut costs nothing, and to keep it an fsync.
_HASTY = "SELECT set_config('synchronous_commit', 'off', false)"


class Signals:
    """Tells other processes which runs have changed, outside of the transactions that changed them, and hears them.

    It has a connection of its own, made when it is first needed. A hint that cannot be sent is dropped.
    """

    def __init__(self, connect: Connect):
        self._line = Line(connect, first=_HASTY)
        self._heard: list[Heard] = []
        self._untold: set[int] = set()
        self._busy = asyncio.Lock()
        self._telling: asyncio.Future[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Call `heard` with the keys of runs that others have changed, None if any may have changed."""
        self._heard.append(heard)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.ensure_future(self._listen())

        def stop() -> None:
            if heard in self._heard:
                self._heard.remove(heard)

        return stop

    def tell(self, runs: Iterable[int]) -> None:
        """Tell others soon that these runs have changed."""
        self._untold.update(runs)
        if self._telling is None and not self._closed:
            self._telling = shielded.begin(self._tell())

    async def close(self) -> None:
        """Tell what is untold and end the connection."""
        self._closed = True
        if self._telling is not None:
            await asyncio.wait({self._telling})
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        self._line.drop()

    async def _tell(self) -> None:
        try:
            while self._untold:
                runs, self._untold = self._untold, set()
                payload = ",".join(map(str, runs)) if len(runs) <= _MAX_RUNS else ""
                async with self._busy:
                    connection = await self._line.ready()
                    await connection.fetch("SELECT pg_notify($1, $2)", CHANNEL, payload, timeout=_SECONDS)
                if not self._closed:
                    await asyncio.sleep(_TOGETHER_SECONDS)
        except Exception as exc:
            logger.debug("hints were not sent: %s", said(exc), extra=fields("hints_lost"))
            self._line.drop()
        finally:
            self._telling = None

    async def _listen(self) -> None:
        lost = asyncio.Event()
        while True:
            lost.clear()
            try:
                async with self._busy:
                    connection = await self._line.ready()
                    connection.add_termination_listener(lambda _: lost.set())
                    await connection.add_listener(CHANNEL, self._notified)
                # Whatever was told before this moment was not heard.
                self._call(None)
                await lost.wait()
            except Exception as exc:
                logger.debug("hints cannot be heard: %s", said(exc), extra=fields("hints_lost"))
                self._line.drop()
            await asyncio.sleep(_RETRY_SECONDS)

    def _notified(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        if pid == connection.get_server_pid():
            return  # this loop knows what it did
        self._call([int(run) for run in str(payload).split(",")] if payload else None)

    def _call(self, runs: Collection[int] | None) -> None:
        for heard in tuple(self._heard):
            heard(runs)
