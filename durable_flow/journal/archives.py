"""Exporting a run to an archive, and importing one: whole, or with an error and without any effect."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..errors import ArchiveError, RunConflictError
from ..fold import fold
from ..records import (
    EncodedEvent,
    JournalCompacted,
    MessageReceived,
    Record,
    RunClaimed,
    StreamPublished,
    WaitOpened,
)
from ..snapshot import decode_state, open_waits
from ..state import RunState
from .archive import (
    Chain,
    Footer,
    ItemLine,
    Manifest,
    RecordLine,
    earlier_content,
    footer_content,
    item_content,
    manifest_content,
    message_content,
    read_line,
    read_manifest,
    record_content,
    sealed_content,
)
from .archive_checks import Checks
from .archive_files import ArchiveFile, Output, lines, writing
from .archive_limits import MAX_LINE_BYTES, MAX_RECORDS, MAX_TOTAL_BYTES
from .info import ArchiveInfo
from .kept import require_kept
from .protocol import (
    Earlier,
    EarlierMessage,
    EarlierWait,
    ImportedMessage,
    ImportedPage,
    JournalStore,
    RunRow,
    StreamRow,
)
from .runid import require_run_id
from .shielded import shielded

if TYPE_CHECKING:
    from ..serializers.base import Seal

# So many records, and hardly more bytes of them, are in memory at a time.
_PAGE = 200
_PAGE_BYTES = 1 << 20
# Up to this size an archive that is imported is kept in memory meanwhile, and on disk beyond.
_SPOOL_BYTES = 8 << 20

_Read = Callable[[], Iterable[bytes]]
_Check = Callable[[Manifest], Checks]


class _Writer:
    """Writes contents as lines of a chain."""

    def __init__(self, output: Output, seal: Seal | None, uid: str):
        self.chain = Chain()
        self._output, self._seal, self._uid = output, seal, uid

    def begin(self, manifest: Manifest) -> None:
        """Write the first line, which is never sealed."""
        self._output.write(self.chain.close(manifest_content(manifest)))

    def write(self, contents: Sequence[Mapping[str, Any]]) -> None:
        """Write lines."""
        for content in contents:
            if self._seal is not None:
                content = sealed_content(content, self._seal, self._uid, self.chain.lines)
            self._output.write(self.chain.close(content))


async def export_run(
    store: JournalStore, run: int, file: ArchiveFile, *, version: str, seal: Seal | None = None
) -> ArchiveInfo:
    """Write the archive of a run up to its newest boundary, see Journal.export; `version` is the package's."""
    # The messages first: what the run takes from now on is in the records, or a message still at their end.
    waiting = await store.unconsumed(run)
    [row] = await store.find_many([run])
    require_kept(row, "an archive")
    over, taken = await store.earlier(run) if row.first > 1 else ([], [])
    state, items, received, opened = await _counted(store, row)
    messages = [_as_of(each, state) for each in waiting if each.message.message_id not in received]
    counts = Footer(state.seq - row.first + 1, items, len(messages))
    manifest = Manifest(
        row.run_id, row.uid, row.workflow, row.shape, state.status, *counts, row.created_at, store.now(), version,
        seal.id if seal is not None else None, row.first, row.compacted_at if row.first > 1 else None,
    )  # fmt: skip
    with writing(file) as output:
        writer = _Writer(output, seal, row.uid)
        await asyncio.to_thread(writer.begin, manifest)
        epoch = 1
        async for page in _pages(store, row, state.seq):
            published = await _published(store, row, page)
            contents = []
            for record in page:
                if isinstance(record.fact, RunClaimed):
                    epoch = record.fact.epoch
                elif isinstance(record.fact, JournalCompacted):
                    compacted = decode_state(record.fact.state)
                    epoch = compacted.epoch
                    await asyncio.to_thread(writer.write, [record_content(record, epoch)])
                    earlier: list[Earlier] = [wait for wait in over if wait.wait_id not in opened]
                    earlier += [message for message in taken if message.message_id not in received]
                    await asyncio.to_thread(writer.write, [earlier_content(each) for each in earlier])
                    async for some in _items_before(store, row, compacted):
                        await asyncio.to_thread(writer.write, [earlier_content(item) for item in some])
                    continue
                contents.append(record_content(record, epoch))
                if isinstance(record.fact, StreamPublished):
                    for position in range(record.fact.first, record.fact.first + len(record.fact.digests)):
                        contents.append(item_content(published[position]))
            await asyncio.to_thread(writer.write, contents)
        await asyncio.to_thread(writer.write, [*map(message_content, messages), footer_content(counts)])
        await asyncio.to_thread(output.end)
    return ArchiveInfo(
        row.run_id, row.uid, row.workflow, state.status, *counts, bytes=output.bytes, hash=writer.chain.hash
    )


def _as_of(waiting: ImportedMessage, state: RunState) -> ImportedMessage:
    """Return a message as it is in this state: the run may have ended, or gone on, since the message was looked at."""
    late = waiting.undelivered and waiting.message.kind == "cancel"
    return waiting._replace(undelivered=state.ended is not None or late)


async def _items_before(store: JournalStore, row: RunRow, compacted: RunState) -> AsyncIterator[list[StreamRow]]:
    """Yield the items that were published before the first record that is kept, some at a time."""
    after = compacted.streamed_before
    while after < compacted.position:
        found = await store.stream(row.run, after, limit=min(_PAGE, compacted.position - after))
        if not found or found[0].position != after + 1:
            raise await _gone(store, row, f"stream item {after + 1}")
        after = found[-1].position
        yield found


class _Counted(NamedTuple):
    """The state at the newest boundary, how many items were published up to there, and the messages taken; of a run
    that was compacted only what its records tell. `opened` are the waits of which they tell.
    """

    state: RunState
    items: int
    received: set[str]
    opened: set[str]


async def _counted(store: JournalStore, row: RunRow) -> _Counted:
    state, items, received, opened = RunState(), 0, set[str](), set[str]()
    held: list[Record] = []
    async for page in _pages(store, row, row.seq):
        held += page
        # Of a group that has not ended nothing is exported.
        whole = next((n for n in range(len(held), 0, -1) if held[n - 1].boundary), 0)
        fold(held[:whole], state)
        for record in held[:whole]:
            if isinstance(record.fact, StreamPublished):
                items += len(record.fact.digests)
            elif isinstance(record.fact, MessageReceived) and record.fact.message_id is not None:
                received.add(record.fact.message_id)
            elif isinstance(record.fact, WaitOpened):
                opened.add(record.fact.wait_id)
            elif isinstance(record.fact, JournalCompacted):
                opened.update(wait.wait_id for wait, _ in open_waits(decode_state(record.fact.state)))
        held = held[whole:]
    if not state.seq:
        raise ArchiveError(f"run {row.run_id} has no boundary yet. Nothing was exported; do it a little later")
    return _Counted(state, items, received, opened)


async def _pages(store: JournalStore, row: RunRow, to: int) -> AsyncIterator[list[Record]]:
    """Yield the records up to seq `to`, some at a time."""
    after = row.first - 1
    while after < to:
        page = await store.read(row.run, after=after, to=to, limit=_PAGE)
        if not page or page[0].seq != after + 1:
            raise await _gone(store, row, f"record {after + 1}")
        if page[0].seq != row.first and any(isinstance(record.fact, JournalCompacted) for record in page):
            raise ArchiveError(f"run {row.run_id} was compacted meanwhile. Nothing was exported; do it again")
        after = page[-1].seq
        yield page


async def _gone(store: JournalStore, row: RunRow, what: str) -> ArchiveError:
    """Return the error for an export that does not find what was there when it began."""
    said = f"run {row.run_id}: {what} is not there any more"
    found = await store.find_many([row.run])
    if not found or found[0].pruned_at is not None:
        return ArchiveError(f"{said}: the run was pruned meanwhile. Nothing was exported")
    if found[0].first > row.first:
        return ArchiveError(f"{said}: the run was compacted meanwhile. Nothing was exported; do it again")
    return ArchiveError(f"{said}. Nothing was exported")


async def _published(store: JournalStore, row: RunRow, page: Sequence[Record]) -> dict[int, ItemLine]:
    """Return the items that these records published, by position."""
    facts = [record.fact for record in page if isinstance(record.fact, StreamPublished)]
    if not facts:
        return {}
    after, last = facts[0].first - 1, facts[-1].first + len(facts[-1].digests) - 1
    found: dict[int, ItemLine] = {}
    while after < last:
        rows = await store.stream(row.run, after, limit=min(last - after, 1000))
        if not rows:
            raise await _gone(store, row, f"stream item {after + 1}")
        for item in rows:
            if item.event is not None:
                found[item.position] = ItemLine(item.position, item.event)
        after = rows[-1].position
    return found


# -- Import ------------------------------------------------------------------------------------------------------------


async def import_run(
    store: JournalStore,
    file: ArchiveFile,
    new_run_id: str | None,
    *,
    seal: Seal | None = None,
    allow_codecs: Collection[str] = (),
    max_line_bytes: int = MAX_LINE_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
    max_records: int = MAX_RECORDS,
    max_payload_bytes: int,
) -> str:
    """Write the run of an archive into a store and return its id, see Journal.import_."""
    if new_run_id is not None:
        require_run_id(new_run_id)
    read = partial(lines, file, max_line_bytes=max_line_bytes, max_total_bytes=max_total_bytes)
    check = partial(Checks, codecs=allow_codecs, max_records=max_records, max_payload_bytes=max_payload_bytes)
    copy = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed by who reads it last
    try:
        checks = await asyncio.to_thread(_verified, read, check, seal, copy)
    except BaseException:
        copy.close()
        raise
    run_id = new_run_id or checks.manifest.run_id
    # To the end, also if the caller is cancelled: the transaction that is under way reads the copy.
    key = await shielded(_written(store, checks, run_id, seal, copy))
    if key is None:
        raise RunConflictError(
            f"the journal has another run {run_id} in {store.url}. Nothing was imported; "
            "import it under another id with new_run_id="
        )
    return run_id


async def _written(store: JournalStore, checks: Checks, run_id: str, seal: Seal | None, copy: IO[bytes]) -> int | None:
    with copy:
        opener = seal if checks.manifest.seal is not None else None
        pages = partial(_imported_pages, copy, opener, checks.manifest.uid)
        return await store.import_run(checks.imported_run(run_id), pages, checks.messages)


def _verified(read: _Read, check: _Check, seal: Seal | None, copy: IO[bytes]) -> Checks:
    """Read an archive to its end, keep a copy of its lines, and return what was found in it."""
    chain = Chain()
    checks: Checks | None = None
    try:
        for line in read():
            text = chain.open(line)
            if checks is None:
                manifest = read_manifest(text)
                _require_seal(manifest, seal)
                checks = check(manifest)
                opener = seal if manifest.seal is not None else None
                continue
            copy.write(text + b"\n")
            checks.take(read_line(text, opener, checks.manifest.uid, chain.lines - 1))
        if checks is None or checks.footer is None:
            raise ArchiveError("it ends before its footer: it was cut off")
    except ArchiveError as error:
        raise ArchiveError(
            f"this archive is refused at line {chain.lines or 1}: {error}. Nothing was imported"
        ) from error
    return checks


def _require_seal(manifest: Manifest, seal: Seal | None) -> None:
    if manifest.seal is None and seal is not None and getattr(seal, "is_required", False):
        raise ArchiveError(
            f"it is not sealed by {seal.id!r}, which this journal requires: whoever wrote it may not have had the key. "
            "If you trust them, open the journal with EncryptedSeal(keys=[...], allow_plaintext=True)"
        )
    if manifest.seal is not None and (seal is None or seal.id != manifest.seal):
        configured = "none is configured" if seal is None else f"the one configured is {seal.id!r}"
        raise ArchiveError(
            f"it was closed with the seal {manifest.seal!r:.50}, and {configured}. Open the journal with that seal"
        )


def _imported_pages(copy: IO[bytes], seal: Seal | None, uid: str) -> Iterator[ImportedPage]:
    """Yield the records of an archive that was verified, with their items."""
    copy.seek(0)
    records: list[Record] = []
    items: list[EncodedEvent] = []
    earlier: list[Earlier] = []
    epoch = size = 0
    for number, text in enumerate(copy, 1):
        line = read_line(text, seal, uid, number)
        if isinstance(line, ItemLine):
            items.append(line.event)
        elif items:
            records.append(_with_items(records.pop(), items))
            items = []
        if isinstance(line, RecordLine):
            if records and (earlier or line.epoch != epoch or len(records) >= _PAGE or size > _PAGE_BYTES):
                yield ImportedPage(epoch, records, earlier)
                records, earlier, size = [], [], 0
            epoch = line.epoch
            records.append(line.record)
        elif isinstance(line, StreamRow | EarlierWait | EarlierMessage):
            earlier.append(line)
            if size > _PAGE_BYTES:
                yield ImportedPage(epoch, records, earlier)
                records, earlier, size = [], [], 0
        size += len(text)
    yield ImportedPage(epoch, records, earlier)


def _with_items(record: Record, items: Sequence[EncodedEvent]) -> Record:
    assert isinstance(record.fact, StreamPublished)
    return record._replace(fact=record.fact._replace(items=tuple(items)))
