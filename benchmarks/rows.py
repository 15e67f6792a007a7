"""The rows of the table: which samples each one compares, and what design section 7 asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from workloads.sample import Sample

SLOW_FSYNC_SECONDS = 250e-6
"""Above this the disk sets the pace: then the time of the engine without its fsyncs is what counts."""


class System(NamedTuple):
    """What a workload runs on: the Python module that starts it (`{}` is the workload) and more words for it."""

    name: str
    module: str
    words: tuple[str, ...]
    on_postgres: bool = False
    migrated: bool = False

    def arguments(self, workload: str) -> list[str]:
        """Return what follows `python -m` in the command that runs the workload."""
        return [self.module.format(workload), *(word.format(workload) for word in self.words)]


OURS = System("ours", "workloads.{}", ("ours",))
THEIRS = System("theirs", "workloads.{}", ("theirs",))
OURS_ON_POSTGRES = System("ours on Postgres", "workloads.{}", ("ours",), on_postgres=True, migrated=True)
TWO_ON_POSTGRES = System(
    "ours on Postgres, two processes", "workloads.{}", ("ours", "--processes", "2"), on_postgres=True, migrated=True
)
DBOS = System("DBOS", "workloads.with_dbos", ("{}",), on_postgres=True)
LANGGRAPH = System("LangGraph", "workloads.with_langgraph", ("{}",), on_postgres=True)


class Series(NamedTuple):
    """Samples of one workload on one system; `size` is that of a full run, `quick` that of `--quick`."""

    workload: str
    system: System
    size: int
    quick: int


class Measured(NamedTuple):
    """Everything that rows are computed from; `fsyncs_per_commit` is by workload, where it could be traced."""

    samples: Mapping[Series, list[Sample]]
    fsync_seconds: float
    fsyncs_per_commit: Mapping[str, float]


Quantity = Callable[[Measured, Series], float]


def seconds_per_unit(measured: Measured, series: Series) -> float:
    """Return the median time of a unit of work; without the fsyncs where the disk is slow."""
    return median(
        _binding_seconds(sample, measured.fsync_seconds) / sample.units for sample in measured.samples[series]
    )


def _binding_seconds(sample: Sample, fsync_seconds: float) -> float:
    if fsync_seconds <= SLOW_FSYNC_SECONDS or sample.commits is None:
        return sample.seconds
    # Fsyncs overlap with other work when runs are concurrent: never count less than the processor was busy.
    return max(sample.cpu_seconds, sample.seconds - sample.commits * fsync_seconds)


def wall_per_unit(measured: Measured, series: Series) -> float:
    """Return the median time of a unit of work, whatever the disk: for systems that all wait for the same one."""
    return median(sample.seconds / sample.units for sample in measured.samples[series])


def bytes_per_unit(measured: Measured, series: Series) -> float:
    """Return the median growth of the database per unit of work."""
    return median((sample.disk_bytes or 0) / sample.units for sample in measured.samples[series])


def fsyncs_per_step(steps_per_unit: int) -> Quantity:
    """Return a quantity: commits per step, times the fsyncs that a system call trace saw per commit."""

    def quantity(measured: Measured, series: Series) -> float:
        commits = median((sample.commits or 0) / sample.units for sample in measured.samples[series])
        return commits * measured.fsyncs_per_commit.get(series.workload, 1.0) / steps_per_unit

    return quantity


def per_second(seconds: float) -> str:
    return f"{1 / seconds:,.0f} /s"


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.1f} us"


def byte_count(value: float) -> str:
    return f"{value:,.0f} B"


def plain(value: float) -> str:
    return f"{value:.3f}"


@dataclass(frozen=True)
class Row:
    """One line: a quantity of `of`, compared with that of `against`, or as it is if there is none.

    `faster` rows ask that the other one needs at least `required` times as much; the rest ask for at most `required`
    times, or for at most `required` itself. `aim` reads alike; None: the row only informs.
    """

    name: str
    title: str
    of: Series
    against: Series | None
    quantity: Quantity
    show: Callable[[float], str]
    required: float | None
    aim: float | None
    faster: bool = False
    traced: bool = False

    @property
    def series(self) -> list[Series]:
        """What must be measured for this row."""
        return [self.of, self.against] if self.against is not None else [self.of]

    def figure(self, measured: Measured) -> float:
        """Return the number that is held against `required`."""
        value = self.quantity(measured, self.of)
        if self.against is None:
            return value
        other = self.quantity(measured, self.against)
        return other / value if self.faster else value / other

    def reaches(self, figure: float, target: float) -> bool:
        """Tell whether the figure is as good as the target."""
        return figure >= target if self.faster else figure <= target


def _both(workload: str, size: int, quick: int) -> tuple[Series, Series]:
    return Series(workload, OURS, size, quick), Series(workload, THEIRS, size, quick)


_chain, _their_chain = _both("chain", 20, 5)
_runs64, _their_runs64 = _both("runs64", 960, 256)
_fanout, _their_fanout = _both("fanout", 10, 3)
_get, _their_get = _both("context_get", 50_000, 10_000)
_stream, _their_stream = _both("stream", 10_000, 10_000)
_import, _their_import = _both("import_time", 1, 1)
_resume_long, _resume_short = Series("resume", OURS, 10_000, 10_000), Series("resume", OURS, 1_000, 1_000)
_state_long, _state_short = Series("state_at", OURS, 10_000, 10_000), Series("state_at", OURS, 1_000, 1_000)
_paused_many, _paused_few = Series("paused", OURS, 10_000, 1_000), Series("paused", OURS, 10, 10)
_list, _constant = Series("growing_list", OURS, 10_000, 1_000), Series("constant_write", OURS, 10_000, 1_000)
_fork_long, _fork_short = Series("fork", OURS, 10_000, 10_000), Series("fork", OURS, 1_000, 1_000)
_replay = Series("replay", OURS, 1_000, 1_000)
_checkpoints_long, _checkpoints_short = (Series("checkpoints", OURS, size, size) for size in (10_000, 1_000))

ROWS = [
    Row("chain", "1 run, 100 steps, one state write each: steps", _chain, _their_chain, seconds_per_unit, per_second,
        required=0.8, aim=1.5, faster=True),
    Row("runs64", "3-step runs, 64 at once: runs", _runs64, _their_runs64, seconds_per_unit, per_second,
        required=1.5, aim=3, faster=True),
    Row("fanout", "fan-out of 100 and join", _fanout, _their_fanout, seconds_per_unit, duration,
        required=4, aim=10, faster=True),
    Row("get", "context get in a step", _get, _their_get, seconds_per_unit, duration,
        required=1, aim=3, faster=True),
    Row("stream", "stream of 10,000 durable events: events", _stream, _their_stream, seconds_per_unit, per_second,
        required=0.3, aim=1, faster=True),
    Row("resume", "resume: 10,000 steps done, against 1,000", _resume_long, _resume_short, seconds_per_unit, duration,
        required=1.5, aim=1.1),
    Row("resume-work", "resume: 10,000 steps done, in seconds", _resume_long, None, seconds_per_unit, duration,
        required=0.050, aim=0.050),
    Row("fork", "fork: 10,000 steps done, against 1,000", _fork_long, _fork_short, seconds_per_unit, duration,
        required=1.5, aim=1.1),
    Row("checkpoints", "10,000 checkpoints listed as a stream, against 1,000: one", _checkpoints_long,
        _checkpoints_short, seconds_per_unit, duration, required=1.5, aim=1.1),
    Row("replay", "replay of 1,000 recorded steps, in seconds", _replay, None, seconds_per_unit, duration,
        required=0.5, aim=0.25),
    Row("state-at", "state at any seq of 10,000 steps, against 1,000", _state_long, _state_short, seconds_per_unit,
        duration, required=1.5, aim=1.1),
    Row("paused", "answer 1 of 10,000 paused runs, against 1 of 10", _paused_many, _paused_few, seconds_per_unit,
        duration, required=1.5, aim=1.1),
    Row("bytes", "bytes on disk per step, one small state write", _chain, None, bytes_per_unit, byte_count,
        required=500, aim=250),
    Row("list-time", "10,000 appends to one list, against a constant write: time", _list, _constant, seconds_per_unit,
        duration, required=3, aim=1.5),
    Row("list-bytes", "10,000 appends to one list, against a constant write: bytes", _list, _constant, bytes_per_unit,
        byte_count, required=3, aim=1.5),
    Row("fsyncs1", "fsyncs per step, 1 run", _chain, None, fsyncs_per_step(1), plain,
        required=1.1, aim=1.0, traced=True),
    Row("fsyncs64", "fsyncs per step, 64 runs", _runs64, None, fsyncs_per_step(3), plain,
        required=0.15, aim=0.05, traced=True),
    Row("import", "import in a fresh process", _import, _their_import, seconds_per_unit, duration,
        required=None, aim=None, faster=True),
]  # fmt: skip


def _on_postgres(row: Row) -> Row:
    """Return the row with durable_flow on Postgres; what it is compared with stays, unless that is durable_flow too."""
    against = row.against
    if against is not None and against.system == OURS:
        against = against._replace(system=OURS_ON_POSTGRES)
    title = row.title.replace("fsyncs", "commits")
    of = row.of._replace(system=OURS_ON_POSTGRES)
    # The server writes, so its calls are not in our process's trace.
    return replace(row, name=row.name.replace("fsyncs", "commits"), title=title, of=of, against=against, traced=False)


# The other two have nothing to do with the database.
_of_postgres = {row.name: _on_postgres(row) for row in ROWS if row.name not in ("get", "import")}


def _beside(name: str, system: System, required: float | None, aim: float | None) -> Row:
    row = _of_postgres[name]
    return replace(row, name=f"{name}-{system.name.lower()}", title=f"beside {system.name}, {row.title}",
        against=row.of._replace(system=system), quantity=wall_per_unit, required=required, aim=aim)  # fmt: skip


POSTGRES_ROWS = [
    *_of_postgres.values(),
    _beside("chain", DBOS, required=5, aim=10),
    _beside("runs64", DBOS, required=12, aim=25),
    _beside("chain", LANGGRAPH, required=None, aim=None),
    _beside("runs64", LANGGRAPH, required=None, aim=None),
    Row("processes", "two processes beside one, 3-step runs, 64 at once in each: runs",
        Series("runs64", TWO_ON_POSTGRES, 3_840, 960), Series("runs64", OURS_ON_POSTGRES, 3_840, 960),
        wall_per_unit, per_second, required=1.3, aim=None, faster=True),
]  # fmt: skip
