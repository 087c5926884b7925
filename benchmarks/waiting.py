"""Waiting for what other threads and processes do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any


def until(condition: Callable[[], bool], *, pause: float = 0.001, seconds: float = 240) -> None:
    """Look every `pause` seconds. TimeoutError after `seconds`: what was measured is broken."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of it within {seconds} s")
        time.sleep(pause)


@contextmanager
def on_a_loop(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> Generator[None]:
    """Run `main` on an event loop in a thread of its own, and tell it to stop at the end.

    The main thread is then free to look at the clock, as it is with engines that have threads of
    their own. The block begins once `main` has been started.
    """
    begun = threading.Event()
    handle: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        handle.append((asyncio.get_running_loop(), stop))
        begun.set()
        await main(stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    begun.wait()
    loop, stop = handle[0]
    try:
        yield
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
