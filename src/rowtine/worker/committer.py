"""The committer: rounds and outcomes are written in batches. While one batch is being committed,
the next one gathers: no timer, nothing to tune.

A crowd goes by halves. When the reply to a batch has come, the next one is sent before anybody
hears of it: half of the executions run while the database has the other half.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any, NamedTuple, cast

from msgspec import Struct

from rowtine import clock
from rowtine.core.payload import Codec
from rowtine.store import (
    BlockedError,
    Connection,
    TransientError,
    committing,
    workers,
)
from rowtine.store.committing import Committed, Round
from rowtine.store.each import moment
from rowtine.store.expected import Expected, expected
from rowtine.store.notices import News, announce
from rowtine.store.outcomes import Outcome
from rowtine.worker.line import Line
from rowtine.worker.policy import backoff
from rowtine.worker.writing import Writing

__all__ = ["NOTHING_WRITTEN", "Commits", "Committer", "Failed", "Heard"]

log = logging.getLogger("rowtine")


_REMEMBERED = 1000
"""Batches that `Commits` is about."""

_MANY = 16
"""Rounds and outcomes that are a batch although more is to come."""


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
    """How it can be written in one statement, which is tried once."""
    sent: Expected | None = None
    """That statement, once it is on its way."""
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
    """Commits what it is given, one batch after the other, whenever it is its turn in the `line` of
    those who write. Used by the event loop alone.

    `in_one_statement` says whether a batch can be. `worker` has a row in which each batch leaves
    its number. `heard` is told what was committed; `for_others` says whether other workers have to
    be told that calls of these functions are due.
    """

    def __init__(
        self,
        writing: Writing,
        line: Line,
        in_one_statement: bool,
        codec: Codec,
        worker: str | None,
        heard: Callable[[Committed], None],
        for_others: Callable[[Collection[str]], bool],
    ) -> None:
        self._writing = writing
        self._line = line
        self._in_one_statement = in_one_statement
        self._codec = codec
        self._worker = worker
        self._heard = heard
        self._for_others = for_others
        self._numbers = itertools.count(1)
        self._waiting: list[_Intent] = []
        self._since = 0.0
        """When the first of those began to wait."""
        self._alone: list[_Intent] = []
        """Those of a batch that failed: one of them cannot be written, and alone it fails alone."""
        self._in_line = self._soon = False
        self._open = 0
        """How many are on their way, or have not heard yet what came of it."""
        self._batches = self._items = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._drained = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def commit(self, item: Round | Outcome, heard: Heard, failed: Failed) -> None:
        """Commit a round or an outcome, together with whatever else waits. One of the two is told
        what came of it.

        They are called, and not woken: between the commit of a step and the next step stands no
        pass of the loop. They must not raise.
        """
        self._open += 1
        self._put(_Intent(item, heard, failed))

    def _put(self, intent: _Intent) -> None:
        if not self._waiting:
            self._since = clock.monotonic()
        self._waiting.append(intent)
        if self._line.taken or len(self._waiting) >= self._many():
            self._enter()
        elif not self._soon:
            # What else comes in this pass of the loop goes with it.
            self._soon = True
            self._loop.call_soon(self._enter)

    def _many(self) -> int:
        """Half of what is on its way or is being told, which soon comes again; and not so few that
        a statement costs more than what it writes."""
        return max(_MANY, (self._open + 1) // 2)

    def _enter(self) -> None:
        self._soon = False
        if not self._in_line and (self._waiting or self._alone):
            self._in_line = True
            self._line.enter(self._send)

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

    # -- its turn

    def _send(self) -> None:
        self._in_line = False
        if self._alone:
            taken = [self._alone.pop()]
        else:
            most = self._many() if self._in_one_statement else len(self._waiting)
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
        now = clock.monotonic()
        waited, self._since = now - self._since, now
        mark = None if self._worker is None else workers.Mark(self._worker, next(self._numbers))
        batch = _Batch(taken, mark, waited)
        if self._in_one_statement:
            batch.plain = self._expected(batch)
        self._try(batch)

    def _expected(self, batch: _Batch) -> Expected | None:
        try:
            return expected(self._codec, *batch.items(), batch.mark)
        except Exception:  # the careful way comes to it again, and says so
            return None

    def _try(self, batch: _Batch) -> None:
        then, failed = partial(self._written, batch), partial(self._not_written, batch)
        if batch.plain is not None:
            write = partial(self._write_in_one, batch, batch.plain)
            self._writing.at_once(write, then, failed)
        else:
            self._writing.in_thread(partial(self._write, batch), then, failed)

    def _written(self, batch: _Batch, committed: Committed | None) -> None:
        if committed is None:
            self._try(batch)
            return
        # The next batch is on its way before anybody hears of this one.
        self._enter()
        self._line.leave()
        self._done(batch, committed)

    def _not_written(self, batch: _Batch, error: Exception) -> None:
        match error:
            case BlockedError():
                self._blocked(batch, error)
            case TransientError():
                batch.failures += 1
                log.warning("%s (try %d)", error, batch.failures)
                # The database is away. So is it for those who wait meanwhile.
                self._loop.call_later(backoff(batch.failures, clock.jitter()), self._try, batch)
                return
            case _ if len(batch.intents) > 1:
                self._alone.extend(batch.intents)
            case _:  # whatever it was, nobody may wait for ever
                self._failed(batch.intents[0], error)
        self._enter()
        self._line.leave()

    def _blocked(self, batch: _Batch, error: BlockedError) -> None:
        """Somebody else has locked what one of these is about: that one waits, the others do
        not."""
        if len(batch.intents) > 1:
            self._alone.extend(batch.intents)
            return
        (intent,) = batch.intents
        intent.blocked += 1
        log.warning("%s (try %d)", error, intent.blocked)

        def once_more() -> None:
            self._alone.append(intent)
            self._enter()

        self._loop.call_later(backoff(intent.blocked, clock.jitter()), once_more)

    def _write_in_one(self, batch: _Batch, plain: Expected) -> Committed | None:
        """Write a batch in one statement; None if it was not as expected."""
        batch.plain, batch.sent, batch.unheard = None, plain, True

        def work(connection: Connection) -> Committed | None:
            batch.done = plain.write(connection)
            return batch.done

        written = self._writing.connection.at_once(work, partial(self._tell, batch))
        batch.unheard = False
        return written

    def _write(self, batch: _Batch) -> Committed:
        """Write a batch in any case: locks first, then a look, then what holds."""
        rounds, outcomes = batch.items()

        def work(connection: Connection) -> Committed:
            if batch.unheard and batch.mark is not None and workers.made(connection, batch.mark):
                # Only the reply to its COMMIT was lost.
                return batch.done or cast(Expected, batch.sent).made(moment(connection))
            batch.unheard = True
            batch.done = committing.commit(connection, self._codec, rounds, outcomes, batch.mark)
            return batch.done

        return self._writing.connection.writing(work, partial(self._tell, batch))

    def _tell(self, batch: _Batch, connection: Connection) -> None:
        """Tell others what this worker has no place for."""
        if batch.done is not None and self._for_others(batch.done.queued):
            announce(connection, News.CALLS)

    # -- what came of it

    def _done(self, batch: _Batch, committed: Committed) -> None:
        self._batches += 1
        self._items += len(batch.intents)
        self._recent.append((len(batch.intents), batch.waited))
        for intents, held in (
            (batch.rounds, committed.held),
            (batch.outcomes, committed.recorded),
        ):
            for intent, holds in zip(intents, held, strict=True):
                self._open -= 1
                try:
                    intent.heard(holds, committed)
                except Exception:
                    log.exception("what follows from a commit could not be done")
        self._enter()
        self._heard(committed)
        self._look_whether_drained()

    def _failed(self, intent: _Intent, error: Exception) -> None:
        self._open -= 1
        intent.failed(error)
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if not self._open:
            self._drained.set()
