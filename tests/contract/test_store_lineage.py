"""What every store tells of forks: which run a run was forked from, and which were forked from a run."""

from __future__ import annotations

import asyncio

from durable_flow.journal.protocol import JournalStore, NewRun, RunUpdate
from durable_flow.records import RunStarted

from .conftest import Backend
from .samples import create, numbered, worker


async def forked(store: JournalStore, run_id: str, parent: int, seq: int, status: str = "running") -> int | None:
    started = RunStarted("Flow", f"uid of {run_id}", "shape-1", None)
    new = NewRun(run_id, f"uid of {run_id}", "Flow", "shape-1", parent, seq)
    records = numbered([started], after=0, at=store.now())
    claim = await store.create(new, records, RunUpdate(status), worker())
    return None if claim is None else claim.run


async def ids(store: JournalStore, **filters: object) -> list[str]:
    return [row.run_id for row in await store.list_runs(**filters)]  # type: ignore[arg-type]


async def test_a_row_says_by_id_and_seq_which_run_it_was_forked_from(store: JournalStore) -> None:
    parent = await create(store, "parent")
    key = await forked(store, "fork", parent.run, 1)
    assert key is not None
    found = await store.find("fork")
    assert found is not None
    assert (found.parent, found.parent_seq) == ("parent", 1)
    assert await store.find_many([key]) == [found]
    assert (await store.list_runs())[0] == found
    row = await store.find("parent")
    assert row is not None
    assert (row.parent, row.parent_seq) == (None, None)


async def test_the_forks_of_a_run_are_listed_newest_first_and_no_others(store: JournalStore) -> None:
    parent, other = await create(store, "parent"), await create(store, "other")
    keys = [await forked(store, f"fork-{n}", parent.run, 1, ["running", "failed", "waiting"][n]) for n in range(3)]
    assert keys[0] is not None
    await forked(store, "of other", other.run, 1)
    await forked(store, "of fork", keys[0], 1)
    assert await ids(store, parent=parent.run) == ["fork-2", "fork-1", "fork-0"]
    assert await ids(store, parent=other.run) == ["of other"]
    assert await ids(store, parent=keys[0]) == ["of fork"]
    assert await ids(store, parent=keys[1]) == []
    assert await ids(store, parent=4711) == []


async def test_forks_are_filtered_and_paged_as_other_runs_are(store: JournalStore) -> None:
    parent = await create(store, "parent")
    keys = [await forked(store, f"fork-{n}", parent.run, 1, ["running", "failed", "waiting"][n]) for n in range(3)]
    assert await ids(store, parent=parent.run, status=["failed"]) == ["fork-1"]
    assert await ids(store, parent=parent.run, unfinished=True) == ["fork-2", "fork-0"]
    assert await ids(store, parent=parent.run, workflow="Other") == []
    assert await ids(store, parent=parent.run, limit=2) == ["fork-2", "fork-1"]
    assert await ids(store, parent=parent.run, before=keys[1]) == ["fork-0"]


async def test_of_forks_that_race_for_a_run_id_one_is_made(store: JournalStore) -> None:
    parents = [await create(store, f"parent-{n}") for n in range(4)]
    made = await asyncio.gather(*(forked(store, "fork", parent.run, 1) for parent in parents))
    winner = next(n for n, key in enumerate(made) if key is not None)
    assert [key for key in made if key is not None] == [made[winner]]
    for n, parent in enumerate(parents):
        assert await ids(store, parent=parent.run) == (["fork"] if n == winner else [])


async def test_a_fork_onto_a_run_that_exists_changes_nothing_of_it(store: JournalStore) -> None:
    parent = await create(store, "parent")
    await create(store, "taken")
    before = await store.find("taken")
    assert await forked(store, "taken", parent.run, 1) is None
    assert await store.find("taken") == before
    assert await ids(store, parent=parent.run) == []


async def test_lineage_outlives_the_store_that_wrote_it(backend: Backend) -> None:
    if not backend.shared:
        return
    first, second = backend.new(), backend.new()
    await first.open()
    await forked(first, "fork", (await create(first, "parent")).run, 1)
    await first.close()
    await second.open()
    row = await second.find("parent")
    assert row is not None
    assert [(fork.parent, fork.parent_seq) for fork in await second.list_runs(parent=row.run)] == [("parent", 1)]
    await second.close()
