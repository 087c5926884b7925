"""Leases: kept while a worker lives, taken over when it does not, and no second outcome."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import program
from acceptance.nursery import Child
from acceptance.support import assert_lawful, end_leases, everything, rows, wait_until
from databases import query
from rowtine.clock import new_id
from rowtine.store import leases, rounds
from store.by_hand import Hand

NewApp = Callable[..., rowtine.App]
Fork = Callable[..., Child]

RAN: list[Any] = []
STARTED, LET_GO = threading.Event(), threading.Event()

OTHER = new_id()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    STARTED.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


@pytest.fixture
def hand(plain_app: NewApp) -> Hand:
    app = plain_app()

    @app.function(name="one")
    def one(x: int) -> int:
        return x

    @app.function(name="main")
    async def main() -> int:
        return await one(1)

    return Hand(app)


def recover(hand: Hand) -> list[str]:
    with hand.app.database.writing() as connection:
        return leases.recover(connection, 100)


# --- in the store -------------------------------------------------------------------------------


@pytest.mark.case(202)
def test_the_outcome_of_a_worker_that_was_away_too_long_is_refused(
    hand: Hand, database_url: str
) -> None:
    id = hand.start(rowtine.call("one", 1))
    (zombie,) = hand.claim("one")
    end_leases(database_url)
    assert recover(hand) == [id]
    before = everything(database_url)

    assert hand.record(hand.outcome(zombie, "of a zombie")) == [False]
    assert everything(database_url) == before

    (owner,) = hand.claim("one", worker=OTHER)
    assert (owner.claim, owner.attempt) == (2, 2)
    before = everything(database_url)
    assert hand.record(hand.outcome(zombie, "of a zombie")) == [False]
    assert everything(database_url) == before
    assert hand.record(hand.outcome(owner, "of the owner")) == [True]
    before = everything(database_url)
    assert hand.record(hand.outcome(zombie, "of a zombie")) == [False]
    assert hand.record(hand.outcome(owner, "again")) == [False]
    assert everything(database_url) == before
    assert hand.app.handle(id).result(timeout=0) == "of the owner"


def test_what_comes_late_is_taken_as_long_as_nobody_has_taken_over(
    hand: Hand, database_url: str
) -> None:
    hand.start(rowtine.call("one", 1))
    (late,) = hand.claim("one")
    end_leases(database_url)

    assert hand.record(hand.outcome(late, "late")) == [True]
    assert recover(hand) == []


def test_a_lease_that_lasts_is_not_recovered(hand: Hand) -> None:
    hand.start(rowtine.call("one", 1))
    hand.claim("one")

    assert recover(hand) == []


def test_only_what_is_still_held_is_renewed(hand: Hand, database_url: str) -> None:
    mine, lost, done = [hand.start(rowtine.call("one", x)) for x in range(3)]
    held = {call.id: call for call in hand.claim("one", limit=3)}
    hand.record(hand.outcome(held[done], 1))
    end_leases(database_url)
    query(database_url, "update calls set claim = 2 where id = :id", id=lost)

    with hand.app.database.writing() as connection:
        kept = leases.renew(connection, [(call.id, call.claim) for call in held.values()], 30)

    assert kept == {mine}
    assert recover(hand) == [lost]


def test_giving_back_counts_no_attempt_and_moves_the_claim_on(hand: Hand) -> None:
    hand.start(rowtine.call("one", 1))
    (first,) = hand.claim("one")

    with hand.app.database.writing() as connection:
        assert leases.give_back(connection, [(first.id, first.claim)]) == 1
        assert leases.give_back(connection, [(first.id, first.claim)]) == 0

    (second,) = hand.claim("one", worker=OTHER)
    assert (second.attempt, second.claim) == (1, 2)
    assert hand.record(hand.outcome(first, "zombie")) == [False]


@pytest.mark.peer_case(11)
def test_giving_back_counts_the_attempt_of_what_must_not_begin_again(hand: Hand) -> None:
    begun, waiting = (hand.start(rowtine.call("one", x)) for x in range(2))
    held = [(call.id, call.claim) for call in hand.claim("one", limit=2)]

    with hand.app.database.writing() as connection:
        assert leases.give_back(connection, held, {begun, OTHER}) == 2

    attempts = {call.id: call.attempt for call in hand.claim("one", limit=2, worker=OTHER)}
    assert attempts == {begun: 2, waiting: 1}


def test_a_round_whose_worker_died_is_due_again_when_its_claim_lapses(
    hand: Hand, database_url: str
) -> None:
    id = hand.start(rowtine.call("main"))
    hand.round(id, hand.app.registry.function("main"))
    hand.answer("one", value=1)

    def take(worker: str) -> list[str]:
        with hand.app.database.writing() as connection:
            return rounds.claim_rounds(connection, worker, ["main"], None, 10, 30)

    dead = new_id()
    assert take(dead) == [id]
    assert take(OTHER) == []
    with hand.app.database.writing() as connection:
        rounds.renew_rounds(connection, OTHER, [id], 0)  # not the one who holds it
        rounds.release_rounds(connection, OTHER, [id])
    assert take(OTHER) == []
    end_leases(database_url)
    assert take(OTHER) == [id]
    with hand.app.database.writing() as connection:
        rounds.release_rounds(connection, OTHER, [id])
    assert take(dead) == [id]


# --- in running workers -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.peer_case(97)
def test_a_call_that_takes_longer_than_the_lease_stays_with_its_worker(
    kind: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(lease=0.6)

    @app.function(name="sync")
    def in_a_thread() -> str:
        RAN.append("sync")
        LET_GO.wait(60)
        return "done"

    @app.function(name="async")
    async def on_the_loop() -> str:
        RAN.append("async")
        LET_GO.wait(60)  # blocks the loop of its worker: the heartbeat has a thread of its own
        return "done"

    handle = app.start(rowtine.call(kind))
    with app.worker().start(), app.worker().start():
        expires = {None}
        wait_until(
            lambda: expires.add(rows(database_url, "calls")[0]["lease_expires"]) or len(expires) > 5
        )
        LET_GO.set()
        assert handle.result(timeout=60) == "done"

    (row,) = rows(database_url, "calls")
    assert (row["attempt"], row["claim"]) == (1, 1)
    assert [kind] == RAN


@pytest.mark.peer_case(97)
def test_a_round_that_takes_longer_than_the_lease_stays_with_its_worker(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app(lease=0.6)

    @app.function(name="one")
    def one() -> int:
        return 1

    @app.function(name="main")
    async def main() -> int:
        value = await one()
        RAN.append(value)
        LET_GO.wait(60)
        return value

    handle = app.start(main())
    with app.worker().start(), app.worker().start():
        seen: set[Any] = set()

        def watch() -> bool:
            # Claimed, the execution has a lease; handed what it runs with, that has.
            seen.update(row["wake_at"] for row in rows(database_url, "states") if row["worker"])
            seen.update(row["lease_expires"] for row in rows(database_url, "calls"))
            return len(seen - {None}) > 5

        wait_until(watch)
        LET_GO.set()
        assert handle.result(timeout=60) == 1

    assert RAN == [1]


@pytest.mark.peer_case(95)
def test_what_a_dead_worker_held_is_run_again_when_its_lease_ends_and_not_before(
    plain_app: NewApp, database_url: str, diary: Path, fork: Fork
) -> None:
    with closing(program.build(database_url, poll_interval=0.02, lease=1.0)) as app:
        handle = app.start(rowtine.call("gated", 1))
        victim = fork("acceptance.workers:work", url=database_url, poll_interval=0.02, lease=1.0)
        wait_until(lambda: program.effects(diary)[f"gated 1 in {victim.pid}"])
        victim.kill()
        victim.wait()
        (held,) = rows(database_url, "calls")
        (diary.parent / "gate").touch()

        with app.worker().start():
            pid = handle.result(timeout=60)

    (row,) = rows(database_url, "calls")
    assert (row["attempt"], row["claim"]) == (2, 2)
    assert row["started_at"] > held["lease_expires"]
    assert pid != victim.pid
    assert_lawful(database_url)


def test_a_worker_that_wakes_up_after_its_lease_changes_nothing(
    database_url: str, diary: Path, fork: Fork
) -> None:
    with closing(program.build(database_url, poll_interval=0.02, lease=1.0)) as app:
        handle = app.start(rowtine.call("gated", 1))
        zombie = fork("acceptance.workers:work", url=database_url, poll_interval=0.02, lease=1.0)
        wait_until(lambda: program.effects(diary)[f"gated 1 in {zombie.pid}"])
        zombie.kill(signal.SIGSTOP)
        (diary.parent / "gate").touch()

        with app.worker().start():
            pid = handle.result(timeout=60)
            before = rows(database_url, "calls")
            zombie.kill(signal.SIGCONT)
            app.start(rowtine.call("double", 2)).result(timeout=60)
        zombie.kill(signal.SIGTERM)

    assert zombie.wait() == 0  # it finished what it thought it had to
    assert pid != zombie.pid
    assert [row for row in rows(database_url, "calls") if row["function"] == "gated"] == before
    assert (before[0]["attempt"], before[0]["claim"]) == (2, 2)
    assert_lawful(database_url)


@pytest.mark.peer_case(11)
def test_the_last_permitted_attempt_is_not_repeated_after_the_death_of_its_worker(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(max_attempts=1))
    def once() -> None:
        RAN.append("once")

    handle = app.start(once())
    Hand(app).claim(once.name)  # by a worker that says no more
    end_leases(database_url)
    with app.worker().start(), pytest.raises(rowtine.Interrupted, match="attempt 1 of 1"):
        handle.result(timeout=60)

    assert RAN == []
    (row,) = rows(database_url, "calls")
    assert row["status"] == "PERMANENT_ERROR"  # a retry of the caller would run it again
