"""Whether a round costs the same, however much the execution waits for."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.alone.suspended import Suspended, cost_of_round, migrated
from benchmarks.databases import POSTGRESQL, backend, settle
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

RESULTS = 10
"""Results that a round delivers: it waits for so many."""

QUIET = 0.3
"""Seconds after which a worker has done all it does about answers that make no round due."""

COLD_ROUNDS = 3
WARM_ROUNDS = 5


def measure(_engine: str, url: str, case: Case) -> Figures:
    suspended = migrated(url, poll_min_results=RESULTS)
    handle = suspended.app.start(suspended.wait_for_all(case["children"]))
    function = suspended.wait_for_all
    engine = suspended.app.database.engine  # with the settings of a worker's sessions
    first = cost_of_round(engine, suspended.app, function, handle.id, RESULTS)
    settle(url)
    cold = []
    for _ in range(COLD_ROUNDS):
        _answer(suspended, handle.id)
        cold.append(cost_of_round(engine, suspended.app, function, handle.id, RESULTS))
    figures = {
        "warm": _warm(suspended, handle.id),
        "cold": median(cost.cpu_ms for cost in cold),
        "cold_ms": median(cost.ms for cost in cold),
        "first": first.cpu_ms / case["children"],
    }
    if backend(url) == POSTGRESQL:
        figures["written"] = median(cost.rows_written for cost in cold)
        figures["read"] = median(cost.rows_read for cost in cold)
    return figures


def _answer(suspended: Suspended, execution: str) -> None:
    for token in suspended.open_promises(execution, RESULTS):
        suspended.app.resolve(token, 1)


def _warm(suspended: Suspended, execution: str) -> float:
    """Milliseconds of CPU that a worker takes for a round of what it has in memory already.

    It is the CPU of all threads but this one, from the last answer on: with it the worker learns
    that a round is due, claims, runs and commits it.
    """
    spent = []
    with suspended.app.worker().start():
        for _ in range(1 + WARM_ROUNDS):  # the first one rebuilds it
            round = _round(suspended, execution)
            *others, last = suspended.open_promises(execution, RESULTS)
            for token in others:
                suspended.app.resolve(token, 1)
            time.sleep(QUIET)
            before = time.process_time() - time.thread_time()
            suspended.app.resolve(last, 1)
            until(lambda: _round(suspended, execution) > round, pause=0.005)  # noqa: B023
            spent.append(time.process_time() - time.thread_time() - before)
    return 1000 * median(spent[1:])


def _round(suspended: Suspended, execution: str) -> int:
    states = suspended.reader.table("rowtine", "states")
    return suspended.reader.number(f"SELECT round FROM {states} WHERE id = '{execution}'")


FLAT_ROUNDS = Workload(
    "flat-rounds",
    "A round that delivers 10 results, with so many children suspended",
    (
        Figure("warm", "ms CPU, warm"),
        Figure("cold", "ms CPU, rebuilt"),
        Figure("cold_ms", "ms, rebuilt"),
        Figure("written", "rows written"),
        Figure("read", "rows read"),
        Figure("first", "ms CPU/child, first round"),
    ),
    ("rowtine",),
    measure,
    quick=tuple({"children": count} for count in (100, 1000)),
    full=tuple({"children": count} for count in (100, 1000)),
    once=tuple({"children": count} for count in (10_000, 100_000)),
    sqlite=("rowtine",),
)
