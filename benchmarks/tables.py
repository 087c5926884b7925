"""The figures as tables, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.results import Report, Result, Spread
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.workload import Figure, Workload, in_words

OWN = "rowtine"
"""The engine to which the others are compared."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int
    """How many of the columns, from the left, are words; the others are figures."""


def tables(report: Report) -> Iterator[tuple[Workload, Table]]:
    """One for each workload that was measured."""
    for workload in WORKLOADS.values():
        results = list(report.of(workload.name))
        if results:
            yield workload, _table(workload, results)


def _table(workload: Workload, results: Sequence[Result]) -> Table:
    """What is the same in every row goes into the title, what no row has is left out."""
    words = {
        "case": [in_words(result.case) for result in results],
        "database": [result.database for result in results],
        "engine": [result.engine for result in results],
    }
    varying = {head for head, column in words.items() if len({*column}) > 1} or {"engine"}
    common = [column[0] for head, column in words.items() if head not in varying]
    words = {head: column for head, column in words.items() if head in varying}
    figures = {
        figure.unit: [_figure(result, figure) for result in results] for figure in workload.figures
    }
    if workload.compared:
        first = workload.figures[0]
        figures["as fast as rowtine"] = [_ratio(result, results, first) for result in results]
    figures = {head: column for head, column in figures.items() if any(column)}
    columns = {**words, **figures}
    return Table(
        " · ".join([workload.title, *common]),
        tuple(columns),
        tuple(zip(*columns.values(), strict=True)),
        len(words),
    )


def _figure(result: Result, figure: Figure) -> str:
    """The median, then the minimum and the maximum if they differ."""
    spread = result.spread(figure.key)
    if spread is None:
        return "failed" if result.errors and not any(result.runs) else ""
    middle, least, most = map(number, spread)
    return middle if least == most else f"{middle} ({least} to {most})"


def _ratio(result: Result, results: Sequence[Result], figure: Figure) -> str:
    """How many times as fast as rowtine this is."""
    for own in results:
        if (own.engine, own.database, own.case) == (OWN, result.database, result.case):
            spread = own_ratio(result, own, figure)
            return f"{number(spread.median)} times" if spread and result is not own else ""
    return ""


def own_ratio(result: Result, own: Result, figure: Figure) -> Spread | None:
    if figure.more_is_better:
        return result.ratio_to(own, figure.key)
    return own.ratio_to(result, figure.key)


def number(value: float) -> str:
    """Three digits are more than such figures are good for."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"


def show(console: Console, report: Report) -> None:
    for _, table in tables(report):
        drawn = RichTable(title=table.title, title_justify="left")
        for position, head in enumerate(table.heads):
            drawn.add_column(head, justify="left" if position < table.words else "right")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    for line in missing(report):
        console.print(line)


def missing(report: Report) -> Iterator[str]:
    """What the tables do not have, and why."""
    for engine, reason in report.absent.items():
        yield f"{engine} was not measured: {reason}."
    for result in report.results:
        for error in result.errors:
            where = f"{result.workload} ({in_words(result.case)}), {result.database}"
            yield f"{result.engine} failed once at {where}: {error.splitlines()[-1]}"
