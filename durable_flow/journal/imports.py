"""Writing a run of another journal into a SQL database, within one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..errors import DurableFlowError
from ..records import EncodedValue, MessageReceived, Record, WaitOpened
from . import sql
from .calls import Call
from .changes import apply_changes
from .delivery import same_run
from .encode import check_event, check_text, encode
from .protocol import (
    Earlier,
    EarlierMessage,
    EarlierWait,
    ImportedMessage,
    ImportedPage,
    ImportedRun,
    StreamRow,
)
from .seals import ERROR_KIND, MESSAGE_KIND, REASON_KIND, STREAM_KIND, Seals, seal_rows
from .text import line
from .units import Execute


def import_run(
    run: ImportedRun,
    pages: Callable[[], Iterable[ImportedPage]],
    messages: Sequence[ImportedMessage],
    now: int,
    *,
    seals: Seals,
    limit: int,
) -> Call:
    """Write a run with its records, items, waits and messages: gives its key, None if its run id exists."""
    run_id, uid = run.new.run_id, run.new.uid
    for text in (run_id, uid, run.new.workflow, run.new.shape, run.status):
        check_text(text, run_id, "run")
    for message, _ in messages:
        for part in (message.message_id, message.kind, message.wait_id, message.step, message.reason):
            check_text(part or "", run_id, "message")
        if message.event is not None:
            check_event(message.event, run_id, limit)
    values = dict(
        zip(
            [column.name for column in sql.NEW_RUN_COLUMNS],
            (
                *run.new[:4], run.status, run.epoch, None, run.wake_at, run.new.parent, run.new.parent_seq,
                run.created_at, run.updated_at, run.finished_at,
                seals.seal_text(line(run.error), uid=uid, seq=0, kind=ERROR_KIND),
            ),
            strict=True,
        )
    )  # fmt: skip

    def call(execute: Execute, again: bool) -> int | None:
        execute(sql.lock_uid, {"uid_": uid})
        same = execute(sql.run_by_uid, {"uid_": uid})
        if same:
            key, name = same[0]
            if again and name == run_id:
                return int(key)
            raise same_run(run_id, name)
        execute(sql.savepoint, {})
        try:
            parent = execute(sql.run_by_uid, {"uid_": run.parent_uid}) if run.parent_uid is not None else []
            made = execute(sql.insert_run, {**values, "parent": parent[0][0]} if parent else values)
            if not made:
                return None
            key = int(made[0][0])
            if run.first > 1:
                execute(sql.keep_from, {"run_": key, "seq_": run.first, "now_": run.compacted_at})
            after = run.first - 1
            for epoch, records, earlier in pages():
                if records:
                    _write(execute, key, run_id, uid, after, epoch, records, seals, limit)
                after += len(records)
                _write_earlier(execute, key, run_id, uid, run.first, earlier, seals, limit)
            for message in messages:
                execute(sql.insert_any_message, _message_values(message, key, uid, now, seals))
        except DurableFlowError:
            # The others end the transaction; these are one unit's own, and the writer goes on with the rest.
            execute(sql.undo_savepoint, {})
            raise
        return key

    return call


def _write(
    execute: Execute, run: int, run_id: str, uid: str, after: int, epoch: int, records: Sequence[Record],
    seals: Seals, limit: int,
) -> None:  # fmt: skip
    encoded = seal_rows(encode(run, run_id, after, epoch, records, limit), seals, uid)
    for statement, values in (*sql.insert_records.split(encoded.rows), *sql.insert_items.split(encoded.stream)):
        execute(statement, values)
    if encoded.changes is not None:
        # Their rows have other ids here; they are written below.
        encoded.changes.consumed.clear()
        apply_changes(execute, run, encoded.changes)
    for record in records:
        if isinstance(record.fact, MessageReceived) and record.fact.message_id is not None:
            execute(sql.insert_any_message, {
                **dict.fromkeys(sql.insert_any_message.names), "run": run, "message_id": record.fact.message_id,
                "kind": record.fact.kind, "sent_at": record.at, "consumed_seq": record.seq,
            })  # fmt: skip


def _write_earlier(
    execute: Execute, run: int, run_id: str, uid: str, first: int, rows: Sequence[Earlier], seals: Seals, limit: int
) -> None:  # fmt: skip
    """Write what belongs to records that were compacted: as those records would have, had they been there."""
    items: list[sql.Params] = []
    for row in rows:
        match row:
            case StreamRow():
                name = codec = payload = seal = v = None
                if row.event is not None:
                    check_event(row.event, run_id, limit)
                    name, codec, v, data = row.event
                    payload, seal = seals.seal(data, uid=uid, seq=row.position, kind=STREAM_KIND)
                for text in (row.step, row.wait_id):
                    check_text(text or "", run_id, "stream")
                items.append((
                    run, row.position, row.at, row.step, name, codec, payload, seal, v, row.wait_id, row.reset_since,
                    row.task,
                ))  # fmt: skip
            case EarlierWait():
                strict = EncodedValue("json", b"{}") if row.strict else None
                fact = WaitOpened(row.wait_id, None, 0, "", 0, False, row.wanted, strict, None, None, row.human)
                encoded = encode(run, run_id, first - 1, 1, [Record(first, row.opened_at, True, fact)], limit)
                assert encoded.changes is not None
                encoded.changes.settle(row.wait_id, row.outcome)
                sealed = seal_rows(encoded, seals, uid).changes
                assert sealed is not None
                apply_changes(execute, run, sealed)
            case EarlierMessage():
                check_text(row.message_id, run_id, "message")
                execute(sql.insert_any_message, {
                    **dict.fromkeys(sql.insert_any_message.names), "run": run, "message_id": row.message_id,
                    "kind": "event", "sent_at": 0, "consumed_seq": first,
                })  # fmt: skip
    for statement, values in sql.insert_items.split(items):
        execute(statement, values)


def _message_values(imported: ImportedMessage, run: int, uid: str, now: int, seals: Seals) -> dict[str, object]:
    message, event = imported.message, imported.message.event
    payload, seal = None, None
    if event is not None:
        payload, seal = seals.seal(event.data, uid=uid, seq=0, kind=MESSAGE_KIND.format(message.message_id))
    reason = seals.seal_text(message.reason, uid=uid, seq=0, kind=REASON_KIND.format(message.message_id))
    return {
        "run": run, "message_id": message.message_id, "kind": message.kind,
        "name": event.name if event is not None else None, "codec": event.codec if event is not None else None,
        "payload": payload, "seal": seal,
        "v": event.v if event is not None else None, "wait_id": message.wait_id, "step": message.step,
        "reason": reason, "sent_at": now, "consumed_seq": None,
        "undelivered_at": now if imported.undelivered else None,
    }  # fmt: skip
