"""Whose turn it is to write: batches of commits and other transactions, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Line"]


class Line:
    """Those who want to write, in the order in which they came. Used by the event loop alone."""

    def __init__(self) -> None:
        self.taken = False
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        """Call `begin` when it is its turn: now, if nobody writes. Whoever began has to `leave`."""
        if self.taken:
            self._waiting.append(begin)
        else:
            self.taken = True
            begin()

    def leave(self) -> None:
        """Whoever comes next begins."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.taken = False
