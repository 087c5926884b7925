"""any: the first that succeeds."""

from __future__ import annotations

from typing import Any

import pytest

from core.scheduling import Begin, durable
from rowtine import AnyException, any, call


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def any_of(names: list[str]) -> Any:
    return await any(*[does(name) for name in names])


@durable
async def any_call_of(names: list[str]) -> Any:
    return await any(*[call(name) for name in names])


either = pytest.mark.parametrize("any_of", [any_of, any_call_of], ids=["coroutines", "calls"])


@either
@pytest.mark.case(61)
def test_the_first_success_wins_at_once(begin: Begin, any_of: Any) -> None:
    execution = begin(any_of, ["a", "b", "c", "d"])

    execution.answer(b=23)

    assert execution.value == 23


@either
@pytest.mark.case(62)
def test_failures_before_a_success_are_forgotten(begin: Begin, any_of: Any) -> None:
    execution = begin(any_of, ["a", "b", "c"])

    execution.answer(a=KeyError("a"))
    assert execution.calls == []
    execution.answer(b=KeyError("b"))
    assert execution.calls == []

    execution.answer(c=5)
    assert execution.value == 5


@either
@pytest.mark.case(64)
def test_when_all_fail_their_errors_come_in_order_of_declaration(begin: Begin, any_of: Any) -> None:
    execution = begin(any_of, ["a", "b", "c", "d"])

    for name in "dcba":
        execution.answer(**{name: KeyError(name)})

    error = execution.error
    assert isinstance(error, AnyException)
    assert str(error) == "4 coroutine(s) failed with an exception"
    assert [type(each) for each in error.exceptions] == [KeyError] * 4
    assert [str(each) for each in error.exceptions] == ["'a'", "'b'", "'c'", "'d'"]


@either
@pytest.mark.case(65)
def test_when_the_only_one_fails_its_error_is_raised(begin: Begin, any_of: Any) -> None:
    execution = begin(any_of, ["a"])

    execution.answer(a=KeyError("k"))

    assert isinstance(execution.error, KeyError)


def test_the_errors_can_be_caught_together(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await any(does("a"), any(call("b"), does("c")))
        except AnyException as error:
            inner = error.exceptions[1]
            assert isinstance(inner, AnyException)
            return [str(error.exceptions[0]), *map(str, inner.exceptions), await call("d")]

    execution = begin(main)

    execution.answer(c=KeyError("c"), b=KeyError("b")).answer(a=KeyError("a")).answer(d="d")

    assert execution.value == ["'a'", "'b'", "'c'", "d"]


@pytest.mark.case(66)
def test_any_of_nothing_is_none_at_once(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [await any(), await any(any())]

    assert begin(main).value == [None, None]


@pytest.mark.parametrize("cancel_losers", [True, False])
@pytest.mark.case(67)
def test_a_losers_result_is_dropped_while_main_waits_for_a_call(
    begin: Begin, cancel_losers: bool
) -> None:
    @durable
    async def main(cancel_losers: bool) -> Any:
        return [await any(call("a"), does("b"), cancel_losers=cancel_losers), await call("c")]

    execution = begin(main, cancel_losers).answer(a=1)
    assert execution.calls == ["c"]

    execution.answer(b=2)
    assert execution.suspended

    execution.answer(c=3)
    assert execution.value == [1, 3]
