"""Whether what a worker does costs the same when the tables are full."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from benchmarks import bodies
from benchmarks.alone.suspended import (
    cost_of_round,
    migrated,
    store_queued,
    store_suspended,
)
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

STARTS, ROUNDS = 100, 20


def measure_full(_engine: str, url: str, case: Case) -> Figures:
    """The time of a start, of a call that is claimed and run, and of a round, each the median."""
    suspended = migrated(url)
    store_suspended(url, case["suspended"])
    app = suspended.app
    starts = []
    for number in range(STARTS):
        began = bodies.now()
        _ = app.start(suspended.step(0, number))
        starts.append(bodies.now() - began)
    began = bodies.now()
    with app.worker().start():
        until(lambda: bodies.runs() >= STARTS)
        claims = bodies.now() - began
    rounds = []
    for execution in suspended.waiting(ROUNDS):
        suspended.answer(execution)
        rounds.append(cost_of_round(app.database.engine, app, suspended.wait, execution).ms)
    suspended.close()
    return {
        "start": 1000 * median(starts),
        "call": 1000 * claims / STARTS,
        "round": median(rounds),
    }


FULL_TABLES = Workload(
    "full-tables",
    "The time of a start, a call and a round, with so many executions suspended",
    (Figure("start", "ms/start"), Figure("call", "ms/call"), Figure("round", "ms/round")),
    ("rowtine",),
    measure_full,
    quick=({"suspended": 1000}, {"suspended": 20_000}),
    full=({"suspended": 1000},),
    once=({"suspended": 1_000_000},),
)


def measure_drain(_engine: str, url: str, case: Case) -> Figures:
    """The rate at which a worker gets through a queue, as it goes on."""
    calls = case["calls"]
    suspended = migrated(url)
    store_queued(url, suspended.step(0, 0), suspended.app, calls)
    ends = [bodies.now()]
    with suspended.app.worker().start():
        for tenth in range(1, 11):
            until(lambda: bodies.runs() >= calls * tenth // 10, seconds=3000)  # noqa: B023
            ends.append(bodies.now())
    suspended.close()
    rates = [calls / 10 / (later - earlier) for earlier, later in pairwise(ends)]
    return {
        "rate": calls / (ends[-1] - ends[0]),
        **{f"tenth-{number}": rate for number, rate in enumerate(rates, 1)},
        "slowing": median(rates[:3]) / median(rates[-3:]),
    }


DRAIN = Workload(
    "drain",
    "A queue that is worked off",
    (
        Figure("rate", "calls/s", more_is_better=True),
        Figure("tenth-1", "calls/s, 1st tenth", more_is_better=True),
        Figure("tenth-5", "calls/s, 5th", more_is_better=True),
        Figure("tenth-10", "calls/s, 10th", more_is_better=True),
        Figure("slowing", "first : last three tenths"),
    ),
    ("rowtine",),
    measure_drain,
    quick=({"calls": 5000},),
    full=({"calls": 20_000},),
    once=({"calls": 1_000_000},),
)
