"""Processes that start at once, because they are forked from one that has imported everything.

Run as a program, this file is the nursery: one thread, no connection, and for each line of JSON on
its standard input a child, which calls a function with keyword arguments and exits with what that
returns. It reaps its children and says how each ended, and when its input ends it kills them all:
nothing survives the tests, however they end.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).resolve().parent.parent
PRELOADED = ("rowtine", "sqlalchemy.dialects.sqlite", "psycopg", "acceptance.program")

# --- this side ----------------------------------------------------------------------------------


class Child:
    """A process that the nursery has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = threading.Event()
        self._status = 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal. ProcessLookupError if the process has ended."""
        if self._ended.is_set():
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60) -> int:
        """The exit code, or minus the number of the signal that ended it."""
        assert self._ended.wait(timeout), f"process {self.pid} has not ended within {timeout} s"
        return os.waitstatus_to_exitcode(self._status)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def _end(self, status: int) -> None:
        self._status = status
        self._ended.set()


class Nursery:
    """Forks children on request, and knows when they have ended."""

    def __init__(self, log: Path) -> None:
        self.log = log
        """Where the children's standard output and error go."""
        self._children: dict[int, Child] = {}
        self._born: list[Child] = []
        self._changed = threading.Condition()
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def fork(self, function: str, environment: dict[str, str] | None = None, **given: Any) -> Child:
        """A child that calls ``module:name`` with these arguments."""
        order = {"function": function, "environment": environment or {}, "given": given}
        with self._changed:
            number = len(self._born)
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            self._changed.wait_for(lambda: len(self._born) > number, timeout=60)
            assert len(self._born) > number, f"the nursery is silent, see {self.log}"
            return self._born[number]

    def close(self) -> None:
        """Kill what is left of the children, and wait for all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._listener.join(60)
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            with self._changed:
                if "born" in event:
                    child = self._children[event["born"]] = Child(event["born"])
                    self._born.append(child)
                else:
                    self._children.pop(event["ended"])._end(event["status"])
                self._changed.notify_all()


@contextlib.contextmanager
def opened(log: Path) -> Iterator[Nursery]:
    """A nursery for as long as the context lasts."""
    nursery = Nursery(log)
    try:
        yield nursery
    finally:
        nursery.close()


# --- the nursery itself -------------------------------------------------------------------------


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    wakeup, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end us
    children: set[int] = set()
    orders = sys.stdin
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wakeup in ready:
                os.read(wakeup, 4096)
                reap(children, os.WNOHANG)
            if orders in ready:
                line = orders.readline()
                if not line:
                    break
                children.add(fork(json.loads(line)))
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while children:
        reap(children, 0)


def reap(children: set[int], options: int) -> None:
    while children:
        pid, status = os.waitpid(-1, options)
        if pid == 0:
            return
        children.discard(pid)
        say({"ended": pid, "status": status})


def fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(child(order))
    say({"born": pid})
    return pid


def say(event: dict[str, Any], file: IO[str] = sys.stdout) -> None:
    print(json.dumps(event), file=file, flush=True)


def child(order: dict[str, Any]) -> int:
    """Be the child: nothing of the nursery's is left but what it has imported."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.environ.update(order["environment"])
    module, _, name = order["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**order["given"])
    except SystemExit as error:
        result = error.code
    except BaseException:
        traceback.print_exc()
        result = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.path[0] = str(TESTS)  # not this directory
    main()
