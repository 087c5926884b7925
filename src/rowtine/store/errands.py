"""Database work that does not hold up the thread in which it runs. Needs psycopg and greenlet.

An errand is ordinary code, SQLAlchemy's and the driver's included. Where it would wait for the
server, control goes back to whoever runs it, who sees when the connection is ready and lets it go
on. Nobody else may use its connection meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from greenlet import getcurrent, greenlet
from psycopg import Connection

__all__ = ["Errand", "UnblockedConnection", "Waits"]

T = TypeVar("T")


class Waits(NamedTuple):
    """What an errand waits for: until a file can be read (1), written (2), or either (3)."""

    fileno: int
    wanted: int


class Errand(greenlet):
    """Some work. `switch` lets it go on, with what its connection is ready for: until it waits the
    next time, which is then what comes back, or until it ends: then it is `dead`, and what comes
    back is what it has come to."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(work)


class UnblockedConnection(Connection[Any]):
    """A connection of psycopg that can be used in an errand, or as any other."""

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        errand = getcurrent()
        if not isinstance(errand, Errand):
            return super().wait(gen, *args, **kwargs)
        whoever: Any = errand.parent
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(whoever.switch(Waits(self.fileno(), wanted)))
        except StopIteration as end:
            value: T = end.value
            return value
