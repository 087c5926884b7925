"""How the event loop has something written: as an errand that it runs itself, or in a thread."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar

from msgspec import Struct

from rowtine.store import Database, Writer

__all__ = ["Writing", "sees_connections"]

T = TypeVar("T")

READABLE, WRITABLE = 1, 2
"""As psycopg has them."""


class Writing:
    """Does one thing after the other on the one `connection` that writes: whoever wants it to has
    stood in line. Used by the event loop alone.

    What came of it is told on the loop, in a copy of the context in which this was made: either to
    `then`, or to `failed`.
    """

    def __init__(self, database: Database) -> None:
        self.connection = Writer(database)
        self._loop = asyncio.get_running_loop()
        self._errand = database.errand if sees_connections(self._loop) else None
        self._context = copy_context()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rowtine-write")

    def at_once(
        self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do what uses `connection.at_once` and nothing else. If nobody has to wait for it the loop
        does, and other things meanwhile: the thread would have to take the interpreter away from
        it at each step."""
        # To open a connection is nothing that an errand could wait for.
        if self._errand is not None and self.connection.is_open:
            _Run(self._loop, self._context, self._errand(work), then, failed).go_on()
        else:
            self.in_thread(work, then, failed)

    def in_thread(
        self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do anything else with the connection."""
        context = self._context.copy()  # nobody can be in one twice

        def there() -> None:
            try:
                value = work()
            except Exception as error:
                tell(failed, error)
            else:
                tell(then, value)

        def tell(call: Callable[[Any], None], value: Any) -> None:
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                self._loop.call_soon_threadsafe(call, value, context=context)

        self._thread.submit(there)

    def close(self) -> None:
        """End the thread; what it is doing is finished first."""
        self._thread.shutdown(wait=True)
        self.connection.close()


class _Run(Struct, eq=False):
    """An errand on its way. (Not a closure: one that refers to itself is garbage which nobody finds
    but the collector, with the whole batch that it has written.)"""

    loop: asyncio.AbstractEventLoop
    context: Context
    errand: Any
    then: Callable[[Any], None]
    failed: Callable[[Exception], None]
    fileno: int = -1
    wanted: int = 0

    def go_on(self, *ready: int) -> None:
        try:
            waits = self.errand.switch(*ready)
        except Exception as error:
            self.failed(error)
            return
        if self.errand.dead:
            self.then(waits)
            return
        self.fileno, self.wanted = waits
        if self.wanted & READABLE:
            self.context.run(self.loop.add_reader, self.fileno, self._ready, READABLE)
        if self.wanted & WRITABLE:
            self.context.run(self.loop.add_writer, self.fileno, self._ready, WRITABLE)

    def _ready(self, ready: int) -> None:
        if self.wanted & READABLE:
            self.loop.remove_reader(self.fileno)
        if self.wanted & WRITABLE:
            self.loop.remove_writer(self.fileno)
        self.go_on(ready)


def sees_connections(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop can tell when a connection is ready: that of Windows cannot."""
    one, other = socket.socketpair()
    with one, other:
        try:
            loop.add_reader(one, int)
        except NotImplementedError:
            return False
        loop.remove_reader(one)
        return True
