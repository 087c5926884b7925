"""`rowtine.timeout`: a block that ends when its time is up."""

from __future__ import annotations

import asyncio
from typing import Any

from core.scheduling import Begin, durable, recorder
from rowtine import UsageError, as_completed, call, gather, spawn, timeout
from rowtine.core.phases import Resolution


def timers(execution: Any) -> list[int]:
    """The calls of the open timers."""
    return [id for id in sorted(execution.open) if execution.functions[id] == "timeout"]


def test_a_block_that_is_done_in_time_leaves_no_timer(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        async with timeout(60):
            value = await call("a")
        return [value, await call("b")]

    execution = begin(main)
    assert execution.calls == ["timeout", "a"]

    execution.answer(a=1)

    assert timers(execution) == []
    assert execution.answer(b=2).value == [1, 2]


def test_a_block_whose_time_is_up_raises_a_timeout_error(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            async with timeout(60) as limit:
                await call("a")
        except TimeoutError as error:
            return [str(error), limit.expired, await call("b")]

    execution = begin(main).answer(timeout=None)

    assert execution.calls == ["b"]
    call_id = execution.issued["a"]
    assert execution.output.changes.delivered[call_id] is Resolution.TIMEOUT
    assert execution.answer(b=2).value == ["not done within 60 s", True, 2]


def test_the_await_is_cancelled_and_its_clean_up_runs_in_the_block(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def main() -> Any:
        try:
            async with timeout(1):
                try:
                    await gather(call("a"), call("b"))
                except asyncio.CancelledError:
                    await call("clean-up")
                    raise
        except TimeoutError:
            return "too late"

    execution = begin(main).answer(timeout=None)

    assert execution.calls == ["clean-up"]
    assert execution.resume(execution.result("clean-up")).value == "too late"
    assert not seen.events


def test_of_two_limits_the_one_that_is_over_ends(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            async with timeout(60):
                try:
                    async with timeout(5):
                        await call("a")
                except TimeoutError as error:
                    return [str(error), await call("b")]
        except TimeoutError:
            return "outer"

    execution = begin(main)
    outer, inner = timers(execution)
    execution.resume(execution.result(inner))
    assert execution.calls == ["b"]
    assert timers(execution) == [outer]
    assert execution.answer(b=1).value == ["not done within 5 s", 1]


def test_the_outer_of_two_limits_ends_both_blocks(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            async with timeout(1), timeout(60):
                await call("a")
        except TimeoutError as error:
            return str(error)

    execution = begin(main)
    outer, _ = timers(execution)

    assert execution.resume(execution.result(outer)).value == "not done within 1 s"


def test_the_time_may_be_up_in_the_round_in_which_the_block_is_done(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            async with timeout(1):
                await call("a")
        except TimeoutError:
            return "too late"
        return "done"

    first = begin(main)
    assert first.answer(a=1, timeout=None).value == "done"
    second = begin(main)
    assert second.answer(timeout=None, a=1).value == "too late"


def test_the_time_may_be_up_while_the_block_goes_on_to_its_next_await(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            async with timeout(1):
                await call("a")
                await call("b")
        except TimeoutError:
            return await call("c")

    execution = begin(main).answer(a=1, timeout=None)

    assert execution.calls == ["c"]
    assert execution.answer(c=3).value == 3


def test_no_limit_is_no_timer(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        async with timeout(None):
            return await call("a")

    execution = begin(main)

    assert execution.calls == ["a"]
    assert execution.answer(a=1).value == 1


def test_a_limit_bounds_what_is_awaited_and_not_the_tasks_behind_it(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        task = spawn(call("a"))
        seen = []
        try:
            async with timeout(1):
                await task
        except TimeoutError:
            seen.append("patience")
        try:
            async with timeout(1):
                async for done in as_completed([call("b"), call("c")]):
                    seen.append(await done)
        except TimeoutError:
            seen.append("enough")
        return [*seen, await task]

    execution = begin(main).answer(timeout=None)
    assert execution.calls == ["timeout", "b", "c"]
    execution.answer(c=3)
    execution.answer(timeout=None)

    assert execution.answer(a=1).value == ["patience", 3, "enough", 1]


def test_a_body_that_swallows_the_cancellation_goes_on(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        async with timeout(1) as limit:
            try:
                await call("a")
            except asyncio.CancelledError:
                pass
            b = await call("b")
        return [b, limit.expired]

    assert begin(main).answer(timeout=None).answer(b=2).value == [2, True]


def test_a_cancellation_from_outside_is_no_timeout(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        async with timeout(60):
            await call("a")

    execution = begin(main).resume(cancel=True)

    assert execution.status == "CANCELLED"


def test_a_cancellation_from_outside_while_a_limit_cleans_up_is_no_timeout(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        async with timeout(60):
            try:
                await call("a")
            finally:
                await call("clean-up")

    execution = begin(main).answer(timeout=None)
    assert execution.calls == ["clean-up"]

    assert execution.resume(cancel=True).status == "CANCELLED"


def test_a_limit_is_entered_once(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        limit = timeout(1)
        async with limit:
            pass
        try:
            async with limit:
                pass
        except UsageError as error:
            return str(error)

    assert "entered once" in begin(main).value


def test_a_limit_around_a_loop_of_rounds_is_one_timer(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        async with timeout(60):
            for name in ("a", "b", "c"):
                await call(name)
        return "done"

    execution = begin(main)
    for name in ("a", "b", "c"):
        assert len(timers(execution)) == 1
        execution.answer(**{name: None})
    assert execution.value == "done"
