"""A batch in one statement: all of it if every fence holds, nothing of it if one does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import assert_lawful, everything, rows
from databases import query
from rowtine.store import Writer
from rowtine.store.committing import Committed
from rowtine.store.expected import Expected, expected
from store.by_hand import Hand


async def main(x: int) -> int:
    value: int = await rowtine.call("one", x)
    return value


async def one(x: int) -> int:
    return x


@pytest.fixture
def hand(postgresql_url: str) -> Iterator[Hand]:
    app = rowtine.App(postgresql_url)
    app.function(main)
    app.function(one)
    yield Hand(app)
    app.close()
    assert_lawful(postgresql_url)


def write(hand: Hand, batch: Expected | None) -> Committed | None:
    assert batch is not None
    writer = Writer(hand.app.database)
    try:
        with writer.at_once() as connection:
            return batch.write(connection)
    finally:
        writer.close()


def batch(hand: Hand, *, rounds: Any = (), outcomes: Any = ()) -> Expected | None:
    return expected(hand.app.codec, rounds, outcomes, None)


def first_round(hand: Hand) -> tuple[str, Any]:
    id = hand.start(rowtine.call("main", 1))
    hand.claim("main")
    return id, hand.run(id, hand.app.registry.function("main"))


def test_a_first_round_is_written_once(hand: Hand, postgresql_url: str) -> None:
    id, ran = first_round(hand)

    written = write(hand, batch(hand, rounds=[ran]))

    assert written is not None
    assert (written.held, written.queued, written.due_in) == ([True], {"one"}, 0.0)
    before = everything(postgresql_url)
    assert write(hand, batch(hand, rounds=[ran])) is None  # sent again: the fence has moved
    assert everything(postgresql_url) == before
    hand.answer("one", value=1)
    assert hand.round(id, hand.app.registry.function("main")).value == "1"


def test_outcomes_of_roots_are_written_together_or_not_at_all(
    hand: Hand, postgresql_url: str
) -> None:
    for x in range(3):
        hand.start(rowtine.call("one", x))
    claimed = hand.claim("one", limit=3)
    outcomes = [hand.outcome(call, 7) for call in claimed]
    query(postgresql_url, "update calls set claim = 2 where id = :id", id=claimed[1].id)
    before = everything(postgresql_url)

    assert write(hand, batch(hand, outcomes=outcomes)) is None
    assert everything(postgresql_url) == before

    written = write(hand, batch(hand, outcomes=[outcomes[0], outcomes[2]]))
    assert written is not None
    assert written.recorded == [True, True]
    phases = {row["id"]: row["phase"] for row in rows(postgresql_url, "calls")}
    assert [phases[call.id] for call in claimed] == ["done", "running", "done"]


def test_who_was_told_to_stop_is_not_as_expected(hand: Hand, postgresql_url: str) -> None:
    id, ran = first_round(hand)
    hand.app.handle(id).cancel()
    before = everything(postgresql_url)

    assert write(hand, batch(hand, rounds=[ran])) is None
    assert everything(postgresql_url) == before


def test_what_depends_on_more_than_its_fence_is_not_for_one_statement(hand: Hand) -> None:
    id, ran = first_round(hand)
    hand.commit(ran)
    (call,) = hand.claim("one")
    arrives = hand.outcome(call, 1)

    assert batch(hand, outcomes=[arrives]) is None  # it gets a number in the caller's order

    hand.record(arrives)
    loaded = hand.run(id, hand.app.registry.function("main"))
    assert batch(hand, rounds=[loaded]) is None  # more may have arrived since it was loaded
    assert batch(hand, rounds=[ran, ran]) is None  # twice the same execution
