"""What the server itself does: pgbench, single rows and a hundred at a time."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import psycopg

from benchmarks.engines import PGBENCH
from benchmarks.programs import pgbench
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

TABLE = "CREATE TABLE bench (id bigserial PRIMARY KEY, k int NOT NULL, v text NOT NULL)"
INSERT = "INSERT INTO bench (k, v) SELECT g, repeat('x', 100) FROM generate_series(1, {rows}) g;\n"


def measure(_engine: str, url: str, case: Case) -> Figures:
    rows, clients = case["rows"], case["clients"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE)
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "insert.sql"
        script.write_text(INSERT.format(rows=rows))
        done = subprocess.run(
            [
                *(pgbench() or "pgbench", "-n", "-f", str(script), "-M", "prepared"),
                *("-T", str(case["seconds"]), "-c", str(clients), "-j", str(min(2, clients)), url),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    rate = float(_found(r"tps = ([\d.]+)", done.stdout))
    latency = float(_found(r"latency average = ([\d.]+) ms", done.stdout))
    return {"rate": rows * rate, "latency": latency}


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"pgbench says nothing like {pattern!r}: {text}")
    return found[1]


def _cases(seconds: int) -> tuple[Case, ...]:
    return (
        *({"clients": clients, "rows": 1, "seconds": seconds} for clients in (1, 8, 32)),
        {"clients": 1, "rows": 100, "seconds": seconds},
    )


INSERTS = Workload(
    "insert",
    "The server itself: pgbench",
    (Figure("rate", "rows/s", more_is_better=True), Figure("latency", "ms/transaction")),
    (PGBENCH,),
    measure,
    quick=_cases(1),
    full=_cases(5),
)
