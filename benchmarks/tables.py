"""The figures as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.table import Table

from benchmarks.results import Report, Result, Spread
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.workload import Figure, Workload, in_words


@dataclass(frozen=True, slots=True)
class Row:
    case: str
    database: str
    engine: str
    values: tuple[str, ...]
    """One for each figure of the workload, then how many times as fast as rowtine it is."""


def heads(workload: Workload) -> tuple[str, ...]:
    return (*(figure.unit for figure in workload.figures), "ratio")


def rows(report: Report, workload: Workload) -> Iterator[Row]:
    """Engines at the same case on the same database stand together."""
    for (case, database), group in groupby(
        report.of(workload.name), lambda result: (in_words(result.case), result.database)
    ):
        results = list(group)
        own = next((each for each in results if each.engine == "rowtine"), None)
        for result in results:
            figures = tuple(_figure(result, figure) for figure in workload.figures)
            ratio = _ratio(result, own, workload.figures[0])
            yield Row(case, database, result.engine, (*figures, ratio))


def _figure(result: Result, figure: Figure) -> str:
    spread = result.spread(figure.key)
    if spread is None:
        return "failed" if result.errors and not result.runs else ""
    return in_figures(spread)


def in_figures(spread: Spread) -> str:
    """The median, then the minimum and the maximum if there are several runs."""
    middle, least, most = map(number, spread)
    return middle if least == most else f"{middle} ({least} to {most})"


def number(value: float) -> str:
    """Three digits are more than such figures are good for."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"


def _ratio(result: Result, own: Result | None, figure: Figure) -> str:
    """How many times as fast as rowtine this is: the median over rounds would hide which rounds
    failed, so it is the ratio of the medians."""
    mine = own.spread(figure.key) if own is not None else None
    its = result.spread(figure.key)
    if mine is None or its is None or result is own or not its.median or not mine.median:
        return ""
    ratio = its.median / mine.median
    return number(ratio if figure.more_is_better else 1 / ratio)


def show(console: Console, report: Report) -> None:
    for workload in WORKLOADS.values():
        found = list(rows(report, workload))
        if found:
            console.print(_table(workload, found))
    for engine, reason in report.absent.items():
        console.print(f"[bold]{engine}[/bold] was not measured: {reason}")
    for result in report.results:
        for error in result.errors:
            console.print(
                f"[bold]{result.workload}, {result.engine}, {result.database}[/bold] failed: "
                f"{error.splitlines()[-1]}"
            )


def _table(workload: Workload, found: list[Row]) -> Table:
    table = Table(title=workload.title, title_justify="left")
    for name in ("case", "database", "engine"):
        table.add_column(name)
    for head in heads(workload):
        table.add_column(head, justify="right")
    for row in found:
        table.add_row(row.case, row.database, row.engine, *row.values)
    return table
