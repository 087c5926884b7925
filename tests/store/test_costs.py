"""A round costs what it touches, not what exists. Counts, so that no clock is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

import rowtine
from rowtine.core.coroutine import Slot
from rowtine.store.loading import load
from store.by_hand import Hand

MAIN, CHILD = "wide", "member"


async def wide(n: int) -> int:
    return len(await rowtine.gather(*[Bodies.member(i) for i in range(n)]))


async def member(i: int) -> int:
    value: int = await rowtine.call("leaf", i)
    return value


async def steps(n: int) -> int:
    total = 0
    for i in range(n):
        total += await rowtine.call("leaf", i)
    return total


class Bodies:
    """The registered functions of the running test: a body may not close over locals."""

    wide: Any
    member: Any
    steps: Any


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    app = rowtine.App(database_url)
    Bodies.wide = app.function(wide)
    Bodies.member = app.coroutine(member)
    Bodies.steps = app.function(steps)
    yield Hand(app)
    app.close()


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that are sent meanwhile; a list of rows is one."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def suspended_with(hand: Hand, children: int, answered: int) -> str:
    """An execution that waits for so many children; the calls of all have been claimed, and those
    of some answered."""
    id = hand.start(Bodies.wide(children))
    hand.round(id, Bodies.wide)
    claimed = hand.claim("leaf", limit=children)
    assert all(hand.record(*(hand.outcome(call, 1) for call in claimed[:answered])))
    return id


def test_ten_results_among_many_children_load_ten_children_and_a_counter(hand: Hand) -> None:
    id = suspended_with(hand, children=1500, answered=10)

    with hand.app.database.reading() as connection:
        loaded = load(connection, hand.app.body, hand.app.codec, id)

    state = loaded.input.state
    assert state is not None
    assert len(loaded.input.results) == 10
    assert sorted(c.coroutine is None for c in state.suspended.values()) == [False] * 10 + [True]


def test_a_round_sends_as_many_statements_whatever_exists(hand: Hand) -> None:
    sent = {}
    for children in (20, 1000):
        id = suspended_with(hand, children, answered=10)
        engine = hand.app.database.engine
        with counted(engine) as statements:
            hand.round(id, Bodies.wide)
        sent[children] = len(statements)

    assert sent[20] == sent[1000]


def test_a_round_sends_as_many_statements_whatever_it_delivers(hand: Hand) -> None:
    sent = {}
    for answered in (2, 10):
        id = suspended_with(hand, children=50, answered=answered)
        with counted(hand.app.database.engine) as statements:
            hand.round(id, Bodies.wide)
        sent[answered] = len(statements)

    assert sent[2] == sent[10]


def test_outcomes_are_written_with_as_many_statements_whatever_their_number(hand: Hand) -> None:
    sent = {}
    for answered in (1, 30):
        id = hand.start(Bodies.wide(40))
        hand.round(id, Bodies.wide)
        outcomes = [hand.outcome(call, 1) for call in hand.claim("leaf", limit=40)][:answered]
        with counted(hand.app.database.engine) as statements:
            assert hand.record(*outcomes) == [True] * answered
        sent[answered] = len(statements)

    assert sent[1] == sent[30]


def test_a_warm_coroutine_loads_no_journal(hand: Hand) -> None:
    id = hand.start(Bodies.steps(30))
    hand.round(id, Bodies.steps)
    for _ in range(20):
        hand.answer("leaf", value=1)
        hand.round(id, Bodies.steps)
    hand.answer("leaf", value=1)

    with hand.app.database.reading() as connection:
        cold = load(connection, hand.app.body, hand.app.codec, id)
        warm = load(connection, hand.app.body, hand.app.codec, id, {0: Slot()}, (0, 21))

    assert cold.input.state is not None
    assert warm.input.state is not None
    rebuilt, kept = cold.input.state.suspended[0], warm.input.state.suspended[0]
    assert rebuilt.coroutine is not None
    assert kept.coroutine is not None
    assert len(rebuilt.coroutine.journal or ()) == 20
    assert kept.coroutine.journal is None
    assert kept.seq == rebuilt.seq == 20
