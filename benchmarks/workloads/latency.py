"""How long it takes from a start until the body runs, in a worker that has nothing else to do."""

from __future__ import annotations

import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import bodies
from benchmarks.engines import load
from benchmarks.engines.protocol import JOB, Adapter, Program, Shape
from benchmarks.processes import serving
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload, median_and_p99

SETTLE = 3.0
"""Seconds until a worker is idle that has just begun."""

PATIENCE = 0.1
"""Seconds after which the next start does not wait for the last body any longer."""

WARM_UP = 5


def measure(engine: str, url: str, case: Case) -> Figures:
    """From just before the start is asked for until the body is at its end: it does nothing."""
    steps = case.get("steps")
    program = JOB if steps is None else Program(Shape.STEPS, steps)
    count = WARM_UP + case["starts"]
    adapter = load(engine)(url)
    adapter.prepare()
    with (
        tempfile.TemporaryDirectory() as directory,
        bodies.ledger(Path(directory) / "ledger") as ledger,
        _worker(engine, adapter),
        adapter.starting() as start,
    ):
        time.sleep(SETTLE)
        started = []
        for workflow in range(count):
            # Not in step with anybody who looks every so many milliseconds.
            time.sleep(0.01 + 0.013 * (workflow % 7))
            size = ledger.stat().st_size
            started.append(bodies.now())
            start(program, workflow)
            _wait_a_little(ledger, size)
        until(lambda: len(bodies.read(ledger)) >= count, pause=0.05)
        entries = sorted(bodies.read(ledger))
    adapter.close()
    waits = [entry.at - at for entry, at in zip(entries, started, strict=True)]
    p50, p99 = median_and_p99(waits[WARM_UP:])
    return {"p50": p50, "p99": p99}


def _worker(engine: str, adapter: Adapter) -> AbstractContextManager[Any]:
    return adapter.working() if adapter.self_contained else serving(engine, adapter.url)


def _wait_a_little(ledger: Path, size: int) -> None:
    deadline = bodies.now() + PATIENCE
    until(lambda: ledger.stat().st_size > size or bodies.now() > deadline)


_FIGURES = (Figure("p50", "ms, p50"), Figure("p99", "ms, p99"))

JOB_LATENCY = Workload(
    "job-latency",
    "From the start of a function in the background until it runs, in an idle worker",
    _FIGURES,
    ("rowtine", "procrastinate", "pgqueuer", "floor"),
    measure,
    quick=({"starts": 50},),
    full=({"starts": 200},),
    sqlite=("rowtine",),
)

WORKFLOW_LATENCY = Workload(
    "workflow-latency",
    "From the start of a workflow until its first step runs, in an idle worker",
    _FIGURES,
    ("rowtine", "dbos", "dbos-10ms", "absurd", "restate"),
    measure,
    quick=({"starts": 50, "steps": 1},),
    full=({"starts": 200, "steps": 1},),
    sqlite=("rowtine", "dbos-10ms"),
)
