"""What the command line's tests share: a module with an app, and `rowtine` run beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHOP = '''
import gc
import os
import time
from dataclasses import dataclass
from datetime import date

import rowtine

app = rowtine.App(poll_interval=0.02, grace=3600)
another = rowtine.App()
number = 7


@dataclass
class Order:
    sku: str
    count: int = 1
    day: date = date(2026, 1, 1)


@app.function
def double(x: int) -> int:
    return 2 * x


@app.function
def add(a: int, b: int = 1, *, c: int = 0) -> int:
    return a + b + c


@app.function
def total(order: Order) -> str:
    return f"{order.count} of {order.sku} on {order.day:%d.%m.%Y}"


@app.function
def joined(*words: str, **more: int) -> str:
    return " ".join(words) + str(more)


@app.function
def fail(message: str) -> None:
    raise ValueError(message)


@app.function
def garbage() -> list[int]:
    """After how many new objects the process collects garbage, and how many it never looks at."""
    return [gc.get_threshold()[0], gc.get_freeze_count()]


@app.function
def hold(name: str) -> int:
    """Says that it runs, and goes on when the test says so."""
    print(f"holding {name} in {os.getpid()}", flush=True)
    while not os.path.exists(name):
        time.sleep(0.01)
    return os.getpid()


@app.coroutine
async def child(x: int) -> int:
    doubled = await double(x)
    await rowtine.sleep(3600)
    return doubled


@app.function
async def parent(width: int) -> list[int]:
    try:
        await fail("first \\x1b[31mred\\x1b[0m [bold]loud[/bold]")
    except ValueError:
        pass
    return await rowtine.gather(*[child(i) for i in range(width)], below(2))


@app.function(name="[red]below[/red]")
async def below(n: int) -> int:
    if n == 0:
        await rowtine.sleep(3600)
    return await below(n - 1)
'''


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr, which begins with the name of the command."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("rowtine: ")
        return lines[0]


class Shell:
    """Runs `rowtine` in a directory, each time in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = dict(os.environ)
        self.running: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, input: str = "") -> Said:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> Running:
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.running.append(process)
        return Running(process)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "rowtine.cli", *arguments]

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Running:
    """A command that has been started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def out_until(self, words: str) -> str:
        """The next line on stdout with these words; whoever prints it has got there."""
        assert self.process.stdout is not None
        return self._until(self.process.stdout, words)

    def err_until(self, words: str) -> str:
        assert self.process.stderr is not None
        return self._until(self.process.stderr, words)

    def _until(self, stream: Iterator[str], words: str) -> str:
        seen: list[str] = []
        for line in stream:
            if words in line:
                return line
            seen.append(line)
        raise AssertionError(f"ended without {words!r}: {''.join(seen)}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> Said:
        out, err = self.process.communicate(timeout=60)
        return Said(self.process.returncode, out, err)
