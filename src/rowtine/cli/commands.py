"""The commands. Each parses, opens a database, asks or acts once, prints."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

import click

import rowtine
from rowtine.app import App, Handle
from rowtine.cli import render, supervise
from rowtine.cli.demo import run_demo
from rowtine.cli.failures import FAILED, report
from rowtine.cli.target import json_value, load_app, parse_call
from rowtine.cli.text import line_of, plain
from rowtine.config import default_database_url
from rowtine.core.options import checked_options
from rowtine.core.phases import Phase
from rowtine.core.status import Status
from rowtine.errors import NotFound, RowtineError, SchemaError, UsageError
from rowtine.store import Database, calls, reports
from rowtine.store import schema as revisions
from rowtine.store.outcomes import Settled
from rowtine.worker.garbage import collect_seldom

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("rowtine")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name in a row must not fail on a terminal's set
            stream.reconfigure(errors="backslashreplace")
    try:
        code: Any = cli.main(arguments, prog_name="rowtine", standalone_mode=False)
    except (click.ClickException, click.Abort, KeyboardInterrupt, RowtineError) as error:
        code = report(error)
    sys.exit(code or 0)


# --------------------------------------------------------------------------------------- options


def _database_option(command: F) -> F:
    return click.option(
        "--database",
        metavar="URL",
        envvar="ROWTINE_DATABASE_URL",
        show_envvar=True,
        help="sqlite:///file.db or postgresql://user:password@host/database.",
    )(command)


def _schema_option(command: F) -> F:
    return click.option(
        "--schema",
        default="rowtine",
        show_default=True,
        help="The PostgreSQL schema of the tables.",
    )(command)


_target_argument = click.argument("target", metavar="MODULE:APP")


def _open(url: str | None, name: str) -> Database:
    database = Database(url or default_database_url(), schema=name)
    _require_tables(database)
    return database


def _app(target: str, url: str | None) -> App:
    app = load_app(target)
    if url is not None:
        app.use_database(url)
    _require_tables(app.database)
    return app


def _bare_app(url: str | None, schema: str) -> App:
    """An app without functions, for what needs none."""
    app = App(url, schema=schema)
    _require_tables(app.database)
    return app


def _handle(url: str | None, schema: str, id: str) -> Handle[Any]:
    app = _bare_app(url, schema)
    return app.handle(_one(app.database, id))


def _require_tables(database: Database) -> None:
    """SchemaError unless there are today's tables. To ask is not to make an empty file."""
    path = database.url.database
    a_file = database.url.get_backend_name() == "sqlite" and path and not path.startswith("file:")
    if a_file and not Path(path or "").exists():
        raise SchemaError(f"{database.name}: there is no such file; `rowtine migrate` makes it")
    revisions.check_once(database)


# --------------------------------------------------------------------------------------- commands


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rowtine.__version__, prog_name="rowtine")
def cli() -> None:
    """Durable execution for Python whose state is rows."""


@cli.command()
@_database_option
@_schema_option
def migrate(database: str | None, schema: str) -> None:
    """Make rowtine's tables, or bring them up to this version."""
    url = database or default_database_url()
    revisions.migrate(url, schema=schema)
    name = Database(url, schema=schema).name
    click.echo(plain(f"{name} is at revision {revisions.head()}"))


@cli.command()
@_target_argument
@_database_option
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many worker processes; one that dies is replaced.",
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1),
    help="How many calls each process runs at once; else as the App says.",
)
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when standard input ends.")
def worker(
    target: str,
    database: str | None,
    processes: int,
    concurrency: int | None,
    with_parent: bool,
) -> int:
    """Run the functions of an App until told to stop.

    SIGTERM and Ctrl-C let running calls finish within the grace time and give the rest back; a
    second one stops at once.
    """
    app = _app(target, database)
    _log_to_stderr()
    if processes > 1:
        arguments = supervise.command(target, concurrency)
        keeper = supervise.Supervisor(arguments, supervise.environment(database), processes)
        return asyncio.run(keeper.run())
    if concurrency is not None:
        app.settings = dataclasses.replace(app.settings, concurrency=concurrency)
    made = app.worker()

    def stop(*_: object) -> None:
        made.stop()

    for number in (signal.SIGTERM, signal.SIGINT):  # until the worker listens for them itself
        signal.signal(number, stop)
    if with_parent:
        supervise.stop_with_parent(stop)
    log.info(
        "worker process %d serves %d functions of %s on %s",
        os.getpid(),
        len(app.registry.functions()),
        target,
        app.database.name,
    )
    collect_seldom()  # this process is the worker's own
    made.run_until_signalled()
    log.info("worker process %d has stopped", os.getpid())
    return 0


@cli.command()
@_target_argument
@click.argument("function")
@click.argument("arguments", metavar="[JSON]", required=False)
@_database_option
@click.option(
    "--key",
    metavar="KEY",
    help="Of idempotency: a function and a key are one call, however often it is started.",
)
@click.option("--wait", is_flag=True, help="Wait for the result and print it as JSON.")
def start(
    target: str,
    function: str,
    arguments: str | None,
    database: str | None,
    key: str | None,
    wait: bool,
) -> int:
    """Start a call of FUNCTION and print its id.

    JSON holds the arguments: a list the positional ones, an object those by name, anything else is
    the one argument. What the signature annotates (a dataclass, a date) is made of it.
    """
    options = checked_options(key=key)
    app = _app(target, database)
    handle = app.start(dataclasses.replace(parse_call(app, function, arguments), options=options))
    click.echo(handle.id, err=wait)
    return _await_result(app.database, handle.id) if wait else 0


@cli.command()
@click.argument("id")
@_database_option
@_schema_option
@click.option("--wait", is_flag=True, help="Wait until there is one.")
def result(id: str, database: str | None, schema: str, wait: bool) -> int:
    """Print what a call came to, as JSON. ID may be shortened."""
    opened = _open(database, schema)
    call_id = _one(opened, id)
    if wait:
        return _await_result(opened, call_id)
    settled = _settled(opened, call_id)
    if settled is None:
        raise RowtineError(f"{call_id} has no result yet")
    return _print_result(call_id, settled)


@cli.command()
@click.argument("token")
@click.argument("value", metavar="[JSON]", default="null")
@_database_option
@_schema_option
def resolve(token: str, value: str, database: str | None, schema: str) -> None:
    """Answer the promise that has this TOKEN with a value, null if none is given."""
    _bare_app(database, schema).resolve(token, json_value(value))


@cli.command()
@click.argument("token")
@click.argument("message", default="")
@_database_option
@_schema_option
def reject(token: str, message: str, database: str | None, schema: str) -> None:
    """Let the promise that has this TOKEN fail: its await raises an error with this MESSAGE."""
    _bare_app(database, schema).reject(token, RuntimeError(message))


@cli.command("signal")
@click.argument("id")
@click.argument("name")
@click.argument("value", metavar="[JSON]", default="null")
@_database_option
@_schema_option
def signal_(id: str, name: str, value: str, database: str | None, schema: str) -> None:
    """Send the signal NAME to an execution, with a value. ID may be shortened."""
    _handle(database, schema, id).signal(name, json_value(value))


@cli.command()
@click.argument("id")
@click.option("--reason", default="", help="What the execution and its caller are told.")
@_database_option
@_schema_option
def cancel(id: str, reason: str, database: str | None, schema: str) -> None:
    """Tell an execution to stop, with all that it waits for. It may clean up.

    ID may be shortened.
    """
    stopped = _handle(database, schema, id).cancel(reason)
    click.echo("told to stop" if stopped else "it was over already")


@cli.command()
@click.argument("id")
@click.option("--reason", default="", help="What its caller is told.")
@_database_option
@_schema_option
def terminate(id: str, reason: str, database: str | None, schema: str) -> None:
    """End an execution and all below it now, without clean-up. ID may be shortened."""
    stopped = _handle(database, schema, id).terminate(reason)
    click.echo("ended" if stopped else "it was over already")


@cli.command()
@_database_option
@_schema_option
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Lines at most."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ps(database: str | None, schema: str, limit: int, as_json: bool) -> None:
    """Show what is in flight.

    What runs and where, what waits, for what and at which line, and what is queued.
    """
    with _open(database, schema).reading() as connection:
        found = reports.in_flight(connection, limit)
        counts = reports.flights(connection)
    if as_json:
        for flight in found:
            click.echo(json.dumps(flight._asdict()))
        return
    out = render.console()
    if found:
        out.print(render.flights_table(found, short=out.is_terminal))
    out.print(render.summary(counts, len(found)), style="dim")


@cli.command()
@click.argument("id")
@_database_option
@_schema_option
@click.option("--values", is_flag=True, help="Show arguments and results, shortened.")
@click.option(
    "--width",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many waits of one coroutine, and members of one gather, any or race.",
)
@click.option(
    "--depth",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="How many calls deep.",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(
    id: str,
    database: str | None,
    schema: str,
    values: bool,
    width: int,
    depth: int,
    as_json: bool,
) -> None:
    """Show one call as a tree.

    Its coroutines, what each waited for and what it waits for now, at which line, and errors. ID
    may be shortened, as long as it is the only one that begins so.
    """
    opened = _open(database, schema)
    call_id = _one(opened, id)
    with opened.reading() as connection:
        told = reports.story(connection, call_id, width=width, depth=depth)
    if as_json:
        click.echo(json.dumps(render.story_json(told), indent=2))
        return
    out = render.console()
    out.print(render.story_tree(told, values=values))
    if trace := render.traceback_of(told[call_id].call):
        out.print(f"\n{trace}", style="red", soft_wrap=True)


@cli.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option(
    "--database",
    metavar="URL",
    help="Run on this database, after migrating it, instead of a SQLite file of its own.",
)
def demo(directory: Path | None, database: str | None) -> int:
    """Kill a worker in the middle of its work, lose nothing.

    Indexes a source tree with two workers, kills one of them, and checks the totals against a plain
    loop. DIRECTORY is any tree of Python files, else the standard library of this Python.
    """
    return run_demo(directory, database, render.console())


# ------------------------------------------------------------------------------------------ parts


class _PlainFormatter(logging.Formatter):
    """Log lines hold names and messages from rows: nothing in them may act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _one(database: Database, prefix: str) -> str:
    """The one call whose id begins like this."""
    with database.reading() as connection:
        found = reports.find(connection, prefix)
    if not found:
        raise NotFound(f"there is no call {prefix}")
    if len(found) > 1 and prefix not in found:
        raise UsageError(f"several ids begin with {prefix}: {', '.join(found)} ...")
    return found[0]


def _settled(database: Database, id: str) -> Settled | None:
    with database.reading() as connection:
        standing = calls.standing(connection, id)
    if standing is None:
        raise NotFound(f"there is no call {id}")
    return standing.settled if standing.phase is Phase.DONE else None


_FIRST_LOOK, _LONGEST_LOOK = 0.01, 0.25
"""Seconds between two looks at a call that somebody waits for: doubled from one to the other."""


def _await_result(database: Database, id: str) -> int:
    pause, between = _FIRST_LOOK, threading.Event()
    while (settled := _settled(database, id)) is None:
        between.wait(pause)
        pause = min(2 * pause, _LONGEST_LOOK)
    return _print_result(id, settled)


def _print_result(id: str, settled: Settled) -> int:
    """The stored JSON itself: nothing has to be imported to print it."""
    if settled.error_type is not None or settled.status is Status.CANCELLED:
        words = (settled.status.value, settled.error_type, settled.error_message)
        click.echo(line_of(f"rowtine: {id} failed: {': '.join(filter(None, words))}"), err=True)
        return FAILED
    click.echo("null" if settled.output is None else settled.output)
    return 0
