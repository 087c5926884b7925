"""What suspended executions cost the worker that brought them there."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from benchmarks.alone.suspended import Suspended, migrated, store_queued
from benchmarks.waiting import until
from benchmarks.workloads.workload import Case, Figure, Figures, Workload

WARM_UP = 200
"""Executions before those that are counted: what grows once is not what grows with each."""


def measure(_engine: str, url: str, case: Case) -> Figures:
    """A worker takes executions to where they wait, and keeps so many of them in memory."""
    executions, warm = case["executions"], case["warm"]
    suspended = migrated(url, warm=warm)
    with suspended.app.worker().start():
        _suspend(suspended, WARM_UP)
        before = _resident()
        _suspend(suspended, executions)
        grown = _resident() - before
    all_kept = warm >= WARM_UP + executions
    return {
        "megabytes": grown / 1e6,
        **({"kilobytes": grown / 1e3 / executions} if all_kept else {}),
    }


def _suspend(suspended: Suspended, count: int) -> None:
    target = suspended.suspensions() + count
    store_queued(suspended.url, suspended.wait(), suspended.app, count)
    until(lambda: suspended.suspensions() >= target, pause=0.2, seconds=3000)
    gc.collect()


def _resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


MEMORY = Workload(
    "memory",
    "Memory of a worker, after so many executions have been suspended in it",
    (Figure("megabytes", "MB grown"), Figure("kilobytes", "KB for each kept warm")),
    ("rowtine",),
    measure,
    quick=({"executions": 1000, "warm": 2000}, {"executions": 2000, "warm": 300}),
    full=({"executions": 2000, "warm": 4000},),
    once=({"executions": 100_000, "warm": 300},),
)
