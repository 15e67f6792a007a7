"""The rarer writes, each a function on the writer's transaction: claims, messages from others, workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from ..records import Record, RunClaimed
from . import sql
from .delivery import Asked, answered_wait, no_such_run, require_unfinished
from .encode import check_event, check_text, encode
from .protocol import FINAL_STATUSES, Claim, NewMessage, RunUpdate, SnapshotRow, WorkerId, is_at_rest
from .seals import MESSAGE_KIND, REASON_KIND, SNAPSHOT_KIND, Seals
from .text import line
from .units import Execute

Call = Callable[[Execute, bool], Any]


def update_values(run: int, epoch: int, update: RunUpdate, now: int) -> tuple[sql.Statement, dict[str, Any]]:
    """Return the statement that changes a run's row, with its parameters. A run that has ended has no owner."""
    final = update.status in FINAL_STATUSES
    statement = sql.change_and_release_run if update.release or final else sql.change_run
    return statement, {
        "status": update.status, "wake_at": update.wake_at, "error": line(update.error), "owner": None,
        "updated_at": now, "end_": now if final else None, "run_": run, "epoch_": epoch,
    }  # fmt: skip


def claim(run: int, worker: WorkerId, epoch: int, seen: str, now: int) -> Call:
    """Take a run if its epoch is still `epoch`, and its status no other than `seen` at rest: gives a Claim, or None."""
    check_text(worker.id, str(run), "worker.id")

    def call(execute: Execute, again: bool) -> Claim | None:
        # A claim that may have been made may still be on its way: that one is waited for.
        head = execute(sql.run_locked if again else sql.run_if_free, {"run_": run})
        if not head:
            return None
        run_id, uid, status, found, owner = head[0]
        # Looked at only now: what the owner before wrote is complete since the run is locked.
        seq, at = execute(sql.last_record, {"run_": run})[0]
        if again and (found, owner) == (epoch + 1, worker.id):
            return Claim(run, run_id, uid, found, seq)
        # Who ends or parks a run does not raise its epoch.
        if found != epoch or (status != seen and is_at_rest(status)):
            return None
        execute(sql.claim_run, {"owner": worker.id, "updated_at": now, "run_": run, "epoch_": epoch})
        # The times of a run never go back, although clocks do.
        claimed = Record(seq + 1, max(now, at), True, RunClaimed(epoch + 1, worker.id, owner))
        rows = encode(run, run_id, seq, epoch + 1, [claimed], 1 << 20).rows
        execute(sql.insert_record, dict(zip(sql.JOURNAL_NAMES, rows[0], strict=True)))
        return Claim(run, run_id, uid, epoch + 1, seq + 1)

    return call


def release(run: int, epoch: int, status: str, wake_at: int | None, now: int) -> Call:
    """Give up a claim, if it is still the run's."""
    check_text(status, str(run), "status")
    _, values = update_values(run, epoch, RunUpdate(status, wake_at), now)

    def call(execute: Execute, again: bool) -> None:
        execute(sql.release_run, values)

    return call


def beat(worker: WorkerId, now: int) -> Call:
    """Insert or refresh a worker's row."""
    for part in (worker.id, worker.host, worker.boot, worker.namespace):
        check_text(part, "-", "worker")

    def call(execute: Execute, again: bool) -> None:
        execute(sql.beat, {
            "id": worker.id, "host": worker.host, "boot": worker.boot, "namespace": worker.namespace,
            "pid": worker.pid, "started": worker.started, "heartbeat_at": now,
        })  # fmt: skip

    return call


def retire(worker: WorkerId) -> Call:
    """Delete a worker's row and give up its claims."""

    def call(execute: Execute, again: bool) -> None:
        execute(sql.delete_worker, {"id_": worker.id})
        execute(sql.disown, {"owner_": worker.id})

    return call


def forget(worker: WorkerId) -> Call:
    """Delete the row of a worker that is gone and owns no unfinished run."""

    def call(execute: Execute, again: bool) -> None:
        execute(sql.forget_worker, {"id_": worker.id})

    return call


def save_snapshot(run: int, row: SnapshotRow, replacing: int, seals: Seals) -> Call:
    """Write a snapshot in the place of those of this run since seq `replacing`."""
    payload, seal = seals.seal(row.payload, uid=row.uid, seq=row.seq, kind=SNAPSHOT_KIND)

    def call(execute: Execute, again: bool) -> None:
        execute(sql.drop_snapshots, {"run_": run, "first_": replacing, "before_": row.seq})
        execute(sql.write_snapshot, {
            "run": run, "seq": row.seq, "fold_version": row.fold_version, "hash": row.hash, "payload": payload,
            "seal": seal, "at": row.at,
        })  # fmt: skip

    return call


def send(run: int, message: NewMessage, now: int, *, url: str, seals: Seals, limit: int) -> Call:
    """Insert a message: gives False if this message_id was sent before."""
    event = message.event
    for text in (message.kind, message.message_id, message.wait_id, message.step, message.reason):
        if text is not None:
            check_text(text, str(run), "message")
    if event is not None:
        check_event(event, str(run), limit)

    # Every message has an id, so that one which may have been written is found again.
    message_id = message.message_id if message.message_id is not None else uuid4().hex

    def call(execute: Execute, again: bool) -> bool:
        while True:
            head = execute(sql.run_head, {"run_": run})
            if not head:
                raise no_such_run(run, url)
            run_id, uid, status, _, _ = head[0]
            # A repetition first: it stays one when the run has ended meanwhile.
            sent = execute(sql.message_by_id, {"run_": run, "message_id_": message_id})
            if sent:
                return again and sent[0][0] == now
            require_unfinished(run_id, status)
            this = {"run_": run}
            if message.wait_id is not None:
                waits = _asked(execute, sql.wait_of_run, {**this, "wait_id_": message.wait_id})
            else:
                waits = _asked(execute, sql.open_waits_of_run, this)
            wait_id = answered_wait(message, run_id, waits, _asked(execute, sql.settled_waits_of_run, this))
            payload, seal = None, None
            if event is not None:
                payload, seal = seals.seal(event.data, uid=uid, seq=0, kind=MESSAGE_KIND.format(message_id))
            reason = seals.seal_text(message.reason, uid=uid, seq=0, kind=REASON_KIND.format(message_id))
            if execute(sql.insert_message if wait_id is None else sql.insert_answer, {
                "run": run, "message_id": message_id, "kind": "answer" if wait_id is not None else message.kind,
                "name": event.name if event is not None else None, "codec": event.codec if event is not None else None,
                "payload": payload, "seal": seal, "v": event.v if event is not None else None,
                "wait_id": wait_id, "step": message.step, "reason": reason, "sent_at": now,
            }):  # fmt: skip
                return True
            # Others changed the run in between (not on SQLite, where nobody can): look again.

    return call


def _asked(execute: Execute, statement: sql.Statement, params: dict[str, Any]) -> Iterator[Asked]:
    """Yield the waits that a statement finds; it is executed when the first one is asked for."""
    for wait_id, outcome, data, answer in execute(statement, params):
        stored = json.loads(data)
        yield Asked(wait_id, outcome, stored["wanted"], "requirements" in stored, answer is not None)
