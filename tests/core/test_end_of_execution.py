"""What happens to everything else when main is done, or is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.scheduling import Begin, durable, recorder
from rowtine import Reset, Status, call, gather, race
from rowtine.core.phases import Resolution


@durable
async def careful(name: str) -> Any:
    try:
        return await call(name)
    finally:
        await call(f"clean {name}")


@pytest.mark.case(139)
def test_suspended_members_are_unwound_before_the_exit(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def child() -> None:
        try:
            await call("x")
        finally:
            seen.events.append("unwound")

    @durable
    async def main() -> Any:
        return await race(child(), call("a"))

    execution = begin(main)
    assert seen.events == []

    execution.answer(a=1)
    assert execution.value == 1
    assert seen.events == ["unwound"]


@pytest.mark.case(140)
@pytest.mark.peer_case(150)
def test_clean_up_that_awaits_delays_the_exit_and_cannot_change_it(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await race(careful("x"), call("a"))

    execution = begin(main)
    assert execution.calls == ["x", "a"]

    execution.answer(a=1)
    assert execution.calls == ["clean x"]

    execution.answer(**{"clean x": KeyError("of the clean-up")})
    assert execution.value == 1


@pytest.mark.case(141)
def test_calls_still_open_at_the_exit_are_cancelled(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await race(call("a"), call("b"), cancel_losers=False)

    execution = begin(main)
    b = execution.issued["b"]

    execution.answer(a=1)

    assert execution.value == 1
    assert execution.exit.changes.delivered[b] is Resolution.CANCELLED


def test_a_failed_main_unwinds_its_members_too(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        await race(careful("x"), gather(careful("y")), call("a"), cancel_losers=False)
        raise KeyError("main")

    execution = begin(main)

    execution.answer(a=1)
    assert execution.calls == ["clean x", "clean y"]

    execution.answer(**{"clean y": 1}).answer(**{"clean x": 1})
    assert isinstance(execution.error, KeyError)


def test_a_tail_call_waits_for_the_clean_up(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        await race(careful("x"), call("a"), cancel_losers=False)
        raise Reset(call("again"))

    execution = begin(main)

    execution.answer(a=1).answer(**{"clean x": 1})

    assert execution.exit.tail_call == call("again")


@durable
async def stubborn(name: str) -> None:
    while True:
        try:
            await call(name)
            return
        except asyncio.CancelledError:
            await call(f"not {name}")


def test_each_coroutine_is_told_to_stop_once(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await race(
            gather(stubborn("x"), gather(call("y"))), stubborn("z"), call("a"), cancel_losers=False
        )

    execution = begin(main)

    execution.answer(a=1)
    assert execution.calls == ["not x", "not z"]

    execution.answer(**{"not x": None, "not z": None})
    assert execution.calls == ["x", "z"]

    execution.answer(x=None, z=None)
    assert execution.value == 1


def test_the_end_of_main_leaves_the_given_state_as_it_was(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await race(gather(stubborn("x")), call("a"), cancel_losers=False)

    execution = begin(main)
    state = execution.state
    before = {id: (c.cancelled, c.seq) for id, c in state.suspended.items()}

    execution.answer(a=1)

    assert {id: (c.cancelled, c.seq) for id, c in state.suspended.items()} == before


def test_clean_up_may_wait_for_several(begin: Begin) -> None:
    @durable
    async def thorough() -> None:
        try:
            await call("x")
        finally:
            await gather(call("c1"), careful("c2"))

    @durable
    async def main() -> Any:
        return await race(thorough(), call("a"))

    execution = begin(main)

    execution.answer(a=1)
    assert execution.calls == ["c1", "c2"]

    execution.answer(c2=None)
    assert execution.calls == ["clean c2"]

    execution.answer(c1=None, **{"clean c2": None})
    assert execution.value == 1


def test_main_hears_of_its_cancellation_at_its_await(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await gather(careful("x"), call("b"))
        finally:
            await call("last")

    execution = begin(main)

    execution.resume(cancel=True)
    assert execution.calls == ["clean x", "last"]

    execution.answer(**{"clean x": None}).answer(last=None)
    assert execution.status is Status.CANCELLED


def test_a_cancellation_comes_before_results_of_the_same_round(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            return await call("a")
        except asyncio.CancelledError:
            return "cancelled"

    execution = begin(main)

    execution.resume(execution.result("a", 1), cancel=True)

    assert execution.value == "cancelled"


def test_a_second_cancellation_changes_nothing(begin: Begin) -> None:
    execution = begin(stubborn, "x").resume(cancel=True)
    assert execution.calls == ["not x"]

    execution.resume(cancel=True)
    assert execution.calls == []

    execution.answer(**{"not x": None}).answer(x=None)
    assert execution.value is None
