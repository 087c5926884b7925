"""Each law finds the corruption that it is about, and nothing in rows that are sound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, text

import rowtine
from databases import PostgresDatabases, SqliteDatabases, query
from rowtine.store import Database
from rowtine.store.laws import LAWS, check
from rowtine.store.schema import migrate
from store.by_hand import Hand


def build(url: str) -> rowtine.App:
    app = rowtine.App(url, poll_max_results=10)

    @app.function(name="one")
    def one(x: int) -> int:
        return x

    @app.coroutine
    async def part(x: int) -> int:
        return await one(x)

    @app.function(name="loser")
    async def loser() -> None:
        try:
            await one(1)
        finally:
            await one(2)

    @app.function(name="main")
    async def main() -> None:
        await one(3)
        await rowtine.race(loser(), one(4))
        await rowtine.gather(part(5), one(6), one(7))

    @app.function(name="leaf")
    def leaf(x: int) -> int:
        return x

    @app.coroutine
    async def limited() -> None:
        await rowtine.map(leaf, range(4), max_concurrency=2, max_failures=1)

    @app.coroutine
    async def shielding() -> None:
        await rowtine.shield(part(8))

    @app.function(name="modern")
    async def modern() -> None:
        promise = rowtine.promise()
        task = rowtine.spawn(one(7))
        try:
            async with rowtine.timeout(0):
                await rowtine.signal("never")
        except TimeoutError:
            pass
        try:
            async with rowtine.timeout(0):
                await rowtine.gather(rowtine.signal("never"))
        except TimeoutError:
            pass
        await rowtine.signal("paid")
        await rowtine.race(shielding(), rowtine.sleep(0))
        await rowtine.gather(task, promise, limited())

    @app.function(name="stopped")
    async def stopped() -> None:
        try:
            await rowtine.signal("paid", timeout=3600)
        finally:
            await one(9)

    return app


def compose(url: str) -> dict[str, str]:
    """Rows of every sort. The ids, by a name.

    `root` waits for three, of which one runs, one has arrived and one is queued; the loser of its
    race was told to stop, and is cleaning up. `modern` has given up two waits because their time
    was up, has heard one of the signals that it was sent, and has left a shielded coroutine behind;
    it waits for a task, a promise and four calls, of which two may run at once: one has failed and
    one is parked. `stopped` was cancelled and is cleaning up.
    """
    app = build(url)
    with contextlib.closing(app.database):
        hand = Hand(app)
        loser, main = app.registry.function("loser"), app.registry.function("main")
        done = hand.start(app.registry.function("one")(0))
        hand.answer("one", value=0)
        root = hand.start(main())
        hand.round(root, main)
        hand.answer("one", value=3)
        hand.round(root, main)
        ((nested,),) = query(url, "select id from calls where function = 'loser'")
        nested = str(nested)
        hand.round(nested, loser)
        hand.answer("one", value=4)
        hand.round(root, main)
        hand.round(nested, loser)
        (running,) = hand.claim("one")
        (arrived,) = hand.answer("one", value=6)
        assert (running.caller_id, arrived.caller_id) == (root, root)
        modern = _compose_modern(hand)
        stopped = hand.start(app.registry.function("stopped")())
        hand.round(stopped, app.registry.function("stopped"))
        app.handle(stopped).cancel("closing time")
        hand.round(stopped, app.registry.function("stopped"))
        return {
            "done": done,
            "root": root,
            "loser": nested,
            "running": running.id,
            "arrived": arrived.id,
            "modern": modern,
            "stopped": stopped,
        }


def _compose_modern(hand: Hand) -> str:
    function = hand.app.registry.function("modern")
    id = hand.app.start(function.options(key="today")()).id
    for name in ("sold", "paid", "paid"):
        hand.app.handle(id).signal(name, f"{name}!")
    hand.round(id, function)  # begins a task, a promise and a limit of time
    for _ in range(2):
        assert hand.fire() == 1
        hand.round(id, function)
    hand.round(id, function)  # has heard "paid"
    assert hand.fire() == 1
    hand.round(id, function)
    hand.answer("leaf", value=KeyError("x"))
    hand.round(id, function)
    return id


@dataclass
class Planted:
    """A transaction over sound rows in which no constraint is in the way."""

    connection: Connection
    ids: dict[str, str]

    def broken(self, corruption: str | None = None) -> set[str]:
        """The laws that are broken after this statement, which is then taken back."""
        with self.connection.begin_nested() as savepoint:
            if corruption is not None:
                used = {name: id for name, id in self.ids.items() if f":{name}" in corruption}
                assert self.connection.execute(text(corruption), used).rowcount > 0
            broken = {violation.law for violation in check(self.connection)}
            savepoint.rollback()
        return broken


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def planted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Planted]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            sqlite: SqliteDatabases = request.getfixturevalue("sqlite_databases")
            url = sqlite.migrated(tmp_path_factory.mktemp("laws"))
        else:
            postgres: PostgresDatabases = request.getfixturevalue("postgres_databases")
            url = stack.enter_context(postgres.migrated())
        ids = compose(url)
        database = stack.enter_context(contextlib.closing(Database(url)))
        connection = stack.enter_context(database.engine.connect())
        lift_constraints(connection)
        yield Planted(connection, ids)
        connection.rollback()


def lift_constraints(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        connection.exec_driver_sql("pragma ignore_check_constraints = on")
    else:
        connection.execute(text("set local session_replication_role = replica"))  # no foreign keys
        connection.execute(text("set local search_path = rowtine"))
    for index in ("ix_calls_token", "ix_calls_key"):
        connection.execute(text(f"drop index {index}"))
    if sqlite:
        return
    checks = """
        select case when contypid = 0 then 'table ' || conrelid::regclass
                    else 'domain ' || contypid::regtype end, conname
        from pg_constraint
        where contype = 'c' and connamespace = 'rowtine'::regnamespace
    """
    for what, name in connection.execute(text(checks)).all():
        connection.execute(text(f"alter {what} drop constraint {name}"))


CORRUPTIONS: dict[str, list[str]] = {
    "I01_done_call_has_one_outcome": [
        "update calls set finished_at = null where id = :done",
        "update calls set status = null where id = :done",
        "update calls set finished_at = created_at where id = :running",
        "update calls set error_type = 'KeyError' where id = :done",
    ],
    "I02_resolution_matches_outcome": [
        "update calls set resolution = 'error' where resolution = 'result' and seq = 0",
    ],
    "I03_attempt_is_a_claim": [
        "update calls set attempt = claim + 1 where id = :done",
        "update calls set attempt = 0 where id = :running",
    ],
    "I04_lease_iff_running": [
        "update calls set worker = null where id = :running",
        "update calls set lease_expires = null where id = :running",
        "update calls set worker = id where id = :done",
    ],
    "I05_told_only_what_is_over": [
        "update calls set delivered_round = 3, resolution = 'cancelled' where id = :running",
        "update calls set delivered_round = 3, resolution = 'timeout' where id = :running",
        "update calls set cancelling = false where id = :loser",
    ],
    "I06_outstanding_are_the_undelivered_calls": [
        "update states set outstanding_calls = outstanding_calls + 1 where id = :root",
        (
            "update calls set delivered_round = null, resolution = null"
            " where execution_id = :root and seq = 0 and coroutine_id = 0"
        ),
    ],
    "I07_allocators_are_ahead": [
        "update states set next_call_id = next_call_id - 1 where id = :root",
        "update states set next_coroutine_id = next_coroutine_id - 1 where id = :root",
        "update states set next_call_id = 0 where id = :loser",
    ],
    "I08_suspended_coroutine_has_one_pending_wait": [
        "update calls set delivered_round = 3, resolution = 'cancelled' where id = :running",
        "delete from futures where execution_id = :root and resolution is null",
        "update futures set resolution = null where execution_id = :root",
    ],
    "I09_done_coroutine_waits_for_nothing": [
        "update coroutines set phase = 'done' where execution_id = :root and id = 0",
        "update coroutines set phase = 'done' where execution_id = :loser and id = 0",
    ],
    "I10_future_belongs_to_a_coroutine": [
        "delete from coroutines where execution_id = :root and id = 0",
    ],
    "I11_call_belongs_to_a_wait": [
        "delete from coroutines where execution_id = :loser",
        "delete from futures where execution_id = :root and resolution is null",
        "update calls set coroutine_id = 99 where id = :arrived",
        "update calls set run = 1 where id = :arrived",
        (
            "update calls set execution_id = root_id, root_id = execution_id, coroutine_id = 77"
            " where id = :running"
        ),
    ],
    "I12_pending_future_has_open_members": [
        "update futures set pending = 0 where execution_id = :root and resolution is null",
        "update futures set pending = 2 where execution_id = :root and resolution is null",
        (
            "update calls set delivered_round = 3, resolution = 'result', arrived = null"
            " where id = :arrived"
        ),
        (
            "update futures set pending = 2 where execution_id = :modern and kind = 'task'"
            " and resolution is null and children = 1"
        ),
        (
            "update calls set delivered_round = 3, resolution = 'result'"
            " where execution_id = :modern and kind = 'promise'"
        ),
    ],
    "I13_tree_is_a_tree": [
        "update coroutines set serves = 99 where execution_id = :modern and shielded",
        "update coroutines set parent_id = 7 where execution_id = :root and parent_id = 0",
        "update coroutines set serves = 0 where execution_id = :root and parent_id = 0",
        "update calls set root_id = :done where id = :running",
    ],
    "I14_one_main_coroutine": [
        "delete from coroutines where execution_id = :root and id = 0",
        "update coroutines set run = 5 where execution_id = :loser",
    ],
    "I15_child_of_a_done_parent_was_let_go": [
        "update coroutines set phase = 'done' where execution_id = :root and id = 0",
        "update futures set cancel_losers = true where execution_id = :modern and kind = 'spawn'",
    ],
    "I16_what_is_over_leaves_nothing_open": [
        "delete from states where id = :root",
        "update calls set phase = 'queued' where id = :loser",
        "update states set run = 1 where id = :root",
    ],
    "I17_state_iff_suspended": [
        "delete from states where id = :root",
        "update calls set phase = 'done' where id = :loser",
        "update calls set current_run = 1 where id = :root",
    ],
    "I18_no_lost_wake_up": [
        "update states set wake_at = null where id = :root",
        "update states set outstanding_calls = 0 where id = :loser",
        "update states set worker = :done where id = :loser",
        "update coroutines set cancelled = false where execution_id = :loser",
    ],
    "I19_rounds_are_in_order": [
        (
            "update calls set delivered_round = 99 where execution_id = :root and seq = 0"
            " and coroutine_id = 0"
        ),
        "update calls set created_round = 99 where id = :running",
        "update calls set created_round = 3, delivered_round = 2 where id = :loser",
        "update calls set created_round = null where id = :running",
    ],
    "I20_arrivals_are_counted": [
        "update states set arrived = arrived + 1 where id = :root",
        "update states set delivered = delivered - 1 where id = :root",
        "update calls set arrived = null where id = :arrived",
        "update calls set arrived = 99 where id = :arrived",
    ],
    "I21_arrived_iff_done_and_undelivered": [
        "update calls set arrived = null where id = :arrived",
        "update calls set arrived = 9 where id = :loser",
    ],
    "I22_queued_call_is_due": [
        "update calls set due = null where phase = 'queued'",
        "update calls set due = created_at where id = :done",
        "update calls set parked = false where execution_id = :modern and parked",
    ],
    "I23_journal_has_no_gaps": [
        "update calls set seq = 5 where id = :running",
        "delete from calls where execution_id = :root and seq = 0 and coroutine_id = 0",
        "update futures set resolution = null where execution_id = :root and seq = 1",
    ],
    "I24_future_was_decided_by_what_has_ended": [
        "update futures set decided_by = first_child where execution_id = :root and seq = 1",
        "update futures set decided_by = 3 where execution_id = :root and resolution is null",
        (
            "update futures set resolution = 'error' where execution_id = :modern"
            " and kind = 'race' and decided_by is not null"
        ),
    ],
    "I25_token_iff_promise": [
        "update calls set token = null where execution_id = :modern and kind = 'promise'",
        "update calls set token = 't' where id = :running",
        "update calls set kind = 'promise', token = 't' where id in (:running, :arrived)",
    ],
    "I26_taken_signal_answers_its_wait": [
        "update signals set call_id = :done where execution_id = :modern and name = 'sold'",
        "update signals set name = 'sold' where execution_id = :modern and call_id is not null",
        "update signals set value = '1' where execution_id = :modern and call_id is not null",
        "update signals set value = null where execution_id = :modern and call_id is not null",
        "update calls set status = 'TIMEOUT' where execution_id = :modern and function = 'paid'",
        "delete from calls where execution_id = :modern and function = 'paid'",
    ],
    "I27_no_signal_beside_a_wait_for_it": [
        (
            "update calls set phase = 'queued' where execution_id = :modern and kind = 'signal'"
            " and function = 'paid'"
        ),
    ],
    "I28_signals_have_no_gaps": [
        "update signals set number = 9 where execution_id = :modern and number = 3",
        "update signals set number = number - 1 where execution_id = :modern and number = 1",
        "delete from signals where execution_id = :modern and number = 2",
    ],
    "I29_parked_call_has_no_room": [
        (
            "update futures set max_concurrency = 3 where execution_id = :modern"
            " and max_concurrency = 2"
        ),
        "update futures set max_concurrency = null where execution_id = :modern",
        "update calls set phase = 'done' where execution_id = :modern and parked",
        (
            "update calls set delivered_round = 1 where execution_id = :modern"
            " and function = 'leaf' and not parked"
        ),
        "update calls set parked = true where id = :running",
        "update calls set parked = true where id = :done",
    ],
    "I30_failed_members_are_counted": [
        "update futures set failed = 0 where execution_id = :modern and failed = 1",
        "update futures set max_failures = 0 where execution_id = :modern and failed = 1",
        (
            "update futures set failed = 1 where execution_id = :modern and kind = 'task'"
            " and resolution is null"
        ),
        (
            "update calls set resolution = 'result' where execution_id = :modern"
            " and function = 'leaf' and resolution is not null"
        ),
    ],
    "I31_time_limit_is_a_timer": [
        "update calls set decided_by = 99 where execution_id = :modern and resolution = 'timeout'",
        (
            "update futures set decided_by = null where execution_id = :modern"
            " and resolution = 'timeout'"
        ),
        "update calls set kind = 'function' where execution_id = :modern and function = 'timeout'",
        "update calls set parent_id = 1 where execution_id = :modern and function = 'timeout'",
    ],
    "I32_key_is_one_call": [
        "update calls set key = 'k' where id = :running",
        "update calls set key = 'k' where id in (:loser, :running, :arrived)",
    ],
}


def test_rows_of_every_sort_break_no_law(planted: Planted) -> None:
    assert planted.broken() == set()


def test_every_law_is_shown_to_find_something() -> None:
    assert [law.name for law in LAWS] == list(CORRUPTIONS)


@pytest.mark.parametrize(
    ("law", "corruption"),
    [
        pytest.param(law, corruption, id=f"{law}-{number}")
        for law, corruptions in CORRUPTIONS.items()
        for number, corruption in enumerate(corruptions)
    ],
)
def test_a_planted_corruption_is_found(law: str, corruption: str, planted: Planted) -> None:
    assert law in planted.broken(corruption)


def test_a_violation_says_which_law_and_which_row(planted: Planted) -> None:
    with planted.connection.begin_nested() as savepoint:
        planted.connection.execute(
            text("update calls set attempt = 7 where id = :done"), {"done": planted.ids["done"]}
        )
        (violation,) = check(planted.connection)
        savepoint.rollback()

    assert violation.law == "I03_attempt_is_a_claim"
    assert str(violation) == (
        f"I03_attempt_is_a_claim: id={planted.ids['done']}, phase=done, attempt=7, claim=1"
    )


def test_the_laws_are_checked_in_the_schema_of_the_database(
    empty_postgresql_url: str,
) -> None:
    migrate(empty_postgresql_url, schema="other")

    with contextlib.closing(Database(empty_postgresql_url, schema="other")) as database:  # noqa: SIM117
        with database.reading() as connection:
            assert check(connection) == []
