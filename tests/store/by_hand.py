"""Executions driven by hand, one transaction a step: what a worker does, without its haste."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rowtine
from rowtine.store import calls
from rowtine.store.calls import Claimed
from rowtine.store.outcomes import Outcome, Settled, settled
from rowtine.store.transaction import run_round
from rowtine.worker.policy import failure

WORKER = "01890000-0000-7000-8000-00000000000e"


class Hand:
    """Steps of one app's executions."""

    def __init__(self, app: rowtine.App, version: str | None = None) -> None:
        self.app = app
        self.version = version

    def start(self, call: Any) -> str:
        """Accept a root call; its id."""
        return self.app.start(call).id

    def round(self, id: str, function: Any) -> rowtine.Output:
        """Run a round of an execution of this function, and commit it."""
        scheduler = rowtine.OneShotScheduler(function, version=self.version)
        with self.app.database.writing() as connection:
            return run_round(connection, scheduler, id)

    def claim(self, *functions: str, limit: int = 1, worker: str = WORKER) -> list[Claimed]:
        """Take due calls of these functions."""
        with self.app.database.writing() as connection:
            return calls.claim(connection, worker, functions, limit, 30)

    def record(self, *outcomes: Outcome) -> list[bool]:
        """Write outcomes; for each, whether its fence held."""
        with self.app.database.writing() as connection:
            return calls.record_outcomes(connection, outcomes)

    def answer(self, *functions: str, value: Any = None, limit: int = 1) -> list[Claimed]:
        """Claim calls and let them come to this value, or fail with it if it is an exception."""
        claimed = self.claim(*functions, limit=limit)
        assert all(self.record(*(self.outcome(call, value) for call in claimed)))
        return claimed

    def outcome(self, call: Claimed, value: Any = None, **more: Any) -> Outcome:
        """What a claimed call came to."""
        if isinstance(value, BaseException):
            result = settled(failure(value, self.app.codec), self.app.codec)
        else:
            result = Settled(output=self.app.codec.encode(value))
        return Outcome(call.id, call.claim, call.caller_id, result, **more)

    def fire(self) -> int:
        """Answer the timers that are due."""
        with self.app.database.writing() as connection:
            return calls.fire_timers(connection, 100)


def ids(claimed: Sequence[Claimed]) -> list[str]:
    return [call.id for call in claimed]
