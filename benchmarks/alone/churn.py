"""Whether tables and indexes stay as large as what is in them."""

from __future__ import annotations

import psycopg

from benchmarks.alone.suspended import store_suspended
from benchmarks.bodies import now
from benchmarks.databases import Reader
from benchmarks.engines.floor import recorded
from benchmarks.engines.moves import Ids, fresh_ids, make
from benchmarks.engines.protocol import Program, Shape
from benchmarks.workloads.workload import Case, Figure, Figures, Workload
from rowtine.store import schema

STEPS = 10
SUSPENDED = 1000
"""Executions that stay, between which the others come and go."""

KEPT = 2000
"""Finished executions that stay; older ones are deleted, as retention would."""

AT_ONCE = 200
SAMPLES = 20


def measure(_engine: str, url: str, case: Case) -> Figures:
    """The floor's loop, as fast as it goes: it changes rows as rowtine does, hours' worth of them
    in minutes, with the autovacuum settings of the migration."""
    schema.migrate(url)
    store_suspended(url, SUSPENDED)
    moves = recorded(url, Program(Shape.STEPS, STEPS))
    root = next(iter(moves[0][0].ids.values()))
    reader = Reader(url)
    finished: list[Ids] = []
    steps = 0
    sizes: list[dict[str, int]] = []
    began = now()
    with psycopg.connect(url, autocommit=True) as connection:
        while (elapsed := now() - began) < case["seconds"]:
            made = [fresh_ids() for _ in range(AT_ONCE)]
            make(connection, moves, made)
            steps += AT_ONCE * STEPS
            finished += made
            if len(finished) > KEPT:
                old, finished = finished[:-KEPT], finished[-KEPT:]
                _delete(connection, [ids[root] for ids in old])
            if elapsed >= len(sizes) * case["seconds"] / SAMPLES:
                sizes.append(_sizes(reader))
    sizes.append(_sizes(reader))
    vacuums = reader.number("SELECT sum(autovacuum_count) FROM pg_stat_user_tables")
    reader.close()
    middle, last = sizes[len(sizes) // 2], sizes[-1]
    return {
        "growth": sum(last.values()) / sum(middle.values()),
        "steps": steps,
        "tables": last["tables"] / 1e6,
        "indexes": last["indexes"] / 1e6,
        "vacuums": vacuums,
        **{f"mb-{i}": sum(size.values()) / 1e6 for i, size in enumerate(sizes)},
    }


def _delete(connection: psycopg.Connection, roots: list[str]) -> None:
    """With all that belongs to them."""
    connection.execute("DELETE FROM rowtine.calls WHERE id = ANY(%s::uuid[])", [roots])


def _sizes(reader: Reader) -> dict[str, int]:
    """Bytes."""
    tables, indexes = reader.rows(
        "SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid))"
        " FROM pg_stat_user_tables WHERE schemaname = 'rowtine'"
    )[0]
    return {"tables": int(tables), "indexes": int(indexes)}


CHURN = Workload(
    "churn",
    "The size of tables and indexes while executions come and go",
    (
        Figure("growth", "end : middle"),
        Figure("steps", "steps", more_is_better=True),
        Figure("tables", "MB of tables"),
        Figure("indexes", "MB of indexes"),
        Figure("vacuums", "autovacuums"),
    ),
    ("rowtine",),
    measure,
    quick=({"seconds": 20},),
    full=(),
    once=({"seconds": 600},),
)
