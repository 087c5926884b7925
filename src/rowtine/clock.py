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


class _Chance:
    """Random hexadecimal digits of the system, asked for by the page: each time costs a system
    call.

    Each digit is given out once; what a fork has copied is thrown away by the child.
    """

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._digits = ""
        self._at = 0

    def take(self, count: int) -> str:
        with self._lock:
            at = self._at
            if at + count > len(self._digits):
                self._digits, at = os.urandom(4096).hex(), 0
            self._at = end = at + count
            return self._digits[at:end]


_chance = _Chance()


def jitter() -> float:
    """A random number in [0, 1)."""
    return int(_chance.take(12), 16) / (1 << 48)


class _IdSource:
    """Makes ids that grow strictly within this process, also when the clock goes back.

    Order between processes is only as good as their clocks: nothing but readability and the
    locality of the index depends on it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._milliseconds = self._counter = 0
        self._head = head_of(0)

    def next(self, milliseconds: int, chance: str) -> str:
        with self._lock:
            if milliseconds > self._milliseconds:
                self._milliseconds, self._counter = milliseconds, 0
                self._head = head_of(milliseconds)
            elif self._counter == 0xFFF:
                self._milliseconds, self._counter = self._milliseconds + 1, 0
                self._head = head_of(self._milliseconds)
            else:
                self._counter += 1
            return uuid7(self._head, self._counter, chance)


_ids = _IdSource()


def new_seed() -> str:
    """128 bits that nobody can guess: promises' tokens are drawn from them."""
    return _chance.take(32)


def new_id() -> str:
    """A new UUIDv7."""
    return _ids.next(time.time_ns() // 1_000_000, _chance.take(16))
