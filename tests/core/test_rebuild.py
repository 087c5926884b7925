"""A continuation is a journal: warm or rebuilt, a coroutine cannot tell."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.scheduling import COLD, JSON, ROWS, WARM, Begin, Execution, durable, recorder
from rowtine import CallResult, call, gather, race, sleep
from rowtine.core.coroutine import Frame, Slot
from rowtine.core.phases import Resolution
from rowtine.core.round import Input, Poll


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def journey() -> Any:
    """One of everything that a journal can hold."""
    seen = [await call("a", 1, by=2)]
    await sleep(1)
    seen += await gather(does("b"), call("c"), gather(does("d"), race(call("e"), does("f"))))
    try:
        await gather(call("g"), does("h"), cancel_losers=False)
    except KeyError as error:
        seen.append(str(error))
    try:
        await call("i")
    except TimeoutError as error:
        seen.append(str(error))
    try:
        seen.append(await call("last"))
    except asyncio.CancelledError:
        seen.append("cancelled")
        seen.append(await call("undo"))
    return seen


def travelled(begin: Begin) -> Execution:
    """`journey`, suspended at its last call."""
    execution = begin(journey).answer(a="A").answer(sleep=None)
    execution.answer(d="D", b="B").answer(f="F").answer(c="C")
    execution.answer(g=KeyError("G")).resume(error=TimeoutError("I"))
    assert execution.calls == ["last"]
    return execution


RESULT = ["A", "B", "C", ["D", "F"], "'G'", "I"]


def test_every_kind_of_wait_is_replayed(begin: Begin) -> None:
    execution = travelled(begin)

    execution.answer(last="L")

    assert execution.value == [*RESULT, "L"]


def test_a_cancellation_is_replayed(begin: Begin) -> None:
    execution = travelled(begin).resume(cancel=True)
    assert execution.calls == ["undo"]

    execution.answer(undo="U")

    assert execution.value == [*RESULT, "cancelled", "U"]


def test_the_journal_is_that_of_one_coroutine(begin: Begin) -> None:
    if begin.mode is ROWS:
        pytest.skip("the same rows, loaded")
    execution = travelled(begin)

    main = execution.state.suspended[0].coroutine

    assert main is not None
    assert main.journal is not None
    assert [(entry.wait.function, entry.resolution) for entry in main.journal] == [
        ("a", Resolution.RESULT),
        ("sleep", Resolution.RESULT),
        ("all(does, c, all(does, race(e, does)))", Resolution.RESULT),
        ("all(g, does)", Resolution.ERROR),
        ("i", Resolution.POLL_ERROR),
    ]


def test_warm_and_rebuilt_executions_say_the_same() -> None:
    def said(begin: Begin) -> list[Any]:
        execution = travelled(begin)
        assert isinstance(execution.output, Poll)
        (request,) = execution.output.calls
        return [request.call_id, request.coroutine_id, request.seq, request.where]

    assert said(Begin(WARM)) == said(Begin(COLD)) == said(Begin(JSON)) == said(Begin(ROWS))


@durable
async def counted(seen: str) -> Any:
    RUNS.events.append(seen)
    return [await call(seen), await call(seen + "2")]


RUNS = recorder()


def test_a_body_runs_again_only_when_it_is_rebuilt() -> None:
    RUNS.events = []

    warm = Begin(WARM)(counted, "warm").answer(warm=1).answer(warm2=2)
    cold = Begin(COLD)(counted, "cold").answer(cold=1).answer(cold2=2)

    assert (warm.value, cold.value) == ([1, 2], [1, 2])
    assert RUNS.events == ["warm", "cold", "cold", "cold"]


@pytest.mark.parametrize("mode", [COLD, JSON, ROWS], ids=lambda mode: mode.name)
def test_only_what_is_resumed_is_rebuilt(mode: Any) -> None:
    @durable
    async def main() -> Any:
        RUNS.events.append("main")
        return await gather(counted("a"), counted("b"), counted("c"))

    execution = Begin(mode)(main)
    RUNS.events = []

    execution.answer(b=1)
    assert RUNS.events == ["b"]

    execution.answer(a=1, c=1, b2=2)
    assert RUNS.events == ["b", "a", "c", "b"]

    execution.answer(a2=2, c2=2)
    assert RUNS.events == ["b", "a", "c", "b", "a", "c", "main"]


def test_a_warm_frame_is_used_by_one_round_alone() -> None:
    RUNS.events = []
    execution = Begin(WARM)(counted, "x")
    input = Input.resume(execution.state, [CallResult(0, 1)])

    first, second = (asyncio.run(execution.scheduler.run(input)) for _ in range(2))

    assert RUNS.events == ["x", "x"]
    for output in (first, second):
        assert isinstance(output, Poll)
        rest = Input.resume(output.state, [CallResult(1, 2)])
        end = asyncio.run(execution.scheduler.run(rest))
        assert end.result.value == [1, 2]
    assert RUNS.events == ["x", "x"]


def test_a_round_that_fails_leaves_the_journal_to_go_on_with() -> None:
    execution = Begin(WARM)(counted, "x").answer(x=1)

    async def cancelled() -> None:
        round = asyncio.ensure_future(
            execution.scheduler.run(Input.resume(execution.state, [CallResult(1, 2)]))
        )
        await asyncio.sleep(0)
        round.cancel()
        await round

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    execution.answer(x2=2)

    assert execution.value == [1, 2]


def test_what_a_body_does_to_a_value_does_not_reach_the_journal(begin_json: Begin) -> None:
    @durable
    async def main(given: list[int]) -> Any:
        given.append(1)
        (got,) = await gather(call("foo"))
        got.append(2)
        await call("bar")
        return [given, got]

    execution = begin_json(main, [0]).answer(foo=[0]).answer(bar=None)

    assert execution.value == [[0, 1], [0, 2]]


async def _generates(name: str) -> AsyncIterator[Any]:
    yield await call(name)
    yield await does(name + "2")


def test_an_async_generator_may_await_durably(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [item async for item in _generates("a")]

    execution = begin(main).answer(a=1)
    assert isinstance(execution.output, Poll)
    where = execution.output.calls[0].where
    assert where is not None
    names = [frame.rpartition(" in ")[2] for frame in where.stack]
    assert (names[0], names[-2:]) == ("main", ["_generates", "does"])
    line = Path(__file__).read_text().splitlines()[where.line - 1]
    assert line.strip() == "return await call(name)"

    assert execution.answer(a2=2).value == [1, 2]


def test_a_slot_gives_its_frame_away_once() -> None:
    slot = Slot(Frame(contextvars.copy_context()))
    assert slot.warm

    frame = slot.take()

    assert frame is not None
    assert not slot.warm
    assert slot.take() is None


def test_dropping_an_empty_slot_does_nothing() -> None:
    slot = Slot()

    slot.drop()

    assert not slot.warm
