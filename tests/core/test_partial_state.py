"""A round touches what has arrived and what that wakes, never the whole state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from core.scheduling import ROWS, Begin, Execution, Rows, durable
from rowtine import CallResult, CoroutineResult, Reset, any, call, gather, race
from rowtine.core.exchange import Input, Poll
from rowtine.core.phases import Resolution
from rowtine.core.state import Coroutine


class Watched:
    """A loader that notes what it is asked for."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.asked: list[tuple[str, Any]] = []

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        self.asked.append(("coroutines", None if ids is None else list(ids)))
        return await self.rows.coroutines(ids)

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        self.asked.append(("counters", list(ids)))
        return await self.rows.counters(ids)

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        self.asked.append(("results", coroutine.id))
        return await self.rows.results(coroutine)

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        self.asked.append(("waiters", list(ids)))
        return await self.rows.waiters(ids)

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        self.asked.append(("ended_among", list(ids)))
        return await self.rows.ended_among(ids)


def watched(execution: Execution, *results: CallResult) -> tuple[Any, list[tuple[str, Any]]]:
    """One more round that is not written, and what it asked for."""
    assert execution.rows is not None
    loader = Watched(execution.rows)
    state = execution.rows.partial(execution.state, results)
    output = asyncio.run(execution.scheduler.run(Input(state=state, results=results), loader))
    return output, loader.asked


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def wide(size: int) -> Any:
    return len(await gather(*[does(f"f{i}") for i in range(size)]))


def test_one_result_of_many_asks_for_one_counter() -> None:
    execution = Begin(ROWS)(wide, 100)

    output, asked = watched(execution, execution.result("f7", 1))

    assert asked == [("counters", [0])]
    assert isinstance(output, Poll)
    assert list(output.changes.delivered) == [7]
    assert list(output.changes.finished) == [8]
    assert [change.pending for change in output.changes.joins.values()] == [99]


def test_a_batch_asks_for_one_counter() -> None:
    execution = Begin(ROWS)(wide, 100)

    _, asked = watched(execution, *(execution.result(i, 1) for i in range(50)))

    assert asked == [("counters", [0])]


def test_the_last_result_asks_for_the_parent_and_the_results() -> None:
    execution = Begin(ROWS)(wide, 3).answer(f0=1, f1=1)

    output, asked = watched(execution, execution.result("f2", 1))

    assert asked == [("counters", [0]), ("coroutines", [0]), ("results", 0)]
    assert execution.codec.decode(output.result.value) == 3


def test_a_counter_given_with_the_state_is_not_asked_for() -> None:
    execution = Begin(ROWS)(wide, 3)
    assert execution.rows is not None
    results = [execution.result("f0", 1)]
    state = execution.rows.partial(execution.state, results)
    (counter,) = asyncio.run(execution.rows.counters([0]))
    state = replace(state, suspended={**state.suspended, 0: counter})
    loader = Watched(execution.rows)

    asyncio.run(execution.scheduler.run(Input(state=state, results=results), loader))

    assert loader.asked == []


def test_a_failed_gather_asks_for_its_members_to_cancel_them() -> None:
    execution = Begin(ROWS)(wide, 3)

    output, asked = watched(execution, execution.result("f1", KeyError()))

    assert ("coroutines", [1, 2, 3]) in asked
    assert output.changes.delivered == {
        0: Resolution.CANCELLED,
        1: Resolution.ERROR,
        2: Resolution.CANCELLED,
    }


def test_a_result_that_nobody_waits_for_asks_for_nothing() -> None:
    execution = Begin(ROWS)(wide, 3).answer(f0=1)

    output, asked = watched(execution, execution.result("f0", 2), CallResult(99))

    assert asked == []
    assert output.changes.delivered == {}


@durable
async def resets_later() -> None:
    await call("a")
    raise Reset(call("again"))


@durable
async def waits_for_a_reset() -> None:
    try:
        await gather(resets_later())
    finally:
        await call("clean")


def test_a_reset_in_the_last_member_stops_those_who_wait_for_it(begin: Begin) -> None:
    execution = begin(waits_for_a_reset)

    execution.answer(a=1)
    assert execution.calls == ["clean"]

    assert execution.answer(clean=None).exit.tail_call == call("again")


def test_an_exit_that_leaves_nobody_asks_for_nothing() -> None:
    execution = Begin(ROWS)(does, "a")

    _, asked = watched(execution, execution.result("a", 1))

    assert asked == []


@durable
async def decided(kind: str) -> Any:
    join = {"all": gather, "any": any, "race": race}[kind]
    try:
        return await join(does("a"), call("b"))
    except Exception as error:
        return str(error)


@pytest.mark.parametrize(
    ("kind", "outcomes", "resolution", "decided_by"),
    [
        ("all", {"a": 1, "b": 2}, Resolution.RESULT, None),
        ("all", {"a": 1, "b": KeyError()}, Resolution.ERROR, 2),
        ("any", {"a": KeyError(), "b": 2}, Resolution.RESULT, 2),
        ("any", {"a": KeyError(), "b": KeyError()}, Resolution.ERROR, None),
        ("race", {"a": 1}, Resolution.RESULT, 1),
        ("race", {"b": KeyError()}, Resolution.ERROR, 2),
    ],
)
def test_a_round_says_how_each_join_came_to_an_end(
    begin: Begin, kind: str, outcomes: Any, resolution: Resolution, decided_by: int | None
) -> None:
    execution = begin(decided, kind)
    for name, outcome in outcomes.items():
        execution.answer(**{name: outcome})

    assert execution.exit.changes is not None
    (change,) = execution.exit.changes.joins.values()
    assert (change.resolution, change.decided_by) == (resolution, decided_by)
    assert (change.coroutine_id, change.seq, change.children) == (0, 0, 2)


def test_a_race_of_one_is_decided_by_it(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        await race(call("a"))

    execution = begin(main).answer(a=KeyError())

    assert execution.exit.changes is not None
    (change,) = execution.exit.changes.joins.values()
    assert change.decided_by == 1
