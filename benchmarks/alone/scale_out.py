"""Whether more worker processes get through more."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.alone.suspended import store_queued
from benchmarks.engines.protocol import Shape
from benchmarks.engines.rowtine_engine import Rowtine
from benchmarks.processes import serving
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload
from rowtine.store.notices import notify


def measure(engine: str, url: str, case: Case) -> Figures:
    """All workers are there before there is anything to do. The time is that from the first claim
    to the last outcome, by the clock of the database."""
    workflows, steps = case["workflows"], case["steps"]
    adapter = Rowtine(url)
    adapter.prepare()
    with ExitStack() as stack:
        for _ in range(case["processes"]):
            stack.enter_context(serving(engine, url))
        call = adapter.programs[Shape.STEPS](0, steps)
        _ = adapter.app.start(call).result(timeout=60)
        # Stored in one transaction, of which nobody is told but of the first: that one is done when
        # the others are begun.
        store_queued(url, call, adapter.app, 1 + workflows)
        until(lambda: adapter.finished() >= 2, pause=0.01)
        began = adapter.reader.rows("SELECT clock_timestamp()")[0][0]
        notify(adapter.app.database)
        until(lambda: adapter.finished() == 2 + workflows, pause=0.05)
    seconds = adapter.reader.rows(
        "SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM rowtine.calls"
        f" WHERE started_at >= '{began}'"
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
