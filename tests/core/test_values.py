"""Values: what is returned comes back equal, and of the same type."""

from __future__ import annotations

import asyncio
import enum
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from core.scheduling import Begin, durable
from rowtine import CallResult, DecodeError, RemoteError, Status, any, call, gather
from rowtine.codec import JsonCodec
from rowtine.core.exchange import Exit, Input
from rowtine.core.scheduler import OneShotScheduler


@dataclass
class DC:
    x: int


class Colour(enum.Enum):
    RED = 1


VALUES = {
    "142 None": None,
    "142 True": True,
    "142 int": 2**62,
    "142 float": 1.5,
    "142 text": "x",
    "142 bytes": b"x",
    "144 above int64": 2**63,
    "144 below int64": -(2**63) - 1,
    "145 tuple, set, dataclass": (1, {2}, DC(3)),
    "146 list of ints": [1, 2, 3],
    "147 large int in a dict": {"id": 2**53 + 1},
    "149 int keys": {1: "a"},
    "150 bytes that are a pickle": pickle.dumps({"a": 1}),
    "152 before 1970": datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC),
    "153 naive datetime": datetime.fromisoformat("2024-01-01"),
    "empty": ["", [], {}, (), set(), b""],
    "NUL and lone surrogate": "\0\ud800",
    "minus zero": -0.0,
    "infinity": float("-inf"),
    "others": [timedelta(1, 2, 3), Decimal("1.10"), UUID(int=7), Colour.RED, frozenset({1})],
}


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types all the way down, and in the same order."""
    return repr(a) == repr(b) and a == b


@pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))
@pytest.mark.case(142, 144, 145, 146, 147, 149, 150, 152, 153)
@pytest.mark.peer_case(3)
def test_a_value_comes_back_as_it_was(begin: Begin, value: Any) -> None:
    codec = begin.mode.codec()
    if begin.mode.json:
        codec.register(DC)
        codec.register(Colour)

    @durable
    async def main(given: Any) -> Any:
        return [given, await call("foo"), *await gather(call("bar"))]

    execution = begin.using(codec=codec)(main, value)

    execution.answer(foo=value).answer(bar=value)

    assert same(execution.value, [value, value, value])


class Loud(JsonCodec):
    """Stores texts in capitals."""

    def encode(self, value: Any, what: str = "value") -> Any:
        return super().encode(value.upper() if isinstance(value, str) else value, what)


@pytest.mark.peer_case(4)
def test_a_body_sees_what_was_stored_and_not_what_was_given(begin_json: Begin) -> None:
    @durable
    async def returns(text: str) -> str:
        return text + "'"

    @durable
    async def main() -> Any:
        return [await call("foo"), *await gather(returns("a"), call("bar"))]

    execution = begin_json.using(codec=Loud())(main)

    execution.answer(foo="foo").answer(bar="bar")

    assert execution.value == ["FOO", "A'", "BAR"]


@durable
async def catches() -> Any:
    try:
        await call("foo")
    except DecodeError as error:
        return [str(error), await call("bar")]


@durable
async def catches_in_a_gather() -> Any:
    try:
        await gather(call("foo"), call("x"), cancel_losers=False)
    except DecodeError as error:
        return [str(error), await call("bar")]


@durable
async def catches_in_a_nested_gather() -> Any:
    try:
        await gather(gather(call("foo")), call("x"))
    except DecodeError as error:
        return [str(error), await call("bar")]


@durable
async def catches_in_an_any() -> Any:
    try:
        await any(gather(call("foo")))
    except DecodeError as error:
        return [str(error), await call("bar")]


@pytest.mark.parametrize(
    "body", [catches, catches_in_a_gather, catches_in_a_nested_gather, catches_in_an_any]
)
@pytest.mark.case(157)
def test_a_value_that_cannot_be_read_is_an_error_at_the_await(begin_json: Begin, body: Any) -> None:
    execution = begin_json(body)
    unreadable = CallResult(0, value='{"$dataclass": "acme.Unknown"}')

    execution.resume(unreadable)
    if "x" in execution.issued and not execution.calls:
        execution.answer(x=1)
    assert execution.calls == ["bar"]

    assert "acme.Unknown" in execution.answer(bar=1).value[0]


def test_an_error_that_carries_what_cannot_be_read_stays_catchable(begin_json: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await call("foo")
        except RemoteError as error:
            return error.message

    execution = begin_json(main)

    execution.resume(CallResult(0, error=RemoteError("acme.Unknown", "said so", None, "not json")))

    assert execution.value == "said so"


def test_input_that_cannot_be_read_fails_the_execution(begin_json: Begin) -> None:
    scheduler = OneShotScheduler(catches, codec=begin_json.mode.codec())

    output = asyncio.run(scheduler.run(Input(arguments='{"args": [{"$enum": ["acme.X", "Y"]}]}')))

    assert isinstance(output, Exit)
    assert output.status is Status.INVALID_RESPONSE
    assert "acme.X" in str(output.error)
