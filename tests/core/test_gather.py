"""gather, also called all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.scheduling import Begin, durable, recorder
from rowtine import RemoteError, all, call, gather
from rowtine.core.exchange import Poll


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def returns(value: Any) -> Any:
    return value


@pytest.mark.case(43)
def test_members_of_a_gather_call_in_order(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(does("a"), does("b"), does("c"))

    execution = begin(main)

    assert execution.calls == ["a", "b", "c"]
    assert isinstance(execution.output, Poll)
    assert (execution.output.min_results, execution.output.max_results) == (1, 3)


@pytest.mark.case(46)
def test_members_that_finish_at_once_need_no_poll(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(returns(1), returns(2))

    assert begin(main).value == [1, 2]


@pytest.mark.peer_case(61)
def test_a_gather_of_nothing_is_an_empty_list_at_once(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [await gather(), await all(gather(), returns(1))]

    assert begin(main).value == [[], [[], 1]]


@durable
async def fails_then_gathers(cancel_losers: bool) -> Any:
    try:
        await gather(does("a"), does("b"), cancel_losers=cancel_losers)
    except KeyError:
        return await gather(does("c"), does("d"))


@pytest.mark.parametrize("cancel_losers", [True, False])
@pytest.mark.case(49)
def test_a_late_siblings_result_is_dropped_while_a_second_gather_waits(
    begin: Begin, cancel_losers: bool
) -> None:
    execution = begin(fails_then_gathers, cancel_losers).answer(b=KeyError("b"))
    assert execution.calls == ["c", "d"]

    execution.answer(a="late")
    assert execution.suspended

    execution.answer(c="vc", d="vd")
    assert execution.value == ["vc", "vd"]


def test_a_second_gathers_members_are_its_own(begin: Begin) -> None:
    execution = begin(fails_then_gathers, False).answer(b=KeyError("b"))

    execution.answer(c="vc")
    assert execution.suspended

    execution.answer(d=ValueError("d"))
    assert isinstance(execution.error, ValueError)


@durable
async def chain(first: str, second: str) -> Any:
    await call(first)
    return await call(second)


@durable
async def goes_on(cancel_losers: bool) -> Any:
    try:
        await gather(chain("a", "a2"), does("b"), cancel_losers=cancel_losers)
    except KeyError:
        return await call("c")


@pytest.mark.case(52)
def test_a_failed_gather_leaves_its_members_running_when_told_to(begin: Begin) -> None:
    execution = begin(goes_on, False).answer(b=KeyError("b"))
    assert execution.calls == ["c"]

    execution.answer(a=1)
    assert execution.calls == ["a2"]

    execution.answer(a2=2)
    assert execution.suspended

    execution.answer(c=3)
    assert execution.value == 3


@pytest.mark.case(52)
def test_a_failed_gather_cancels_its_members(begin: Begin) -> None:
    execution = begin(goes_on, True).answer(b=KeyError("b"))
    assert execution.calls == ["c"]
    assert execution.open == {execution.issued["c"]}

    execution.answer(a=1)
    assert execution.calls == []

    execution.answer(c=3)
    assert execution.value == 3


@pytest.mark.case(54)
def test_a_gather_may_be_a_member_of_a_gather(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(gather(does("a"), call("b")), does("c"))

    execution = begin(main)
    assert execution.calls == ["a", "b", "c"]

    execution.answer(c="vc", a="va").answer(b="vb")
    assert execution.value == [["va", "vb"], "vc"]


def test_an_error_in_a_nested_gather_reaches_the_outer_one(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            return await gather(gather(call("a"), call("b")), does("c"))
        except KeyError as error:
            return f"caught {error}"

    execution = begin(main)

    execution.answer(b=KeyError("b"))

    assert execution.value == "caught 'b'"


@pytest.mark.case(55)
def test_bare_calls_may_be_members(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(call(call("a")), call("b"))

    execution = begin(main)
    assert execution.calls == ["a", "b"]

    execution.answer(a="va").answer(b="vb")
    assert execution.value == ["va", "vb"]


@pytest.mark.case(57)
def test_the_same_template_twice_is_two_members(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        child = does("a")
        return await gather(child, child)

    execution = begin(main)
    assert execution.calls == ["a", "a"]

    execution.resume(execution.result(1, 6), execution.result(0, 5))
    assert execution.value == [5, 6]


@durable
async def thousand() -> int:
    return sum(await gather(*[does(f"f{i}") for i in range(1000)]))


@pytest.mark.case(59)
def test_a_gather_may_have_a_thousand_members(begin: Begin) -> None:
    execution = begin(thousand)
    assert isinstance(execution.output, Poll)
    assert len(execution.output.calls) == 1000
    assert execution.output.max_results == 10

    for batch in range(9):
        execution.answer(**{f"f{i}": i for i in range(batch * 100, batch * 100 + 100)})
        assert execution.calls == []
    execution.answer(**{f"f{i}": i for i in range(900, 1000)})

    assert execution.value == sum(range(1000))


def _helper(value: Any) -> None:
    raise KeyError(value)


@durable
async def child_of_the_traceback() -> None:
    _helper(await call("a"))


@pytest.mark.case(60)
def test_an_error_through_a_gather_keeps_its_traceback(begin_json: Begin) -> None:
    @durable
    async def main_of_the_traceback() -> None:
        await gather(child_of_the_traceback(), does("b"))

    execution = begin_json(main_of_the_traceback)

    execution.answer(a=1)

    stored = execution.exit.error
    assert isinstance(stored, RemoteError)
    assert stored.traceback is not None
    for name in ("main_of_the_traceback", "child_of_the_traceback", "_helper"):
        assert f"in {name}" in stored.traceback


async def plain() -> None: ...


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (plain, "plain is a plain coroutine: mark it with @app.coroutine"),
        (lambda: 42, "42 is not awaitable durably"),
        (lambda: asyncio.sleep, "is not awaitable durably"),
    ],
    ids=["a plain coroutine", "a number", "a function"],
)
def test_a_member_of_another_kind_is_refused_at_the_await(
    begin: Begin, member: Any, said: str
) -> None:
    class Wrong:
        make = staticmethod(member)

    @durable
    async def main() -> Any:
        try:
            await gather(call("a"), Wrong.make())
        except TypeError as error:
            return [str(error), await call("b")]

    execution = begin(main)
    assert execution.calls == ["b"]

    execution.answer(b=1)
    assert said in execution.value[0]


def test_a_cancelled_member_cleans_up_before_its_siblings_error_is_final(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def careful() -> None:
        try:
            await call("a")
        finally:
            seen.events.append("cleaned")

    @durable
    async def main() -> None:
        await gather(careful(), call("b"))

    execution = begin(main)

    execution.answer(b=KeyError("b"))

    assert seen.events == ["cleaned"]
    assert isinstance(execution.error, KeyError)
