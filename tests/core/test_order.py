"""The order in which calls leave: of delivery, then depth first in order of declaration."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.scheduling import Begin, durable
from rowtine import any, call, gather, race


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def both(first: str, second: str) -> Any:
    return await gather(does(first), call(second))


@pytest.mark.case(135)
def test_nested_gathers_call_depth_first(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(
            gather(does("a"), race(does("b"), call("c"))),
            does("d"),
            both("e", "f"),
            any(gather(call("g"))),
            call("h"),
        )

    execution = begin(main)

    assert execution.calls == list("abcdefgh")


def test_ids_of_calls_follow_the_order_of_declaration(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(both("a", "b"), call("c"), both("d", "e"))

    execution = begin(main)

    assert [execution.issued[name] for name in "abcde"] == [0, 1, 2, 3, 4]


def test_native_awaits_do_not_change_the_order(begin: Begin) -> None:
    @durable
    async def after(turns: int, name: str) -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await call(name)

    @durable
    async def main() -> Any:
        return await gather(after(5, "a"), after(0, "b"), gather(after(2, "c"), call("d")))

    execution = begin(main)

    assert execution.calls == list("abcd")


@durable
async def first_then(first: str, second: str) -> Any:
    await call(first)
    return await gather(call(second), does(second + "'"))


def test_what_each_result_leads_to_leaves_in_order_of_delivery(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await gather(first_then("a", "a2"), first_then("b", "b2"), first_then("c", "c2"))

    execution = begin(main)

    execution.answer(c=1, a=2, b=3)

    assert execution.calls == ["c2", "c2'", "a2", "a2'", "b2", "b2'"]


@durable
async def returns(value: Any) -> Any:
    return value


def test_members_call_before_who_waited_for_them_goes_on(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        await race(returns(1), does("a"), gather(call("b")), cancel_losers=False)
        return await call("c")

    execution = begin(main)

    assert execution.calls == ["a", "b", "c"]


def test_clean_up_of_losers_leaves_before_what_the_winner_leads_to(begin: Begin) -> None:
    @durable
    async def careful(name: str) -> Any:
        try:
            return await call(name)
        finally:
            await asyncio.sleep(0)
            await call(name + "'")

    @durable
    async def hasty(name: str) -> Any:
        try:
            return await call(name)
        finally:
            await call(name + "'")

    @durable
    async def racing(a: str, b: str, c: str) -> Any:
        return [await race(careful(a), hasty(b), call(c)), await call(c + "'")]

    @durable
    async def main() -> Any:
        return await gather(racing("a", "b", "c"), racing("d", "e", "f"))

    execution = begin(main)

    execution.answer(f=1, c=2)

    assert execution.calls == ["d'", "e'", "f'", "a'", "b'", "c'"]
