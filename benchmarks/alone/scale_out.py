"""Whether more worker processes get through more."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.alone.suspended import store_queued
from benchmarks.engines.protocol import Shape
from benchmarks.engines.rowtine_engine import Rowtine
from benchmarks.processes import serving
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload


def measure(engine: str, url: str, case: Case) -> Figures:
    """All workers are there before there is anything to do. The time is that from the first claim
    to the last outcome, by the clock of the database."""
    workflows, steps = case["workflows"], case["steps"]
    adapter = Rowtine(url)
    adapter.prepare()
    with ExitStack() as stack:
        for _ in range(case["processes"]):
            stack.enter_context(serving(engine, url))
        warm_up = adapter.app.start(adapter.programs[Shape.STEPS](0, steps))
        warm_up.result(timeout=60)
        call = adapter.programs[Shape.STEPS](0, steps)
        store_queued(url, call, adapter.app, workflows)
        until(lambda: adapter.finished() == 1 + workflows, pause=0.05)
    seconds = adapter.reader.rows(
        "SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM rowtine.calls"
        " WHERE created_at > (SELECT finished_at FROM rowtine.calls"
        f" WHERE id = '{warm_up.id}')"
    )[0][0]
    adapter.close()
    return {"rate": workflows * steps / float(seconds), "seconds": float(seconds)}


SCALE_OUT = Workload(
    "scale-out",
    "Workflows of 10 steps, with so many worker processes",
    (Figure("rate", "steps/s", more_is_better=True), Figure("seconds", "s")),
    ("rowtine",),
    measure,
    quick=tuple({"processes": count, "workflows": 100, "steps": 10} for count in (1, 2)),
    full=tuple({"processes": count, "workflows": 400, "steps": 10} for count in (1, 2, 4)),
)
