"""A continuation is a journal: warm or rebuilt, a coroutine cannot tell."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.scheduling import COLD, JSON, ROWS, WARM, Begin, Execution, Mode, durable, recorder
from rowtine import CallResult, call, gather, race, sleep
from rowtine.core.coroutine import Frame, Slot
from rowtine.core.exchange import Input, Poll
from rowtine.core.payload import Identity
from rowtine.core.phases import Resolution
from rowtine.core.steps import frames


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


@pytest.mark.parametrize("mode", [WARM, COLD, JSON], ids=lambda mode: mode.name)
def test_the_journal_is_that_of_one_coroutine(mode: Mode) -> None:
    execution = travelled(Begin(mode))

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


def test_only_what_is_resumed_is_rebuilt(begin_cold: Begin) -> None:
    @durable
    async def main() -> Any:
        RUNS.events.append("main")
        return await gather(counted("a"), counted("b"), counted("c"))

    execution = begin_cold(main)
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


def test_a_warm_frame_needs_no_journal() -> None:
    execution = Begin(WARM)(journey)

    for outcomes in ({"a": "A"}, {"sleep": None}, {"b": "B", "c": "C", "d": "D", "e": "E"}):
        without_journals(execution)
        execution.answer(**outcomes)
    without_journals(execution)
    execution.answer(g=KeyError("G"), h=None)

    main = execution.state.suspended[0].coroutine
    assert main is not None
    assert main.journal is None
    assert execution.answer(i=None).answer(last="L").value[-2:] == ["'G'", "L"]


def without_journals(execution: Execution) -> None:
    for coroutine in execution.state.suspended.values():
        if coroutine.coroutine is not None:
            coroutine.coroutine = replace(coroutine.coroutine, journal=None)


def test_the_frames_of_a_state_are_those_that_are_warm() -> None:
    @durable
    async def main() -> Any:
        return await gather(does("a"), call("b"), does("c"))

    state = Begin(WARM)(main).state
    assert frames(state).keys() == {0, 1, 3}

    state.suspended[3].coroutine.slot.drop()
    assert frames(state).keys() == {0, 1}


@pytest.mark.peer_case(101)
def test_a_round_that_fails_leaves_the_journal_to_go_on_with() -> None:
    @durable
    async def main() -> Any:
        values = [await call("x"), await call("x2")]
        await asyncio.sleep(0)
        return values

    execution = Begin(WARM)(main).answer(x=1)

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
    slot = Slot(Frame(contextvars.copy_context(), Identity()))
    assert slot.warm

    frame = slot.take()

    assert frame is not None
    assert not slot.warm
    assert slot.take() is None


def test_dropping_an_empty_slot_does_nothing() -> None:
    slot = Slot()

    slot.drop()

    assert not slot.warm
