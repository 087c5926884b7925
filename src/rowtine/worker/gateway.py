"""The worker's way to the database: dedicated threads with synchronous transactions. The event
loop only queues what it wants, and waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from rowtine import clock
from rowtine.core.payload import Codec
from rowtine.store import Connection, Database, TransientError, committing
from rowtine.store.committing import Round
from rowtine.store.outcomes import Outcome
from rowtine.worker.policy import backoff

__all__ = ["Gateway"]

T = TypeVar("T")

log = logging.getLogger("rowtine")


@dataclass(slots=True)
class _Intent:
    """A round or an outcome on its way to a commit; `held` says whether its fence did."""

    item: Round | Outcome
    held: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Gateway:
    """Reads, writes, and the committer: while one batch commits, the next one gathers."""

    def __init__(self, database: Database, codec: Codec, readers: int = 2) -> None:
        self.database = database
        self.codec = codec
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rowtine-write")
        self._reader = ThreadPoolExecutor(readers, thread_name_prefix="rowtine-read")
        self._waiting: list[_Intent] = []
        self._committing: asyncio.Task[None] | None = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a reading transaction; again, after a while, if the database is away."""

        def transaction() -> T:
            with self.database.reading() as connection:
                return work(connection)

        return await self._persist(self._reader, transaction)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a writing transaction; likewise. `work` must bear repetition: where the
        reply to a COMMIT is lost, whether it happened is unknown."""

        def transaction() -> T:
            with self.database.writing() as connection:
                return work(connection)

        return await self._persist(self._writer, transaction)

    async def _persist(self, threads: ThreadPoolExecutor, transaction: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(threads, transaction)
            except TransientError as error:
                failures += 1
                log.warning("%s (try %d)", error, failures)
                await asyncio.sleep(backoff(failures, clock.jitter()))

    async def commit(self, item: Round | Outcome) -> bool:
        """Commit a round or an outcome, together with whatever else waits; whether its fence held.

        The commit itself is not cancelled with the caller: it is on its way.
        """
        intent = _Intent(item)
        self._waiting.append(intent)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="rowtine-committer")
        return await asyncio.shield(intent.held)

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._commit_batch(batch)
        finally:
            self._committing = None

    async def _commit_batch(self, batch: Sequence[_Intent]) -> None:
        try:
            await self._commit_together(batch)
        except Exception as error:  # whatever it was, nobody may wait for ever
            if len(batch) == 1:
                batch[0].held.set_exception(error)
                return
            # One of them cannot be written; alone, it fails alone.
            for intent in batch:
                await self._commit_batch([intent])

    async def _commit_together(self, batch: Sequence[_Intent]) -> None:
        ran = [intent for intent in batch if isinstance(intent.item, Round)]
        ended = [intent for intent in batch if isinstance(intent.item, Outcome)]

        def transaction(connection: Connection) -> tuple[list[bool], list[bool]]:
            return committing.commit(
                connection,
                self.codec,
                [intent.item for intent in ran if isinstance(intent.item, Round)],
                [intent.item for intent in ended if isinstance(intent.item, Outcome)],
            )

        won, recorded = await self.write(transaction)
        for intent, held in zip((*ran, *ended), (*won, *recorded), strict=True):
            if not intent.held.done():
                intent.held.set_result(held)

    async def drained(self) -> None:
        """Wait until nothing is left to commit."""
        while self._committing is not None:
            await asyncio.wait([self._committing])

    def close(self) -> None:
        """End the threads; what they are doing is finished first."""
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=True)
