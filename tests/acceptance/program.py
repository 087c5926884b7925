"""The app that the tests of this directory run, here and in worker processes.

Each run of a sync function's body leaves one line in the file that ``ROWTINE_TEST_EFFECTS`` names:
the function and its argument, which no two calls of a program share.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Unpack

import rowtine
from rowtine.app import Options

EFFECTS = "ROWTINE_TEST_EFFECTS"


def effect(text: str) -> None:
    """Leave a line, at once and whole: other processes write to the same file."""
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)


def effects(path: Path) -> Counter[str]:
    """How often each effect happened."""
    return Counter(path.read_text().splitlines() if path.exists() else [])


def build(url: str, **options: Unpack[Options]) -> rowtine.App:
    """The app, on a database. Each call makes a new one: an App is an object."""
    app = rowtine.App(url, **options)
    define_program(app)
    define_processes(app)
    return app


def define_program(app: rowtine.App) -> None:
    """An execution with every kind of wait, and what it calls."""

    @app.function(name="double")
    def double(x: int) -> int:
        effect(f"double {x}")
        return 2 * x

    @app.function(name="refuse")
    def refuse(x: int) -> None:
        effect(f"refuse {x}")
        raise KeyError(x)

    @app.function(name="nested")
    async def nested(x: int) -> int:
        return await double(await double(x) + 1)

    @app.coroutine
    async def branch(x: int) -> int:
        y = await double(x)
        await rowtine.sleep(0.01)
        return await double(y + 1)

    @app.function(name="program")
    async def program(n: int) -> list[Any]:
        """Every kind of wait, with a result that does not depend on who is faster."""
        first = await double(n)
        second = await double(first + 1)
        branches = await rowtine.gather(branch(n + 100), double(n + 200), branch(n + 300))
        winner = await rowtine.race(double(n + 400), rowtine.sleep(3600))
        try:
            await refuse(n + 500)
        except KeyError as error:
            caught = error.args[0]
        return [first, second, branches, winner, caught, await nested(n + 600)]


def define_processes(app: rowtine.App) -> None:
    """Functions that know in which process they run, or do something to it."""

    @app.function(name="stuck")
    def stuck(x: int) -> None:
        effect(f"stuck {x}")
        threading.Event().wait()

    @app.function(name="gated")
    def gated(x: int) -> int:
        """Wait until there is a file "gate" beside that of the effects; the process it ran in."""
        effect(f"gated {x} in {os.getpid()}")
        while not Path(os.environ[EFFECTS]).with_name("gate").exists():
            time.sleep(0.01)
        return os.getpid()

    @app.function(name="meet")
    def meet(processes: int) -> int:
        """Wait until this runs in so many processes at once; the process it ran in."""
        effect(f"met in {os.getpid()}")
        file = Path(os.environ[EFFECTS])
        while sum(text.startswith("met in ") for text in effects(file)) < processes:
            time.sleep(0.01)
        return os.getpid()

    @app.function(name="killing", retry=rowtine.Retry(max_attempts=2))
    def killing(how: str) -> None:
        effect(f"killing {how}")
        if how == "exit":
            os._exit(3)
        os.abort()


def expected(n: int) -> list[Any]:
    """What the program comes to."""

    def branch(x: int) -> int:
        return 2 * (2 * x + 1)

    return [
        2 * n,
        2 * (2 * n + 1),
        [branch(n + 100), 2 * (n + 200), branch(n + 300)],
        2 * (n + 400),
        n + 500,
        2 * (2 * (n + 600) + 1),
    ]


def expected_effects(n: int) -> set[str]:
    """The bodies that run, each at least once."""
    doubled = [
        *(n, 2 * n + 1),
        *(n + 100, 2 * (n + 100) + 1, n + 200, n + 300, 2 * (n + 300) + 1),
        n + 400,
        *(n + 600, 2 * (n + 600) + 1),
    ]
    return {f"refuse {n + 500}", *(f"double {x}" for x in doubled)}
