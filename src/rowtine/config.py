"""Settings, each with its default and its unit, checked where they are given."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rowtine.errors import UsageError

__all__ = ["Settings", "default_database_url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an app and its workers behave. Times are in seconds."""

    schema: str = "rowtine"
    """The PostgreSQL schema of the tables. SQLite has none."""
    warm: int = 1000
    """How many suspended coroutines a worker keeps in memory; 0 rebuilds at every round."""
    concurrency: int = 100
    """How many calls a worker runs at once; sync functions each hold a thread."""
    lease: float = 30.0
    """How long a worker may be silent before others take over what it holds."""
    stall: float = 300.0
    """How long the event loop of a worker may stand still before others take over what it holds."""
    grace: float = 30.0
    """How long a worker that is told to stop lets running calls finish."""
    poll_interval: float = 0.2
    """How often an idle worker looks for work that it was not told of. Where notices get through
    (PostgreSQL), it looks every 5 seconds or so, or as seldom as this says."""
    hold: float = 30.0
    """How long a state that does not fit this code waits before it is looked at again."""
    poll_min_results: int = 1
    poll_max_results: int = 100
    poll_max_wait_seconds: float | None = None
    max_payload_bytes: int = 2 * 1024 * 1024
    max_depth: int = 200

    def __post_init__(self) -> None:
        for name in ("lease", "stall", "poll_interval", "hold"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be more than 0 seconds")
        for name in ("concurrency", "poll_min_results", "max_payload_bytes", "max_depth"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        if self.warm < 0 or self.grace < 0:
            raise UsageError("warm and grace must not be negative")
        if not self.poll_min_results <= self.poll_max_results <= 1000:
            raise UsageError("poll_max_results must be between poll_min_results and 1000")


def default_database_url() -> str:
    """`ROWTINE_DATABASE_URL`, else a SQLite file in the working directory."""
    return os.environ.get("ROWTINE_DATABASE_URL") or "sqlite:///rowtine.db"
