"""One run of one workload on one database."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import event, func, select

import rowtine
from benchmarks.databases import empty_database
from benchmarks.workloads import Workload, register
from rowtine.store import schema
from rowtine.store.tables import calls

LOOK = 0.05
"""Seconds between two looks at whether all is done: seldom enough not to be measured itself."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to."""

    seconds: float
    """From the first claim to the last outcome, by the clock of the database."""
    cpu_seconds: float
    """Of this process: worker and driver, without the database server."""
    commits: int


def measure(server: str, workload: Workload) -> Figures:
    """Accept all executions, then run them with one worker of default settings."""
    with empty_database(server) as url:
        schema.migrate(url)
        app = rowtine.App(url)
        for root in workload.roots(register(app)):
            _ = app.start(root)
        committed: list[None] = []
        event.listen(app.database.engine, "commit", lambda _: committed.append(None))
        began = time.process_time()
        with app.worker().start() as worker:
            while _open(app):
                if worker.error is not None:
                    raise worker.error
                time.sleep(LOOK)
            figures = Figures(_seconds(app), time.process_time() - began, len(committed))
        app.database.close()
    return figures


def _open(app: rowtine.App) -> bool:
    unfinished = select(calls.c.id).where(calls.c.execution_id.is_(None), calls.c.phase != "done")
    with app.database.reading() as connection:
        return connection.scalar(select(unfinished.exists())) or False


def _seconds(app: rowtine.App) -> float:
    with app.database.reading() as connection:
        failed = connection.scalar(
            select(func.count()).select_from(calls).where(calls.c.status != "OK")
        )
        if failed:
            raise RuntimeError(f"{failed} calls did not end with OK: nothing was measured")
        first, last = connection.execute(
            select(func.min(calls.c.started_at), func.max(calls.c.finished_at))
        ).one()
    taken: timedelta = last - first
    return taken.total_seconds()
