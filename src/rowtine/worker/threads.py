"""Threads for sync functions.

Daemons, unlike those of `concurrent.futures`: a function that never returns must not keep a
process alive that has given its call back.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["Threads"]

Job = Callable[[], None]


class Threads:
    """As many threads as there are jobs at once; idle ones are used again."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads = 0

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run in a thread, in a copy of this context. The future has a value or a BaseException;
        it is left alone when it was cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(set_: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                set_(value)

        def job() -> None:
            try:
                value = context.run(function)
            except BaseException as error:
                _later(loop, deliver, future.set_exception, error)
            else:
                _later(loop, deliver, future.set_result, value)

        self._jobs.put(job)
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
                return future
            self._threads += 1
            number = self._threads
        threading.Thread(target=self._work, name=f"rowtine-call-{number}", daemon=True).start()
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._lock:
                self._idle += 1

    def close(self) -> None:
        """Let idle threads end; busy ones end after their job."""
        for _ in range(self._threads):
            self._jobs.put(None)


def _later(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        return  # the loop has closed: the call was given back long ago
