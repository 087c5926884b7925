"""A batch in one statement: all of it if every fence holds, nothing of it if one does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event

import rowtine
from acceptance.support import assert_lawful, blocked, everything, rows, wait_until
from databases import connect, query
from rowtine.clock import new_id
from rowtine.store import Writer
from rowtine.store.committing import Begins, Committed, Round
from rowtine.store.expected import Expected, expected
from rowtine.store.notices import News
from rowtine.store.outcomes import Outcome, Settled
from rowtine.store.workers import Mark
from store.by_hand import WORKER, Hand


async def main(x: int) -> int:
    value: int = await rowtine.call("one", x)
    return value


async def steps(n: int) -> int:
    total = 0
    for number in range(n):
        total += await rowtine.call("one", number)
    return total


async def one(x: int) -> int:
    return x


@pytest.fixture
def hand(postgresql_url: str) -> Iterator[Hand]:
    app = rowtine.App(postgresql_url)
    app.function(main)
    app.function(steps)
    app.function(one)
    yield Hand(app)
    app.close()
    assert_lawful(postgresql_url)


def write(hand: Hand, batch: Expected | None) -> Committed | None:
    assert batch is not None
    writer = Writer(hand.app.database)
    try:
        return writer.at_once(batch.write)
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
    assert (written.held, written.queued, written.due_in) == ([True], {"one"}, None)
    assert written.news == News.CALLS
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


def test_a_batch_compares_no_row_with_every_other(hand: Hand) -> None:
    """Each fence is found by its key: a hundred of them cost no ten thousand comparisons."""
    main = hand.app.registry.function("main")
    ran = []
    for x in range(3):
        id = hand.start(rowtine.call("main", x))
        hand.claim("main")
        ran.append(hand.run(id, main))
    sent: list[str] = []
    event.listen(
        hand.app.database.engine, "before_cursor_execute", lambda *seen: sent.append(seen[2])
    )
    assert write(hand, batch(hand, rounds=ran)) is not None
    (statement,) = [each for each in sent if "json_to_recordset" in each]
    with hand.app.database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        asked = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}"
        ((plan,),) = driver.execute(asked, prepare=False).fetchall()
    assert "Join Filter" not in str(plan)


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


# --- a batch of one -------------------------------------------------------------------------------


class Alone:
    """An execution of some steps, in a worker that has nothing else to do: a batch for each of its
    rounds. Before a batch is written, the database is as the round expects it."""

    def __init__(self, hand: Hand, url: str, count: int = 2) -> None:
        self.hand = hand
        self.url = url
        self.id = hand.start(rowtine.call("steps", count))
        hand.claim("steps")
        self.numbers = 0

    def first_round(self) -> Expected | None:
        return self._batch(self._run())

    def next_round(self) -> Expected | None:
        """The round that is given what the running call came to, which nobody has written yet."""
        ((call, call_id),) = query(
            self.url, "select id, call_id from calls where function = 'one' and phase = 'running'"
        )
        outcome = Outcome(str(call), 1, self.id, Settled(output="7"))
        assert self.hand.record(outcome) == [True]
        ran = self._run()
        query(
            self.url,
            "update calls set phase = 'running', worker = :worker, lease_expires = now(),"
            " status = null, output = null, finished_at = null, arrived = null where id = :id",
            id=call,
            worker=WORKER,
        )
        query(
            self.url,
            "update states set arrived = delivered, wake_at = null where id = :id",
            id=self.id,
        )
        return self._batch(replace(ran, taken={call_id: outcome}))

    def _run(self) -> Round:
        ran = self.hand.run(self.id, self.hand.app.registry.function("steps"))
        made = () if ran.output.changes is None else ran.output.changes.calls
        begins = Begins(WORKER, 30.0, {call.call_id: new_id() for call in made})
        return replace(ran, begins=begins)

    def _batch(self, ran: Round) -> Expected | None:
        self.numbers += 1
        return expected(self.hand.app.codec, [ran], [], Mark(WORKER, self.numbers))


@pytest.fixture
def alone(hand: Hand, postgresql_url: str) -> Alone:
    return Alone(hand, postgresql_url)


def test_an_execution_alone_is_written_without_documents(hand: Hand, alone: Alone) -> None:
    """Not that it matters to anybody how, but to how long it takes."""
    sent: list[str] = []
    event.listen(
        hand.app.database.engine, "before_cursor_execute", lambda *seen: sent.append(seen[2])
    )

    for batch in (alone.first_round, alone.next_round, alone.next_round):
        made = batch()
        sent.clear()
        assert write(hand, made) is not None
        assert not any("json_to_recordset" in statement for statement in sent)

    assert hand.app.handle(alone.id).result(timeout=0) == 14


def test_a_call_alone_is_written_without_documents(hand: Hand, postgresql_url: str) -> None:
    hand.start(rowtine.call("one", 1))
    (call,) = hand.claim("one")
    outcome = hand.outcome(call, 7)
    ends = expected(hand.app.codec, [], [outcome], Mark(WORKER, 1))

    written = write(hand, ends)

    assert written is not None
    assert written.recorded == [True]
    (row,) = rows(postgresql_url, "calls")
    assert (row["phase"], row["output"]) == ("done", "7")
    before = everything(postgresql_url)
    assert write(hand, ends) is None
    assert everything(postgresql_url) == before


MOVED = {
    "another run": "update states set run = 1",
    "another round": "update states set round = 2",
    "an arrival": "update states set arrived = 1",
    "claimed by another": f"update states set worker = '{WORKER}', wake_at = now()",
    "woken": "update states set wake_at = now()",
    "another claim": "update calls set claim = 2 where function = 'one'",
    "given back": "update calls set phase = 'queued', worker = null, lease_expires = null,"
    " due = now() where function = 'one'",
    "cancelled": "update calls set cancelling = true where function = 'one'",
    "the root is told to stop": "update calls set cancelling = true where function = 'steps'",
}

BACK_IN_STATES = "update states set run = 0, round = 1, arrived = 0, worker = null, wake_at = null"
BACK_IN_CALLS = (
    "update calls set cancelling = false, due = null, phase = case function when 'one' then"
    " 'running' else phase end, claim = 1, worker = case function when 'one' then"
    f" cast('{WORKER}' as uuid) end, lease_expires = case function when 'one' then now() end"
)


@pytest.mark.parametrize("moved", MOVED)
def test_a_step_alone_is_written_only_as_expected(
    moved: str, hand: Hand, alone: Alone, postgresql_url: str
) -> None:
    assert write(hand, alone.first_round()) is not None
    step = alone.next_round()
    as_it_was = everything(postgresql_url)

    query(postgresql_url, MOVED[moved])
    before = everything(postgresql_url)
    assert before != as_it_was
    assert write(hand, step) is None
    assert everything(postgresql_url) == before

    query(postgresql_url, BACK_IN_CALLS)
    query(postgresql_url, BACK_IN_STATES)
    assert write(hand, step) is not None
    before = everything(postgresql_url)
    assert write(hand, step) is None  # sent again
    assert everything(postgresql_url) == before


@pytest.mark.parametrize("table", ["states", "calls"])
@pytest.mark.parametrize(
    ("change", "held"), [("{fence} = {fence}", True), ("{fence} = {fence} + 1", False)]
)
def test_a_step_alone_waits_for_who_has_locked_its_rows_and_sees_what_they_did(
    table: str, change: str, held: bool, hand: Hand, alone: Alone, postgresql_url: str
) -> None:
    assert write(hand, alone.first_round()) is not None
    step = alone.next_round()
    fence = "round" if table == "states" else "claim"
    which = "" if table == "states" else "where function = 'one'"
    written: list[Committed | None] = []
    writing = threading.Thread(target=lambda: written.append(write(hand, step)))

    with connect(postgresql_url) as somebody:
        somebody.query("begin")
        somebody.query(f"update {table} set {change.format(fence=fence)} {which}")
        writing.start()
        wait_until(lambda: blocked(postgresql_url))
        somebody.query("commit")
    writing.join(60)

    assert [one is not None for one in written] == [held]
    if not held:
        query(postgresql_url, f"update {table} set {fence} = {fence} - 1 {which}")
        assert write(hand, step) is not None
