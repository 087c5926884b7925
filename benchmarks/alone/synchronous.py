"""SQLite with each commit on disk, and with commits that may be lost with the power."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Pool, event

from benchmarks.engines.protocol import Program, Shape
from benchmarks.engines.rowtine_engine import Rowtine
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

LEVELS = {"rowtine": "FULL", "rowtine-normal": "NORMAL"}
"""What `PRAGMA synchronous` is, by the name under which it is measured."""

WARM_UP = 20


def measure(engine: str, url: str, case: Case) -> Figures:
    """rowtine itself always asks for FULL; here a connection is told at each use."""

    def set_level(connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA synchronous = {LEVELS[engine]}")

    event.listen(Pool, "checkout", set_level)
    program = Program(Shape.STEPS, case["steps"])
    adapter = Rowtine(url)
    adapter.prepare()
    adapter.run(program, WARM_UP)
    together = adapter.run(program, case["workflows"])
    alone = adapter.run(program, 1)
    adapter.close()
    return {
        "rate": case["workflows"] * case["steps"] / together,
        "alone": 1000 * alone / case["steps"],
    }


SYNCHRONOUS = Workload(
    "synchronous",
    "SQLite with synchronous FULL (rowtine's own) and NORMAL",
    (Figure("rate", "steps/s", more_is_better=True), Figure("alone", "ms/step, one workflow")),
    (),
    measure,
    quick=({"workflows": 100, "steps": 10},),
    full=({"workflows": 200, "steps": 10},),
    sqlite=("rowtine", "rowtine-normal"),
)
