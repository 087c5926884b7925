"""The one module that reads this machine's clocks and random source.

What is stored or compared between processes uses the database's time instead; a worker's clock may
be an hour wrong. These are for waits inside one process and for the readable half of an id.
"""

from __future__ import annotations

import os
import threading
import time

from rowtine.core.ids import head_of, uuid7

__all__ = ["jitter", "monotonic", "new_id", "new_seed"]

monotonic = time.monotonic
"""Seconds, for measuring how long something took in this process."""


class _Ids:
    """Random hexadecimal digits of the system, and ids that are made with them.

    Digits are asked for by the page, since each time costs a system call. Each is given out once;
    what a fork has copied is thrown away by the child. Ids grow strictly within this process, also
    when the clock goes back. (Order between processes is only as good as their clocks: nothing but
    readability and the locality of the index depends on it.)
    """

    def __init__(self) -> None:
        self._milliseconds = self._counter = 0
        self._head = head_of(0)
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._digits = ""
        self._at = 0

    def take(self, count: int) -> str:
        """So many digits."""
        with self._lock:
            return self._take(count)

    def _take(self, count: int) -> str:
        at = self._at
        if at + count > len(self._digits):
            self._digits, at = os.urandom(4096).hex(), 0
        self._at = end = at + count
        return self._digits[at:end]

    def next(self, milliseconds: int) -> str:
        """The id of a moment, or of one just after the last."""
        with self._lock:
            if milliseconds > self._milliseconds:
                self._milliseconds, self._counter = milliseconds, 0
                self._head = head_of(milliseconds)
            elif self._counter == 0xFFF:
                self._milliseconds, self._counter = self._milliseconds + 1, 0
                self._head = head_of(self._milliseconds)
            else:
                self._counter += 1
            return uuid7(self._head, self._counter, self._take(16))


_ids = _Ids()


def jitter() -> float:
    """A random number in [0, 1)."""
    return int(_ids.take(12), 16) / (1 << 48)


def new_seed() -> str:
    """128 bits that nobody can guess: promises' tokens are drawn from them."""
    return _ids.take(32)


def new_id() -> str:
    """A new UUIDv7."""
    return _ids.next(time.time_ns() // 1_000_000)
