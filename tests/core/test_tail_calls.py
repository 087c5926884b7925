"""Tail calls: a body that ends this run and answers with another call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.scheduling import Begin, durable
from rowtine import Arguments, Reset, Status, call, gather, race, sleep


@durable
async def resets() -> None:
    raise Reset(call("main", 3, by=4))


@pytest.mark.case(81)
def test_a_reset_ends_the_run_with_a_call(begin: Begin) -> None:
    execution = begin(resets)

    assert execution.exit.tail_call == call("main", 3, by=4)
    assert (execution.exit.value, execution.exit.error) == (None, None)
    assert execution.status is Status.OK


def test_a_reset_may_name_the_function_and_its_arguments(begin: Begin) -> None:
    class Target:
        function = staticmethod(lambda n: call("f", n))

    @durable
    async def main() -> None:
        await call("foo")
        raise Reset(Target.function, 7)

    execution = begin(main).answer(foo=1)

    assert execution.exit.tail_call == call("f", 7)


def test_a_broad_except_does_not_swallow_a_reset(begin: Begin) -> None:
    @durable
    async def main() -> None:
        try:
            await resets()
        except Exception:
            await call("never")

    execution = begin(main)

    assert execution.exit.tail_call is not None


@pytest.mark.case(84)
def test_a_reset_in_a_member_ends_the_run(begin: Begin) -> None:
    @durable
    async def after(name: str) -> None:
        await call(name)
        await resets()

    @durable
    async def main() -> Any:
        return await gather(call("a"), race(after("b")))

    execution = begin(main).answer(a=1)

    execution.answer(b=2)

    assert execution.exit.tail_call == call("main", 3, by=4)


def test_a_reset_ends_the_run_of_a_main_that_would_not_stop(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await call("x")
        except asyncio.CancelledError:
            try:
                await gather(call("a"), resets())
            finally:
                await call("clean")

    execution = begin(main)

    execution.resume(cancel=True)
    assert execution.calls == ["clean"]

    assert execution.answer(clean=None).exit.tail_call == call("main", 3, by=4)


def test_a_reset_in_a_clean_up_is_an_error_of_the_clean_up(begin: Begin) -> None:
    @durable
    async def careful() -> None:
        try:
            await call("x")
        finally:
            try:
                await gather(resets(), call("y"))
            except Exception as error:
                await call(type(error).__name__)

    @durable
    async def main() -> Any:
        return await race(careful(), call("a"))

    execution = begin(main)

    execution.answer(a=1)
    assert execution.calls == ["UsageError"]

    assert execution.answer(UsageError=None).value == 1


@pytest.mark.parametrize("target", [None, sleep(1), gather(), "f"], ids=repr)
def test_a_reset_to_something_else_than_a_function_is_an_error(begin: Begin, target: Any) -> None:
    class Target:
        value = target

    @durable
    async def main() -> None:
        raise Reset(Target.value)

    execution = begin(main)

    assert isinstance(execution.error, TypeError)
    assert "Reset needs a call" in str(execution.error)


def test_a_reset_with_arguments_that_cannot_be_stored_is_an_error(begin_json: Begin) -> None:
    class Target:
        call = call("f", object())

    @durable
    async def main() -> None:
        raise Reset(Target.call)

    execution = begin_json(main)

    assert isinstance(execution.error, TypeError)
    assert "argument 1" in str(execution.error)


def test_the_arguments_of_a_tail_call_are_values(begin: Begin) -> None:
    execution = begin(resets)

    assert execution.exit.tail_call is not None
    assert execution.exit.tail_call.arguments == Arguments((3,), {"by": 4})
