"""Ids of calls: UUIDv7, so that rows made later sort later (RFC 9562, section 5.7)."""

from __future__ import annotations

import threading
import uuid

__all__ = ["IdSource", "uuid7"]


def uuid7(milliseconds: int, counter: int, random: int) -> str:
    """A UUIDv7 from a Unix time in milliseconds, a 12-bit counter and 62 random bits."""
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (counter & 0xFFF) << 64
    value |= 0b10 << 62 | random & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))


class IdSource:
    """Makes ids that grow strictly within this process, also when the clock goes back.

    Order between processes is only as good as their clocks: nothing but readability and the
    locality of the index depends on it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._milliseconds = 0
        self._counter = 0

    def next(self, milliseconds: int, random: int) -> str:
        with self._lock:
            if milliseconds > self._milliseconds:
                self._milliseconds, self._counter = milliseconds, 0
            elif self._counter == 0xFFF:
                self._milliseconds, self._counter = self._milliseconds + 1, 0
            else:
                self._counter += 1
            return uuid7(self._milliseconds, self._counter, random)
