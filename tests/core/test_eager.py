"""Tasks that have made their first step when they are given out."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from core.scheduling import durable
from rowtine import call, gather
from rowtine.core import eager
from rowtine.core.exchange import Exit, Input, Poll
from rowtine.core.payload import Arguments
from rowtine.core.results import CallResult
from rowtine.core.scheduler import OneShotScheduler

variable = contextvars.ContextVar("variable", default=0)


def on_a_loop(main: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """Run it. What the loop complained about."""
    complaints: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
        await main()

    asyncio.run(run())
    gc.collect()
    return complaints


async def returns(value: Any) -> Any:
    return value


async def fails() -> None:
    raise KeyError("first")


async def sleeps(turns: int = 1) -> str:
    for _ in range(turns):
        await asyncio.sleep(0)
    return "slept"


def me() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def over(task: asyncio.Task[Any]) -> bool:
    """Whether a task from `start` is over, also before the event loop has heard of it."""
    begun: object = task.get_coro()
    return (isinstance(begun, eager.Begun) and begun.over) or task.done()


def outcome(task: asyncio.Task[Any]) -> Any:
    """What a task that is over came to, likewise: its value, or its error raised."""
    begun: Any = task.get_coro()
    if task.done() or not over(task):
        return task.result()
    if begun.error is not None:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is known
        raise begun.error
    return begun.value


# ---------------------------------------------------------------------------------- the first step


def test_what_awaits_nothing_is_over_at_once() -> None:
    async def main() -> None:
        task = eager.start(returns(1))

        assert over(task)
        assert outcome(task) == 1
        assert await task == 1
        assert outcome(task) == 1

    assert on_a_loop(main) == []


def test_an_error_of_the_first_step_is_the_task_s() -> None:
    async def main() -> None:
        task = eager.start(fails())

        assert over(task)
        with pytest.raises(KeyError, match="first"):
            outcome(task)
        with pytest.raises(KeyError, match="first"):
            await task

    assert on_a_loop(main) == []


def test_an_error_that_was_taken_is_not_reported_again() -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            outcome(eager.start(fails()))
        await sleeps(3)

    assert on_a_loop(main) == []


def test_an_error_that_nobody_asks_for_is_reported() -> None:
    async def main() -> None:
        eager.start(fails())
        await sleeps(3)

    assert on_a_loop(main) == ["Task exception was never retrieved"]


def test_what_awaits_natively_goes_on_with_the_loop() -> None:
    async def main() -> None:
        task = eager.start(sleeps(3))

        assert not over(task)
        with pytest.raises(asyncio.InvalidStateError):
            outcome(task)
        assert await task == "slept"
        assert over(task)
        assert outcome(task) == "slept"

    assert on_a_loop(main) == []


def test_two_may_await_one_future_in_their_first_step() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def waits() -> Any:
            return await future

        tasks = [eager.start(waits()), asyncio.create_task(waits()), eager.start(waits())]
        await sleeps()
        future.set_result(1)

        assert await asyncio.gather(*tasks) == [1, 1, 1]

    assert on_a_loop(main) == []


def test_a_future_may_be_done_before_the_loop_hears_of_it() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def waits() -> Any:
            return await future

        task = eager.start(waits())
        future.set_result(1)

        assert await task == 1

    assert on_a_loop(main) == []


def test_the_name_is_the_task_s() -> None:
    async def main() -> None:
        task = eager.start(sleeps(), name="mine")

        assert task.get_name() == "mine"
        assert "sleeps" in repr(task)
        await task

    assert on_a_loop(main) == []


# -------------------------------------------------------------------------------- the current task


def test_the_current_task_is_the_one_that_is_given_out() -> None:
    seen: list[Any] = []

    async def looks() -> None:
        seen.append(me())
        await asyncio.sleep(0)
        seen.append(me())

    async def main() -> None:
        outer = me()
        task = eager.start(looks())

        assert me() is outer
        await task
        assert seen == [task, task]

    assert on_a_loop(main) == []


def test_eager_starts_may_be_nested() -> None:
    async def nested(depth: int) -> int:
        task = me()
        inner = 0 if depth == 0 else outcome(eager.start(nested(depth - 1)))
        assert me() is task
        return inner + 1

    async def main() -> None:
        assert outcome(eager.start(nested(5))) == 6

    assert on_a_loop(main) == []


@pytest.mark.parametrize("error", [KeyError, SystemExit, KeyboardInterrupt])
def test_the_current_task_is_itself_again_after_an_error(error: type[BaseException]) -> None:
    async def raises() -> None:
        raise error

    async def main() -> None:
        outer = me()
        with pytest.raises(error):
            outcome(eager.start(raises()))
        assert me() is outer
        await sleeps()
        assert me() is outer

    on_a_loop(main)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_is_raised_once(error: type[BaseException]) -> None:
    async def raises() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(error):
            eager.start(raises())
        await sleeps(3)

    on_a_loop(main)


def test_it_works_in_a_callback_of_the_loop() -> None:
    tasks: list[asyncio.Task[Any]] = []

    def callback() -> None:
        tasks.append(eager.start(returns(1)))
        assert asyncio.current_task() is None
        tasks.append(eager.start(sleeps()))
        assert asyncio.current_task() is None

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await sleeps()
        assert [over(task) for task in tasks] == [True, False]
        assert await asyncio.gather(*tasks) == [1, "slept"]

    assert on_a_loop(main) == []


# ------------------------------------------------------------------------ what holds on to its task


def test_a_timeout_opened_in_the_first_step_ends_it_later() -> None:
    async def waits() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "timeout"
        return "never"

    async def main() -> None:
        assert await eager.start(waits()) == "timeout"

    assert on_a_loop(main) == []


def test_a_timeout_that_is_over_when_it_is_opened_ends_the_first_native_await() -> None:
    async def waits() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(10)
        except TimeoutError:
            return "timeout"
        return "never"

    async def main() -> None:
        assert await eager.start(waits()) == "timeout"

    assert on_a_loop(main) == []


def test_a_timeout_that_is_left_in_time_cancels_nothing() -> None:
    async def waits() -> str:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return await sleeps(2)

    async def main() -> None:
        assert await eager.start(waits()) == "slept"

    assert on_a_loop(main) == []


def test_a_task_group_opened_in_the_first_step_waits_for_its_tasks() -> None:
    async def groups() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sleeps(turns)) for turns in (1, 3)]
            await asyncio.sleep(0)
        return [task.result() for task in tasks]

    async def main() -> None:
        assert await eager.start(groups()) == ["slept", "slept"]

    assert on_a_loop(main) == []


def test_a_task_group_opened_in_the_first_step_is_ended_by_an_error() -> None:
    async def groups() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await eager.start(groups())
        assert isinstance(caught.value.exceptions[0], KeyError)

    assert on_a_loop(main) == []


# ------------------------------------------------------------------------------------- cancelling


def test_a_cancel_right_after_the_start_is_seen_by_the_body() -> None:
    seen: list[Any] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            seen.extend(error.args)
            await asyncio.sleep(0)
            return "cleaned up"
        return "never"

    async def main() -> None:
        task = eager.start(waits())
        task.cancel("stop")

        assert await task == "cleaned up"
        assert seen == ["stop"]

    assert on_a_loop(main) == []


def test_a_cancel_right_after_the_start_reaches_a_bare_yield() -> None:
    async def main() -> None:
        task = eager.start(sleeps())
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    assert on_a_loop(main) == []


def test_a_cancel_right_after_the_start_is_told_to_what_is_awaited() -> None:
    seen: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            seen.append("inner")

    async def main() -> None:
        awaited = asyncio.create_task(inner())
        await sleeps()

        async def outer() -> None:
            try:
                await awaited
            finally:
                seen.append("outer")

        task = eager.start(outer())
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert awaited.cancelled()
        assert seen == ["inner", "outer"]

    assert on_a_loop(main) == []


def test_a_cancel_after_the_end_comes_too_late() -> None:
    async def main() -> None:
        task = eager.start(returns(1))
        task.cancel()

        assert outcome(task) == 1
        assert await task == 1

    assert on_a_loop(main) == []


def test_one_that_cancels_itself_and_ends_is_cancelled() -> None:
    async def stops() -> int:
        me().cancel()
        return 1

    async def main() -> None:
        task = eager.start(stops())

        assert over(task)
        with pytest.raises(asyncio.CancelledError):
            outcome(task)
        await asyncio.wait([task])
        assert task.cancelled()

    assert on_a_loop(main) == []


def test_one_that_cancels_itself_hears_it_at_its_native_await() -> None:
    async def stops() -> str:
        me().cancel()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "heard"
        return "never"

    async def main() -> None:
        assert await eager.start(stops()) == "heard"

    assert on_a_loop(main) == []


# ---------------------------------------------------------------------------------------- contexts


def test_the_body_stays_in_the_context_that_is_given() -> None:
    context = contextvars.copy_context()

    async def sets() -> int:
        variable.set(1)
        await asyncio.sleep(0)
        variable.set(variable.get() + 1)
        return variable.get()

    async def main() -> None:
        assert await eager.start(sets(), context=context) == 2
        assert variable.get() == 0
        assert context[variable] == 2

    assert on_a_loop(main) == []


def test_without_a_context_the_body_has_a_copy() -> None:
    async def sets() -> int:
        seen = variable.get()
        variable.set(7)
        await asyncio.sleep(0)
        return seen + variable.get()

    async def main() -> None:
        variable.set(5)
        assert await eager.start(sets()) == 12
        assert variable.get() == 5

    assert on_a_loop(main) == []


# ------------------------------------------------------------------------------- when the loop ends


@pytest.mark.parametrize("body", [returns(1), sleeps(), sleeps(5)], ids=["over", "soon", "later"])
def test_a_loop_that_ends_before_it_has_heard_of_a_task_says_nothing(body: Any) -> None:
    async def main() -> None:
        eager.start(body)

    assert on_a_loop(main) == []


def test_a_loop_that_is_closed_without_a_word_has_lost_nothing_of_what_is_over() -> None:
    complaints: list[str] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context["message"]))

    async def main() -> None:
        eager.start(returns(1))

    loop.run_until_complete(main())
    loop.close()
    gc.collect()

    assert complaints == []


# --------------------------------------------------------------------------------- rounds use them


@durable
async def one(name: str) -> Any:
    return await call(name)


@durable
async def all_of(*names: str) -> Any:
    return await gather(*(one(name) for name in names))


def by_hand(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine comes to that never yields to the event loop."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def test_a_round_without_native_awaits_never_yields_to_the_loop() -> None:
    scheduler = OneShotScheduler(all_of)

    async def main() -> None:
        first = by_hand(scheduler.run(Input(arguments=Arguments(("a", "b")))))
        assert isinstance(first, Poll)
        assert [request.function for request in first.calls] == ["a", "b"]

        results = [CallResult(0, 1), CallResult(1, 2)]
        last = by_hand(scheduler.run(Input.resume(first.state, results)))
        assert isinstance(last, Exit)
        assert last.value == [1, 2]

    assert on_a_loop(main) == []


def test_a_round_of_a_body_that_fails_never_yields_to_the_loop() -> None:
    async def main() -> None:
        output = by_hand(OneShotScheduler(durable(fails)).run(Input.first()))

        assert isinstance(output.error, KeyError)

    assert on_a_loop(main) == []


@durable
async def nothing() -> None:
    pass


@durable
async def for_ever() -> None:
    while True:
        await gather(nothing())


def test_a_round_that_never_ends_can_be_stopped() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await OneShotScheduler(for_ever).run(Input.first())

    assert on_a_loop(main) == []


# ---------------------------------------------------------------------------------- the spare task


def steps_in_turn(*steps: Callable[[asyncio.Task[Any]], Any]) -> list[int]:
    """The ids of the tasks in whose names these steps are made, a pass of the loop after each."""
    ids: list[int] = []

    def noted(step: Callable[[asyncio.Task[Any]], Any], task: asyncio.Task[Any]) -> Any:
        ids.append(id(task))
        return step(task)

    async def main() -> None:
        for step in steps:
            eager.first(context(), partial(noted, step))
            await asyncio.sleep(0)

    assert on_a_loop(main) == []
    return ids


def context() -> contextvars.Context:
    return contextvars.copy_context()


def test_steps_that_end_at_once_are_made_in_the_name_of_one_task() -> None:
    first, *others = steps_in_turn(*[lambda _task: None] * 5)

    assert others == [first] * 4


def test_a_task_that_somebody_has_kept_is_not_used_again() -> None:
    kept: list[Any] = []

    first, second, third = steps_in_turn(kept.append, lambda _: None, lambda _: None)

    assert first != second
    assert second == third


def test_a_task_to_which_somebody_has_a_weak_reference_is_not_used_again() -> None:
    kept: dict[Any, Any] = weakref.WeakKeyDictionary()  # type: ignore[assignment]
    held: list[Any] = []  # so that an id is not used again

    def keeps(task: asyncio.Task[Any]) -> None:
        kept[task] = "state of a library"
        held.append(task)
        held.clear()

    ids = steps_in_turn(keeps, lambda task: held.append(task in kept))

    assert held == [False]
    assert len(ids) == 2


def test_a_task_that_was_told_to_stop_is_not_used_again() -> None:
    found: list[int] = []

    steps_in_turn(lambda task: task.cancel(), lambda task: found.append(task.cancelling()))

    assert found == [0]


def test_the_task_goes_on_with_the_step_that_awaits_natively() -> None:
    variable.set(0)
    seen: list[Any] = []

    async def body() -> str:
        variable.set(7)
        before = me()
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        seen.append((me() is before, variable.get()))
        return "done"

    def step(task: asyncio.Task[Any]) -> Any:
        begun = eager.Begun(body())
        begun.step(task)
        return begun

    async def main() -> None:
        assert eager.first(context(), lambda _: "short") == "short"
        await asyncio.sleep(0)  # the spare task waits by now
        task = eager.first(context(), step)
        assert isinstance(task, asyncio.Task)
        assert await task == "done"
        again = eager.first(context(), step)
        assert again is not task
        assert await again == "done"

    assert on_a_loop(main) == []
    assert seen == [(True, 7), (True, 7)]
    assert variable.get() == 0


@pytest.mark.parametrize("passes", [0, 1])
def test_a_step_that_is_told_to_stop_before_its_task_has_gone_on_hears_it(passes: int) -> None:
    heard: list[str] = []

    async def body() -> None:
        me().cancel("by itself")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            heard.append(str(error))
            raise

    def step(task: asyncio.Task[Any]) -> Any:
        begun = eager.Begun(body())
        begun.step(task)
        return begun

    async def main() -> None:
        eager.first(context(), lambda _: None)
        for _ in range(passes):
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await eager.first(context(), step)

    assert on_a_loop(main) == []
    assert len(heard) == 1


def test_a_spare_task_is_nothing_that_a_loop_complains_about() -> None:
    loop = asyncio.new_event_loop()
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))

    async def main() -> None:
        eager.first(context(), lambda _: None)

    loop.run_until_complete(main())
    loop.close()
    asyncio.run(main())
    gc.collect()

    assert complaints == []


def test_a_task_that_went_on_is_no_garbage_when_it_has_ended() -> None:
    async def body() -> None:
        await asyncio.sleep(0)

    def step(task: asyncio.Task[Any]) -> Any:
        begun = eager.Begun(body())
        begun.step(task)
        return begun

    async def main() -> None:
        gc.disable()
        try:
            task = eager.first(context(), step)
            assert isinstance(task, asyncio.Task)
            await task
            there = weakref.ref(task)
            del task
            await asyncio.sleep(0)  # what has woken us is still held by the loop
            assert there() is None
        finally:
            gc.enable()

    assert on_a_loop(main) == []
