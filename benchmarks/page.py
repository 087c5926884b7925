"""What docs/explanation/performance.md shows of the figures: nothing there is copied by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.plots import draw
from benchmarks.results import Report
from benchmarks.tables import Table, missing, tables

BEGIN, END = "<!-- begin: figures -->", "<!-- end: figures -->"

EXPLANATION = Path(__file__).resolve().parent.parent / "docs" / "explanation"


def write(report: Report, explanation: Path = EXPLANATION) -> None:
    """Write the pictures, and what stands between the two marks of the page."""
    page = explanation / "performance.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} with an {END} after it")
    pictures = draw(report, explanation / "pictures")
    figures = "\n".join(_lines(report, {name: path.name for name, path in pictures.items()}))
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n{END}{after}")


def _lines(report: Report, pictures: dict[str, str]) -> Iterator[str]:
    yield from _circumstances(report)
    for workload, table in tables(report):
        yield f"### {workload.title}"
        yield ""
        if name := pictures.get(workload.name):
            yield f"![{workload.title}](pictures/{name})"
            yield ""
        yield from _markdown(table, workload.title)
        yield ""
    gaps = list(missing(report))
    if gaps:
        yield "### What is missing"
        yield ""
        yield from (f"- {gap}" for gap in gaps)
        yield ""


def _circumstances(report: Report) -> Iterator[str]:
    machine = report.machine
    yield (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}."
    )
    yield f"Rounds: {report.repeats}; medians, with minimum and maximum where they differ."
    yield ""
    yield f"Versions: {_listed(report.versions)}."
    yield ""
    for name, settings in report.servers.items():
        yield f"Settings of {name}: {_listed(settings)}."
        yield ""


def _listed(words: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in words.items())


def _markdown(table: Table, title: str) -> Iterator[str]:
    common = table.title.removeprefix(title).removeprefix(" · ")
    if common:
        yield f"{common}:"
        yield ""
    yield f"| {' | '.join(table.heads)} |"
    rules = ["---"] * table.words + ["---:"] * (len(table.heads) - table.words)
    yield f"| {' | '.join(rules)} |"
    for row in table.rows:
        yield re.sub(r" +\|", " |", f"| {' | '.join(row)} |")
