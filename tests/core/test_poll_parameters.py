"""What a poll asks for."""

from __future__ import annotations

from typing import Any

import pytest

from core.scheduling import Begin, durable
from rowtine import call, gather, race
from rowtine.core.exchange import Poll


@durable
async def three() -> Any:
    return await gather(call("a"), call("b"), call("c"))


@pytest.mark.parametrize(
    ("asked", "clamped"), [((1, 10), (1, 3)), ((1, 2), (1, 2)), ((10, 10), (3, 3))]
)
@pytest.mark.case(93)
def test_min_and_max_results_are_at_most_what_is_outstanding(
    begin: Begin, asked: tuple[int, int], clamped: tuple[int, int]
) -> None:
    execution = begin.using(poll_min_results=asked[0], poll_max_results=asked[1])(three)

    assert isinstance(execution.output, Poll)
    assert (execution.output.min_results, execution.output.max_results) == clamped


def test_what_is_outstanding_shrinks_with_each_result(begin: Begin) -> None:
    execution = begin.using(poll_min_results=10)(three)

    execution.answer(b=1)

    assert isinstance(execution.output, Poll)
    assert (execution.output.min_results, execution.output.max_results) == (2, 2)


@pytest.mark.parametrize("seconds", [None, 60])
@pytest.mark.case(94)
def test_max_wait_is_handed_on(begin: Begin, seconds: float | None) -> None:
    execution = begin.using(poll_max_wait_seconds=seconds)(three)

    assert isinstance(execution.output, Poll)
    assert execution.output.max_wait_seconds == seconds


@durable
async def race_then_call(cancel_losers: bool) -> Any:
    await race(call("a"), call("b"), call("c"), call("d"), cancel_losers=cancel_losers)
    return await call("e")


@pytest.mark.parametrize(("cancel_losers", "outstanding"), [(False, 4), (True, 1)])
@pytest.mark.case(96)
def test_losers_that_go_on_count_as_outstanding(
    begin: Begin, cancel_losers: bool, outstanding: int
) -> None:
    execution = begin(race_then_call, cancel_losers)

    execution.answer(a=1)

    assert isinstance(execution.output, Poll)
    assert execution.output.max_results == outstanding
