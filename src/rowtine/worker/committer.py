"""The committer: rounds and outcomes are written in batches. While one batch is being committed,
the next one gathers: no timer, nothing to tune.

The event loop has no part in it between two batches. A pass of the loop may run a hundred bodies;
what the first of them came to is on its way while the others run.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any, NamedTuple, cast

from msgspec import Struct

from rowtine import clock
from rowtine.core.payload import Codec
from rowtine.store import (
    BlockedError,
    Connection,
    Database,
    TransientError,
    Writer,
    committing,
    workers,
)
from rowtine.store.committing import Committed, Round
from rowtine.store.each import moment
from rowtine.store.expected import Expected, expected
from rowtine.store.notices import News, announce
from rowtine.store.outcomes import Outcome
from rowtine.worker.policy import backoff

__all__ = ["NOTHING_WRITTEN", "Commits", "Committer", "Failed", "Heard"]

log = logging.getLogger("rowtine")


_REMEMBERED = 1000
"""Batches that `Commits` is about."""


class Commits(NamedTuple):
    """What a worker has committed. The medians are of its last thousand batches."""

    batches: int
    items: int
    """Rounds and outcomes. What was handed to a round is part of it."""
    batch_size: float
    """The median of how many items a batch has."""
    waited: float
    """The median of the seconds for which the first item of a batch has waited for its turn."""


Heard = Callable[[bool, Committed], None]
"""Is told what became of a round or an outcome: whether its fence held (if not, nothing of it was
written), and the batch."""

Failed = Callable[[Exception], None]
"""Is told why a round or an outcome cannot be written."""

NOTHING_WRITTEN = Committed([], [], datetime.min.replace(tzinfo=UTC), set(), None, News(0), set())


class _Intent(Struct, eq=False):
    """A round or an outcome on its way to a commit."""

    item: Round | Outcome
    heard: Heard
    failed: Failed
    blocked: int = 0
    """How often it was tried in vain, by itself."""


@dataclass(slots=True, eq=False)
class _Batch:
    """What is committed together, and what is known of the tries to do so."""

    intents: Sequence[_Intent]
    mark: workers.Mark | None
    waited: float
    failures: int = 0
    plain: Expected | None = None
    done: Committed | None = None
    unheard: bool = False
    """Whether a try ended without a reply: it may have been committed."""
    rounds: list[_Intent] = field(init=False)
    outcomes: list[_Intent] = field(init=False)

    def __post_init__(self) -> None:
        self.rounds = [each for each in self.intents if isinstance(each.item, Round)]
        self.outcomes = [each for each in self.intents if isinstance(each.item, Outcome)]

    def items(self) -> tuple[list[Any], list[Any]]:
        return [each.item for each in self.rounds], [each.item for each in self.outcomes]


class Committer:
    """Commits what it is given, one batch after the other, in the one `thread` that writes.

    `worker` has a row in which each batch leaves its number. `heard` is told what was committed, on
    the event loop; `for_others` says whether other workers have to be told that calls of these
    functions are due.
    """

    def __init__(
        self,
        database: Database,
        connection: Writer,
        thread: ThreadPoolExecutor,
        codec: Codec,
        worker: str | None,
        heard: Callable[[Committed], None],
        for_others: Callable[[Collection[str]], bool],
    ) -> None:
        self._in_one_statement = database.in_one_statement
        self._connection = connection
        self._thread = thread
        self._codec = codec
        self._worker = worker
        self._heard = heard
        self._for_others = for_others
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: list[_Intent] = []
        self._since = 0.0
        """When the first of those began to wait."""
        self._alone: list[_Intent] = []
        """Those of a batch that failed: one of them cannot be written, and alone it fails alone."""
        self._busy = False
        self._open = 0
        """How many are on their way."""
        self._batches = self._items = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._drained = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def commit(self, item: Round | Outcome, heard: Heard, failed: Failed) -> None:
        """Commit a round or an outcome, together with whatever else waits. One of the two is told
        what came of it, on the event loop.

        They are called, and not woken: between the commit of a step and the next step stands no
        pass of the loop. They must not raise.
        """
        intent = _Intent(item, heard, failed)
        self._open += 1
        self._put(intent)

    def _put(self, intent: _Intent, *, alone: bool = False) -> None:
        with self._lock:
            if alone:
                self._alone.append(intent)
            else:
                if not self._waiting:
                    self._since = clock.monotonic()
                self._waiting.append(intent)
            busy, self._busy = self._busy, True
        if not busy:
            self._thread.submit(self._next)

    async def drained(self) -> None:
        """Wait until nothing is left to commit."""
        while self._open:
            self._drained.clear()
            await self._drained.wait()

    def commits(self) -> Commits:
        """What was committed so far. From any thread."""
        recent = list(self._recent)
        if not recent:
            return Commits(0, 0, 0.0, 0.0)
        sizes, waits = zip(*recent, strict=True)
        return Commits(self._batches, self._items, median(sizes), median(waits))

    # -- in the thread

    def _next(self) -> None:
        with self._lock:
            if self._alone:
                taken = [self._alone.pop()]
            else:
                taken, self._waiting = self._waiting, []
            waited = clock.monotonic() - self._since
        mark = None if self._worker is None else workers.Mark(self._worker, next(self._numbers))
        self._try(_Batch(taken, mark, waited))

    def _try(self, batch: _Batch) -> None:
        try:
            committed = self._write(batch)
        except BlockedError as error:
            self._blocked(batch, error)
        except TransientError as error:
            batch.failures += 1
            log.warning("%s (try %d)", error, batch.failures)
            self._on_the_loop(self._later, batch)
            return
        except Exception as error:  # whatever it was, nobody may wait for ever
            if len(batch.intents) > 1:
                self._alone.extend(batch.intents)
            else:
                self._on_the_loop(self._failed, batch.intents[0], error)
        else:
            self._on_the_loop(self._done, batch, committed)
        with self._lock:
            self._busy = bool(self._alone or self._waiting)
        if self._busy:
            self._thread.submit(self._next)  # after whoever else waits for this thread

    def _blocked(self, batch: _Batch, error: BlockedError) -> None:
        """Somebody else has locked what one of these is about: that one waits, the others do
        not."""
        if len(batch.intents) > 1:
            self._alone.extend(batch.intents)
            return
        (intent,) = batch.intents
        intent.blocked += 1
        log.warning("%s (try %d)", error, intent.blocked)
        self._on_the_loop(self._once_more, intent)

    def _write(self, batch: _Batch) -> Committed:
        rounds, outcomes = batch.items()
        if self._in_one_statement and batch.failures == 0:
            batch.plain = expected(self._codec, rounds, outcomes, batch.mark)
            if batch.plain is not None:
                batch.unheard = True
                if (made := self._write_in_one(batch.plain)) is not None:
                    return made
                batch.unheard = False

        def tell(connection: Connection) -> None:
            if batch.done is not None and self._for_others(batch.done.queued):
                announce(connection, News.CALLS)

        with self._connection.writing(tell) as connection:
            if batch.unheard and batch.mark is not None and workers.made(connection, batch.mark):
                # Only the reply to its COMMIT was lost.
                return batch.done or cast(Expected, batch.plain).made(moment(connection))
            batch.unheard = True
            batch.done = committing.commit(connection, self._codec, rounds, outcomes, batch.mark)
            return batch.done

    def _write_in_one(self, plain: Expected) -> Committed | None:
        """Write a batch in one statement; None if it was not as expected."""
        with self._connection.at_once() as connection:
            made = plain.write(connection)
            if made is not None and self._for_others(made.queued):
                announce(connection, News.CALLS)
            return made

    def _on_the_loop(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # it has closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *args)

    # -- on the loop

    def _later(self, batch: _Batch) -> None:
        """Try again, after a while: the database is away. So is it for those who wait meanwhile."""
        pause = backoff(batch.failures, clock.jitter())
        self._loop.call_later(pause, lambda: self._thread.submit(self._try, batch))

    def _once_more(self, intent: _Intent) -> None:
        pause = backoff(intent.blocked, clock.jitter())
        self._loop.call_later(pause, lambda: self._put(intent, alone=True))

    def _done(self, batch: _Batch, committed: Committed) -> None:
        self._open -= len(batch.intents)
        self._batches += 1
        self._items += len(batch.intents)
        self._recent.append((len(batch.intents), batch.waited))
        for intents, held in (
            (batch.rounds, committed.held),
            (batch.outcomes, committed.recorded),
        ):
            for intent, holds in zip(intents, held, strict=True):
                try:
                    intent.heard(holds, committed)
                except Exception:
                    log.exception("what follows from a commit could not be done")
        self._heard(committed)
        self._look_whether_drained()

    def _failed(self, intent: _Intent, error: Exception) -> None:
        self._open -= 1
        intent.failed(error)
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if not self._open:
            self._drained.set()
