"""Native awaits inside a body: the event loop's, which run again at every rebuild."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any

import pytest

from core.scheduling import COLD, WARM, Begin, Mode, durable, recorder
from rowtine import UsageError, call, gather, race
from rowtine.core.exchange import Input
from rowtine.core.scheduler import OneShotScheduler


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def returns(value: Any) -> Any:
    return value


async def _refused() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, KeyError("native"))
    await future


@pytest.mark.case(125)
def test_a_native_await_may_fail_and_be_caught(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await _refused()
        except KeyError:
            return [await call("foo"), "caught"]

    assert begin(main).answer(foo=1).value == [1, "caught"]


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def _waits_for() -> None:
    await asyncio.wait_for(_for_ever(), 0.001)


async def _with_timeout() -> None:
    async with asyncio.timeout(0.001):
        await _for_ever()


@pytest.mark.parametrize("waits", [_waits_for, _with_timeout])
@pytest.mark.case(126, 127)
def test_a_native_timeout_expires(begin: Begin, waits: Any) -> None:
    class Waits:
        out = staticmethod(waits)

    @durable
    async def main() -> Any:
        try:
            await Waits.out()
        except TimeoutError:
            return [await call("foo"), "timeout"]

    assert begin(main).answer(foo=1).value == [1, "timeout"]


@durable
async def fails() -> None:
    raise ValueError("early")


@pytest.mark.case(128)
def test_a_sibling_in_a_native_await_is_unwound_before_the_exit(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def sleeper() -> None:
        try:
            await _for_ever()
        except asyncio.CancelledError:
            seen.events.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            seen.events.append("finally")

    @durable
    async def main() -> None:
        await gather(sleeper(), fails())

    execution = begin(main)

    assert isinstance(execution.error, ValueError)
    assert seen.events == ["cancelled", "finally"]


@pytest.mark.parametrize("stops", [asyncio.CancelledError, BaseException])
def test_clean_up_after_an_interrupted_native_await_cannot_be_durable(
    begin: Begin, stops: type[BaseException]
) -> None:
    # A rebuild would await natively again, and go on past the point at which it was stopped.
    seen = recorder()

    class Stops:
        by = stops

    @durable
    async def sleeper() -> None:
        try:
            await _for_ever()
        except Stops.by:
            try:
                await call("clean")
            except UsageError as error:
                seen.events.append(str(error))
        await call("goes on")

    @durable
    async def main() -> Any:
        return [await race(sleeper(), returns(1)), await call("foo")]

    execution = begin(main)

    assert execution.calls == ["foo"]
    (said,) = seen.events
    assert "told to stop in a native await" in said


async def _in_asyncio_gather() -> None:
    await asyncio.gather(call("a"), call("b"))


async def _in_a_task() -> None:
    await asyncio.create_task(undecorated())


async def _in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(undecorated())


async def undecorated() -> Any:
    return await call("a")


@pytest.mark.parametrize("awaits", [_in_asyncio_gather, _in_a_task, _in_a_task_group])
@pytest.mark.case(130)
def test_a_durable_await_in_another_task_names_the_durable_form(begin: Begin, awaits: Any) -> None:
    class Awaits:
        so = staticmethod(awaits)

    @durable
    async def main() -> Any:
        try:
            await Awaits.so()
        except* UsageError as group:
            said = str(group.exceptions[0])
        return [said, await call("foo")]

    execution = begin(main)
    assert execution.calls == ["foo"]

    said, _ = execution.answer(foo=1).value
    assert "use rowtine.gather" in said


async def _in_a_timeout() -> None:
    async with asyncio.timeout(1):
        await undecorated()


async def _in_an_open_task_group() -> None:
    async with asyncio.TaskGroup():
        await undecorated()


async def _in_a_lock() -> None:
    async with asyncio.Lock():
        await returns(1)
        await gather(undecorated_member())


async def _in_a_semaphore() -> None:
    async with asyncio.BoundedSemaphore(2):
        await call("a")


@durable
async def undecorated_member() -> Any:
    return await call("a")


@pytest.mark.parametrize(
    ("awaits", "said"),
    [
        (_in_a_timeout, "asyncio.Timeout, which a rebuild could not restore: use rowtine.timeout"),
        (_in_an_open_task_group, "asyncio.TaskGroup, which a rebuild could not restore"),
        (_in_a_lock, "asyncio.Lock"),
        (_in_a_semaphore, "asyncio.Semaphore"),
    ],
)
@pytest.mark.peer_case(148)
def test_a_durable_await_inside_a_block_of_asyncio_is_refused(
    begin: Begin, awaits: Any, said: str
) -> None:
    class Awaits:
        so = staticmethod(awaits)

    @durable
    async def main() -> Any:
        try:
            await Awaits.so()
        except* UsageError as group:
            message = str(group.exceptions[0])
        return [message, await call("foo")]

    execution = begin(main)
    assert execution.calls == ["foo"]

    assert said in execution.answer(foo=1).value[0]


async def _in_a_block_of_the_caller() -> None:
    async with asyncio.Lock():
        await undecorated()


async def _in_a_block_of_its_own() -> None:
    async with asyncio.Lock():
        await call("a")


async def _held_by_hand() -> None:
    leave = asyncio.Lock().__aexit__
    await call("a")
    await leave(None, None, None)


@pytest.mark.parametrize(
    "awaits", [_in_a_block_of_the_caller, _in_a_block_of_its_own, _held_by_hand]
)
def test_an_await_that_was_refused_is_not_given_what_the_same_await_came_to_later(
    begin: Begin, awaits: Any
) -> None:
    class Awaits:
        so = staticmethod(awaits)

    @durable
    async def main() -> Any:
        said = []
        for _ in range(2):
            try:
                await Awaits.so()
            except UsageError as error:
                said.append(str(error)[:40])
            said.append(await call("a"))
        return [*said, await call("b")]

    execution = begin(main).answer(a=1).answer(a=2)
    refused = "a durable await inside an open asyncio.L"

    assert execution.answer(b=3).value == [refused, 1, refused, 2, 3]


@pytest.mark.peer_case(148)
def test_a_durable_await_after_a_block_of_asyncio_is_fine(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        lock = asyncio.Lock()
        async with lock, asyncio.timeout(1):
            await asyncio.sleep(0)
        return await call("foo")

    assert begin(main).answer(foo=1).value == 1


@pytest.mark.case(131)
def test_calls_of_siblings_leave_when_the_native_await_has_ended(begin: Begin) -> None:
    # Rounds are one-shot, so a native await holds the poll back
    seen = recorder()

    @durable
    async def slow() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        seen.events.append("slow")

    @durable
    async def main() -> Any:
        return await gather(slow(), call("a"))

    execution = begin(main)

    assert seen.events == ["slow"]
    assert execution.calls == ["a"]


@types.coroutine
def _yields_42() -> Generator[Any, Any, None]:
    yield 42


@pytest.mark.case(138)
def test_what_is_not_awaitable_is_named(begin: Begin) -> None:
    @durable
    async def main() -> None:
        await _yields_42()

    execution = begin(main)

    assert isinstance(execution.error, RuntimeError)
    assert "42" in str(execution.error)


def test_a_native_await_runs_again_at_a_rebuild() -> None:
    seen = recorder()

    @durable
    async def main() -> Any:
        await asyncio.sleep(0)
        seen.events.append("slept")
        return [await call("a"), await call("b")]

    warm, cold = (Begin(mode)(main).answer(a=1).answer(b=2) for mode in (WARM, COLD))

    assert (warm.value, cold.value) == ([1, 2], [1, 2])
    assert len(seen.events) == 1 + 3


@pytest.mark.parametrize("mode", [WARM, COLD], ids=lambda mode: mode.name)
def test_a_rebuild_that_is_cancelled_first_catches_up_with_its_journal(mode: Mode) -> None:
    @durable
    async def careful() -> Any:
        await asyncio.sleep(0)
        try:
            await call("a")
            await asyncio.sleep(0)
            await call("b")
        except asyncio.CancelledError:
            return await call("undo")

    @durable
    async def main() -> Any:
        return await race(careful(), call("x"), cancel_losers=True)

    execution = Begin(mode)(main).answer(a=1)

    execution.answer(b=1, x="x")
    assert execution.suspended is False

    assert execution.value == "x"


@pytest.mark.parametrize("mode", [WARM, COLD], ids=lambda mode: mode.name)
def test_a_rebuild_is_not_interrupted_in_a_native_await_that_it_repeats(mode: Mode) -> None:
    @durable
    async def careful() -> Any:
        for _ in range(10):
            await asyncio.sleep(0)
        await call("a")
        try:
            await call("b")
        except asyncio.CancelledError:
            return await call("undo")

    @durable
    async def main() -> Any:
        return await race(careful(), does("x"))

    execution = Begin(mode)(main)

    execution.answer(a=1, x="x")
    assert execution.calls == ["undo"]

    assert execution.answer(undo=None).value == "x"


@pytest.mark.parametrize("mode", [WARM, COLD], ids=lambda mode: mode.name)
def test_a_coroutine_is_told_to_stop_after_the_result_that_came_before(mode: Mode) -> None:
    @durable
    async def careful() -> Any:
        await asyncio.sleep(0)
        await call("a")
        try:
            await call("b")
        except asyncio.CancelledError:
            return await call("undo")

    @durable
    async def main() -> Any:
        return await race(careful(), call("x"))

    execution = Begin(mode)(main)

    execution.answer(a=1, x="x")
    assert execution.calls == ["undo"]

    assert execution.answer(undo=None).value == "x"


def test_cancelling_a_round_cancels_native_awaits_and_unwinds_nothing_else() -> None:
    seen = recorder()

    class Native:
        started = asyncio.Event()

    @durable
    async def native() -> None:
        await call("a")
        try:
            Native.started.set()
            await _for_ever()
        finally:
            seen.events.append("native")

    @durable
    async def suspended() -> None:
        try:
            await call("b")
        finally:
            seen.events.append("suspended")

    @durable
    async def main() -> Any:
        return await gather(native(), suspended(), suspended())

    execution = Begin(WARM)(main)

    async def cancelled() -> None:
        input = Input.resume(execution.state, [execution.result(0, 1)])
        round = asyncio.ensure_future(execution.scheduler.run(input))
        await Native.started.wait()
        round.cancel()
        await round

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())

    assert seen.events == ["native"]


def test_two_executions_run_on_one_loop_at_once() -> None:
    @durable
    async def main(name: str) -> Any:
        await asyncio.sleep(0)
        return await gather(does(name), call(name))

    async def both() -> list[Any]:
        schedulers = [OneShotScheduler(main), OneShotScheduler(main)]
        inputs = [Input.first("a"), Input.first("b")]
        return await asyncio.gather(
            *(scheduler.run(input) for scheduler, input in zip(schedulers, inputs, strict=True))
        )

    first, second = asyncio.run(both())

    assert [request.function for request in first.calls] == ["a", "a"]
    assert [request.function for request in second.calls] == ["b", "b"]
