"""One workflow alone: what a step costs when nothing can be batched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from benchmarks import bodies
from benchmarks.commits import Commits
from benchmarks.engines import PGBENCH, load
from benchmarks.engines.floor import Floor
from benchmarks.engines.protocol import Adapter, Program, Shape
from benchmarks.workloads import insert
from benchmarks.workloads.workload import Case, Figure, Figures, Workload, median_and_p99

INSERT = {"clients": 1, "rows": 1, "seconds": 1}


def measure(engine: str, url: str, case: Case) -> Figures:
    """The time of a step is that between the ends of two bodies; for the floor, which has none,
    that of a transaction; for pgbench that of one that inserts one row."""
    if engine == PGBENCH:
        return {"median": insert.measure(engine, url, INSERT)["latency"]}
    steps = case["steps"]
    adapter = load(engine)(url)
    adapter.prepare()
    if isinstance(adapter, Floor):
        return _time_of_a_step(adapter.each(Program(Shape.STEPS, steps)))
    one, commits = Commits(url), Commits(url)
    with one:  # what a run costs beside its steps: to vacuum all tables, for one
        _run(engine, url, 1)
    with (
        tempfile.TemporaryDirectory() as directory,
        bodies.ledger(Path(directory) / "ledger") as ledger,
        commits,
    ):
        adapter = _run(engine, url, steps)
        ends = [entry.at for entry in bodies.read(ledger)]
    return {
        **_time_of_a_step([later - earlier for earlier, later in pairwise(ends)]),
        **({} if adapter.self_contained else commits.per_more(one, steps - 1)),
    }


def _time_of_a_step(seconds: Iterable[float]) -> Figures:
    middle, p99 = median_and_p99(seconds)
    return {"median": middle, "p99": p99}


def _run(engine: str, url: str, steps: int) -> Adapter:
    adapter = load(engine)(url)
    adapter.run(Program(Shape.STEPS, steps), 1)
    adapter.close()
    return adapter


CHAIN = Workload(
    "chain",
    "One workflow of sequential steps: the time of a step",
    (
        Figure("median", "ms, median"),
        Figure("p99", "ms, p99"),
        Figure("writing", "writing commits/step"),
        Figure("transactions", "transactions/step"),
        Figure("sqlalchemy", "SQLAlchemy commits/step"),
    ),
    ("rowtine", "rowtine-sync", "dbos", "dbos-sync", "absurd", "restate", "floor", PGBENCH),
    measure,
    quick=({"steps": 100},),
    full=({"steps": 100},),
    sqlite=("rowtine", "rowtine-sync", "dbos"),
)
