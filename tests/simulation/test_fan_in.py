"""Random trees of fan-outs under random kills: every join fires once, with what belongs to its list."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_flow import (
    Collect,
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Take,
    Workflow,
    catch_error,
    step,
)
from durable_flow.joins import due_joins
from durable_flow.records import EventEmitted, FanOutClosed, FanOutOpened, JoinFired, TaskId

from .simulation import Simulation, World, answering

Node = dict[str, Any]
"""What one element does: `kind`, an `id` of its own, and `children` for those that have some."""

ENDS = ("leaf", "nothing", "fails", "dies", "sleeps", "asks", "waits")


class SimTree(StartEvent):
    root: Node


class SimGrow(Event):
    node: Node
    parent: str


class SimMark(Event):
    """Stands in every list, and tells the joins which one it is."""

    id: str


class SimLeaf(Event):
    id: str
    parent: str


class SimList(Event):
    """What a list has become: what was collected, by name."""

    id: str
    found: list[Any]


class SimPaired(Event):
    good: bool


class SimTreeAsk(InputRequiredEvent):
    id: str
    parent: str


class SimTreeReply(HumanResponseEvent):
    id: str
    parent: str


class SimFew(Event):
    number: int


def elements(node: Node) -> list[SimGrow | SimMark]:
    return [SimMark(id=node["id"]), *(SimGrow(node=child, parent=node["id"]) for child in node["children"])]


class Trees(Workflow):
    world: World

    @step
    async def begin(self, ev: SimTree) -> list[SimGrow | SimMark]:
        await self.world.pause()
        return elements(ev.root)

    @step(num_workers=3, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=1))
    async def grow(self, ctx: Context, ev: SimGrow) -> list[SimGrow | SimMark] | SimGrow | SimLeaf | SimTreeAsk | None:
        node, kind = ev.node, ev.node["kind"]
        await self.world.pause()
        match kind:
            case "list":
                return elements(node)
            case "nothing":
                return None
            case "sends":
                # What is sent belongs to the list that the sender belongs to.
                for child in node["children"]:
                    ctx.send_event(SimGrow(node=child, parent=ev.parent))
                    await self.world.pause()
                return None
            case "asks":
                return SimTreeAsk(id=node["id"], parent=ev.parent)
            case "waits":
                ask = SimTreeAsk(id=node["id"], parent=ev.parent)
                await ctx.wait_for_event(SimTreeReply, waiter_event=ask, timeout=None)
            case "sleeps":
                await ctx.sleep(1)
            case "fails" if self.world.fails(node["id"]):
                raise ValueError(node["id"])
            case "dies":
                raise ValueError(node["id"])
        await self.world.pause()
        return SimLeaf(id=node["id"], parent=ev.parent)

    @catch_error
    async def recovers(self, ev: StepFailedEvent) -> SimLeaf:
        await self.world.pause()
        assert isinstance(ev.input_event, SimGrow)
        return SimLeaf(id=ev.input_event.node["id"], parent=ev.input_event.parent)

    @step
    async def answered(self, ev: SimTreeReply) -> SimLeaf:
        await self.world.pause()
        return SimLeaf(id=ev.id, parent=ev.parent)

    @step
    async def pair(self, mark: SimMark, leaf: SimLeaf) -> SimPaired:
        await self.world.pause()
        return SimPaired(good=mark.id == leaf.parent)

    @step
    async def few(self, found: Annotated[list[SimMark | SimLeaf], Collect(Take(2))]) -> SimFew:
        await self.world.pause()
        return SimFew(number=len(found))

    @step
    async def gather(
        self, ctx: Context, found: list[SimMark | SimLeaf | SimList | SimPaired | SimFew]
    ) -> SimList | StopEvent:
        await self.world.pause()
        [mark] = [e.id for e in found if isinstance(e, SimMark)]
        names: list[Any] = []
        for event in found:
            match event:
                case SimLeaf():
                    assert event.parent == mark
                    names.append(event.id)
                case SimList():
                    names.append([event.id, event.found])
                case SimPaired():
                    names.append(f"pair {event.good}")
        names.sort(key=repr)
        return StopEvent(result=names) if mark == "root" else SimList(id=mark, found=names)


def trees(depth: int = 3) -> st.SearchStrategy[list[Node]]:
    """Children of a list; the ids are given afterwards."""
    ends = st.sampled_from(ENDS).map(lambda kind: {"kind": kind, "children": []})
    if depth == 0:
        return st.lists(ends, max_size=3)
    inner = st.builds(
        lambda kind, children: {"kind": kind, "children": children},
        st.sampled_from(["list", "list", "sends"]),
        trees(depth - 1),
    )
    return st.lists(ends | inner, max_size=4)


def named(children: list[Node], parent: str = "n") -> list[Node]:
    return [
        {"kind": c["kind"], "id": f"{parent}{i}", "children": named(c["children"], f"{parent}{i}")}
        for i, c in enumerate(children)
    ]


def belongs_to(node: Node) -> list[Any]:
    """What the join of a list gets, in names: by plain recursion over the tree."""
    found = _below(node["children"])
    if any(isinstance(name, str) for name in found):
        found.append("pair True")
    return sorted(found, key=repr)


def _below(children: list[Node]) -> list[Any]:
    found: list[Any] = []
    for child in children:
        match child["kind"]:
            case "nothing":
                pass
            case "list":
                found.append([child["id"], belongs_to(child)])
            case "sends":
                found += _below(child["children"])
            case _:
                found.append(child["id"])
    return found


def lists_of(node: Node) -> list[Node]:
    inner = [found for child in node["children"] for found in lists_of(child)]
    return [node, *inner] if node["kind"] == "list" else inner


def simulated(root: Node, seed: int, crashes: int) -> Simulation:
    human = answering(lambda prompt: SimTreeReply(id=prompt.id, parent=prompt.parent))  # type: ignore[attr-defined]
    return Simulation(Trees, seed=seed, crashes=crashes, human=human, root=root)


@given(trees().map(named), st.integers(0, 10_000))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_join_of_a_random_tree_fires_once_with_what_belongs_to_it_wherever_it_is_killed(
    children: list[Node], seed: int
) -> None:
    root = {"kind": "list", "id": "root", "children": children}
    run = simulated(root, seed, crashes=seed % 5).finish()
    assert run.state.ended == "completed", run.state.error or run.state.attention
    assert run.result() == belongs_to(root)
    lists = lists_of(root)
    fired = Counter(fact.step for fact in run.facts(JoinFired) if fact.source)
    assert fired["gather"] == len(lists)
    assert len(run.facts(FanOutOpened)) == len(lists)
    # The whole list is collected before the run ends, so every fan-out has closed.
    assert sorted(f.source for f in run.facts(FanOutClosed)) == [
        r.seq for r in run.store.records if isinstance(r.fact, FanOutOpened)
    ]
    taken = Counter(len(fact.events) for fact in run.facts(JoinFired) if fact.step == "few")
    assert sum(taken.values()) == len(lists)
    assert taken[2] == sum(any(isinstance(n, str) for n in belongs_to(node)) for node in lists)
    assert not run.broken


TREE = {
    "kind": "list",
    "id": "root",
    "children": named(
        [
            {"kind": "list", "children": [{"kind": k, "children": []} for k in ("fails", "dies", "asks")]},
            {"kind": "sends", "children": [{"kind": "list", "children": []}, {"kind": "waits", "children": []}]},
            {"kind": "sleeps", "children": []},
        ]
    ),
}


@pytest.mark.parametrize("seed", range(60))
def test_a_tree_with_everything_survives_many_kills(seed: int) -> None:
    run = simulated(TREE, seed, crashes=12).finish()
    assert run.result() == belongs_to(TREE)
    assert not run.broken
    tasks = {TaskId(r.seq, t) for r in run.store.records if isinstance(r.fact, EventEmitted) for t in r.fact.targets}
    tasks |= {TaskId(r.seq, r.fact.step) for r in run.store.records if isinstance(r.fact, JoinFired)}
    assert len([t for t in tasks if t.step == "gather"]) == 3


def test_a_journal_cut_at_any_boundary_is_continued_to_the_same_end() -> None:
    """What a kill leaves is a prefix that ends at a boundary: each of them is taken up."""
    whole = simulated(TREE, seed=3, crashes=0).finish()
    records = whole.store.records
    # Appends hold several groups, so some boundaries are no kill's: a fork or a copy may begin there all the same.
    cuts = [r.seq for r in records if r.boundary and r.seq < len(records)]
    due_at_cut = 0
    for cut in cuts:
        run = simulated(TREE, seed=4, crashes=0).adopt(whole, cut)
        due_at_cut += bool(due_joins(run.state))
        run.finish()
        assert run.result() == belongs_to(TREE)
        assert Counter(f.step for f in run.facts(JoinFired))["gather"] == 3
    assert due_at_cut > 5
