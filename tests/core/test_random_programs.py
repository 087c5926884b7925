"""Random programs: however a state lives between two rounds, the program cannot tell.

A program is data (see `interpret`), what a call comes to follows from its name, and what arrives
when is drawn from a seed: late, in batches, out of order, twice, for nobody. The laws of
`scheduling.laws_broken_by` are checked after every round of every execution.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.scheduling import COLD, JSON, MODES, ROWS, TWICE, WARM, Begin, Execution, Mode, durable
from rowtine import AnyException, RemoteError, Reset, any, call, gather, race
from rowtine.core.exchange import Poll

Program = list[Any]

JOINS = {"all": gather, "any": any, "race": race}


@durable
async def interpret(program: Program) -> Any:
    match program:
        case ["value", value]:
            return value
        case ["sequence", parts]:
            return [await interpret(part) for part in parts]
        case ["child", part]:
            return await interpret(part)
        case ["native", part]:
            for _ in range(6):  # long enough for others to decide a join meanwhile
                await asyncio.sleep(0)
            return await interpret(part)
        case ["try", part]:
            try:
                return await interpret(part)
            except Exception as error:
                return said(error)
        case ["finally", part, name]:
            try:
                return await interpret(part)
            finally:
                await call(name)
        case ["stubborn", part, name]:
            try:
                return await interpret(part)
            except asyncio.CancelledError:
                return await call(name)
        case ["reset"]:
            raise Reset(call("again"))
        case _:
            return await directive(program)


def directive(program: Program) -> Any:
    """The program as a member of a join: a bare call, a nested join, or else a coroutine."""
    match program:
        case ["call", name]:
            return call(name)
        case [("all" | "any" | "race") as kind, parts, cancel_losers]:
            return JOINS[kind](*map(directive, parts), cancel_losers=cancel_losers)
        case _:
            return interpret(program)


def said(error: Exception) -> Any:
    """An error, in words that are the same under every codec."""
    if isinstance(error, AnyException):
        return ["AnyException", *map(said, error.exceptions)]
    name = error.type if isinstance(error, RemoteError) else type(error).__name__
    message = error.message if isinstance(error, RemoteError) else str(error)
    return [name.rpartition(".")[2], message]


def outcome_of(function: str) -> Any:
    """What a call comes to: nothing but its name decides."""
    return KeyError(function) if function.startswith("bad") else function


# ------------------------------------------------------------------------------------- programs

names = st.sampled_from(["a", "b", "c", "d", "bad"])
calls = st.builds(lambda name: ["call", name], names)
values = st.builds(lambda value: ["value", value], st.integers(0, 3))


def grown(
    leaves: st.SearchStrategy[Program], joins: list[str], around: list[str], cleaning: list[str]
) -> st.SearchStrategy[Program]:
    def extend(part: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
        parts = st.lists(part, max_size=3)
        return st.one_of(
            st.tuples(st.sampled_from(joins), parts, st.booleans()).map(list),
            st.tuples(st.just("sequence"), parts).map(list),
            st.tuples(st.sampled_from(around), part).map(list),
            st.tuples(st.sampled_from(cleaning), part, names).map(list),
        )

    return st.recursive(leaves, extend, max_leaves=10)


# Without native awaits: how long those take beside each other is nobody's to promise.
programs = grown(
    calls | values | st.just(["reset"]),
    ["all", "any", "race"],
    ["child", "try"],
    ["finally", "stubborn"],
)
gathers = grown(calls | values, ["all"], ["child", "try", "native"], ["finally"])


# ----------------------------------------------------------------------------------- deliveries


def in_order(mode: Mode, program: Program) -> Any:
    """What a program comes to when one result arrives at a time, that of the oldest call first."""
    execution = Begin(mode)(interpret, program)
    while execution.suspended:
        execution.resume(answered(execution, min(execution.open)))
    return end_of(execution)


def shuffled(mode: Mode, program: Program, seed: int, rough: bool) -> list[Any]:
    """All that can be seen of a program whose results arrive as a seed has it.

    Rough: there are also poll errors, and the whole may be cancelled.
    """
    chance = random.Random(seed)
    execution = Begin(mode)(interpret, program)
    seen: list[Any] = []
    while execution.suspended:
        seen.append(look_at(execution))
        waiting = sorted(execution.open)
        arrived = chance.sample(waiting, chance.randint(0, len(waiting)))
        strangers = chance.sample(range(1000), chance.randint(0, 2))
        batch = arrived + chance.choices(arrived, k=len(arrived) // 2) + strangers
        chance.shuffle(batch)
        error = RuntimeError("refused") if rough and chance.random() < 0.2 else None
        cancel = rough and chance.random() < 0.1
        results = [answered(execution, id) for id in batch]
        execution.resume(*results, error=error, cancel=cancel)
    return [*seen, end_of(execution)]


def answered(execution: Execution, id: int) -> Any:
    return execution.result(id, outcome_of(execution.functions.get(id, "a stranger")))


def look_at(execution: Execution) -> Any:
    output = execution.output
    assert isinstance(output, Poll)
    requests = [(r.call_id, r.function, r.coroutine_id, r.seq) for r in output.calls]
    return requests, output.min_results, output.max_results, sorted(execution.open)


def end_of(execution: Execution) -> Any:
    if execution.exit.tail_call is not None:
        return "reset"
    failed = execution.exit.error is not None
    return said(execution.error) if failed else execution.value


# ----------------------------------------------------------------------------------- properties


@given(programs)
@pytest.mark.case(215)
def test_every_mode_comes_to_the_same(program: Program) -> None:
    warm = in_order(WARM, program)

    assert in_order(COLD, program) == warm
    assert in_order(TWICE, program) == warm
    assert in_order(JSON, program) == warm
    assert in_order(ROWS, program) == warm


@given(programs, st.integers(), st.booleans())
def test_whatever_arrives_every_mode_does_the_same(
    program: Program, seed: int, rough: bool
) -> None:
    warm = shuffled(WARM, program, seed, rough)

    assert shuffled(COLD, program, seed, rough) == warm
    assert shuffled(TWICE, program, seed, rough) == warm
    assert shuffled(JSON, program, seed, rough) == warm
    assert shuffled(ROWS, program, seed, rough) == warm


@given(st.sampled_from(MODES), gathers, st.integers())
def test_the_value_of_gathers_does_not_depend_on_what_arrives_when(
    mode: Mode, program: Program, seed: int
) -> None:
    *_, end = shuffled(mode, program, seed, rough=False)

    try:
        expected = model(program)
    except KeyError:
        assert end == said(KeyError("bad"))
    else:
        assert end == expected


def model(program: Program) -> Any:
    """What a program of gathers comes to, by plain recursion."""
    match program:
        case ["value", value]:
            return value
        case ["call", "bad"]:
            raise KeyError("bad")
        case ["call", name]:
            return name
        case ["sequence", parts] | ["all", parts, _]:
            return [model(part) for part in parts]
        case ["try", part]:
            try:
                return model(part)
            except KeyError as error:
                return said(error)
        case ["finally", part, name]:
            try:
                return model(part)
            finally:
                model(["call", name])
        case [_, part]:
            return model(part)
    raise AssertionError(program)
