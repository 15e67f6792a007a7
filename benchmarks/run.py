"""Measure durable_flow beside other systems, and print the table of design section 7.

python benchmarks/run.py                        SQLite, beside llama-index-workflows in memory
python benchmarks/run.py --postgres [URL]       Postgres, beside DBOS and LangGraph on the same server too
python benchmarks/run.py --against REV          SQLite (or --postgres), beside durable_flow as it was at a git revision

[--quick] [--rows NAME ...] [--repetitions N] [--directory DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import measure
from against import checked_out, collect_pairs, comparison
from rows import POSTGRES_ROWS, ROWS, SLOW_FSYNC_SECONDS, Measured, Row, Series
from server import described, running_server
from table import as_data, notes, table
from workloads.sample import Sample


def main() -> int:
    arguments = parse()
    available = ROWS if arguments.postgres is None else POSTGRES_ROWS
    rows = [row for row in available if not arguments.rows or row.name in arguments.rows]
    with ExitStack() as stack:
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(dir=arguments.directory, prefix="durable-flow-benchmark-")
        )
        place = measure.Place(Path(scratch))
        database = "SQLite, full sync"
        if arguments.postgres is not None:
            place = place._replace(server=stack.enter_context(running_server(arguments.postgres, arguments.directory)))
            database = described(place.server)
        if arguments.against is not None:
            before = place._replace(source=stack.enter_context(checked_out(arguments.against, place.directory)))
            pairs = collect_pairs(rows, place, before, arguments.repetitions, quick=arguments.quick)
            heading = describe(database, pairs.fsync_seconds, arguments)
            print("\n".join([*heading, "", *comparison(rows, pairs, arguments.against)]))
            return 1 if pairs.failures else 0
        measured, failures = collect(rows, place, arguments.repetitions, quick=arguments.quick)
    heading = describe(database, measured.fsync_seconds, arguments)
    print("\n".join([*heading, "", *table(rows, measured, failures), "", *notes(rows, measured, failures)]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_data(heading, rows, measured, failures), indent=1))
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--postgres",
        nargs="?",
        const="",
        metavar="URL",
        help="a server on which databases may be made; without URL one is started from the wheel",
    )
    parser.add_argument("--against", metavar="REV", help="a git revision to compare durable_flow with")
    parser.add_argument("--quick", action="store_true", help="smaller workloads, 2 repetitions: to see that it works")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows of the table")
    parser.add_argument("--repetitions", type=int, help="fresh processes per system and workload (5; with --quick 2)")
    parser.add_argument("--directory", type=Path, default=measure.default_directory(), help="where databases are put")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write rows and all samples here")
    arguments = parser.parse_args()  # fmt: skip
    names = [row.name for row in (ROWS if arguments.postgres is None else POSTGRES_ROWS)]
    unknown = set(arguments.rows or ()).difference(names)
    if unknown:
        parser.error(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if arguments.json is not None and arguments.against is not None:
        parser.error("--json is not for --against")
    arguments.repetitions = arguments.repetitions or (2 if arguments.quick else 5)
    return arguments


def collect(
    rows: list[Row], place: measure.Place, repetitions: int, *, quick: bool
) -> tuple[Measured, dict[Series, str]]:
    """Measure what the rows need, one workload after the other, its systems by turns: A B A B."""
    workloads: dict[str, list[Series]] = {}
    for series in dict.fromkeys(series for row in rows for series in row.series):
        workloads.setdefault(series.workload, []).append(series)
    traced = {row.of for row in rows if row.traced}
    samples: dict[Series, list[Sample]] = {}
    failures: dict[Series, str] = {}
    fsyncs = [measure.fsync_p50_seconds(place.directory)]
    per_commit: dict[str, float] = {}
    for workload, members in workloads.items():
        print(f"{workload} ...", file=sys.stderr, flush=True)
        for _ in range(repetitions):
            for series in members:
                if series in failures:
                    continue
                try:
                    taken = measure.sample(series, series.quick if quick else series.size, place)
                except measure.WorkloadFailed as error:
                    failures[series] = str(error)
                else:
                    samples.setdefault(series, []).append(taken)
        for series in traced.intersection(members) - failures.keys():
            ratio = measure.fsyncs_per_commit(series, series.quick, place)
            if ratio is not None:
                per_commit[workload] = ratio
        fsyncs.append(measure.fsync_p50_seconds(place.directory))
    return Measured(samples, median(fsyncs), per_commit), failures


def describe(database: str, fsync_seconds: float, arguments: argparse.Namespace) -> list[str]:
    """Return the lines that say what was compared, on what."""
    binding = "wall time is binding" if fsync_seconds <= SLOW_FSYNC_SECONDS else "engine time without fsyncs is binding"
    if arguments.against is not None:
        compared = f"durable_flow of the working tree and of {arguments.against} on {database}"
    else:
        rivals = ["llama-index-workflows", *(["dbos", "langgraph"] if arguments.postgres is not None else [])]
        compared = "; ".join([f"durable_flow on {database}", *(f"{name} {installed(name)}" for name in rivals)])
    return [
        compared,
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors; "
        f"medians of {arguments.repetitions} fresh processes each, interleaved",
        f"fsync p50 in {arguments.directory}: {fsync_seconds * 1e6:.0f} us (4 KiB overwrite and fdatasync): {binding}",
    ]


def installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
