"""A round works on copies: the state that it was given stays as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from msgspec import structs

from core.scheduling import COLD, WARM, Begin, Mode, durable
from rowtine import call, gather
from rowtine.core.coroutine import Continuation
from rowtine.core.directives import Body
from rowtine.core.exchange import Input, Poll
from rowtine.core.futures import AllFuture, AnyFuture, CallFuture, RaceFuture, Remaining
from rowtine.core.journal import Wait
from rowtine.core.phases import Kind
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.state import Coroutine, State

ERROR = ValueError("error")
RESULT = CoroutineResult(1, "value")
COROUTINE = Coroutine(
    id=3,
    parent_id=2,
    coroutine=Continuation(Body("body", gather), "input"),
    result=CallFuture(CallResult(4), ERROR, 4),
    kind=Kind.ALL,
    seq=5,
    serves=6,
    wait=Wait(Kind.FUNCTION, "function"),
    members=range(7, 8),
    cancelled=True,
    shielded=True,
    limited=True,
)


@pytest.mark.parametrize(
    "given",
    [
        CallFuture(CallResult(4), ERROR, 4),
        AllFuture([1], {1}, {1: RESULT}, ERROR, 2, 3),
        AnyFuture([1], {1}, RESULT, {1: ERROR}, ERROR),
        RaceFuture({1}, RESULT, ERROR),
        COROUTINE,
        State("v", {3: COROUTINE}, [COROUTINE], 1, 2, [3], 4, {1: RESULT}, "s", RESULT, 5, {4: 3}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_copy_has_every_field_and_containers_of_its_own(given: Any) -> None:
    copied = given.copied()

    for field in fields(given):
        before, after = getattr(given, field.name), getattr(copied, field.name)
        assert after == before, field.name
        assert field.default != before, "the test says nothing about a default"
        if isinstance(before, list | dict | set) and field.name != "order":
            assert after is not before, field.name


def test_a_copy_of_a_future_that_is_loaded_has_its_own_counter() -> None:
    given = AllFuture(range(3), Remaining(range(3), 2))
    copied = given.copied()

    copied.add_result(CoroutineResult(1))

    assert (len(given.waiting), len(copied.waiting)) == (2, 1)


@durable
async def one(name: str) -> Any:
    return await call(name)


@durable
async def main() -> Any:
    return [await gather(call("a"), one("b"), call("c")), await call("d")]


@pytest.mark.parametrize("mode", [WARM, COLD], ids=lambda mode: mode.name)
def test_who_waits_for_a_call_is_found_where_nobody_kept_it(mode: Mode) -> None:
    execution = Begin(mode)(main)
    state = execution.state

    for results, callers in [([0, 2], {}), ([1], {1: 2})]:
        assert isinstance(execution.output, Poll)
        execution.output = structs.replace(execution.output, state=replace(state, callers=callers))
        execution.resume(*(execution.result(id, id) for id in results))
        state = execution.state

    assert execution.answer(d=3).value == [[0, 1, 2], 3]


def test_what_is_kept_of_who_waits_is_no_more_than_that(begin: Begin) -> None:
    execution = begin(main)

    execution.answer(b=1, a=0)
    assert execution.state.callers == {2: 3}

    execution.answer(c=2)
    assert execution.state.callers == {3: 0}


def test_a_result_that_somebody_else_has_waited_for_reaches_nobody() -> None:
    execution = Begin(WARM)(main).answer(a=0, b=1, c=2)
    state = replace(execution.state, callers={0: 0, **execution.state.callers})
    assert isinstance(execution.output, Poll)
    execution.output = structs.replace(execution.output, state=state)

    execution.resume(CallResult(0, "late"))

    assert execution.suspended
    assert execution.answer(d=3).value == [[0, 1, 2], 3]


def test_the_state_that_was_given_is_as_before() -> None:
    execution = Begin(COLD)(main)
    state = execution.state
    before = (dict(state.suspended), dict(state.callers), state.outstanding_calls)

    execution.answer(a=0, b=1)

    assert (state.suspended, state.callers, state.outstanding_calls) == before
    assert Input.resume(state).state is state
