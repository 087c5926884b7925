"""Poll errors: the calls of the last yield could not be accepted."""

from __future__ import annotations

from typing import Any

import pytest

from core.scheduling import Begin, Execution, durable
from rowtine import Status, call, gather
from rowtine.core.exchange import Poll
from rowtine.core.phases import Resolution


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def c_then_d() -> Any:
    c = await call("c")
    try:
        return c + await call("d")
    except RuntimeError as error:
        return c + len(str(error))


@durable
async def retries() -> Any:
    try:
        return await call("foo")
    except TimeoutError:
        return await call("foo")


def waiting_for_a_b_and_d(begin: Begin) -> Execution:
    @durable
    async def main() -> Any:
        return await gather(does("a"), call("b"), c_then_d())

    execution = begin(main).answer(c=30)
    assert execution.calls == ["d"]
    return execution


@pytest.mark.case(87)
def test_a_poll_error_reaches_the_callers_of_the_last_yield_alone(begin: Begin) -> None:
    execution = waiting_for_a_b_and_d(begin)

    execution.resume(error=RuntimeError("x" * 100))
    assert execution.calls == []
    assert execution.open == {execution.issued["a"], execution.issued["b"]}

    execution.answer(a=10, b=20)
    assert execution.value == [10, 20, 130]


@pytest.mark.case(88)
def test_a_poll_error_that_nobody_catches_is_the_exit(begin: Begin) -> None:
    execution = begin(retries).resume(error=TimeoutError("x"))
    assert execution.calls == ["foo"]

    execution.resume(error=TimeoutError("y"))

    assert isinstance(execution.error, TimeoutError)
    assert str(execution.error) == "y"
    assert execution.status is Status.TIMEOUT


def test_a_poll_error_resolves_the_call_for_good(begin: Begin) -> None:
    execution = begin(retries)

    execution.resume(error=TimeoutError("x"))

    assert isinstance(execution.output, Poll)
    assert execution.output.changes.delivered == {0: Resolution.POLL_ERROR}


@pytest.mark.case(90)
def test_a_result_after_a_poll_error_is_dropped(begin: Begin) -> None:
    execution = begin(retries).resume(error=TimeoutError("x"))

    execution.resume(execution.result(0, "late"))
    assert execution.suspended

    execution.resume(execution.result(1, 9))
    assert execution.value == 9


@pytest.mark.case(91)
def test_a_poll_error_and_results_may_come_together(begin: Begin) -> None:
    execution = waiting_for_a_b_and_d(begin)

    execution.resume(execution.result("a", 10), error=RuntimeError("x" * 100))
    assert execution.open == {execution.issued["b"]}

    execution.answer(b=20)
    assert execution.value == [10, 20, 130]


def test_the_result_of_a_call_that_failed_at_the_poll_is_dropped(begin: Begin) -> None:
    execution = begin(retries)

    execution.resume(execution.result("foo", 1), error=TimeoutError("x"))

    assert execution.calls == ["foo"]


@pytest.mark.case(92)
def test_a_poll_error_after_a_yield_without_calls_reaches_nobody(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(does("a"), call("b"))

    execution = begin(main).answer(a=1)

    execution.resume(error=RuntimeError())
    assert execution.open == {execution.issued["b"]}

    execution.answer(b=2)
    assert execution.value == [1, 2]


def test_every_caller_of_the_last_yield_gets_the_poll_error(begin: Begin) -> None:
    @durable
    async def tries(name: str) -> str:
        try:
            return await call(name)
        except RuntimeError as error:
            return f"{name} {error}"

    @durable
    async def main() -> Any:
        return await gather(tries("a"), tries("b"), tries("c"))

    execution = begin(main)

    execution.resume(error=RuntimeError("full"))

    assert execution.value == ["a full", "b full", "c full"]
