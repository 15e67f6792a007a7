"""What the model runs at random: tasks, and what must hold at their end, whatever was killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from durable_flow.branching import Branch
from durable_flow.records import EventEmitted, StepDiverged, StepFailed, TaskId, WaitOpened

from .loop import Hang
from .programs import (
    ModelPrograms,
    Programs,
    SimAfter,
    SimBranchA,
    SimBranchB,
    SimSid,
    human,
)  # fmt: skip
from .simulation import Simulation

Tasks = dict[str, tuple[str, Any]]
Check = Callable[[Simulation], Iterable[str]]


@dataclass(frozen=True)
class Scenario:
    """`final` is the context at the end, as far as it is known; `allowed` names what the design does not promise."""

    tasks: Tasks
    final: dict[str, Any] = field(default_factory=dict)
    deterministic: bool = True
    check: Check = lambda run: ()
    more: int = 0
    workflow: type[Programs] = ModelPrograms
    allowed: frozenset[str] = frozenset()
    may_fail: bool = False


def several(program: str, number: int, **more: tuple[str, Any]) -> Tasks:
    return {f"t{i}": (program, i) for i in range(number)} | more


def names_of_tasks(run: Simulation) -> dict[TaskId, str]:
    """Return the tasks of programs by their names."""
    found = {}
    for record in run.store.records:
        if isinstance(record.fact, EventEmitted):
            event = run.codec.decode_event(record.fact.event)
            for target in record.fact.targets:
                found[TaskId(record.seq, target)] = str(event.get("task", record.fact.event.name))
    return found


def done(run: Simulation) -> dict[str, Any]:
    """Return the result of every task that completed."""
    return {e.task: e.result for e in run.emitted_by_completion("SimDone")}


def effects_of(run: Simulation) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """Return what was sent, what tasks returned, and what calls were recorded, each counted."""
    names = names_of_tasks(run)
    sent = [f for f in run.facts(EventEmitted) if f.k is not None]
    events = Counter((f.event.name, f.event.data) for f in sent)
    results = Counter(repr(v) for task, v in done(run).items() if not task.startswith("W"))
    calls = Counter((names[f.task], f.name, f.arguments) for f in run.all_calls())
    return events, results, calls


def exactly(**wanted: int) -> Check:
    """Calls of a name, each with the number of records of the undisturbed run."""

    def check(run: Simulation) -> Iterable[str]:
        for name, number in wanted.items():
            found = len(run.calls(name))
            if found != number:
                yield "lost" if found < number else "call twice"

    return check


def sends(**wanted: int) -> Check:
    """Events sent, each with the number of the undisturbed run."""

    def check(run: Simulation) -> Iterable[str]:
        for name, number in wanted.items():
            found = sum(f.k is not None and f.event.name == name for f in run.facts(EventEmitted))
            if found != number:
                yield "lost" if found < number else "doubled"

    return check


def both(*checks: Check) -> Check:
    return lambda run: [broken for check in checks for broken in check(run)]


def equal(pairs: Callable[[Simulation], Iterable[tuple[Any, Any]]]) -> Check:
    return lambda run: [f"state once: {a!r} is not {b!r}" for a, b in pairs(run) if a != b]


def torn(run: Simulation) -> Iterable[str]:
    """What a final attempt sent is what the context says it chose."""
    last = [f for f in run.facts(EventEmitted) if f.k is not None and f.attempt == 2 and f.event.name == "SimChosen"]
    chosen = [run.codec.decode_event(f.event).choice for f in last]  # type: ignore[attr-defined]
    if any(c != run.value("choice") for c in chosen) or [e.choice for e in run.sent(SimAfter)] != [run.value("choice")]:
        yield "state once"


def reported(run: Simulation) -> Iterable[str]:
    if run.sent(SimBranchA) and run.sent(SimBranchB) and not run.facts(StepDiverged):
        yield "doubled"


def asked_again(run: Simulation) -> Iterable[str]:
    failed = run.facts(StepFailed)
    final = sum(f.retry_at is None for f in failed)
    if len(run.facts(WaitOpened)) < 1 + len(failed) - final:
        yield "progress"


def no_failure(run: Simulation) -> Iterable[str]:
    if run.state.ended == "failed":
        yield "progress"


WATCH: Tasks = {"W1": ("watcher", 0), "W2": ("watcher", 0)}

MODEL_SCENARIOS = {
    "read-modify-write, 4 steps": Scenario(several("counter", 4), {"n": 4}),
    "list append, 4 steps": Scenario(
        several("append", 4), check=equal(lambda r: [(sorted(r.value("list")), [0, 1, 2, 3])])
    ),
    "own key, llm value": Scenario(
        several("own_key", 3, N=("noise", 0)),
        deterministic=False,
        check=equal(lambda r: [(r.value(f"notes:{i}"), done(r)[f"t{i}"]) for i in range(3)]),
    ),
    "send llm value, go on": Scenario(
        {"A": ("sender", 0), "N": ("noise", 0)},
        more=1,
        deterministic=False,
        check=equal(
            lambda r: (
                [(1, len(r.sent(SimSid)))]
                + [(v, (r.value("sid"),) * 2) for t, v in done(r).items() if t.startswith("read")]
            )
        ),
    ),
    "poll a key": Scenario({"A": ("asker", 0), "B": ("answerer", 0), "N": ("noise", 0)}, {"s": "done"}),
    "progress loop with calls": Scenario({"A": ("loop_calls", 6)} | WATCH, {"i": 6}, check=exactly(get=6)),
    "progress loop, raises, retried": Scenario({"A": ("loop_sends", 0)} | WATCH, {"i": 8}, check=sends(SimWork=8)),
    "charge, three attempts": Scenario(
        {"A": ("charger", 3)} | WATCH, {"tries": 3}, check=both(exactly(charge=1), sends(SimPaid=1))
    ),
    "nested reads": Scenario(
        {"A": ("nested_a", 0), "B": ("nested_b", 0), "C": ("nested_c", 0)},
        {"w": 1, "x": 1, "y": 2},
        more=1,
        check=equal(lambda r: [([1, 1, 2], done(r)["last"])]),
    ),
    "several writers, retried": Scenario(several("writer", 3), deterministic=False, check=no_failure),
    "question by call, retried": Scenario(
        {"A": ("asks_human", 1)},
        deterministic=False,
        check=equal(
            lambda r: [
                ("re:" + done(r)["A"][0], done(r)["A"][1]),
                (len(r.facts(WaitOpened)), 1),
                (len(r.all_calls()), 1),
            ]
        ),
    ),
    "question by llm": Scenario(
        {"A": ("asks_human", 0)},
        deterministic=False,
        check=equal(lambda r: [("re:" + done(r)["A"][0], done(r)["A"][1])]),
    ),
    "stream of llm items": Scenario(
        {"A": ("streamer", 0)},
        deterministic=False,
        check=equal(lambda r: [("".join(i.text for i in r.reader()), done(r)["A"])]),  # type: ignore[attr-defined]
    ),
    "gathered calls, one sum": Scenario({"A": ("gathering", 0)} | WATCH, {"sum": 1111}),
    "call raises, retried inside": Scenario({"A": ("flaky_call", 0)}, check=exactly(fetch=1)),
    "attempt 2 matches, is killed": Scenario({"A": ("chooser", 0)}, deterministic=False, check=torn),
    "charge of llm amount": Scenario(
        {"A": ("llm_charge", 0)}, deterministic=False, check=exactly(charge=1), may_fail=True
    ),
    "branch by chance, reported": Scenario({"A": ("branch", 0)}, deterministic=False, check=reported),
    "wait timed out, retried": Scenario({"A": ("deadline", 0)}, deterministic=False, check=asked_again, may_fail=True),
    "LIMIT: loop of equal events": Scenario(
        {"A": ("loop_ticks", 0)}, {"i": 8}, deterministic=False, check=sends(SimWork=8), allowed=frozenset({"lost"})
    ),
    "LIMIT: result refused outside fn": Scenario(
        {"A": ("parses", 0)}, deterministic=False, check=no_failure, may_fail=True, allowed=frozenset({"progress"})
    ),
}

_BASE: dict[str, tuple[Counter[Any], Counter[Any], Counter[Any]]] = {}


def undisturbed(name: str, scenario: Scenario) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    if name not in _BASE:
        _BASE[name] = effects_of(simulation(scenario, 0, 0).finish())
    return _BASE[name]


def simulation(
    scenario: Scenario,
    seed: int,
    crashes: int,
    goes_on: Simulation | None = None,
    branch: Branch | None = None,
    compactions: int = 0,
) -> Simulation:
    return Simulation(
        scenario.workflow, seed=seed, crashes=crashes, compactions=compactions, human=human(), goes_on=goes_on,
        branch=branch,
        tasks=scenario.tasks, more=scenario.more,
    )  # fmt: skip


def violations(name: str, scenario: Scenario, seed: int, compactions: int = 0) -> set[str]:
    """Run a scenario once under random kills and return what did not hold."""
    run = simulation(scenario, seed, crashes=1 + seed % 4, compactions=compactions)
    try:
        run.finish()
    except Hang as hang:
        return {f"hang: {hang}"}
    broken = set(run.broken)
    ended = run.state.ended
    if ended != "completed" and not scenario.may_fail:
        broken.add(f"progress: {ended or run.state.attention} {run.state.error}")
        return broken
    if ended == "completed":
        broken |= {f"state once: {k}" for k, v in scenario.final.items() if run.value(k) != v}
        if set(run.result()) - {"last"} < set(scenario.tasks):
            broken.add("lost")
    broken |= set(scenario.check(run))
    if scenario.deterministic:
        (events, results, calls), (events0, results0, calls0) = effects_of(run), undisturbed(name, scenario)
        if events0 - events:
            broken.add("lost")
        if events - events0:
            broken.add("doubled")
        if results != results0:
            broken.add("state once: results")
        if any(number > calls0[call] for call, number in calls.items()):
            broken.add("call twice")
        if run.facts(StepDiverged):
            broken.add(f"diverged: {run.facts(StepDiverged)}")
    return broken - scenario.allowed
