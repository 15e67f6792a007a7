"""durable_flow of the working tree beside that of a git revision: the same workloads, in pairs."""

from __future__ import annotations

import compileall
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import measure
from rows import DBOS, LANGGRAPH, Measured, Row, Series
from table import markdown
from workloads.sample import Sample

WORSE = 1.10
"""A row is marked where the working tree needs more than this times what the revision needed."""


@dataclass
class Pairs:
    """Samples by series, of the working tree and of the revision, taken one after the other."""

    samples: dict[Series, list[tuple[Sample, Sample]]] = field(default_factory=dict)
    failures: dict[Series, str] = field(default_factory=dict)
    impossible: dict[Series, str] = field(default_factory=dict)
    fsync_seconds: float = 0.0


@contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Path]:
    """Give a temporary git worktree of the revision. Exits with git's message if there is no such revision."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        tree = Path(scratch) / "revision"
        git = ["git", "-C", str(measure.ROOT), "worktree"]
        added = subprocess.run(
            [*git, "add", "--quiet", "--detach", str(tree), revision], capture_output=True, text=True, check=False
        )
        if added.returncode != 0:
            sys.exit(added.stderr.strip())
        try:
            # So neither pays for that in a sample: in each of them, where the environment lets no process write it.
            for root in (tree, measure.ROOT):
                compileall.compile_dir(root / "durable_flow", quiet=1)
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=False)


def compared_rows(rows: list[Row]) -> list[Row]:
    """Return the rows that differ in what they measure of ours, not only in what they hold it against."""
    own = [row for row in rows if row.against is None or row.against.system not in (DBOS, LANGGRAPH)]
    return list({(row.of, row.quantity): row for row in reversed(own)}.values())[::-1]


def collect_pairs(
    rows: list[Row], after: measure.Place, before: measure.Place, repetitions: int, *, quick: bool
) -> Pairs:
    """Measure what the rows need with both; who goes first changes from pair to pair: A B B A."""
    pairs = Pairs()
    fsyncs = [measure.fsync_p50_seconds(after.directory)]
    for series in dict.fromkeys(row.of for row in compared_rows(rows)):
        print(f"{series.workload} ...", file=sys.stderr, flush=True)
        size = series.quick if quick else series.size
        for repetition in range(repetitions):
            taken: dict[Path, Sample] = {}
            for place in (after, before) if repetition % 2 == 0 else (before, after):
                try:
                    taken[place.source] = measure.sample(series, size, place)
                except measure.WorkloadFailed as error:
                    (pairs.failures if place == after else pairs.impossible)[series] = str(error)
            if len(taken) < 2:
                break
            pairs.samples.setdefault(series, []).append((taken[after.source], taken[before.source]))
        fsyncs.append(measure.fsync_p50_seconds(after.directory))
    pairs.fsync_seconds = median(fsyncs)
    return pairs


def comparison(rows: list[Row], pairs: Pairs, revision: str) -> list[str]:
    """Return the table: the median of the ratios within a pair, working tree to revision; below 1 is better."""
    cells = [["row", "what", "working tree", revision, "ratio", "from", "to", ""]]
    cells += [_line(row, pairs) for row in compared_rows(rows)]
    messages = [("failed", pairs.failures), (f"{revision} cannot run", pairs.impossible)]
    below = [
        f"{what}: {series.workload} ({series.system.name}): {message}"
        for what, series_with_message in messages
        for series, message in series_with_message.items()
    ]
    return [*markdown(cells), "", *below]


def _line(row: Row, pairs: Pairs) -> list[str]:
    if row.of in pairs.failures or row.of in pairs.impossible:
        after = "failed" if row.of in pairs.failures else ""
        return [row.name, row.title, after, "cannot run it" if row.of in pairs.impossible else "", "", "", "", "?"]

    def quantity(*samples: Sample) -> float:
        return row.quantity(Measured({row.of: list(samples)}, pairs.fsync_seconds, {}), row.of)

    taken = pairs.samples[row.of]
    ratios = sorted(quantity(after) / quantity(before) for after, before in taken)
    after, before = (row.show(quantity(*samples)) for samples in zip(*taken, strict=True))
    ratio = median(ratios)
    shown = [f"{value:.2f}x" for value in (ratio, ratios[0], ratios[-1])]
    return [row.name, row.title, after, before, *shown, "WORSE" if ratio > WORSE else ""]
