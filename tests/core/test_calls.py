"""Calls: what a body awaits, one at a time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.scheduling import Begin, durable
from rowtine import Call, CallResult, RemoteError, Status, call, gather, sleep
from rowtine.core.exchange import Poll
from rowtine.core.phases import Kind


@durable
async def foo() -> Any:
    return await call("foo")


@durable
async def does(what: str) -> Any:
    return await call(what)


@pytest.mark.case(18)
def test_a_call_suspends_the_execution(begin: Begin) -> None:
    execution = begin(foo)

    assert execution.calls == ["foo"]
    assert execution.open == {0}
    assert isinstance(execution.output, Poll)
    assert (execution.output.min_results, execution.output.max_results) == (1, 1)


@pytest.mark.case(19)
def test_the_await_returns_the_calls_value(begin: Begin) -> None:
    execution = begin(foo)

    execution.answer(foo=7)

    assert execution.value == 7


@pytest.mark.case(20)
def test_a_calls_error_can_be_caught(begin: Begin) -> None:
    @durable
    async def main() -> str:
        try:
            return await call("foo")
        except KeyError as error:
            return f"caught {error}"

    execution = begin(main)

    execution.answer(foo=KeyError("k"))

    assert execution.value == "caught 'k'"


@pytest.mark.case(22)
def test_calls_one_after_the_other_leave_one_after_the_other(begin: Begin) -> None:
    @durable
    async def main() -> list[int]:
        return [await call("foo"), await call("bar")]

    execution = begin(main)
    assert execution.calls == ["foo"]

    execution.answer(foo=1)
    assert execution.calls == ["bar"]

    execution.answer(bar=2)
    assert execution.value == [1, 2]


@pytest.mark.case(23)
def test_a_durable_helper_is_no_call_of_its_own(begin: Begin) -> None:
    @durable
    async def main() -> str:
        return "main got " + await foo()

    execution = begin(main)
    assert execution.calls == ["foo"]

    execution.answer(foo="it")
    assert execution.value == "main got it"


@pytest.mark.case(24)
def test_a_call_may_come_to_none(begin: Begin) -> None:
    execution = begin(foo)

    execution.resume(CallResult(0))

    assert execution.value is None
    assert execution.status is Status.OK


@pytest.mark.case(26)
def test_an_error_known_only_by_name_keeps_its_type(begin_json: Begin) -> None:
    execution = begin_json(foo)

    execution.resume(CallResult(0, error=RemoteError("ValueError", "bad")))

    assert isinstance(execution.error, ValueError)
    assert str(execution.error) == "bad"


class TwoArguments(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


@pytest.mark.case(27)
@pytest.mark.peer_case(20)
def test_an_error_whose_class_takes_other_arguments_arrives(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await call("foo")
        except TwoArguments as error:
            return [str(error), error.code, await call("bar")]

    execution = begin(main)

    execution.answer(foo=TwoArguments(404, "gone")).answer(bar=1)

    assert execution.value == ["404: gone", 404, 1]


@pytest.mark.case(28)
def test_call_ids_are_unique_over_the_life_of_an_execution(begin: Begin) -> None:
    @durable
    async def main() -> None:
        for name in "abc":
            await call(name)
        await gather(call("d"), call("e"), does("f"))

    execution = begin(main).answer(a=1).answer(b=2).answer(c=3)

    ids = [execution.issued[name] for name in "abcdef"]
    assert ids == [0, 1, 2, 3, 4, 5]


@pytest.mark.case(29)
def test_a_call_awaited_twice_is_two_calls(begin: Begin) -> None:
    class Template:
        call: Call[Any] = call("foo")

    @durable
    async def child() -> Any:
        return await Template.call

    @durable
    async def main() -> Any:
        return await gather(child(), child())

    execution = begin(main)
    assert execution.calls == ["foo", "foo"]

    execution.resume(execution.result(0, 1), execution.result(1, 2))
    assert execution.value == [1, 2]


@pytest.mark.case(30)
def test_an_argument_that_cannot_be_stored_is_refused_at_the_await(begin_json: Begin) -> None:
    # Nothing is stored, so the rebuild for bar's result is refused there again
    class Lock:
        instance = threading.Lock()

    @durable
    async def main() -> Any:
        try:
            await call("foo", [1, Lock.instance])
        except TypeError as error:
            return [str(error), await call("bar")]

    execution = begin_json(main)
    assert execution.calls == ["bar"]

    execution.answer(bar=1)
    assert "argument 1" in execution.value[0]
    assert "[1]" in execution.value[0]


@pytest.mark.case(31)
def test_arguments_and_locals_survive_an_await(begin: Begin) -> None:
    @durable
    async def main(x: dict[str, tuple[int, int]]) -> Any:
        big, raw, when, some = 2**70, b"\0\xff", datetime(2024, 2, 29, 12, tzinfo=UTC), {1, 2}
        await call("foo")
        return [x, big, raw, when, some]

    execution = begin(main, {"k": (1, 2)})

    execution.answer(foo=None)

    assert execution.value == [
        {"k": (1, 2)},
        2**70,
        b"\0\xff",
        datetime(2024, 2, 29, 12, tzinfo=UTC),
        {1, 2},
    ]


def test_a_sleep_is_a_call_that_the_clock_answers(begin: Begin) -> None:
    @durable
    async def main() -> str:
        await sleep(minutes=2)
        return "awake"

    execution = begin(main)
    assert isinstance(execution.output, Poll)
    assert [request.kind for request in execution.output.calls] == [Kind.TIMER]
    assert execution.codec.decode_arguments(execution.output.calls[0].input).args == (120.0,)

    execution.resume(CallResult(0))
    assert execution.value == "awake"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e12])
def test_a_sleep_without_an_end_is_refused_at_the_await(begin: Begin, seconds: float) -> None:
    class Too:
        long = seconds

    @durable
    async def main() -> None:
        await sleep(Too.long)

    execution = begin(main)

    assert isinstance(execution.error, ValueError)


@pytest.mark.peer_case(135)
def test_a_request_says_where_its_coroutine_is_suspended(begin: Begin) -> None:
    @durable
    async def main() -> None:
        await foo()

    execution = begin(main)

    assert isinstance(execution.output, Poll)
    where = execution.output.calls[0].where
    assert where is not None
    line = Path(__file__).read_text().splitlines()[where.line - 1]
    assert (where.file, line.strip()) == (__file__, 'return await call("foo")')
    assert [frame.rpartition(" in ")[2] for frame in where.stack] == ["main", "foo"]
