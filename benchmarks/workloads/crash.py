"""SIGKILL in the middle: how many steps run twice, and whether all ends right."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks import bodies
from benchmarks.engines import load
from benchmarks.engines.protocol import Program, Shape
from benchmarks.processes import serving
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload


def measure(engine: str, url: str, case: Case) -> Figures:
    """The worker is killed when half of the steps have run, and another takes its place."""
    workflows, steps = case["workflows"], case["steps"]
    adapter = load(engine)(url)
    adapter.prepare()
    adapter.accept(Program(Shape.STEPS, steps), workflows)
    with tempfile.TemporaryDirectory() as directory:
        ledger = Path(directory) / "ledger"
        environment = {
            bodies.LEDGER: str(ledger),
            bodies.STEP_SECONDS: str(case["milliseconds"] / 1000),
        }
        half = workflows * steps // 2
        with serving(engine, url, **environment) as worker:
            until(lambda: len(bodies.read(ledger)) >= half, pause=0.005)
            worker.kill()
        ran = len(bodies.read(ledger))
        began = bodies.now()
        with serving(engine, url, **environment):
            until(lambda: adapter.finished() >= workflows, pause=0.05)
            seconds = bodies.now() - began
        counts = Counter((entry.workflow, entry.step) for entry in bodies.read(ledger))
    finished = adapter.finished()
    adapter.close()
    return {
        "again": sum(count > 1 for count in counts.values()),
        "never": workflows * steps - len(counts),
        "finished": finished,
        "ran": ran,
        "seconds": seconds,
    }


CRASH = Workload(
    "crash",
    "SIGKILL when half of the steps have run, and a new worker",
    (
        Figure("again", "steps run twice"),
        Figure("never", "steps never run"),
        Figure("finished", "workflows ended right", more_is_better=True),
        Figure("ran", "steps run before"),
        Figure("seconds", "s after"),
    ),
    ("rowtine", "dbos"),
    measure,
    quick=({"workflows": 200, "steps": 10, "milliseconds": 10},),
    full=({"workflows": 200, "steps": 10, "milliseconds": 10},),
    compared=False,
    sqlite=("rowtine", "dbos"),
)
