"""The worker's way to the database: dedicated threads with synchronous transactions. The event
loop only queues what it wants, and waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from rowtine import clock
from rowtine.core.payload import Codec
from rowtine.store import BlockedError, Connection, Database, TransientError, Writer
from rowtine.store.committing import Committed
from rowtine.worker.committer import Commits, Committer
from rowtine.worker.errands import in_thread
from rowtine.worker.line import Line
from rowtine.worker.policy import backoff

__all__ = ["Gateway"]

T = TypeVar("T")

log = logging.getLogger("rowtine")


class Gateway:
    """Reads, writes, and commits, as `Committer` has them. Made on the event loop."""

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
        self._heard = heard
        self._connection = Writer(database)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rowtine-write")
        self._reader = ThreadPoolExecutor(readers, thread_name_prefix="rowtine-read")
        self._line = Line()
        self._committer = Committer(
            database,
            self._connection,
            self._line,
            self._writer,
            codec,
            worker,
            self._committed,
            for_others,
        )
        self.commit = self._committer.commit
        self._time: tuple[datetime, float] | None = None
        self._now = datetime.min.replace(tzinfo=UTC)
        self._until = 0.0
        """Until when that is near enough, by the clock of this process."""

    def now(self, not_before: datetime | None = None) -> datetime | None:
        """The database's time as far as this process knows it, which lags by the time that a
        reply takes, to the millisecond; None before it was first told. This machine's clock may be
        an hour wrong."""
        if self._time is None:
            return not_before
        monotonic = clock.monotonic()
        if monotonic > self._until:
            at, then = self._time
            self._now, self._until = at + timedelta(seconds=monotonic - then), monotonic + 0.001
        return self._now if not_before is None or self._now > not_before else not_before

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a reading transaction; again, after a while, if the database is away."""

        def transaction() -> T:
            with self.database.reading() as connection:
                return work(connection)

        return await self._persist(self._beside, transaction)

    async def write(
        self,
        work: Callable[[Connection], T],
        then: Callable[[Connection], None] | None = None,
    ) -> T:
        """Run `work` in a writing transaction, and `then` after its commit; likewise. `work` must
        bear repetition: where the reply to a COMMIT is lost, whether it happened is unknown."""

        return await self._persist(self._in_line, lambda: self._write(work, then))

    async def write_at_once(
        self,
        work: Callable[[Connection], T],
        before: Callable[[Connection], None] | None = None,
    ) -> T:
        """`write`, for a few statements of which each is whole by itself; `before` them, without
        a look at the loop, a transaction of its own."""

        def statements() -> T:
            if before is not None:
                self._write(before)
            with self._connection.at_once() as connection:
                return work(connection)

        return await self._persist(self._in_line, statements)

    async def write_unless_blocked(self, work: Callable[[Connection], T]) -> T | None:
        """`write`; None, and nothing is written, if others have locked a row of it for longer than
        it is to wait."""

        def transaction() -> T | None:
            try:
                return self._write(work)
            except BlockedError as error:
                log.warning("%s", error)
                return None

        return await self._persist(self._in_line, transaction)

    def _write(
        self, work: Callable[[Connection], T], then: Callable[[Connection], None] | None = None
    ) -> T:
        with self._connection.writing(then) as connection:
            return work(connection)

    async def _persist(
        self, do: Callable[[Callable[[], T]], Awaitable[T]], transaction: Callable[[], T]
    ) -> T:
        failures = 0
        while True:
            try:
                return await do(transaction)
            except TransientError as error:
                failures += 1
                log.warning("%s (try %d)", error, failures)
                await asyncio.sleep(backoff(failures, clock.jitter()))

    async def _beside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    async def _in_line(self, work: Callable[[], T]) -> T:
        """In the thread that writes, when it is its turn."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()

        def then(value: T) -> None:
            self._line.leave()
            if not told.done():
                told.set_result(value)

        def failed(error: Exception) -> None:
            self._line.leave()
            if not told.done():
                told.set_exception(error)

        context = copy_context()
        self._line.enter(lambda: in_thread(loop, context, self._writer, work, then, failed))
        return await told

    def commits(self) -> Commits:
        """What was committed so far. From any thread."""
        return self._committer.commits()

    def _committed(self, committed: Committed) -> None:
        self._time = committed.at, clock.monotonic()
        self._until = 0.0
        self._heard(committed)

    async def drained(self) -> None:
        """Wait until nothing is left to commit."""
        await self._committer.drained()

    def close(self) -> None:
        """End the threads; what they are doing is finished first."""
        self._writer.shutdown(wait=True)
        self._connection.close()
        self._reader.shutdown(wait=True)
