"""Several worker processes under one parent, each of them a plain `rowtine worker`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from rowtine import clock

__all__ = ["Supervisor", "command", "environment", "stop_with_parent"]

log = logging.getLogger("rowtine")

_STEADY = 60.0
"""Seconds after which a process that dies is not taken for one that cannot start."""

_ASKED_TO = {0, -signal.SIGTERM, -signal.SIGINT}
"""How a process ends that was told to: by itself, or before it was ready to listen."""


def command(target: str, concurrency: int | None = None) -> list[str]:
    """What starts one worker that ends with the process that started it."""
    options = [] if concurrency is None else ["--concurrency", str(concurrency)]
    return [sys.executable, "-m", "rowtine.cli", "worker", target, "--with-parent", *options]


def environment(url: str | None) -> dict[str, str]:
    """The environment of a worker. The URL goes here, not among the arguments: those can be read
    by everybody on the machine, and it may hold a password."""
    return {**os.environ, **({} if url is None else {"ROWTINE_DATABASE_URL": url})}


def stop_with_parent(stop: Callable[[], None]) -> None:
    """Stop when standard input ends: the parent holds its other end, and cannot fail to let go of
    it, even when it is killed. Without this its workers would go on unseen."""

    def watch() -> None:
        # Not sys.stdin: its lock, held by a thread that reads, is fatal at the interpreter's end.
        while os.read(0, 1024):
            pass
        stop()

    threading.Thread(target=watch, name="rowtine-parent", daemon=True).start()


def restart_wait(deaths: int) -> float:
    """Seconds before a process that died for the n-th time in a row is started again."""
    return min(0.5 * 2.0 ** min(deaths - 1, 10), 30.0)


class Supervisor:
    """Keeps a number of equal processes running until SIGTERM or SIGINT, which it hands on."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], processes: int
    ) -> None:
        self._arguments = arguments
        self._environment = environment
        self._number = processes
        self._running: set[Process] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """The exit code: 0 if every process ended as it was told to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # Windows has no signal handlers on loops
                loop.add_signal_handler(number, self._hand_on, number)
        codes = await asyncio.gather(*[self._keep() for _ in range(self._number)])
        return 0 if set(codes) <= _ASKED_TO else 1

    def _hand_on(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self) -> int:
        """One place among the processes; the exit code of the one that was told to stop."""
        deaths = 0
        while not self._stopping.is_set():
            began = clock.monotonic()
            process = await self._start()
            code = await process.wait()
            self._running.discard(process)
            if self._stopping.is_set():
                return code
            deaths = 1 if clock.monotonic() - began > _STEADY else deaths + 1
            wait = restart_wait(deaths)
            log.warning(
                "worker process %d %s; another starts in %g s", process.pid, _end(code), wait
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
        return 0

    async def _start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *self._arguments,
            env=self._environment,
            stdin=PIPE,
            # Ctrl-C in a terminal goes to the whole group: with it and with what is handed on, one
            # interrupt would count as two, and the second one stops at once.
            process_group=0,
        )
        self._running.add(process)
        if self._stopping.is_set():
            process.terminate()
        return process


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
