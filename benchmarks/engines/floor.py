"""The floor: a plain loop of psycopg that writes the very rows that rowtine writes.

rowtine runs one execution, and each of its bodies takes a picture of the tables. What changes from
one picture to the next (rows that are new, changed or gone) is a *move*. The floor makes the same
moves for many executions, a hundred at a time: one transaction a move, one statement for each row
of the picture. It decides nothing, loads nothing and runs nothing: no engine that leaves these rows
can be much faster with one connection, and it follows rowtine when its tables change.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import psycopg

from benchmarks.bodies import now, observed
from benchmarks.databases import settle
from benchmarks.engines.moves import Album, Move, fresh_ids, make
from benchmarks.engines.protocol import Engine, Program, Start
from benchmarks.engines.rowtine_engine import Rowtine
from benchmarks.waiting import until
from rowtine.store import schema


class Floor(Engine):
    """Not an engine at all: `run` makes moves, and nobody works."""

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

    def starting(self) -> AbstractContextManager[Start]:
        raise NotImplementedError("the floor stores nothing that anybody could work off")

    def working(self) -> AbstractContextManager[None]:
        return nullcontext()

    def finished(self) -> int:
        return 0


def recorded(url: str, program: Program) -> list[list[Move]]:
    """The moves of one execution of this program; the first accepts it."""
    with psycopg.connect(url, autocommit=True) as connection:
        album = Album(connection)
        engine = Rowtine(url)
        album.take_picture()
        engine.accept(program, 1)
        album.take_picture()
        finished = engine.finished() + 1
        with observed(album.take_picture), engine.working():
            until(lambda: engine.finished() >= finished)
        album.take_picture()
        engine.close()
        return album.moves()
