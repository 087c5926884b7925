"""Where the event loop has things done that wait for the database: in a thread, or as errands."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from rowtine.store.errands import Errand

__all__ = ["can_run", "in_thread", "run"]

T = TypeVar("T")

READABLE, WRITABLE = 1, 2
"""As psycopg has them."""


def can_run(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop can see when a connection is ready: that of Windows cannot."""
    one, other = socket.socketpair()
    with one, other:
        try:
            loop.add_reader(one, int)
        except NotImplementedError:
            return False
        loop.remove_reader(one)
        return True


def run(
    loop: asyncio.AbstractEventLoop,
    context: Context,
    errand: Errand,
    then: Callable[[Any], None],
    failed: Callable[[Exception], None],
) -> None:
    """Run an errand on the loop, which does other things while that waits for the server. What came
    of it is told in a copy of this context."""
    _Run(loop, context, errand, then, failed).go_on()


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


def in_thread(
    loop: asyncio.AbstractEventLoop,
    context: Context,
    thread: ThreadPoolExecutor,
    work: Callable[[], T],
    then: Callable[[T], None],
    failed: Callable[[Exception], None],
) -> None:
    """Do some work in a thread; what came of it is told on the loop, likewise."""
    context = context.copy()  # nobody can be in one twice

    def there() -> None:
        try:
            value = work()
        except Exception as error:
            tell(failed, error)
        else:
            tell(then, value)

    def tell(call: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # it has closed: nobody waits any more
            loop.call_soon_threadsafe(call, value, context=context)

    thread.submit(there)
