"""Futures: one idea, four ways to fold it. What they do not wait for changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowtine import (
    AllFuture,
    AnyException,
    AnyFuture,
    CallFuture,
    CallResult,
    CoroutineResult,
    RaceFuture,
)
from rowtine.core.futures import JoinFuture, Remaining, join_future
from rowtine.core.phases import JOIN_KINDS, Kind

MEMBERS = range(1, 5)


def value(id: int) -> CoroutineResult:
    return CoroutineResult(id, value=f"v{id}")


def failure(id: int) -> CoroutineResult:
    return CoroutineResult(id, error=KeyError(id))


def all_of(*ids: int) -> AllFuture:
    return AllFuture(order=ids, waiting=set(ids))


def any_of(*ids: int) -> AnyFuture:
    return AnyFuture(order=ids, waiting=set(ids))


def race_of(*ids: int) -> RaceFuture:
    return RaceFuture(waiting=set(ids))


def seen(future: Any) -> tuple[bool, Any, str]:
    """All that can be seen of a future."""
    if not future.ready():
        return False, None, ""
    error = future.error()
    errors = error.exceptions if isinstance(error, AnyException) else error
    return True, None if error else future.value(), repr(errors)


# --------------------------------------------------------------------------------------- a call


def test_a_call_is_ready_with_its_result() -> None:
    future = CallFuture(call_id=7)
    assert not future.ready()

    future.add_result(CallResult(7, value="v"))

    assert (future.ready(), future.value(), future.error()) == (True, "v", None)


def test_a_call_is_ready_with_a_result_that_is_none() -> None:
    future = CallFuture(call_id=7)

    future.add_result(CallResult(7))

    assert (future.ready(), future.value(), future.error()) == (True, None, None)


def test_a_call_takes_its_own_result_alone_and_once() -> None:
    future = CallFuture(call_id=7)

    future.add_result(CallResult(8, value="a stranger's"))
    assert not future.ready()

    future.add_result(CallResult(7, value="first"))
    future.add_result(CallResult(7, error=KeyError()))
    future.add_error(ValueError())
    assert (future.value(), future.error()) == ("first", None)


def test_a_call_that_is_not_issued_takes_any_result() -> None:
    future = CallFuture()

    future.add_result(CallResult(5, error=KeyError("k")))

    assert isinstance(future.error(), KeyError)


# --------------------------------------------------------------------------------------- joins


@pytest.mark.case(80)
def test_all_ignores_duplicates_and_strangers() -> None:
    future = all_of(1, 2)

    for id in (1, 1, 99):
        future.add_result(value(id))
        assert not future.ready()
    future.add_result(value(2))

    assert future.value() == ["v1", "v2"]


def test_all_is_ready_at_the_first_error() -> None:
    future = all_of(1, 2, 3)
    future.add_result(value(3))

    future.add_result(failure(2))

    assert future.ready()
    assert repr(future.error()) == "KeyError(2)"


def test_any_is_ready_at_the_first_value() -> None:
    future = any_of(1, 2, 3)
    future.add_result(failure(3))
    assert not future.ready()

    future.add_result(value(2))

    assert (future.value(), future.error()) == ("v2", None)


def test_any_of_failures_has_their_errors_in_order() -> None:
    future = any_of(1, 2, 3)

    for id in (3, 1, 2):
        assert not future.ready()
        future.add_result(failure(id))

    error = future.error()
    assert isinstance(error, AnyException)
    assert repr(error.exceptions) == "[KeyError(1), KeyError(2), KeyError(3)]"


def test_any_of_one_failure_has_its_error() -> None:
    future = any_of(1)

    future.add_result(failure(1))

    assert repr(future.error()) == "KeyError(1)"


def test_race_is_ready_at_the_first_result() -> None:
    future = race_of(1, 2)

    future.add_result(failure(2))
    future.add_result(value(1))

    assert repr(future.error()) == "KeyError(2)"


@pytest.mark.parametrize(
    ("future", "empty"), [(AllFuture(), []), (AnyFuture(), None), (RaceFuture(), None)]
)
@pytest.mark.case(66, 71)
def test_a_join_of_nothing_is_ready(future: JoinFuture, empty: Any) -> None:
    assert future.ready()
    assert (future.value(), future.error()) == (empty, None)


@pytest.mark.parametrize("make", [all_of, any_of, race_of])
def test_an_error_of_the_join_itself_ends_it(make: Callable[..., JoinFuture]) -> None:
    future = make(1, 2)

    future.add_error(TimeoutError("late"))
    future.add_error(KeyError())
    future.add_result(value(1))

    assert repr(future.error()) == "TimeoutError('late')"


# ---------------------------------------------------------------------------------- properties

results = st.lists(
    st.builds(lambda make, id: make(id), st.sampled_from([value, failure]), st.integers(0, 6))
)


def folded(kind: Kind, given: Sequence[CoroutineResult]) -> JoinFuture:
    future = join_future(kind, MEMBERS, set(MEMBERS))
    for result in given:
        future.add_result(result)
    return future


@given(st.sampled_from(JOIN_KINDS), results)
def test_duplicates_strangers_and_what_comes_late_change_nothing(
    kind: Kind, given: list[CoroutineResult]
) -> None:
    first_of_each = {r.coroutine_id: r for r in reversed(given) if r.coroutine_id in MEMBERS}
    plain = [result for result in given if first_of_each.get(result.coroutine_id) is result]

    assert seen(folded(kind, given)) == seen(folded(kind, plain))


@given(st.sampled_from(JOIN_KINDS), results)
def test_delivery_may_be_repeated_at_any_point(kind: Kind, given: list[CoroutineResult]) -> None:
    future = join_future(kind, MEMBERS, set(MEMBERS))

    for i, result in enumerate(given):
        future.add_result(result)
        before = seen(future)
        for again in given[: i + 1]:
            future.add_result(again)
        assert seen(future) == before


@given(st.permutations(MEMBERS))
def test_the_order_of_values_is_that_of_declaration(order: list[int]) -> None:
    future = folded(Kind.ALL, [value(id) for id in order])

    assert future.value() == ["v1", "v2", "v3", "v4"]


@given(st.sampled_from(JOIN_KINDS), results, st.integers(0, 8))
def test_a_counter_stands_for_the_members_that_are_not_loaded(
    kind: Kind, given: list[CoroutineResult], cut: int
) -> None:
    """Rows deliver each result once, so what has ended before the load does not come again."""
    once = list({result.coroutine_id: result for result in given}.values())
    earlier, later = once[:cut], once[cut:]
    whole = folded(kind, earlier)
    pending = sum(id not in {result.coroutine_id for result in earlier} for id in MEMBERS)
    counted = join_future(kind, MEMBERS, Remaining(MEMBERS, pending))
    if whole.ready():
        return

    for result in later:
        whole.add_result(result)
        counted.add_result(result)

    assert counted.ready() == whole.ready()
    assert len(counted.waiting) == len(whole.waiting)


def test_what_remains_is_copied_with_the_future() -> None:
    remaining = Remaining(MEMBERS, 2)

    mine = copy(remaining)
    mine.discard(1)
    mine.discard(1)
    mine.discard(99)

    assert (len(mine), 1 in mine) == (1, False)
    assert (len(remaining), 1 in remaining) == (2, True)


def test_what_remains_cannot_be_listed() -> None:
    with pytest.raises(TypeError, match="only the number"):
        list(Remaining(MEMBERS, 2))
