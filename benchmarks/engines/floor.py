"""The floor: a plain loop of psycopg that writes the very rows that rowtine writes.

rowtine runs one execution, and each of its bodies takes a picture of the tables. What changes from
one picture to the next (rows that are new, changed or gone) is a *move*. The floor makes the same
moves for many executions, a hundred at a time: one transaction a move, one statement for each row
of the picture. It decides nothing, loads nothing and runs nothing: no engine that leaves these rows
can be much faster with one connection, and it follows rowtine when its tables change.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread

import psycopg

from benchmarks.bodies import body, now, observed
from benchmarks.databases import settle
from benchmarks.engines.moves import Album, Move, fresh_ids, make
from benchmarks.engines.protocol import JOB, Engine, Program, Start
from benchmarks.engines.rowtine_engine import Rowtine
from benchmarks.waiting import until
from rowtine.store import schema


class Floor(Engine):
    """Not an engine at all: `run` makes moves, and those who work know jobs alone."""

    def prepare(self) -> None:
        schema.migrate(self.url)

    def run(self, program: Program, count: int) -> float:
        accepting, *rest = recorded(self.url, program)
        ids = [fresh_ids() for _ in range(count)]
        with psycopg.connect(self.url, autocommit=True) as connection:
            make(connection, [accepting], ids)
            settle(self.url)
            began = now()
            make(connection, rest, ids)
            return now() - began

    def each(self, program: Program) -> list[float]:
        """Seconds of each transaction of one execution, which has nobody beside it."""
        accepting, *rest = recorded(self.url, program)
        ids = [fresh_ids()]
        seconds = []
        with psycopg.connect(self.url, autocommit=True) as connection:
            make(connection, [accepting], ids)
            settle(self.url)
            for moves in rest:
                began = now()
                make(connection, [moves], ids)
                seconds.append(now() - began)
        return seconds

    @contextmanager
    def starting(self) -> Generator[Start]:
        """Jobs alone: the row of a call that was accepted, and a notice."""
        accepting = accepted(self.url, JOB)
        with psycopg.connect(self.url, autocommit=True) as connection:

            def start(program: Program, _: int) -> None:
                if program != JOB:
                    raise NotImplementedError("only jobs are worked off")
                make(connection, [accepting], [fresh_ids()])
                connection.execute(f"NOTIFY {CHANNEL}")

            yield start

    @contextmanager
    def working(self) -> Generator[None]:
        """Claim the jobs that are due when a notice has come, run them, and write that they are
        done."""
        Thread(target=self._work, daemon=True).start()
        yield

    def _work(self) -> None:
        with (
            psycopg.connect(self.url, autocommit=True) as listener,
            psycopg.connect(self.url, autocommit=True) as connection,
        ):
            listener.execute(f"LISTEN {CHANNEL}")
            for _ in listener.notifies():
                for id, text in connection.execute(CLAIM).fetchall():
                    body(*json.loads(text)["args"])
                    connection.execute(DONE, [id])

    def finished(self) -> int:
        return 0


CHANNEL = "floor"

CLAIM = """
    UPDATE rowtine.calls
    SET phase = 'running', due = NULL, worker = id, lease_expires = now() + interval '30 seconds',
        claim = claim + 1, attempt = attempt + 1, started_at = now()
    WHERE id IN (
        SELECT id FROM rowtine.calls
        WHERE kind = 'function' AND function = 'step' AND due <= now()
        ORDER BY due, id LIMIT 100 FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id, input::text
"""

DONE = """
    UPDATE rowtine.calls
    SET phase = 'done', status = 'OK', output = '0', worker = NULL, lease_expires = NULL,
        finished_at = now()
    WHERE id = %s
"""


def accepted(url: str, program: Program) -> list[Move]:
    """The moves that accept an execution of this program. The one that shows them is deleted."""
    with _shown(url, program) as album:
        (moves,) = album.moves()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM rowtine.calls")
    return moves


def recorded(url: str, program: Program) -> list[list[Move]]:
    """The moves of one execution of this program; the first accepts it."""
    with _shown(url, program) as album:
        engine = Rowtine(url)
        finished = engine.finished() + 1
        with observed(album.take_picture), engine.working():
            until(lambda: engine.finished() >= finished)
        engine.close()
        album.take_picture()
        return album.moves()


@contextmanager
def _shown(url: str, program: Program) -> Generator[Album]:
    """Pictures of how an execution of this program is accepted."""
    with psycopg.connect(url, autocommit=True) as connection:
        album = Album(connection)
        engine = Rowtine(url)
        album.take_picture()
        engine.accept(program, 1)
        engine.close()
        album.take_picture()
        yield album
