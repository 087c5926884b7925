"""What every engine runs: a body that does nothing, and can say when it ran.

The body is the same for all, so that all the time is the engine's. A workload that has to know
which bodies ran, when and how often, names a ledger in the environment: a file to which each body
appends one line before it returns, whatever the engine records of it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LEDGER = "ROWTINE_BENCH_LEDGER"
"""The path of the ledger; without it nothing is written."""

STEP_SECONDS = "ROWTINE_BENCH_STEP_SECONDS"
"""How long a body sleeps; without it, it returns at once."""


@dataclass(slots=True)
class _Process:
    """What the bodies of this process share."""

    ledger: int | None = None
    """A file descriptor. One write of a line with O_APPEND is never mixed with another's."""
    seconds: float = 0.0
    runs: int = 0
    awaited: int = 0
    """At how many runs those are told who wait for them."""
    reached: threading.Event = field(default_factory=threading.Event)
    observe: Callable[[], None] = field(default=lambda: None)


def _from_environment() -> _Process:
    path = os.environ.get(LEDGER)
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else None
    return _Process(ledger, float(os.environ.get(STEP_SECONDS, "0")))


_process = _from_environment()


class Entry(NamedTuple):
    """One line of a ledger."""

    workflow: int
    step: int
    at: float
    """Seconds of the clock that `now` reads, in every process of this machine alike."""


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _ran(workflow: int, step: int) -> int:
    _process.runs += 1
    if _process.runs >= _process.awaited:
        _process.reached.set()
    _process.observe()
    if _process.ledger is not None:
        os.write(_process.ledger, f"{workflow} {step} {now():.6f}\n".encode())
    return step


def body(workflow: int, step: int) -> int:
    if _process.seconds:
        time.sleep(_process.seconds)
    return _ran(workflow, step)


async def async_body(workflow: int, step: int) -> int:
    if _process.seconds:
        await asyncio.sleep(_process.seconds)
    return _ran(workflow, step)


def runs() -> int:
    """How many bodies have run in this process."""
    return _process.runs


def after(count: int) -> threading.Event:
    """Set when so many more bodies have run in this process: who waits need not look, and takes
    nothing from those that run. One at a time."""
    _process.reached = threading.Event()
    _process.awaited = _process.runs + count
    return _process.reached


@contextmanager
def ledger(path: Path) -> Generator[Path]:
    """Bodies of this process, and of those that it starts, write into this file."""
    os.environ[LEDGER] = str(path)
    _process.ledger = _from_environment().ledger
    try:
        yield path
    finally:
        del os.environ[LEDGER]
        if _process.ledger is not None:
            os.close(_process.ledger)
            _process.ledger = None


@contextmanager
def observed(observe: Callable[[], None]) -> Generator[None]:
    """Bodies of this process call `observe` before they return."""
    _process.observe = observe
    try:
        yield
    finally:
        _process.observe = lambda: None


def read(path: Path) -> list[Entry]:
    """All entries so far, in the order in which they were written."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Entry(int(w), int(s), float(at)) for w, s, at in map(str.split, lines)]
