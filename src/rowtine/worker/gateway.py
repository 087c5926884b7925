"""The worker's way to the database: dedicated threads with synchronous transactions. The event
loop only queues what it wants, and waits.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar, cast

from rowtine import clock
from rowtine.core.payload import Codec
from rowtine.store import Connection, Database, TransientError, Writer, committing, workers
from rowtine.store.committing import Committed, Round
from rowtine.store.dialect import in_one_statement
from rowtine.store.each import moment
from rowtine.store.expected import Expected, expected
from rowtine.store.notices import announce
from rowtine.store.outcomes import Outcome
from rowtine.worker.policy import backoff

__all__ = ["NOT_WRITTEN", "Gateway", "Written"]

T = TypeVar("T")

log = logging.getLogger("rowtine")


class Written(NamedTuple):
    """What became of a round or an outcome."""

    held: bool
    """Whether its fence held. If not, nothing was written."""
    at: datetime
    """When, by the database's clock."""
    begun: set[str]
    """The calls of this batch that begin at once."""


NOT_WRITTEN = Written(held=False, at=datetime.min.replace(tzinfo=UTC), begun=set())


@dataclass(slots=True)
class _Intent:
    """A round or an outcome on its way to a commit."""

    item: Round | Outcome
    written: asyncio.Future[Written] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Gateway:
    """Reads, writes, and the committer: while one batch commits, the next one gathers.

    `worker` has a row in which each batch leaves its number. `heard` is told what was committed,
    `for_others` says whether other workers have to be told that calls of these functions are due.
    """

    def __init__(
        self,
        database: Database,
        codec: Codec,
        worker: str | None = None,
        heard: Callable[[Committed], None] = lambda _: None,
        for_others: Callable[[Collection[str]], bool] = lambda _: False,
        readers: int = 2,
    ) -> None:
        self.database = database
        self.codec = codec
        self._worker = worker
        self._heard = heard
        self._for_others = for_others
        self._in_one = in_one_statement(database.engine)
        self._connection = Writer(database)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rowtine-write")
        self._reader = ThreadPoolExecutor(readers, thread_name_prefix="rowtine-read")
        self._waiting: list[_Intent] = []
        self._committing: asyncio.Task[None] | None = None
        self._batches = itertools.count(1)
        self._time: tuple[datetime, float] | None = None

    def now(self, not_before: datetime | None = None) -> datetime | None:
        """The database's time as far as this process knows it, which lags by the time that a
        reply takes; None before it was first told. This machine's clock may be an hour wrong."""
        if self._time is None:
            return not_before
        at, then = self._time
        now = at + timedelta(seconds=clock.monotonic() - then)
        return now if not_before is None else max(now, not_before)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a reading transaction; again, after a while, if the database is away."""

        def transaction() -> T:
            with self.database.reading() as connection:
                return work(connection)

        return await self._persist(self._reader, transaction)

    async def write(
        self,
        work: Callable[[Connection], T],
        then: Callable[[Connection], None] | None = None,
    ) -> T:
        """Run `work` in a writing transaction, and `then` after its commit; likewise. `work` must
        bear repetition: where the reply to a COMMIT is lost, whether it happened is unknown."""

        def transaction() -> T:
            with self._connection.writing(then) as connection:
                return work(connection)

        return await self._persist(self._writer, transaction)

    async def _persist(self, threads: ThreadPoolExecutor, transaction: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return await self._on(threads, transaction)
            except TransientError as error:
                failures += 1
                log.warning("%s (try %d)", error, failures)
                await asyncio.sleep(backoff(failures, clock.jitter()))

    async def _on(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    async def commit(self, item: Round | Outcome) -> Written:
        """Commit a round or an outcome, together with whatever else waits.

        The commit itself is not cancelled with the caller: it is on its way.
        """
        intent = _Intent(item)
        self._waiting.append(intent)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="rowtine-committer")
        return await intent.written

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
                if not batch[0].written.done():
                    batch[0].written.set_exception(error)
                return
            # One of them cannot be written; alone, it fails alone.
            for intent in batch:
                await self._commit_batch([intent])

    async def _commit_together(self, batch: Sequence[_Intent]) -> None:
        ran = [intent for intent in batch if isinstance(intent.item, Round)]
        ended = [intent for intent in batch if isinstance(intent.item, Outcome)]
        rounds = [intent.item for intent in ran if isinstance(intent.item, Round)]
        outcomes = [intent.item for intent in ended if isinstance(intent.item, Outcome)]
        worker = self._worker
        mark = None if worker is None else workers.Mark(worker, next(self._batches))
        plain: Expected | None = None
        done: Committed | None = None
        unheard = False

        def in_one_statement() -> Committed | None:
            nonlocal plain
            plain = expected(self.codec, rounds, outcomes, mark)
            return None if plain is None else self._write_in_one(plain)

        def transaction(connection: Connection) -> Committed:
            nonlocal done, unheard
            if unheard and mark is not None and workers.made(connection, mark):
                # Only the reply to its COMMIT was lost.
                return done or cast(Expected, plain).made(moment(connection))
            unheard = True
            done = committing.commit(connection, self.codec, rounds, outcomes, mark)
            return done

        def tell(connection: Connection) -> None:
            if done is not None and self._for_others(done.queued):
                announce(connection)

        committed: Committed | None = None
        if self._in_one:
            try:
                committed = await self._on(self._writer, in_one_statement)
            except TransientError as error:
                log.warning("%s", error)
                await asyncio.sleep(backoff(1, clock.jitter()))
                unheard = True
        if committed is None:
            committed = await self.write(transaction, tell)
        self._time = committed.at, clock.monotonic()
        for intent, held in zip(
            (*ran, *ended), (*committed.held, *committed.recorded), strict=True
        ):
            if not intent.written.done():
                intent.written.set_result(Written(held, committed.at, committed.begun))
        self._heard(committed)

    def _write_in_one(self, batch: Expected) -> Committed | None:
        """Write a batch in one statement; None if it was not as expected."""
        with self._connection.at_once() as connection:
            made = batch.write(connection)
            if made is not None and self._for_others(made.queued):
                announce(connection)
            return made

    async def drained(self) -> None:
        """Wait until nothing is left to commit."""
        while self._committing is not None:
            await asyncio.wait([self._committing])

    def close(self) -> None:
        """End the threads; what they are doing is finished first."""
        self._writer.shutdown(wait=True)
        self._connection.close()
        self._reader.shutdown(wait=True)
