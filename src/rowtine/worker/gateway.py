"""The worker's way to the database. The event loop says what it wants, and does other things until
it is told what came of it: reads are made in threads, and all who write stand in one line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from rowtine import clock
from rowtine.core.payload import Codec
from rowtine.store import BlockedError, Connection, Database, TransientError
from rowtine.store.committing import Committed
from rowtine.worker.committer import Commits, Committer
from rowtine.worker.line import Line
from rowtine.worker.policy import backoff
from rowtine.worker.writing import Writing

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
        self._line = Line()
        self._writing = Writing(database)
        self._reader = ThreadPoolExecutor(readers, thread_name_prefix="rowtine-read")
        self._committer = Committer(
            self._writing,
            self._line,
            database.in_one_statement,
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

        loop = asyncio.get_running_loop()
        return await self._persist(lambda: loop.run_in_executor(self._reader, transaction))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a writing transaction; likewise. It must bear repetition: where the reply
        to a COMMIT is lost, whether it happened is unknown."""
        return await self._in_line(
            self._writing.in_thread, lambda: self._writing.connection.writing(work)
        )

    async def write_at_once(
        self,
        work: Callable[[Connection], T],
        before: Callable[[Connection], None] | None = None,
    ) -> T:
        """`write`, for a few statements of which each is whole by itself; `before` them, without
        a look at the loop, a transaction of its own."""

        def statements() -> T:
            if before is not None:
                self._writing.connection.writing(before)
            return self._writing.connection.at_once(work)

        writing = self._writing
        return await self._in_line(writing.in_thread if before else writing.at_once, statements)

    async def write_unless_blocked(self, work: Callable[[Connection], T]) -> T | None:
        """`write`; None, and nothing is written, if others have locked a row of it for longer than
        it is to wait."""

        def transaction() -> T | None:
            try:
                return self._writing.connection.writing(work)
            except BlockedError as error:
                log.warning("%s", error)
                return None

        return await self._in_line(self._writing.in_thread, transaction)

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await attempt()
            except TransientError as error:
                failures += 1
                log.warning("%s (try %d)", error, failures)
                await asyncio.sleep(backoff(failures, clock.jitter()))

    async def _in_line(self, do: Callable[..., None], work: Callable[[], T]) -> T:
        """What some work comes to that `Writing` does one way or the other, when it is its turn."""
        return await self._persist(lambda: self._turn(do, work))

    async def _turn(self, do: Callable[..., None], work: Callable[[], T]) -> T:
        told: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def then(value: T) -> None:
            self._line.leave()
            if not told.done():
                told.set_result(value)

        def failed(error: Exception) -> None:
            self._line.leave()
            if not told.done():
                told.set_exception(error)

        def begin() -> None:
            if told.done():  # cancelled, while it stood in line
                self._line.leave()
            else:
                do(work, then, failed)

        self._line.enter(begin)
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
        self._writing.close()
        self._reader.shutdown(wait=True)
