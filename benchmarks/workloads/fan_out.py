"""One workflow that starts many at once and waits for all of them."""

from __future__ import annotations

from benchmarks.engines import load
from benchmarks.engines.protocol import Program, Shape
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

WARM_UP = 10


def measure(engine: str, url: str, case: Case) -> Figures:
    adapter = load(engine)(url)
    adapter.prepare()
    adapter.run(Program(Shape.FAN_OUT, WARM_UP), 1)
    seconds = adapter.run(Program(Shape.FAN_OUT, case["members"]), 1)
    adapter.close()
    return {"seconds": seconds, "rate": case["members"] / seconds}


_FIGURES = (Figure("seconds", "s"), Figure("rate", "members/s", more_is_better=True))

FAN_OUT = Workload(
    "fan-out",
    "A fan-out, gathered",
    _FIGURES,
    ("rowtine", "dbos", "absurd", "restate"),
    measure,
    quick=({"members": 1000},),
    full=({"members": 1000},),
    sqlite=("rowtine", "dbos"),
)

WIDE_FAN_OUT = Workload(
    "wide-fan-out",
    "Wider fan-outs, gathered",
    _FIGURES,
    ("rowtine",),
    measure,
    quick=(),
    full=({"members": 10_000},),
    once=({"members": 100_000},),
    sqlite=("rowtine",),
)
