"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Engine, event

from benchmarks.alone.suspended import migrated
from benchmarks.commits import Commits
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

SETTLE = 2.0
"""Seconds in which a worker says who it is."""


def measure(_engine: str, url: str, case: Case) -> Figures:
    suspended = migrated(url)
    statements = 0

    def count(*_: Any) -> None:
        nonlocal statements
        statements += 1

    seconds = case["seconds"]
    with suspended.app.worker().start():
        time.sleep(SETTLE)
        event.listen(Engine, "before_cursor_execute", count)
        cpu = time.process_time()
        with Commits(url) as commits:
            time.sleep(seconds)
        cpu = time.process_time() - cpu
        event.remove(Engine, "before_cursor_execute", count)
    suspended.close()
    return {
        "statements": statements / seconds,
        "cpu": 1000 * cpu / seconds,
        **{name: count / seconds for name, count in commits.counts().items()},
    }


IDLE = Workload(
    "idle",
    "A worker that has nothing to do",
    (
        Figure("statements", "statements/s"),
        Figure("transactions", "transactions/s"),
        Figure("writing", "writing commits/s"),
        Figure("cpu", "ms CPU/s"),
    ),
    ("rowtine",),
    measure,
    quick=({"seconds": 5},),
    full=({"seconds": 30},),
    sqlite=("rowtine",),
)
