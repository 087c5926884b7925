"""What a round turns out to need while it runs, read in transactions of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rowtine.core.results import CoroutineResult
from rowtine.core.state import Coroutine
from rowtine.store import Connection
from rowtine.store.loading import Rows
from rowtine.worker.gateway import Gateway

__all__ = ["Lost", "Reader"]

T = TypeVar("T")


class Lost(Exception):
    """Another worker committed a round of this execution while ours was reading."""


class Reader:
    """Reads what a round turns out to need, if the execution still stands where it did."""

    def __init__(
        self,
        gateway: Gateway,
        rows: Callable[[Connection], Rows],
        known_waiters: Callable[[Sequence[int]], Sequence[Coroutine] | None] = lambda _: None,
    ) -> None:
        self.gateway = gateway
        self.rows = rows
        self.known_waiters = known_waiters

    async def _read(self, read: Callable[[Rows], T]) -> T:
        def transaction(connection: Connection) -> T:
            rows = self.rows(connection)
            if not rows.current():
                raise Lost
            return read(rows)

        return await self.gateway.read(transaction)

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        return await self._read(lambda rows: rows.coroutines(ids))

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return await self._read(lambda rows: rows.counters(ids))

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        return await self._read(lambda rows: rows.results(coroutine))

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        if (known := self.known_waiters(ids)) is not None:
            return known  # from the load, and the commit sees whether it still stands there
        return await self._read(lambda rows: rows.waiters(ids))

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        return await self._read(lambda rows: rows.ended_among(ids))
