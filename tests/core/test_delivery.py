"""Delivery of results: whatever arrives, in whatever order, however often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.scheduling import COLD, WARM, Begin, Mode, durable
from rowtine import CallResult, call, gather
from rowtine.core.exchange import Input, Poll


@durable
async def foo() -> Any:
    return await call("foo")


@durable
async def twice(name: str) -> Any:
    await call(name)
    return await call(name + "2")


@durable
async def three() -> Any:
    return await gather(call("a"), call("b"), call("c"))


@pytest.mark.case(32)
def test_of_two_results_for_one_call_the_first_counts(begin: Begin) -> None:
    execution = begin(foo)

    execution.resume(execution.result("foo", 1), execution.result("foo", 2))

    assert execution.value == 1


@pytest.mark.case(34)
def test_a_duplicate_is_dropped_while_its_owner_waits_for_a_gather(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        await call("foo")
        return await gather(call("x"), call("y"))

    execution = begin(main).answer(foo=1)

    execution.answer(foo=2)
    assert execution.calls == []

    execution.answer(x=3, y=4)
    assert execution.value == [3, 4]


def test_a_duplicate_is_dropped_while_its_owner_waits_for_the_next_call(begin: Begin) -> None:
    execution = begin(twice, "foo").answer(foo=1)

    execution.answer(foo=2)
    assert execution.calls == []

    execution.answer(foo2=3)
    assert execution.value == 3


@pytest.mark.case(36)
def test_a_result_for_a_call_that_was_never_made_is_dropped(begin: Begin) -> None:
    execution = begin(foo)

    execution.resume(execution.result(77, 5))
    assert execution.suspended

    execution.answer(foo=1)
    assert execution.value == 1


@pytest.mark.case(38)
def test_results_out_of_order_come_back_in_order_of_declaration(begin: Begin) -> None:
    execution = begin(three)

    execution.answer(c="vc", a="va", b="vb")

    assert execution.value == ["va", "vb", "vc"]


@pytest.mark.case(39)
def test_waking_up_with_no_results_changes_nothing(begin: Begin) -> None:
    execution = begin(foo)

    for _ in range(3):
        execution.resume()

        assert execution.calls == []
        assert isinstance(execution.output, Poll)
        assert (execution.output.min_results, execution.output.max_results) == (1, 1)

    execution.answer(foo=1)
    assert execution.value == 1


@pytest.mark.parametrize("mode", [WARM, COLD], ids=lambda mode: mode.name)
@pytest.mark.case(40)
def test_a_round_run_twice_comes_to_the_same_output(mode: Mode) -> None:
    @durable
    async def main() -> Any:
        return await gather(twice("a"), twice("b"), call("c"))

    execution = Begin(mode)(main)
    state = execution.state
    input = Input.resume(state, [execution.result("b", 1), execution.result("c", 2)])

    first, second = (asyncio.run(execution.scheduler.run(input)) for _ in range(2))

    assert isinstance(first, Poll)
    assert isinstance(second, Poll)
    assert [request.call_id for request in first.calls] == [3]
    assert first.calls == second.calls
    assert (first.max_results, first.changes.delivered) == (
        second.max_results,
        second.changes.delivered,
    )
    for output in (first, second):
        rest = [CallResult(0, 3), CallResult(3, 4)]
        third = asyncio.run(execution.scheduler.run(Input.resume(output.state, rest)))
        assert isinstance(third, Poll)
        last = [CallResult(third.calls[0].call_id, 5)]
        end = asyncio.run(execution.scheduler.run(Input.resume(third.state, last)))
        assert end.result.value == [5, 4, 2]


def test_a_round_leaves_the_state_it_was_given_as_it_was() -> None:
    execution = Begin(COLD)(three)
    state = execution.state
    before = repr(state)

    asyncio.run(
        execution.scheduler.run(Input.resume(state, [CallResult(0, 1), CallResult(1, KeyError())]))
    )

    assert repr(state) == before


@pytest.mark.case(41)
def test_new_calls_leave_in_the_order_of_the_results(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(twice("a"), twice("b"))

    execution = begin(main)

    execution.answer(b=1, a=2)

    assert execution.calls == ["b2", "a2"]


@pytest.mark.case(42)
def test_more_results_than_asked_for_are_all_taken(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(call("a"), call("b"), call("c"), call("d"))

    execution = begin.using(poll_max_results=2)(main)
    assert isinstance(execution.output, Poll)
    assert execution.output.max_results == 2

    execution.answer(a=1, b=2, c=3, d=4)
    assert execution.value == [1, 2, 3, 4]
