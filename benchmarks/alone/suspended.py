"""Executions that wait for something outside, and rounds that are run by hand."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

import rowtine
from benchmarks.bodies import async_body, now
from benchmarks.databases import POSTGRESQL, Reader
from benchmarks.engines.moves import Album, fresh_ids, make
from benchmarks.waiting import until
from rowtine.store import run_round, schema

AT_ONCE = 2000
"""Executions that one transaction stores."""


SIGNAL = "answer"


class Suspended:
    """An app with functions that suspend."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.url = url
        self.app = rowtine.App(url, **settings)
        self.reader = Reader(url)
        step = self.app.function(name="step")(async_body)

        @self.app.function(name="wait")
        async def wait() -> int:
            answer: int = await rowtine.signal(SIGNAL)
            return answer

        @self.app.function(name="wait_for_all")
        async def wait_for_all(members: int) -> int:
            return len(await rowtine.gather(*[rowtine.promise() for _ in range(members)]))

        @self.app.function(name="steps_then_wait")
        async def steps_then_wait(steps: int) -> int:
            for number in range(steps):
                await step(0, number)
            answer: int = await rowtine.signal(SIGNAL)
            return answer

        self.step, self.wait = step, wait
        self.wait_for_all, self.steps_then_wait = wait_for_all, steps_then_wait

    @property
    def calls(self) -> str:
        return self.reader.table("rowtine", "calls")

    def open_promises(self, execution: str, limit: int) -> list[str]:
        """The tokens of so many promises that nobody has answered."""
        found = self.reader.rows(
            f"SELECT token FROM {self.calls} WHERE execution_id = '{execution}'"
            f" AND token IS NOT NULL AND phase <> 'done' LIMIT {limit}"
        )
        return [str(token) for (token,) in found]

    def waiting(self, limit: int) -> list[str]:
        """So many executions that wait for their signal."""
        found = self.reader.rows(
            f"SELECT execution_id FROM {self.calls}"
            f" WHERE kind = 'signal' AND phase <> 'done' LIMIT {limit}"
        )
        return [str(id) for (id,) in found]

    def suspensions(self) -> int:
        """How many executions have ever come to the wait for their signal."""
        return self.reader.number(f"SELECT count(*) FROM {self.calls} WHERE kind = 'signal'")

    def answer(self, execution: str) -> None:
        """Send the signal."""
        self.app.handle(execution).signal(SIGNAL, 1)

    def start_and_suspend(self, call: rowtine.Call[Any]) -> str:
        """The id of an execution that a worker, now gone, has brought to where it waits."""
        before = self.suspensions()
        handle = self.app.start(call)
        with self.app.worker().start():
            until(lambda: self.suspensions() > before, pause=0.02)
        return handle.id

    def close(self) -> None:
        self.reader.close()
        self.app.close()


def store_suspended(url: str, count: int) -> None:
    """So many more executions that wait for a signal, made like one that a worker suspended."""
    with psycopg.connect(url, autocommit=True) as connection:
        album = Album(connection)
        album.take_picture()
        suspended = Suspended(url)
        suspended.start_and_suspend(suspended.wait())
        suspended.close()
        album.take_picture()
        _repeat(connection, album, count - 1)


def store_queued(url: str, call: rowtine.Call[Any], app: rowtine.App, count: int) -> None:
    """So many calls that wait for a worker, made like one that was started."""
    with psycopg.connect(url, autocommit=True) as connection:
        album = Album(connection)
        album.take_picture()
        _ = app.start(call)
        album.take_picture()
        _repeat(connection, album, count - 1)


def _repeat(connection: psycopg.Connection, album: Album, count: int) -> None:
    """Make what the album shows so many times more. Few at a time: a process whose memory is
    measured does this too."""
    moves = album.moves()
    for first in range(0, count, AT_ONCE):
        some = [fresh_ids() for _ in range(min(AT_ONCE, count - first))]
        make(connection, moves, some, AT_ONCE)
    connection.execute("VACUUM ANALYZE")


@dataclass(slots=True)
class Time:
    cpu_ms: float = 0.0
    """Of this process."""
    ms: float = 0.0


@contextmanager
def _timed() -> Generator[Time]:
    """The time of the block, once it is over."""
    time_ = Time()
    cpu, began = time.process_time(), now()
    yield time_
    time_.cpu_ms = 1000 * (time.process_time() - cpu)
    time_.ms = 1000 * (now() - began)


@dataclass(slots=True)
class RoundCost(Time):
    rows_written: int = 0
    rows_read: int = 0
    """Of tables and by indexes. Both are known of PostgreSQL only."""


def cost_of_round(
    bind: Engine | Connection,
    app: rowtine.App,
    function: Any,
    execution: str,
    min_results: int = 1,
) -> RoundCost:
    """Run and commit one round of an execution that nothing of is in memory."""
    scheduler = rowtine.OneShotScheduler(
        function, version=app.version, poll_min_results=min_results
    )
    with Session(bind) as session:
        if session.get_bind().dialect.name == POSTGRESQL:
            # No worker is in a transaction while bodies run: minutes, with 100,000 children.
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        before = _rows(session)
        with _timed() as running:
            output = run_round(session, scheduler, execution)
        after = _rows(session)
        with _timed() as committing:
            session.commit()
    cost = RoundCost(
        running.cpu_ms + committing.cpu_ms,
        running.ms + committing.ms,
        after[0] - before[0],
        after[1] - before[1],
    )
    if isinstance(output, rowtine.Incompatible):
        raise TypeError(f"the round was not run: {output.message}")
    return cost


def _rows(session: Session) -> tuple[int, int]:
    """Rows that this transaction has written and read so far."""
    if session.get_bind().dialect.name != POSTGRESQL:
        return 0, 0
    written, read = session.execute(
        text(
            "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del),"
            " sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
        )
    ).one()
    return int(written), int(read)


def migrated(url: str, **settings: Any) -> Suspended:
    schema.migrate(url)
    return Suspended(url, **settings)
