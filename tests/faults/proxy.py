"""A TCP proxy between a store and its Postgres: it sees each request, and cuts, delays or swallows the chosen ones."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from postgres import PostgresServer


class Fate(enum.Enum):
    """What becomes of a request."""

    LOST = "the connection is cut, the server never sees the request"
    TORN = "the connection is cut when the server has half of the request"
    UNANSWERED = "the server does what is asked, the connection is cut before its answer"
    HALF_ANSWERED = "the connection is cut in the middle of the answer"
    LATE = "the connection is cut, and the request reaches the server when the fault is told to `arrive`"
    HELD = "the request waits until the fault is told to `arrive`, nothing is cut"
    SWALLOWED = "neither the request nor anything after it is passed on, and nothing is cut"


@dataclass(eq=False)
class Fault:
    """What happens, once, to the first request to execute a statement that holds a text.

    `blackout`: from then on the proxy is dark.
    """

    fate: Fate
    text: str
    blackout: bool = False
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    _arrives: asyncio.Event = field(default_factory=asyncio.Event)
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    async def arrive(self) -> None:
        """Pass on a request that is late or held; returns when the server has answered the late one."""
        self._arrives.set()
        await self._done.wait()


@dataclass(eq=False)
class Link:
    """A client's connection. `requests` are the round trips that it has made since its session began, by their SQL.

    A request that only prepares a statement has an empty one.
    """

    requests: list[str] = field(default_factory=list)
    statements: dict[str, str] = field(default_factory=dict)
    client: asyncio.StreamWriter | None = None
    dark: bool = False
    fault: Fault | None = None
    answer: bytearray = field(default_factory=bytearray)


class Proxy:
    """Passes everything on, but for its faults. `dark`: new connections are taken and never answered."""

    def __init__(self, server: PostgresServer):
        self._server = server
        self._faults: list[Fault] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.links: list[Link] = []
        self.dark = False
        self.port = 0

    def url(self, database: str) -> str:
        """Return a URL with a password that leads through this proxy."""
        url = self._server.tcp_url(database, self._server.USER, self._server.PASSWORD)
        return url.replace(f":{self._server.port}/", f":{self.port}/") + "?sslmode=disable"

    def fault(self, fate: Fate, text: str, *, blackout: bool = False) -> Fault:
        """Arrange for a fault."""
        fault = Fault(fate, text, blackout)
        self._faults.append(fault)
        return fault

    def go_dark(self) -> None:
        """Pass nothing on any more, on no connection."""
        self.dark = True
        for link in self.links:
            link.dark = True

    def go_light(self) -> None:
        """Take connections again, and cut those that are dark."""
        self.dark = False
        for link in self.links:
            if link.dark and link.client is not None:
                link.client.close()

    def link_of(self, text: str) -> Link:
        """Return the last connection that has executed a statement with this text."""
        return next(link for link in reversed(self.links) if any(text in sql for sql in link.requests))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Cancelled at the end, and a server of streams would report that.
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            if self.dark:
                await asyncio.Event().wait()
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
            with contextlib.closing(to_writer):
                link = Link(client=writer)
                self.links.append(link)
                there = asyncio.create_task(self._there(link, reader, writer, to_writer))
                back = asyncio.create_task(self._back(link, to_reader, writer))
                try:
                    await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                    if link.fault is not None and link.fault.fate is Fate.LATE:
                        await asyncio.wait({there, back}, return_when=asyncio.ALL_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
                    await asyncio.gather(there, back, return_exceptions=True)

    # -- From the client to the server ---------------------------------------------------------------------------------

    async def _there(
        self, link: Link, reader: asyncio.StreamReader, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        """Pass on whole requests; returns when the connection is to be cut."""
        # The first message has no kind.
        size = await reader.readexactly(4)
        server.write(size + await reader.readexactly(struct.unpack("!I", size)[0] - 4))
        request, sql, executes = bytearray(), "", False
        while True:
            try:
                head = await reader.readexactly(5)
                body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            except asyncio.IncompleteReadError:
                return
            request += head + body
            kind = head[:1]
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                link.statements[name.decode()] = text.decode()
            elif kind == b"B":
                sql = link.statements[body.split(b"\0", 2)[1].decode()]
            elif kind == b"E":
                executes = True
            elif kind == b"Q":
                sql, executes = body[:-1].decode(), True
            if kind not in b"SQHpX":
                continue
            if kind in b"SQH" and not link.dark:
                link.requests.append(sql if executes else "")
            fault = self._fault_for(sql) if executes else None
            if fault is not None and await self._strike(link, fault, bytes(request), client, server):
                return
            if not link.dark:
                server.write(request)
                await server.drain()
            request, sql, executes = bytearray(), "", False

    def _fault_for(self, sql: str) -> Fault | None:
        for fault in self._faults:
            if fault.text in sql:
                self._faults.remove(fault)
                return fault
        return None

    async def _strike(
        self, link: Link, fault: Fault, request: bytes, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> bool:
        """Let a fault happen; tell whether the connection is to be cut now."""
        self.dark = self.dark or fault.blackout
        if fault.fate is Fate.HELD:
            fault.struck.set()
            await fault._arrives.wait()
            fault._done.set()
            return False
        link.fault = fault
        match fault.fate:
            case Fate.SWALLOWED:
                link.dark = True
            case Fate.TORN:
                server.write(request[: len(request) // 2])
                await server.drain()
            case Fate.LATE:
                client.close()
                fault.struck.set()
                await fault._arrives.wait()
                server.write(request)
            case Fate.UNANSWERED | Fate.HALF_ANSWERED:
                return False  # when the answer is there
        fault.struck.set()
        return fault.fate in (Fate.LOST, Fate.TORN, Fate.LATE)

    # -- From the server to the client ---------------------------------------------------------------------------------

    async def _back(self, link: Link, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Pass on what the server says; returns when the connection is to be cut."""
        while data := await reader.read(65536):
            fault = link.fault
            if link.dark:
                continue
            if fault is None:
                client.write(data)
                await client.drain()
                continue
            link.answer += data
            if not _is_whole(link.answer):
                continue
            if fault.fate is Fate.HALF_ANSWERED:
                client.write(link.answer[: len(link.answer) // 2])
                await client.drain()
            fault.struck.set()
            fault._done.set()
            return
        if link.fault is not None:
            link.fault._done.set()  # the server has ended the session instead of an answer


def _is_whole(answer: bytearray) -> bool:
    """Tell whether the server is ready for the next request: its last message says so."""
    at, kind = 0, b""
    while len(answer) - at >= 5:
        kind = bytes(answer[at : at + 1])
        at += 1 + struct.unpack_from("!I", answer, at + 1)[0]
    return at == len(answer) and kind == b"Z"
