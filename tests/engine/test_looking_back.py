"""Looking back at a long history: lists, states, diffs and blame agree with all of its records, snapshots or not."""

from __future__ import annotations

import random

import jsonpatch
import pytest

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.fold import fold
from durable_flow.journal.patches import json_form
from durable_flow.records import ContextDeleted, ContextSpliced, Record
from durable_flow.state import RunState

STEPS = 250


class LookedBack(Event):
    pass


class LooksBack(Workflow):
    """Writes keys that need escapes in a JSON pointer, lists that grow and go, and names places again and again."""

    @step
    async def go(self, ctx: Context, ev: StartEvent | LookedBack) -> LookedBack | StopEvent:
        n = ctx.data["n"] = ctx.data.get("n", 0) + 1
        ctx.data.setdefault("items", []).append("long enough to be spliced " * 20)
        if n % 40 == 0:
            del ctx.data["items"]
        ctx.data[f"a/b~{n % 3}"] = (n, {"~1": n})
        if n % 7 == 0:
            await ctx.checkpoint(f"place {n % 5}")
        return StopEvent() if n == STEPS else LookedBack()


@pytest.fixture
async def records(journal: Journal) -> list[Record]:
    await LooksBack(journal=journal).run(run_id="r")
    records = await journal.history("r")
    assert {ContextSpliced, ContextDeleted} < {type(record.fact) for record in records}
    assert len(records) > 1000
    return records


def folded(records: list[Record], at: int) -> RunState:
    """The state at the last boundary up to `at`, by its records alone."""
    return fold(records[: max(record.seq for record in records[:at] if record.boundary)])


async def test_all_that_can_be_looked_at_agrees_with_the_records(journal: Journal, records: list[Record]) -> None:
    rng = random.Random(5)
    listed = await journal.checkpoints("r")
    assert len(listed) == 1 + STEPS + STEPS // 7  # the start, each step, each place
    for at in rng.sample(range(len(listed)), 6):
        assert await journal.checkpoints("r", after=listed[at].seq) == listed[at + 1 :]
        assert await journal.checkpoints("r", after=listed[at].seq, limit=3) == listed[at + 1 : at + 4]
    for at in rng.sample(range(2, len(records) + 1), 8):
        state = folded(records, at)
        found = await journal.state("r", at)
        assert (found.seq, found.steps_completed, found.checkpoints) == (
            state.seq, state.steps_completed, state.checkpoints,
        )  # fmt: skip
        assert found.context == {key: journal.decode(value) for key, value in state.context.items()}
    for _ in range(8):
        a, b = rng.choice(listed), rng.choice(listed)
        one, other = (json_form(folded(records, c.seq).context) for c in (a, b))
        assert jsonpatch.apply_patch(one, await journal.diff("r", a, b)) == other


async def test_what_a_key_was_and_became_follows_without_gaps(journal: Journal, records: list[Record]) -> None:
    context = folded(records, len(records)).context
    keys = {record.fact.key for record in records if hasattr(record.fact, "key")}
    assert keys == {key for checkpoint in await journal.checkpoints("r") for key in checkpoint.keys_changed}
    for key in keys:
        existed, old = False, None
        for change in await journal.blame("r", key):
            assert (change.existed, change.old) == (existed, old)
            existed, old = change.exists, change.new
        assert existed == (key in context)
        assert old == (journal.decode(context[key]) if key in context else None)
