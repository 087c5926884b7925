"""What a worker keeps in memory between two rounds."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine as NativeCoroutine
from typing import Any

from rowtine.core.coroutine import Continuation, Frame, Slot
from rowtine.core.directives import Body
from rowtine.core.futures import AllFuture, CallFuture, Remaining
from rowtine.core.journal import Wait
from rowtine.core.payload import Identity
from rowtine.core.phases import Kind
from rowtine.core.results import CoroutineResult
from rowtine.core.state import Coroutine, State
from rowtine.store.loading import Execution
from rowtine.worker.warm import Warm, merged


class Ran:
    finally_blocks = 0


async def body() -> None:
    try:
        await asyncio.sleep(0)
    finally:
        Ran.finally_blocks += 1


def frame() -> Slot:
    coroutine: NativeCoroutine[Any, Any, None] = body()
    coroutine.send(None)
    made = Frame(contextvars.copy_context(), Identity())
    made.coroutine = coroutine
    return Slot(made)


def suspended(id: int = 0) -> Coroutine:
    """A coroutine with a frame, that waits for a call."""
    return Coroutine(
        id,
        None if id == 0 else 0,
        Continuation(Body("body", body), slot=frame()),
        CallFuture(call_id=id),
        wait=Wait(Kind.FUNCTION, "one"),
    )


def execution(id: str, round: int = 1) -> Execution:
    return Execution(id, "main", 0, round, 1, 1, id, None, 0.0)


def state(*coroutines: Coroutine) -> State:
    return State(None, {coroutine.id: coroutine for coroutine in coroutines})


def slot_of(coroutine: Coroutine) -> Slot:
    assert coroutine.coroutine is not None
    return coroutine.coroutine.slot


def test_the_execution_used_longest_ago_makes_room_and_none_of_its_code_runs() -> None:
    Ran.finally_blocks = 0
    warm = Warm(2)

    for id in ("a", "b", "c"):
        warm.keep(execution(id), state(suspended()))

    assert warm.take("a") is None
    kept = warm.take("b")
    assert kept is not None
    assert kept.execution.stand == (0, 1)
    assert Ran.finally_blocks == 0


def test_the_limit_counts_coroutines() -> None:
    Ran.finally_blocks = 0
    warm = Warm(3)

    warm.keep(execution("a"), state(suspended()))
    warm.keep(execution("b"), state(*(suspended(id) for id in range(3))))

    assert warm.take("a") is None
    kept = warm.take("b")
    assert kept is not None
    assert len(kept.slots) == 3
    assert Ran.finally_blocks == 0


def test_of_one_that_is_larger_than_the_limit_a_part_is_kept() -> None:
    Ran.finally_blocks = 0
    warm = Warm(2)

    warm.keep(execution("a"), state(*(suspended(id) for id in range(5))))

    kept = warm.take("a")
    assert kept is not None
    assert set(kept.slots) == {0, 1}
    assert Ran.finally_blocks == 0


def test_an_execution_belongs_to_whoever_takes_it() -> None:
    warm = Warm(2)
    warm.keep(execution("a"), state(suspended()))

    kept = warm.take("a")

    assert kept is not None
    assert warm.take("a") is None
    warm.keep(kept.execution, kept.state)
    warm.clear()
    assert kept.slots == {}


def test_a_limit_of_zero_keeps_nothing_and_runs_nothing() -> None:
    Ran.finally_blocks = 0
    warm = Warm(0)

    warm.keep(execution("a"), state(suspended()))

    assert len(warm) == 0
    assert Ran.finally_blocks == 0


def test_members_that_are_calls_are_not_kept_nor_what_a_large_join_has_come_to() -> None:
    warm = Warm(10)
    main = suspended()
    main.members = range(1, 1001)
    results = {1: CoroutineResult(1, "1")}
    main.result = AllFuture(main.members, set(range(2, 1001)), results)
    members = [
        Coroutine(id, 0, None, CallFuture(call_id=id), Kind.FUNCTION) for id in range(2, 1001)
    ]

    warm.keep(execution("a"), state(main, *members))

    kept = warm.take("a")
    assert kept is not None
    assert set(kept.state.suspended) == {0}
    future = kept.state.suspended[0].result
    assert isinstance(future, AllFuture)
    assert isinstance(future.waiting, Remaining)
    assert (len(future.waiting), future.results) == (999, {})


def test_the_journal_of_a_body_that_is_here_is_not_kept() -> None:
    warm = Warm(10)
    main = suspended()
    assert main.coroutine is not None
    main.coroutine.journal = ()

    warm.keep(execution("a"), state(main))

    kept = warm.take("a")
    assert kept is not None
    continuation = kept.state.suspended[0].coroutine
    assert continuation is not None
    assert continuation.journal is None


def test_a_round_that_had_read_only_a_part_leaves_the_others_warm() -> None:
    warm = Warm(10)
    main, other, went_on = suspended(0), suspended(1), suspended(2)
    warm.keep(execution("a"), state(main, other, went_on))
    kept = warm.take("a")
    assert kept is not None
    slot_of(went_on).take()
    again = suspended(2)
    counter = Coroutine(0, None, None, CallFuture(call_id=7))

    now = merged(kept, state(counter, again))

    assert now.suspended[1] is kept.state.suspended[1]
    assert now.suspended[2] is again
    assert slot_of(now.suspended[0]).warm
    assert now.suspended[0].result == CallFuture(call_id=7)
