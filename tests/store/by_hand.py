"""Executions driven by hand, one transaction a step: what a worker does, without its haste."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import rowtine
from rowtine.core.results import CoroutineResult
from rowtine.core.state import Coroutine
from rowtine.store import calls, recording
from rowtine.store.calls import Claimed
from rowtine.store.committing import Round, commit
from rowtine.store.loading import Rows, load
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

    def run(self, id: str, function: Any) -> Round:
        """Run a round of an execution as a worker does, and commit nothing of it yet."""
        codec = self.app.codec
        scheduler = rowtine.OneShotScheduler(function, version=self.version, codec=codec)
        with self.app.database.reading() as connection:
            loaded = load(connection, self.app.body, codec, id)
            output = asyncio.run(scheduler.run(loaded.input, _Loader(loaded.rows)))
        assert not isinstance(output, rowtine.Incompatible), output.message
        outcome = None
        if isinstance(output, rowtine.Exit):
            result = settled(output.result, codec)
            outcome = Outcome(id, None, loaded.execution.caller_id, result)
        return Round(loaded.execution, output, outcome)

    def commit(self, *items: Round | Outcome) -> tuple[list[bool], list[bool]]:
        """Write rounds and outcomes in one transaction; for each, whether its fence held."""
        with self.app.database.writing() as connection:
            done = commit(
                connection,
                self.app.codec,
                [item for item in items if isinstance(item, Round)],
                [item for item in items if isinstance(item, Outcome)],
            )
            return done.held, done.recorded

    def claim(self, *functions: str, limit: int = 1, worker: str = WORKER) -> list[Claimed]:
        """Take due calls of these functions."""
        with self.app.database.writing() as connection:
            return calls.claim(connection, worker, functions, limit, 30)

    def record(self, *outcomes: Outcome) -> list[bool]:
        """Write outcomes; for each, whether its fence held."""
        with self.app.database.writing() as connection:
            return recording.record_outcomes(connection, outcomes)

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
            return recording.fire_timers(connection, 100)


class _Loader:
    """Rows, where the scheduler expects to wait for them."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        return self.rows.coroutines(ids)

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return self.rows.counters(ids)

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        return self.rows.results(coroutine)

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return self.rows.waiters(ids)

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        return self.rows.ended_among(ids)
