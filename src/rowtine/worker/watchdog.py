"""Whether the event loop of a worker still moves, as another thread sees it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback

__all__ = ["Watchdog", "given_up"]

log = logging.getLogger("rowtine")


def given_up(silent: float, stall: float) -> bool:
    """Whether a loop that has not moved for so many seconds counts as dead."""
    return silent >= stall


class Watchdog:
    """Asks the loop at every beat whether it has answered since the last one.

    Made on the loop, asked by the thread of the heartbeat. Time is counted in beats, not by the
    clock: a process that was stopped for an hour (a sleeping laptop, SIGSTOP) has missed none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, stall: float) -> None:
        self._loop = loop
        self._interval = interval
        self._stall = stall
        self._thread = threading.get_ident()
        self._moved = threading.Event()
        self._missed = 0
        self._ask()

    def alive(self) -> bool:
        """Once in each interval: whether to renew what the worker holds.

        A loop that has not moved for one interval is reported, with the line that it is in, and
        keeps what it holds; one that has not moved for `stall` seconds no longer does.
        """
        silent = self._missed * self._interval
        if self._moved.is_set():
            if self._missed:
                log.warning("the event loop moves again, after some %.1f s", silent)
            self._missed = 0
            self._moved.clear()
            self._ask()
            return True
        self._missed += 1
        was_given_up = given_up(silent, self._stall)
        silent += self._interval
        if self._missed == 1:
            log.error(
                "the event loop has not moved for %.1f s: what runs on it must await, or be a "
                "sync function. It is in:\n%s",
                silent,
                self._stack(),
            )
        if not given_up(silent, self._stall):
            return True
        if not was_given_up:
            log.error(
                "the event loop has not moved for %.1f s: what this worker holds is left to others",
                silent,
            )
        return False

    def _ask(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._moved.set)
        except RuntimeError:  # it has ended: nothing is held that it could hold up
            self._moved.set()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        return "".join(traceback.format_stack(frame)) if frame is not None else "(it has ended)"
