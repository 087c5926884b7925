"""What a body finds again after an await."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.scheduling import COLD, JSON, WARM, Begin, durable, recorder
from rowtine import RegistrationError, call, gather
from rowtine.core.exchange import Poll


@durable
async def does(name: str, *args: Any) -> Any:
    return await call(name, *args)


@pytest.mark.case(112)
def test_a_local_that_cannot_be_stored_survives(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        lock = threading.Lock()
        with lock:
            await call("foo")
            return lock.locked()

    assert begin(main).answer(foo=1).value is True


@pytest.mark.case(114)
def test_a_closure_over_a_local_survives(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        k = 10
        add = lambda x: x + k  # noqa: E731
        return add(await call("foo"))

    assert begin(main).answer(foo=1).value == 11


def test_a_body_that_closes_over_a_value_of_another_function_is_refused() -> None:
    def make(k: int) -> Any:
        @durable
        async def child() -> Any:
            return k

        return child

    with pytest.raises(RegistrationError, match="local variable 'k'"):
        make(1)()


@pytest.mark.case(115)
def test_a_comprehension_that_reads_a_local_survives(begin: Begin) -> None:
    @durable
    async def main(n: int) -> Any:
        m = 2
        return await gather(*[does(name, n, m) for name in "ab"])

    execution = begin(main, 1)
    assert execution.calls == ["a", "b"]
    assert isinstance(execution.output, Poll)
    inputs = [execution.codec.decode_arguments(c.input).args for c in execution.output.calls]
    assert inputs == [(1, 2), (1, 2)]

    assert execution.answer(a=3, b=4).value == [3, 4]


async def undecorated(name: str) -> Any:
    return [await call(name), await call(name + "2")]


@pytest.mark.case(116)
def test_a_plain_async_helper_may_be_awaited(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await undecorated("a")

    assert begin(main).answer(a=1).answer(a2=2).value == [1, 2]


@pytest.mark.case(117)
def test_a_bare_raise_after_an_await_raises_the_error_being_handled(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            raise KeyError("orig")
        except KeyError:
            await call("foo")
            raise

    error = begin(main).answer(foo=1).error

    assert isinstance(error, KeyError)
    assert str(error) == "'orig'"


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.case(118)
def test_finally_runs_once_at_the_end_of_the_block(begin: Begin, forgotten: bool) -> None:
    seen = recorder()

    @contextlib.asynccontextmanager
    async def block() -> AsyncIterator[None]:
        try:
            yield
        finally:
            seen.events.append("async with")

    class Block:
        open = staticmethod(block)

    @durable
    async def main() -> None:
        try:
            async with Block.open():
                await does("foo")
        finally:
            seen.events.append("finally")

    execution = begin(main)
    if forgotten:
        begin(main)
        gc.collect()
    assert seen.events == []

    execution.answer(foo=1)
    assert seen.events == ["async with", "finally"]


@pytest.mark.parametrize("mode", [WARM, COLD, JSON], ids=lambda mode: mode.name)
def test_a_state_that_is_forgotten_runs_no_code(mode: Any) -> None:
    seen = recorder()

    @durable
    async def child() -> None:
        try:
            await call("foo")
        finally:
            seen.events.append("finally")

    @durable
    async def main() -> None:
        try:
            await gather(child(), child())
        finally:
            seen.events.append("finally")

    execution = Begin(mode)(main).resume()

    del execution
    gc.collect()

    assert seen.events == []


@pytest.mark.case(120)
def test_an_iteration_goes_on_where_it_was(begin: Begin) -> None:
    @durable
    async def main(d: dict[str, int]) -> Any:
        return [(i, key, value, await call(key)) for i, (key, value) in enumerate(d.items())]

    execution = begin(main, {"b": 1, "a": 2, "c": 3})
    for name in ("b", "a", "c"):
        assert execution.calls == [name]
        execution.answer(**{name: name.upper()})

    assert execution.value == [(0, "b", 1, "B"), (1, "a", 2, "A"), (2, "c", 3, "C")]


@pytest.mark.case(110)
def test_what_a_child_changes_is_its_own(begin_json: Begin) -> None:
    # Inputs pass through the codec, warm too
    @durable
    async def child(shared: list[int]) -> list[int]:
        await call("foo")
        shared.append(1)
        return shared

    @durable
    async def main() -> Any:
        shared = [0]
        (returned,) = await gather(child(shared))
        return [shared, returned]

    execution = begin_json(main)

    assert execution.answer(foo=1).value == [[0], [0, 1]]


def test_a_value_returned_by_a_child_is_a_copy_for_everybody(begin_json: Begin) -> None:
    @durable
    async def main() -> Any:
        both = await gather(call("a"), call("a"))
        both[0].append(1)
        await call("b")
        return both

    execution = begin_json(main)
    execution.resume(execution.result(0, []), execution.result(1, []))

    assert execution.answer(b=1).value == [[1], []]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_a_context_variable_is_kept_for_its_coroutine_alone(begin: Begin) -> None:
    @durable
    async def child(name: str) -> Any:
        before = VARIABLE.get()
        VARIABLE.set(name)
        await call(name)
        return [before, VARIABLE.get()]

    @durable
    async def main() -> Any:
        VARIABLE.set("main")
        return [await gather(child("a"), child("b")), VARIABLE.get()]

    execution = begin(main).answer(a=1).answer(b=2)

    assert execution.value == [[["unset", "a"], ["unset", "b"]], "main"]
    assert VARIABLE.get() == "unset"
