"""`rowtine demo`: real input, real death.

This process starts the work, starts two worker processes, kills one of them, and watches: all that
it knows about the run it reads from rows, as anybody could.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rowtine import clock
from rowtine.cli import demo_app, supervise
from rowtine.cli.demo_app import Counts
from rowtine.cli.text import plain
from rowtine.core.phases import Phase
from rowtine.errors import NotFound, RowtineError, UsageError
from rowtine.store import Database, calls, reports
from rowtine.store import schema as revisions
from rowtine.store.reports import Held

__all__ = ["run_demo"]

_TARGET = "rowtine.cli.demo_app:app"
_BETWEEN_LOOKS = 0.1


def run_demo(directory: Path | None, url: str | None, console: Console) -> int:
    """Index the tree, with a death in the middle; 1 if the totals are not those of a plain loop."""
    tree = (directory or Path(sysconfig.get_path("stdlib"))).resolve()
    files = _files(tree)
    home = Path(tempfile.mkdtemp(prefix="rowtine-demo-"))
    url = url or f"sqlite:///{home / 'demo.db'}"
    revisions.migrate(url)
    demo_app.app.use_database(url)
    database = demo_app.app.database
    stage = _Stage(console)
    stage.say(f"indexing {files:,} Python files of {tree}")
    stage.say(f"database: {database.name}")

    handle = demo_app.app.start(demo_app.index(str(tree)))
    with _Workers(url, home, _concurrency(files)) as workers, stage.bar("counting") as bar:
        run = _Run(database, handle.id, workers, stage, bar)
        run.watch()
        seconds = stage.seconds
    totals = handle.result()

    began = clock.monotonic()
    expected = _plain_loop(tree, stage)
    alone = clock.monotonic() - began
    _print_totals(console, totals, expected)
    _print_story(console, run, seconds, alone)
    if totals != expected:
        return 1
    _print_commands(console, database, handle.id)
    return 0


def _files(tree: Path) -> int:
    """How many files there are. UsageError if there is nothing to do."""
    if not tree.is_dir():
        raise UsageError(f"there is no directory {tree}")
    files = len(demo_app.find_files.func(str(tree)))
    if files == 0:
        raise UsageError(f"there are no Python files in {tree}")
    return files


def _concurrency(files: int) -> int:
    """What an App has by default; of a small tree less, or nothing would be left to kill for."""
    return min(32, max(1, files // 16))


# ------------------------------------------------------------------------------- what is printed


class _Stage:
    """Where lines appear, each with the seconds since the start: above the bar on a terminal, plain
    without one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = clock.monotonic()

    @property
    def seconds(self) -> float:
        return clock.monotonic() - self._began

    def say(self, words: str, style: str = "") -> None:
        line = Text(f"{self.seconds:6.1f} s  ", style="dim")
        line.append(plain(words), style=style)
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def bar(self, name: str) -> Generator[_Bar]:
        columns = (
            TextColumn("          {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        live = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not live) as bar:
            yield _Bar(bar, name)


class _Bar:
    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=None)

    def set(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total or None)


# --------------------------------------------------------------------------- the worker processes


class _Workers:
    """Worker processes, each with a file for what it says. All of them end with the block."""

    def __init__(self, url: str, home: Path, concurrency: int) -> None:
        self._command = supervise.command(_TARGET, concurrency)
        self._environment = supervise.environment(url)
        # Old files have invalid escapes, and Python says so to stderr as it parses them.
        self._environment["PYTHONWARNINGS"] = "ignore"
        self._home = home
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def start(self) -> int:
        """Start one; its pid."""
        self._number += 1
        with self._log(self._number).open("wb") as log:
            process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is ours: they are told to stop when the block ends
            )
        self._processes[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """SIGKILL: no handler, no `finally`, no goodbye."""
        process = self._processes[pid]
        process.kill()
        process.wait()

    def __contains__(self, pid: int) -> bool:
        return pid in self._processes

    def require_one(self) -> None:
        """RowtineError if none is left that could go on."""
        if all(process.poll() is not None for process in self._processes.values()):
            log = self._log(self._number)
            words = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise RowtineError(f"every worker has ended; the last one said: {words[-1]} ({log})")

    def _log(self, number: int) -> Path:
        return self._home / f"worker-{number}.log"


# ---------------------------------------------------------------------------------------- the run


@dataclass(slots=True)
class _Death:
    """A worker that was killed: when, and the calls that it was running."""

    worker: str
    at: float
    held: list[str]
    noticed: bool = False
    """Its lease has ended, and its calls are queued again."""


@contextmanager
def _hearing_interrupts() -> Generator[threading.Event]:
    """Ctrl-C as something to look at. Raised wherever the program happens to stand, it is lost if
    that is a callback of the garbage collector, which swallows what it raises."""
    heard = threading.Event()

    def hear(*_: object) -> None:
        heard.set()

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


class _Run:
    """Watches one run through its rows, and kills a worker when a third of its calls are done."""

    def __init__(
        self, database: Database, id: str, workers: _Workers, stage: _Stage, bar: _Bar
    ) -> None:
        self._database = database
        self._id = id
        self._workers = workers
        self._stage = stage
        self._bar = bar
        self.death: _Death | None = None
        self.again = 0
        """Calls that were claimed more than once."""
        self.again_for_death = 0
        """Those of them that the dead worker had."""

    def watch(self) -> None:
        """Until the run is over. RowtineError if there is nobody left to finish it."""
        with _hearing_interrupts() as interrupted:
            first, second = self._workers.start(), self._workers.start()
            self._stage.say(f"two workers: pid {first} and pid {second}")
            while not self._look():
                self._workers.require_one()
                if interrupted.wait(_BETWEEN_LOOKS):
                    raise KeyboardInterrupt

    def _look(self) -> bool:
        """Look at the rows once, and do what is due; whether the run is over."""
        with self._database.reading() as connection:
            standing = calls.standing(connection, self._id)
            progress = reports.progress(connection, self._id, demo_app.count.name)
        if standing is None:
            raise NotFound(f"somebody has removed the call {self._id}")
        self._bar.set(progress.done, progress.total)
        self._follow(progress)
        if standing.phase is not Phase.DONE:
            return False
        self._stage.say(f"all {progress.total:,} calls are done, and merged")
        self._count(progress)
        return True

    def _follow(self, progress: reports.Progress) -> None:
        death = self.death
        if death is None:
            if progress.total and progress.done * 3 >= progress.total:
                self._kill_one(progress)
        elif not death.noticed and death.worker not in {held.worker for held in progress.held}:
            death.noticed = True
            waited = self._stage.seconds - death.at
            self._stage.say(f"{waited:.1f} s later its lease has ended: its calls are queued again")

    def _kill_one(self, progress: reports.Progress) -> None:
        """Kill whichever of ours runs most calls; if none runs any, wait for the next look."""
        ours = [held for held in progress.held if held.pid in self._workers]
        if not ours:
            return
        victim = max(ours, key=_calls_of)
        self._workers.kill(victim.pid)
        with self._database.reading() as connection:  # until it was dead it went on working
            held = reports.held_by(connection, victim.worker)
        self.death = _Death(victim.worker, self._stage.seconds, held)
        self._stage.say(
            f"kill -9 {victim.pid}: {progress.done:,} of {progress.total:,} calls are done, it was "
            f"running {len(held)}",
            style="bold red",
        )
        self._stage.say(f"a new worker in its place: pid {self._workers.start()}")

    def _count(self, progress: reports.Progress) -> None:
        self.again = progress.again
        if self.death is not None:
            with self._database.reading() as connection:
                self.again_for_death = reports.claimed_again(connection, self.death.held)


def _calls_of(held: Held) -> int:
    return held.calls


# ----------------------------------------------------------------------------------- the accounts


def _plain_loop(tree: Path, stage: _Stage) -> Counts:
    """The same without rowtine: no rows, no workers, one process, one file after the other."""
    files = demo_app.find_files.func(str(tree))
    total = Counts()
    stage.say("the same again in a plain loop, to compare")
    with warnings.catch_warnings(), stage.bar("plain loop") as bar:
        warnings.simplefilter("ignore")
        for number, file in enumerate(files, 1):
            total += demo_app.count.func(str(tree), file)
            bar.set(number, len(files))
    return total


def _print_totals(console: Console, totals: Counts, expected: Counts) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("")
    for heading in ("FILES", "NOT PARSED", "LINES", "DEFINITIONS", "IMPORTS"):
        table.add_column(heading, justify="right")
    table.add_row("rowtine", *_figures(totals))
    table.add_row("plain loop", *_figures(expected))
    console.print()
    console.print(table)
    console.print()
    if totals == expected:
        console.print("The totals are equal.", style="bold green")
    else:
        console.print("The totals differ: this is a fault of rowtine.", style="bold red")


def _figures(counts: Counts) -> Iterable[str]:
    numbers = (counts.files, counts.unparsed, counts.lines, counts.definitions, counts.imports)
    return [f"{number:,}" for number in numbers]


def _print_story(console: Console, run: _Run, seconds: float, alone: float) -> None:
    if run.death is None:
        words = "It was over before a worker could be killed: try a larger tree."
    else:
        words = (
            f"One worker was killed while it was running {_some(len(run.death.held), 'call')}: "
            f"{run.again_for_death:,} ran again, none was lost."
        )
    if (others := run.again - run.again_for_death) > 0:
        words += (
            f" {others:,} more ran again because their worker was silent for longer than the lease "
            "of 2 s, on a machine with much else to do."
        )
    console.print(words, soft_wrap=True)
    console.print(
        f"{seconds:.1f} s with rowtine and two workers, {alone:.1f} s in the plain loop.",
        soft_wrap=True,
    )


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# ------------------------------------------------------------------------------ what to try now


def _print_commands(console: Console, database: Database, id: str) -> None:
    console.print("\nEvery step of it is a row. Look:", style="bold")
    where = _client(database)
    prefix = f"{database.schema}." if database.url.get_backend_name() == "postgresql" else ""
    for query in _queries(prefix, id):
        console.print(Text(f'\n{where} "{query}"'), soft_wrap=True)
    console.print(Text(f"\n{_show(database, id)}"), soft_wrap=True)


def _queries(prefix: str, id: str) -> tuple[str, str]:
    how_often = (
        "SELECT function, phase, status, count(*) AS calls, "  # noqa: S608 - printed, never run
        "count(*) FILTER (WHERE claim > 1) AS ran_again "
        f"FROM {prefix}calls WHERE execution_id = '{id}' GROUP BY 1, 2, 3"
    )
    waited_for = (
        "SELECT substr(waits_for, 1, 32) AS waited_for, state, line, seconds "  # noqa: S608
        f"FROM {prefix}awaits WHERE execution_id = '{id}' AND coroutine_id = 0 ORDER BY seq"
    )
    return how_often, waited_for


def _client(database: Database) -> str:
    """The command that asks this database; never with a password."""
    url = database.url
    if url.get_backend_name() == "postgresql":
        return f"psql {shlex.quote(_without_password(database, 'postgresql'))} -c"
    file = shlex.quote(url.database or "")
    if shutil.which("sqlite3") is None and sys.version_info >= (3, 12):
        return f"{shlex.quote(sys.executable)} -m sqlite3 {file}"
    return f"sqlite3 -header -column {file}"


def _show(database: Database, id: str) -> str:
    url = _without_password(database, database.url.get_backend_name())
    return f"{_program()} show {id} --database {shlex.quote(url)}"


def _program() -> str:
    """How this command is called from here: an environment need not be on the path."""
    if shutil.which("rowtine") is not None:
        return "rowtine"
    if Path(sys.argv[0]).name == "rowtine":
        return shlex.quote(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m rowtine.cli"


def _without_password(database: Database, driver: str) -> str:
    """A URL to print. (`URL.set(password=None)` leaves the password as it is.)"""
    url = database.url
    return url.create(
        driver,
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query={name: value for name, value in url.query.items() if "password" not in name},
    ).render_as_string(hide_password=False)
