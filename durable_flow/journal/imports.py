"""Writing a run of another journal into a SQL database, within one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..errors import DurableFlowError
from ..records import MessageReceived, Record
from . import sql
from .calls import Call
from .changes import apply_changes
from .delivery import same_run
from .encode import check_event, check_text, encode
from .protocol import ImportedMessage, ImportedPage, ImportedRun
from .seals import ERROR_KIND, MESSAGE_KIND, REASON_KIND, Seals, seal_rows
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
            after = 0
            for epoch, records in pages():
                _write(execute, key, run_id, uid, after, epoch, records, seals, limit)
                after += len(records)
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
