"""What a worker keeps in memory between two rounds."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

from rowtine.core.coroutine import Frame, Slot
from rowtine.core.payload import Identity
from rowtine.worker.warm import Warm


class Ran:
    finally_blocks = 0


async def body() -> None:
    try:
        await asyncio.sleep(0)
    finally:
        Ran.finally_blocks += 1


def suspended() -> Slot:
    coroutine: Coroutine[Any, Any, None] = body()
    coroutine.send(None)
    frame = Frame(contextvars.copy_context(), Identity())
    frame.coroutine = coroutine
    return Slot(frame)


def test_the_execution_used_longest_ago_makes_room_and_none_of_its_code_runs() -> None:
    Ran.finally_blocks = 0
    warm = Warm(2)

    for id in ("a", "b", "c"):
        warm.keep(id, (0, 1), {0: suspended()})

    assert warm.take("a") == (None, {})
    assert warm.take("b")[0] == (0, 1)
    assert Ran.finally_blocks == 0


def test_frames_belong_to_whoever_takes_them() -> None:
    warm = Warm(2)
    warm.keep("a", (0, 1), {0: suspended()})

    stand, slots = warm.take("a")

    assert (stand, slots[0].warm) == ((0, 1), True)
    assert warm.take("a") == (None, {})
    warm.keep("a", (0, 2), slots)
    warm.clear()
    assert not slots[0].warm


def test_a_limit_of_zero_keeps_nothing_and_runs_nothing() -> None:
    Ran.finally_blocks = 0
    warm = Warm(0)

    warm.keep("a", (0, 1), {0: suspended()})

    assert len(warm) == 0
    assert Ran.finally_blocks == 0
