"""Claims: who gets which call, how many at once, and what is left alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

import rowtine
from acceptance.support import rows, wait_until
from databases import connect, query
from rowtine.clock import new_id
from rowtine.store import Database, calls, rounds
from rowtine.store.calls import Claimed, NewCall
from rowtine.store.notices import Listener
from store.by_hand import Hand

NewApp = Callable[..., rowtine.App]

WORKERS = [new_id() for _ in range(4)]


def accept(database: Database, function: str, count: int) -> list[str]:
    """Accept calls of a function; their ids, in the order in which they fall due."""
    new = [NewCall(new_id(), function, "[]") for _ in range(count)]
    with database.writing() as connection:
        calls.insert_roots(connection, new)
    return [call.id for call in new]


def take(database: Database, worker: str, limit: int, *functions: str) -> list[Claimed]:
    with database.writing() as connection:
        return calls.claim(connection, worker, functions or ("f",), limit, 30)


def test_several_workers_never_claim_one_call_and_never_more_than_they_asked_for(
    database_url: str,
) -> None:
    with closing(Database(database_url)) as database:
        accepted = accept(database, "f", 200)
        taken: list[list[Claimed]] = []
        ready = threading.Barrier(4)

        def work(worker: str) -> None:
            ready.wait(60)
            while batch := take(database, worker, 7):
                taken.append(batch)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in WORKERS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert Counter(call.id for batch in taken for call in batch) == Counter(accepted)
        assert max(map(len, taken)) <= 7
        assert {call.claim for batch in taken for call in batch} == {1}
        standing = query(database_url, "select distinct phase, attempt, claim from calls")
        assert standing == [("running", 1, 1)]


def test_a_claim_takes_what_is_due_longest_first(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        accepted = accept(database, "f", 5)
        query(
            database_url,
            f"update calls set due = {moment(database_url, 0)} where id = :id",
            id=accepted[3],
        )

        assert [call.id for call in take(database, WORKERS[0], 2)] == sorted(
            [accepted[3], accepted[0]]
        )
        assert [call.id for call in take(database, WORKERS[0], 9)] == [
            accepted[1],
            accepted[2],
            accepted[4],
        ]


def moment(url: str, seconds: int) -> str:
    """A number of seconds since 1970, as SQL."""
    return str(seconds * 1_000_000) if url.startswith("sqlite") else f"to_timestamp({seconds})"


def test_what_is_not_due_yet_is_not_claimed(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        accept(database, "f", 1)
        query(database_url, f"update calls set due = {moment(database_url, 2**32)}")

        assert take(database, WORKERS[0], 9) == []
        with database.reading() as connection:
            assert not calls.due(connection, ["f"]).calls


def test_a_claim_of_nothing_takes_nothing(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        accept(database, "f", 1)

        assert take(database, WORKERS[0], 0) == []
        with database.writing() as connection:
            assert calls.claim(connection, WORKERS[0], (), 5, 30) == []


def test_a_claim_writes_down_who_holds_the_call_and_until_when_by_the_databases_clock(
    database_url: str,
) -> None:
    with closing(Database(database_url)) as database:
        accept(database, "f", 1)

        (claimed,) = take(database, WORKERS[0], 1)

        (row,) = rows(database_url, "calls")
        assert (row["phase"], row["claim"], row["attempt"]) == ("running", 1, 1)
        assert (claimed.claim, claimed.attempt) == (1, 1)
        assert (row["worker"], row["due"]) == (WORKERS[0], None)
        lease = row["lease_expires"] - row["started_at"]
        if not isinstance(lease, timedelta):
            lease = timedelta(microseconds=lease)
        assert timedelta(seconds=29.9) < lease < timedelta(seconds=30.1)


def test_an_uncommitted_claim_holds_up_nobody(postgresql_url: str) -> None:
    with closing(Database(postgresql_url)) as database:
        accepted = accept(database, "f", 4)

        with database.writing() as slow:
            first = calls.claim(slow, WORKERS[0], ["f"], 2, 30)
            second = take(database, WORKERS[1], 9)

        assert [call.id for call in (*first, *second)] == accepted


def test_a_claim_takes_no_more_than_its_limit_whatever_the_plan(postgresql_url: str) -> None:
    with closing(Database(postgresql_url)) as database:
        accept(database, "f", 50)

        with database.writing() as connection:
            for plan in ("hashjoin", "mergejoin", "material", "hashagg", "sort"):
                connection.execute(text(f"set local enable_{plan} = off"))
            claimed = calls.claim(connection, WORKERS[0], ["f"], 1, 30)

        assert len(claimed) == 1


def test_calls_of_functions_that_a_worker_does_not_have_are_left_for_one_that_has(
    plain_app: NewApp, database_url: str
) -> None:
    here, there = plain_app(), plain_app()

    @here.function(name="known")
    def known() -> str:
        return "known"

    @there.function(name="unknown")
    def unknown() -> str:
        return "unknown"

    with here.worker().start():
        left = here.start(rowtine.call("unknown"))
        assert here.start(known()).result(timeout=60) == "known"  # it is later in the queue
        (row,) = query(database_url, "select phase, claim from calls where function = 'unknown'")
        assert row == ("queued", 0)
        with there.worker().start():
            assert left.result(timeout=60) == "unknown"


def test_a_worker_without_functions_claims_nothing_and_answers_timers_all_the_same(
    plain_app: NewApp, database_url: str
) -> None:
    app, bare = plain_app(), plain_app()

    @app.function(name="main")
    async def main() -> None:
        await rowtine.sleep(0)

    hand = Hand(app)
    id = hand.start(main())
    hand.round(id, main)
    with bare.worker().start():
        wait_until(
            lambda: query(
                database_url, "select 1 from calls where kind = 'timer' and phase = 'done'"
            )
        )

    ((phase, wake),) = query(
        database_url, "select phase, wake_at from calls join states on states.id = calls.id"
    )
    assert phase == "suspended"
    assert wake is not None


def test_a_worker_runs_no_more_calls_at_once_than_its_concurrency(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(concurrency=3)

    @app.function
    def busy(x: int) -> int:
        with Gauge.lock:
            Gauge.now += 1
            Gauge.most = max(Gauge.most, Gauge.now)
        Gauge.tick.wait(0.01)
        with Gauge.lock:
            Gauge.now -= 1
        return x

    Gauge.now = Gauge.most = 0
    handles = [app.start(busy(x)) for x in range(20)]
    with app.worker().start():
        results = [handle.result(timeout=60) for handle in handles]

    assert results == list(range(20))
    assert Gauge.most == 3


class Gauge:
    lock = threading.Lock()
    tick = threading.Event()  # never set: a wait for it is a short sleep of the function's
    now = 0
    most = 0


def test_calls_that_take_long_do_not_hold_up_executions(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(concurrency=1)
    Held.started.clear()
    Held.let_go.clear()

    @app.function
    def long() -> None:
        Held.started.set()
        Held.let_go.wait(60)

    @app.function(name="main")
    async def main() -> str:
        await rowtine.sleep(0.2)
        return "done"

    with app.worker().start():
        handle = app.start(main())
        app.start(long())
        assert Held.started.wait(60)
        try:
            assert handle.result(timeout=60) == "done"
        finally:
            Held.let_go.set()


class Held:
    started = threading.Event()
    let_go = threading.Event()


@pytest.mark.parametrize("name", ["'; DROP TABLE calls--", "%s", ":x", 'a"b', "f%(x)s", "ü" * 200])
def test_names_that_look_like_sql_are_names(
    name: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name=name)
    def odd() -> str:
        return "odd"

    assert app.run(odd(), timeout=60) == "odd"
    with connect(database_url) as database:
        assert database.query("select function from calls") == [(name,)]


def test_a_worker_that_is_told_of_calls_all_the_time_sees_to_the_clock_too(
    new_app: NewApp,
) -> None:
    """Who is told takes what there is before it looks; but not time and again."""
    app = new_app()

    @app.function(name="sleeper")
    async def sleeper() -> str:
        await rowtine.sleep(0.01)
        return "woken"

    def told_again(moment: str, _: str | None = None) -> None:
        if moment == "claiming":
            worker.wake()

    worker = app.worker(probe=told_again)
    with worker.start():
        assert app.start(sleeper()).result(timeout=30) == "woken"


def test_an_answer_costs_no_claim_of_calls_and_no_look(
    new_app: NewApp, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In counts: what a worker is told of, and no more, is what it asks the database for."""
    app = new_app(poll_interval=60)

    @app.function(name="waiting")
    async def waiting() -> int:
        answer: int = await rowtine.signal("answer")
        return answer

    asked: list[str] = []
    claim, claim_rounds, due = calls.claim, rounds.claim_rounds, calls.due

    def counted(connection: Any, worker: Any, functions: Any, limit: int, lease: Any) -> Any:
        asked.extend(["calls"] * (limit > 0))
        return claim(connection, worker, functions, limit, lease)

    def counted_rounds(
        connection: Any, worker: Any, functions: Any, version: Any, limit: int, lease: Any
    ) -> Any:
        asked.extend(["rounds"] * (limit > 0))
        return claim_rounds(connection, worker, functions, version, limit, lease)

    def counted_look(connection: Any, functions: Any) -> Any:
        asked.append("look")
        return due(connection, functions)

    # It wakes the worker once more as soon as it has heard itself.
    monkeypatch.setattr(Listener, "start", lambda *_: None)
    monkeypatch.setattr(calls, "claim", counted)
    monkeypatch.setattr(rounds, "claim_rounds", counted_rounds)
    monkeypatch.setattr(calls, "due", counted_look)
    handle = app.start(waiting())
    with app.worker().start():
        wait_until(lambda: query(database_url, "select 1 from calls where phase = 'suspended'"))
        asked.clear()
        handle.signal("answer", 7)
        assert handle.result(timeout=60) == 7

    assert asked == ["rounds"]
