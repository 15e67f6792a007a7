"""What a running step sees and writes of its run's context (design section 3, rules 1 to 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ContextStateError, SerializationError
from ..records import WRITE, ContextDeleted, ContextSet, EncodedValue, Fact, StepDiverged
from ..state import Effect, Task
from .history import History
from .live import MISSING, REQUIRED, require_key

if TYPE_CHECKING:
    from .live import Mirror
    from .run import Run


class StepContext:
    """The context as one attempt of a step sees it: the live values, or, while it replays, those that it saw before.

    `keys` and `reads_all` tell what the step has read or written; its commits carry what they rest on.
    """

    def __init__(self, run: Run, task: Task):
        self.run = run
        self.task_id = task.id
        self.attempt = task.attempt
        self.step = task.id.step
        self.codec = run.program.codec
        self.keys: set[str] = set()
        self.reads_all = False
        self.attached = True
        self._history = History(run.state, task, run.program.codec)
        self._private: dict[str, tuple[Any, EncodedValue | None]] = {}
        self._touched: dict[str, None] = {}

    def read(self, key: str, default: Any = REQUIRED) -> Any:
        """Return the live object of a key; KeyError without a default."""
        self._require_attached()
        self.keys.add(key)
        value = self._see(key)
        if value is not MISSING:
            return value
        if default is REQUIRED:
            raise KeyError(key)
        return default

    def visible_keys(self) -> list[str]:
        """Return every key that the step sees; it has then read the whole context."""
        self._require_attached()
        self.reads_all = True
        self.run.live.whole_reads += 1
        return self.peek_keys()

    def peek(self, key: str) -> Any:
        """Return what the step sees of a key, MISSING if nothing; not a read."""
        touched = key in self._touched
        value = self._see(key)
        if not touched:
            self._touched.pop(key, None)
        return value

    def peek_keys(self) -> list[str]:
        """Return every key that the step sees; not a read."""
        keys = [k for k in self.run.live if self._history.standing_write(k) is None or self.peek(k) is not MISSING]
        return keys + [
            k for k in self._history.standing_keys() if k not in self.run.live and self.peek(k) is not MISSING
        ]

    def show(self, view: Mirror) -> None:
        """Fill a view that holds values itself, and keep it up to date; not a read."""
        if self._history.standing_keys():
            for key in self.peek_keys():
                view.mirror(key)
        else:
            view.mirror_all(self.run.live.values())  # nothing is private, and there may be many
        self.run.live.add_view(view)

    def fill(self, names: Collection[str], defaults: Callable[[], Mapping[str, Any]]) -> None:
        """Give those of these keys that are missing their defaults.

        They are drafts of this step, but no effect of it: a re-run finds them as they are and does not meet them again.
        """
        missing = [key for key in names if self.peek(key) is MISSING]
        if not missing:
            return
        self._require_attached()
        values = defaults()
        for key in missing:
            if self._history.standing_write(key) is not None:
                self._private[key] = (values[key], None)  # what it then wrote stands
                continue
            encoded, value = self.run.live.encode_value(values[key], key)
            self.run.live.set(key, value, encoded)
            self._draft(ContextSet(key, encoded, None, 0, 0), key)

    def _see(self, key: str) -> Any:
        """Return what the step sees of a key, to be looked at again for changes in place.

        While it has standing writes not yet repeated it sees a private copy of the value before the next of them.
        """
        standing = self._history.standing_write(key)
        if standing is not None:
            if key not in self._private:
                before = standing.before
                value = MISSING if before is None else self.codec.decode_value(before)
                self._private[key] = (value, before)
            return self._private[key][0]
        entry = self.run.live.entry(key)
        if entry is None:
            return MISSING
        if entry.mutable:
            self._touched[key] = None
        return entry.value

    def write(self, key: str, value: Any) -> None:
        """Set a key; visible to other steps at once, durable with the step's next commit."""
        self._require_attached()
        require_key(key, f"step {self.step!r} of run {self.run.run_id}")
        encoded, value = self.run.live.encode_value(value, key)
        self._write(key, value, encoded)

    def delete(self, key: str) -> None:
        """Delete a key; KeyError if there is none."""
        self._require_attached()
        if self._see(key) is MISSING:
            self.keys.add(key)
            raise KeyError(key)
        self._write(key, MISSING, None)

    def _write(self, key: str, value: Any, encoded: EncodedValue | None) -> None:
        self.keys.add(key)
        self._touched.pop(key, None)
        place, record = self._history.take(WRITE, key)
        if record is not None:
            if not self._history.is_same(record, encoded):
                self._diverged(record)
            self._history.repeat_write(key)
            self._keep_object(key, value, encoded)
            self.run.live.refresh(key)
            return
        if encoded is None:
            self.run.live.delete(key)
            self._draft(ContextDeleted(key, self.task_id, self.attempt, place.k), key)
        else:
            self.run.live.set(key, value, encoded)
            self._touched[key] = None
            self._draft(ContextSet(key, encoded, self.task_id, self.attempt, place.k), key)

    def _keep_object(self, key: str, value: Any, encoded: EncodedValue | None) -> None:
        """Let the object of a repeated write stay the key's: what the step changes in it later must be found.

        Unless the next value is another one, because the step diverged or because others wrote.
        """
        self._private.pop(key, None)
        if encoded is None or self.codec.is_immutable(value):
            return
        standing = self._history.standing_write(key)
        if standing is not None:
            if standing.before is not None and self._baseline(standing.before) == encoded:
                self._private[key] = (value, standing.before)
            return
        entry = self.run.live.entry(key)
        if entry is not None and entry.encoded == encoded:
            self.run.live.set(key, value, encoded)
            self._touched[key] = None

    def written_keys(self) -> list[str]:
        """Return the keys that this execution has written or deleted so far."""
        return self._history.written()

    def detect_changes(self, *, strict: bool = True) -> None:
        """Turn changes in place of objects that the step has read into writes.

        Called by each effect that commits, also by one that a re-run meets again, and not by the commit itself: so the
        changes are found at the same points of the program, wherever the step was suspended. Not strict: one that
        cannot be encoded is left for the attempt's end, which it fails. What the holder of `ctx.lock` has looked at is
        left to it, so that half a change is nobody's.
        """
        holder = self.run.lock_holder
        locked = holder._touched if isinstance(holder, StepContext) and holder is not self else ()
        for key in list(self._touched):
            entry = self.run.live.entry(key)
            if entry is None or not entry.mutable or key in locked or self._history.standing_write(key) is not None:
                continue
            try:
                encoded, value = self.run.live.encode_value(entry.value, key)
            except SerializationError:
                if strict:
                    raise
                continue
            if encoded != entry.encoded:
                self._write(key, value, encoded)
        for key, (value, before) in list(self._private.items()):
            if value is MISSING or before is None or self.codec.is_immutable(value):
                continue
            try:
                encoded, value = self.run.live.encode_value(value, key)
            except SerializationError:
                if strict:
                    raise
                continue
            if encoded != self._baseline(before):
                self._write(key, value, encoded)

    def drop_changes(self) -> None:
        """Undo changes in place that cannot be encoded, so that nobody else meets them."""
        for key in list(self._touched):
            entry = self.run.live.entry(key)
            if entry is not None and entry.mutable:
                try:
                    self.codec.encode_value(entry.value, key)
                except SerializationError:
                    self.run.live.restore(key)
        self._private.clear()

    def _baseline(self, stored: EncodedValue) -> EncodedValue:
        return self.codec.encode_value(self.codec.decode_value(stored), "value")

    def _draft(self, fact: Fact, key: str | None = None) -> None:
        self.run.drafts.add(self.task_id, key, fact)

    def _diverged(self, record: Effect) -> None:
        place = record.place
        if self.run.note_divergence(self.task_id, place):
            self._draft(StepDiverged(self.task_id, self.attempt, place.kind, place.name, place.k))

    def _require_attached(self) -> None:
        if not self.attached:
            raise ContextStateError(
                f"the context of step {self.step!r} (attempt {self.attempt}) of run {self.run.run_id} is detached: the "
                "attempt has ended or the run was released. Await all work of a step before it returns"
            )
