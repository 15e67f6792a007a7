"""What must be true of a history after its kills: the promise, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .histories import Books, History, Line

# How often these come depends on how effects happened to share a commit, or tells of the kills themselves.
_INCIDENTAL = {"RunClaimed", "RunAtRest", "StreamPublished", "StreamReset"}


def problems(history: History, undisturbed: History, runs: Iterable[str]) -> list[str]:
    """Return everything that a killed history has otherwise than it should, compared with one that nobody killed."""
    books, outcome, expected = history.last_books, history.outcome(), undisturbed.outcome()
    found = [*_lines_of_steps(history, undisturbed.lines(), books)]
    if books.open_messages:
        found.append(f"{books.open_messages} messages were left over")
    if outcome["pid"] in books.worker_pids:
        found.append("the last process has ended, and its worker is still there")
    usual = undisturbed.last_books
    for run_id in runs:
        if books.runs[run_id] != ("completed", None):
            found.append(f"{run_id} is {books.runs[run_id]}")
        for what in ("results", "contexts"):
            if outcome[what][run_id] != expected[what][run_id]:
                found.append(f"{what} of {run_id}: {outcome[what][run_id]} instead of {expected[what][run_id]}")
        found += _journal_of(books, usual, run_id)
        found += _stream_of(history, outcome["streams"][run_id], expected["streams"][run_id], run_id)
    return found


def _lines_of_steps(history: History, undisturbed: Counter[Line], books: Books) -> Iterable[str]:
    """What was over at a kill never runs again; everything else at most once more for each kill."""
    lines = history.lines()
    for number, (then, lines_then) in enumerate(history.snapshots, 1):
        for line in then.over():
            if lines[line] != lines_then[line]:
                yield f"{line} was over at kill {number} and ran again: {lines_then[line]} lines, then {lines[line]}"
        for line in lines_then:
            if line.what != "call" and not then.has_event(line):
                yield f"{line} ran before its event was in the journal (kill {number})"
    for line in lines | undisturbed:
        once, kills = undisturbed[line], len(history.snapshots)
        if not once <= lines[line] <= once + kills:
            yield f"{line} ran {lines[line]} times in spite of only {kills} kills, undisturbed {once} times"
    for line in books.over():
        if line not in undisturbed:
            yield f"{line} is over, and does not happen in an undisturbed history"


def _journal_of(books: Books, usual: Books, run_id: str) -> Iterable[str]:
    """No gap in seq, times that never go back, every task completed once, and the same facts as undisturbed."""
    rows = [row for row in books.rows if row.run_id == run_id]
    if [row.seq for row in rows] != list(range(1, len(rows) + 1)):
        yield f"{run_id}: its seq has a gap or goes back: {[row.seq for row in rows]}"
    if sorted(row.at for row in rows) != [row.at for row in rows]:
        yield f"{run_id}: its times go back"
    delivered = Counter(
        (row.seq, step) for row in books.of(run_id, "EventEmitted") for step in row.data.get("targets", ())
    )
    delivered += Counter((row.seq, row.name) for row in books.of(run_id, "JoinFired"))
    completed = Counter((row.task, row.step) for row in books.of(run_id, "StepCompleted"))
    if delivered != completed:
        differ = (delivered - completed) | (completed - delivered)
        yield f"{run_id}: delivered, but not completed exactly once: {differ}"
    facts, usual_facts = _facts(books, run_id), _facts(usual, run_id)
    if facts != usual_facts:
        yield f"{run_id}: facts more than usual: {facts - usual_facts}, and less: {usual_facts - facts}"
    claims = [row.data["epoch"] for row in books.of(run_id, "RunClaimed")]
    if claims != list(range(2, 2 + len(claims))):
        yield f"{run_id}: the epochs of its claims are {claims}"


def _facts(books: Books, run_id: str) -> Counter[Any]:
    return Counter(
        (row.kind, row.step, row.name, row.data.get("attempt", 1))
        + ((row.payload,) if row.kind in ("EventEmitted", "RunCompleted") and row.name != "Approved" else ())
        for row in books.rows
        if row.run_id == run_id and row.kind not in _INCIDENTAL and not _has_a_name_of_its_own(row.kind)
    ) + Counter(row.kind for row in books.rows if row.run_id == run_id and _has_a_name_of_its_own(row.kind))


def _has_a_name_of_its_own(kind: str) -> bool:
    # A wait's id is a seq, and those move; a message's is random where its sender has not given one.
    return kind in ("WaitAnswered", "WaitTimedOut", "WaitClosed", "MessageReceived")


def _stream_of(
    history: History, items: list[dict[str, Any]], expected: list[dict[str, Any]], run_id: str
) -> Iterable[str]:
    """Positions without a gap; the same items once resets are applied; and nothing was seen that is not there."""
    if [item["position"] for item in items] != list(range(1, len(items) + 1)):
        yield f"{run_id}: its stream has the positions {[item['position'] for item in items]}"
    if steps := {item["step"] for item in items if item["reset_since"] is not None} - {"pack"}:
        yield f"{run_id}: the items of {steps} were reset, and they are always the same"
    view, usual = _view(items), _view(expected)
    if view != usual:
        yield f"{run_id}: a reader gets {view} instead of {usual}"
    published = {item["position"]: item["fields"] for item in items}
    for position, fields in history.seen(run_id):
        if published.get(position) != fields:
            yield f"{run_id}: a reader got {fields} at {position}, where {published.get(position)} is published"


def _view(items: list[dict[str, Any]]) -> dict[Any, list[str]]:
    """Return the items that count, of each task in their order: tasks run at once, in any order."""
    view: dict[Any, list[str]] = {}
    for item in applied(items):
        fields = item["fields"]
        source = (fields["of"], fields["number"]) if item["event"] == "Progress" and fields["of"] == "price" else None
        view.setdefault(source, []).append(f"{item['event']} {fields.get('text', '')}")
    return view


def applied(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items of a stream that no reset has made void. A reset concerns the step that published it."""
    valid: list[dict[str, Any]] = []
    for item in items:
        since = item["reset_since"]
        if since is None:
            valid.append(item)
        else:
            valid = [one for one in valid if one["step"] != item["step"] or one["position"] < since]
    return valid
