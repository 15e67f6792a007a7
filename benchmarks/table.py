"""The table in Markdown, the notes below it, and the same as data."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from rows import Measured, Row, Series


def table(rows: list[Row], measured: Measured, failures: dict[Series, str]) -> list[str]:
    """Return the table in Markdown."""
    header = ["row", "what", "ours", "compared with", "ratio", "target", "aim", "met"]
    cells = [header] + [line(row, measured, failures) for row in rows]
    return markdown(cells)


def markdown(cells: list[list[str]]) -> list[str]:
    """Return the lines of a table; the first row is its heading."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
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


def notes(rows: list[Row], measured: Measured, failures: dict[Series, str]) -> list[str]:
    """Return what a reader of the table must know besides."""
    lines = [f"failed: {series.workload} ({series.system.name}): {message}" for series, message in failures.items()]
    lines += [
        f"fsyncs per commit, by strace, {name}: {ratio:.3f}" for name, ratio in measured.fsyncs_per_commit.items()
    ]
    if not measured.fsyncs_per_commit and any(row.traced for row in rows):
        lines.append("fsyncs were not traced (no strace): they are counted as commits")
    for series, samples in measured.samples.items():
        times = sorted(sample.seconds / sample.units for sample in samples)
        cpu = median(sample.cpu_seconds / sample.units for sample in samples)
        lines.append(
            f"{series.workload}, {series.system.name}, {series.size}: wall per unit {times[0] * 1e6:,.1f} to "
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
            {**identity(series), "samples": [asdict(sample) for sample in samples]}
            for series, samples in measured.samples.items()
        ],
        "failures": [{**identity(series), "message": message} for series, message in failures.items()],
    }


def identity(series: Series) -> dict[str, object]:
    return {"workload": series.workload, "system": series.system.name, "size": series.size}
