"""Many executions at once: how many bodies a second one process gets through."""

from __future__ import annotations

from benchmarks.engines import load
from benchmarks.engines.protocol import JOB, Program, Shape
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

WARM_UP = 20
"""Executions before those that are timed: imports, pools and plans are made once, not each time."""


def measure(engine: str, url: str, case: Case) -> Figures:
    steps = case.get("steps")
    program = JOB if steps is None else Program(Shape.STEPS, steps)
    count = case["jobs"] if steps is None else case["workflows"]
    adapter = load(engine)(url)
    adapter.prepare()
    adapter.run(program, WARM_UP)
    seconds = adapter.run(program, count)
    adapter.close()
    return {"rate": count * program.bodies / seconds, "seconds": seconds}


def _figures(unit: str) -> tuple[Figure, ...]:
    return Figure("rate", unit, more_is_better=True), Figure("seconds", "s")


TEN_STEPS = Workload(
    "ten-steps",
    "Workflows of 10 steps, all at once",
    _figures("steps/s"),
    ("rowtine", "rowtine-sync", "floor", "dbos", "dbos-sync", "absurd", "restate"),
    measure,
    quick=({"workflows": 200, "steps": 10},),
    full=({"workflows": 200, "steps": 10},),
    sqlite=("rowtine", "rowtine-sync", "dbos"),
)

ONE_STEP = Workload(
    "one-step",
    "Workflows of one step, all at once",
    _figures("workflows/s"),
    ("rowtine", "rowtine-sync", "floor", "dbos", "dbos-sync", "absurd", "restate"),
    measure,
    quick=({"workflows": 500, "steps": 1},),
    full=({"workflows": 2000, "steps": 1},),
    sqlite=("rowtine", "rowtine-sync", "dbos"),
)

JOBS = Workload(
    "jobs",
    "Functions in the background, all at once",
    _figures("jobs/s"),
    ("rowtine", "rowtine-sync", "floor", "procrastinate", "pgqueuer"),
    measure,
    quick=({"jobs": 1000},),
    full=({"jobs": 2000},),
    sqlite=("rowtine", "rowtine-sync"),
)
