"""What it takes to go on with an execution that nobody has in memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from typing import Any

from sqlalchemy import Connection, Engine, event

from benchmarks.alone.suspended import RoundCost, Suspended, cost_of_round, migrated
from benchmarks.databases import POSTGRESQL, backend
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

TIMED = 3
"""Executions that are timed."""


def measure(_engine: str, url: str, case: Case) -> Figures:
    """The round that ends an execution with so many resolved futures: load, rebuild, commit.

    On a connection that has made such a round before, as those of a worker have.
    """
    suspended = migrated(url)
    engine = suspended.app.database.engine
    figures: dict[str, float] = {}
    suspend = suspended.steps_then_wait(case["futures"])
    executions = [suspended.start_and_suspend(suspend) for _ in range(2 + TIMED)]
    for execution in executions:
        suspended.answer(execution)
    looked_at, warming_up, *timed = executions
    if backend(url) == POSTGRESQL:  # which takes time
        with _bytes_read(engine) as read:
            figures["rows"] = _rebuild(suspended, engine, looked_at).rows_read
        figures["kilobytes"] = sum(read) / 1000
    with engine.connect() as connection:
        _rebuild(suspended, connection, warming_up)
        costs = [_rebuild(suspended, connection, execution) for execution in timed]
    figures["ms"] = median(cost.ms for cost in costs)
    figures["cpu"] = median(cost.cpu_ms for cost in costs)
    suspended.close()
    return figures


def _rebuild(suspended: Suspended, bind: Engine | Connection, execution: str) -> RoundCost:
    return cost_of_round(bind, suspended.app, suspended.steps_then_wait, execution)


@contextmanager
def _bytes_read(engine: Engine) -> Generator[list[int]]:
    """The size of each result that the driver receives, as PostgreSQL sends it."""
    sizes: list[int] = []

    def add(_connection: Any, cursor: Any, *_: Any) -> None:
        if (result := cursor.pgresult) is not None:
            sizes.append(
                sum(
                    len(result.get_value(row, column) or b"")
                    for row in range(result.ntuples)
                    for column in range(result.nfields)
                )
            )

    event.listen(engine, "after_cursor_execute", add)
    try:
        yield sizes
    finally:
        event.remove(engine, "after_cursor_execute", add)


REBUILD = Workload(
    "rebuild",
    "The rebuild of a coroutine with so many resolved futures, and its last round",
    (
        Figure("ms", "ms"),
        Figure("cpu", "ms CPU"),
        Figure("rows", "rows read"),
        Figure("kilobytes", "KB read"),
    ),
    ("rowtine",),
    measure,
    quick=({"futures": 100},),
    full=({"futures": 100}, {"futures": 1000}),
    sqlite=("rowtine",),
)
