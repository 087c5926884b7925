"""What it takes to go on with an execution that nobody has in memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from typing import Any

from sqlalchemy import Engine, event

from benchmarks.alone.suspended import cost_of_round, migrated
from benchmarks.databases import POSTGRESQL, backend
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

TIMED = 3
"""Executions that are timed, after one at which what is read is looked at."""


def measure(_engine: str, url: str, case: Case) -> Figures:
    """The round that ends an execution with so many resolved futures: load, rebuild, commit."""
    suspended = migrated(url)
    call = suspended.steps_then_wait(case["futures"])
    figures: dict[str, float] = {}
    costs = []
    engine = suspended.app.database.engine
    for number in range(1 + TIMED):
        execution = suspended.start_and_suspend(call)
        suspended.answer(execution)
        look = number == 0 and backend(url) == POSTGRESQL  # which takes time
        with _bytes_read(engine, look) as read:
            cost = cost_of_round(engine, suspended.app, suspended.steps_then_wait, execution)
        if look:
            figures["rows"] = cost.rows_read
            figures["kilobytes"] = sum(read) / 1000
        if number > 0:
            costs.append(cost)
    figures["ms"] = median(cost.ms for cost in costs)
    figures["cpu"] = median(cost.cpu_ms for cost in costs)
    suspended.close()
    return figures


@contextmanager
def _bytes_read(engine: Engine, look: bool) -> Generator[list[int]]:
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

    if look:
        event.listen(engine, "after_cursor_execute", add)
    try:
        yield sizes
    finally:
        if look:
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
