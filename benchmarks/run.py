"""Measure durable_flow on SQLite beside llama-index-workflows in memory, and print the table of design section 7.

python benchmarks/run.py [--quick] [--rows NAME ...] [--repetitions N] [--directory DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import measure
from rows import ROWS, SLOW_FSYNC_SECONDS, Measured, Row, Series
from workloads.sample import Sample


def main() -> int:
    arguments = parse()
    rows = [row for row in ROWS if not arguments.rows or row.name in arguments.rows]
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="durable-flow-benchmark-") as scratch:
        measured, failures = collect(rows, Path(scratch), arguments.repetitions, quick=arguments.quick)
    heading = describe(measured.fsync_seconds, arguments.directory, arguments.repetitions)
    print("\n".join([*heading, "", *table(rows, measured, failures), "", *notes(measured, failures)]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_data(heading, rows, measured, failures), indent=1))
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller workloads, 2 repetitions: to see that it works")
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=[row.name for row in ROWS])
    parser.add_argument("--repetitions", type=int, help="fresh processes per system and workload (5; with --quick 2)")
    parser.add_argument("--directory", type=Path, default=measure.default_directory(), help="where databases are put")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write rows and all samples here")
    arguments = parser.parse_args()
    arguments.repetitions = arguments.repetitions or (2 if arguments.quick else 5)
    return arguments


def collect(rows: list[Row], directory: Path, repetitions: int, *, quick: bool) -> tuple[Measured, dict[Series, str]]:
    """Measure what the rows need, one workload after the other, its systems by turns: A B A B."""
    workloads: dict[str, list[Series]] = {}
    for series in dict.fromkeys(series for row in rows for series in row.series):
        workloads.setdefault(series.workload, []).append(series)
    traced = {row.of for row in rows if row.traced}
    samples: dict[Series, list[Sample]] = {}
    failures: dict[Series, str] = {}
    fsyncs = [measure.fsync_p50_seconds(directory)]
    per_commit: dict[str, float] = {}
    for workload, members in workloads.items():
        print(f"{workload} ...", file=sys.stderr, flush=True)
        for _ in range(repetitions):
            for series in members:
                if series in failures:
                    continue
                try:
                    taken = measure.sample(series, series.quick if quick else series.size, directory)
                except measure.WorkloadFailed as error:
                    failures[series] = str(error)
                else:
                    samples.setdefault(series, []).append(taken)
        for series in traced.intersection(members) - failures.keys():
            ratio = measure.fsyncs_per_commit(series, series.quick, directory)
            if ratio is not None:
                per_commit[workload] = ratio
        fsyncs.append(measure.fsync_p50_seconds(directory))
    return Measured(samples, median(fsyncs), per_commit), failures


def describe(fsync_seconds: float, directory: Path, repetitions: int) -> list[str]:
    """Return the lines that say what was compared, on what."""
    binding = "wall time is binding" if fsync_seconds <= SLOW_FSYNC_SECONDS else "engine time without fsyncs is binding"
    return [
        f"durable_flow {installed('durable-flow')} on SQLite, full sync; "
        f"llama-index-workflows {installed('llama-index-workflows')} in memory",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors; "
        f"medians of {repetitions} fresh processes each, interleaved",
        f"fsync p50 in {directory}: {fsync_seconds * 1e6:.0f} us (4 KiB overwrite and fdatasync): {binding}",
    ]


def installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


def table(rows: list[Row], measured: Measured, failures: dict[Series, str]) -> list[str]:
    """Return the table in Markdown."""
    header = ["row", "what", "ours", "compared with", "ratio", "target", "aim", "met"]
    cells = [header] + [line(row, measured, failures) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def line(row: Row, measured: Measured, failures: dict[Series, str]) -> list[str]:
    shown = [value(row, series, measured, failures) for series in row.series]
    ours, other = shown[0], shown[1] if len(shown) > 1 else ""
    if any(series in failures for series in row.series):
        return [row.name, row.title, ours, other, "", target(row, row.required), target(row, row.aim), "?"]
    figure = row.figure(measured)
    ratio = f"{figure:.2f}x" if row.against is not None else ""
    met = "" if row.required is None else "yes" if row.reaches(figure, row.required) else "NO"
    if row.aim is not None and row.reaches(figure, row.aim):
        met = "yes, aim too"
    return [row.name, row.title, ours, other, ratio, target(row, row.required), target(row, row.aim), met]


def value(row: Row, series: Series, measured: Measured, failures: dict[Series, str]) -> str:
    return "failed" if series in failures else row.show(row.quantity(measured, series))


def target(row: Row, number: float | None) -> str:
    if number is None:
        return ""
    if row.against is None:
        return f"<= {row.show(number)}"
    return f"{'>=' if row.faster else '<='} {number:g}x"


def notes(measured: Measured, failures: dict[Series, str]) -> list[str]:
    """Return what a reader of the table must know besides."""
    lines = [f"failed: {series.workload} ({series.system}): {message}" for series, message in failures.items()]
    lines += [
        f"fsyncs per commit, by strace, {name}: {ratio:.3f}" for name, ratio in measured.fsyncs_per_commit.items()
    ]
    if not measured.fsyncs_per_commit:
        lines.append("fsyncs were not traced (no strace, or nothing to trace): they are counted as commits")
    for series, samples in measured.samples.items():
        times = sorted(sample.seconds / sample.units for sample in samples)
        cpu = median(sample.cpu_seconds / sample.units for sample in samples)
        lines.append(
            f"{series.workload} {series.system} {series.size}: wall per unit {times[0] * 1e6:,.1f} to "
            f"{times[-1] * 1e6:,.1f} us, processor {cpu * 1e6:,.1f} us"
        )
    return lines


def as_data(heading: list[str], rows: list[Row], measured: Measured, failures: dict[Series, str]) -> dict[str, object]:
    """Return everything that was measured, for `--json`."""
    complete = [row for row in rows if not any(series in failures for series in row.series)]
    return {
        "heading": heading,
        "fsync_p50_seconds": measured.fsync_seconds,
        "fsyncs_per_commit": dict(measured.fsyncs_per_commit),
        "rows": {row.name: row.figure(measured) for row in complete},
        "samples": [
            {**series._asdict(), "samples": [asdict(sample) for sample in samples]}
            for series, samples in measured.samples.items()
        ],
        "failures": [{**series._asdict(), "message": message} for series, message in failures.items()],
    }


if __name__ == "__main__":
    sys.exit(main())
