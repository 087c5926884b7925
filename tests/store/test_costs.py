"""A round costs what it touches, not what exists. Counts, so that no clock is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

import rowtine
from rowtine.clock import new_id
from rowtine.core.coroutine import Slot
from rowtine.store import calls, each, rounds, tables
from rowtine.store.calls import NewCall
from rowtine.store.loading import Loaded, load
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


async def bare(n: int, ballast: str = "") -> int:
    return len(await rowtine.gather(*[rowtine.call("leaf", i) for i in range(n)]))


async def promised(n: int) -> int:
    return len(await rowtine.gather(*[rowtine.promise() for _ in range(n)]))


async def forks(n: int) -> int:
    for i in range(n):
        await rowtine.gather(rowtine.call("leaf", i), rowtine.call("leaf", i))
    return n


class Bodies:
    """The registered functions of the running test: a body may not close over locals."""

    wide: Any
    member: Any
    steps: Any
    bare: Any
    forks: Any
    promised: Any


def driven(url: str) -> Iterator[Hand]:
    app = rowtine.App(url)
    Bodies.wide = app.function(wide)
    Bodies.member = app.coroutine(member)
    Bodies.steps = app.function(steps)
    Bodies.bare = app.function(bare)
    Bodies.forks = app.function(forks)
    Bodies.promised = app.function(promised)
    yield Hand(app)
    app.close()


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    yield from driven(database_url)


@pytest.fixture
def postgresql_hand(postgresql_url: str) -> Iterator[Hand]:
    yield from driven(postgresql_url)


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that are sent meanwhile, beside the BEGIN of each transaction; a list of rows
    is one."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextmanager
def received(engine: Engine) -> Iterator[list[int]]:
    """The bytes of each value that PostgreSQL sends meanwhile."""
    sizes: list[int] = []

    def add(_connection: Any, cursor: Any, *_: Any) -> None:
        if (result := cursor.pgresult) is not None:
            sizes.extend(
                len(result.get_value(row, column) or b"")
                for row in range(result.ntuples)
                for column in range(result.nfields)
            )

    event.listen(engine, "after_cursor_execute", add)
    try:
        yield sizes
    finally:
        event.remove(engine, "after_cursor_execute", add)


@contextmanager
def touched(engine: Engine) -> Iterator[list[int]]:
    """The rows of tables that each transaction on PostgreSQL has read and written."""
    rows: list[int] = []

    def ask(connection: Any) -> None:
        rows.append(int(connection.exec_driver_sql(TOUCHED).scalar_one()))
        # What is counted so far would be counted again in the next transaction.
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")

    engine.dispose()
    event.listen(engine, "commit", ask)
    try:
        yield rows
    finally:
        event.remove(engine, "commit", ask)


TOUCHED = """
    SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0) + n_tup_ins + n_tup_upd + n_tup_del)
    FROM pg_stat_xact_user_tables
"""


def loaded(hand: Hand, id: str) -> Loaded:
    """What the next round of an execution is given."""
    with hand.app.database.reading() as connection:
        return load(connection, hand.app.body, hand.app.codec, id)


def reads(hand: Hand, id: str) -> list[str]:
    """The statements with which that is read."""
    with counted(hand.app.database.engine) as sent:
        loaded(hand, id)
    return [statement for statement in sent if statement.startswith(("SELECT", "WITH"))]


def suspended_with(hand: Hand, children: int, answered: int, function: Any = None) -> str:
    """An execution that waits for so many children; the calls of all have been claimed, and those
    of some answered."""
    function = function or Bodies.wide
    id = hand.start(function(children))
    hand.round(id, function)
    claimed = hand.claim("leaf", limit=children)
    assert all(hand.record(*(hand.outcome(call, 1) for call in claimed[:answered])))
    for token in tokens(hand, id)[:answered]:
        hand.app.resolve(token, 1)
    return id


def tokens(hand: Hand, id: str) -> list[str]:
    mine = select(tables.calls.c.token).where(
        tables.calls.c.execution_id == id, tables.calls.c.token.is_not(None)
    )
    with hand.app.database.reading() as connection:
        return list(connection.scalars(mine.order_by(tables.calls.c.call_id)))


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


def test_a_very_wide_round_is_written_so_many_rows_at_a_time(
    postgresql_hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement for all would take longer than the server gives it, at every try."""
    monkeypatch.setattr(each, "AT_ONCE", 40)
    sent = {}
    for children in (30, 100):
        id = postgresql_hand.start(Bodies.wide(children))
        with counted(postgresql_hand.app.database.engine) as statements:
            postgresql_hand.round(id, Bodies.wide)
        sent[children] = len(statements)

    assert sent[100] == sent[30] + 2
    assert len(postgresql_hand.claim("leaf", limit=200)) == 130


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


@pytest.mark.parametrize("function", ["bare", "wide"])
def test_a_load_is_one_statement_whatever_exists_and_arrives(hand: Hand, function: str) -> None:
    """Where it stands, what has arrived, and who waits for that and whom they serve."""
    for children, answered in ((3, 1), (50, 2), (200, 10)):
        id = suspended_with(hand, children, answered, getattr(Bodies, function))

        assert len(reads(hand, id)) == 1


def test_the_load_of_a_first_round_is_one_statement(hand: Hand) -> None:
    assert len(reads(hand, hand.start(Bodies.steps(1)))) == 1


def test_a_journal_of_calls_is_one_statement_more_whatever_its_length(hand: Hand) -> None:
    id = hand.start(Bodies.steps(30))
    hand.round(id, Bodies.steps)
    for step in range(20):
        hand.answer("leaf", value=1)

        assert len(reads(hand, id)) == (2 if step else 1)
        hand.round(id, Bodies.steps)


def test_a_journal_of_joins_is_read_only_by_whoever_goes_on(hand: Hand) -> None:
    id = hand.start(Bodies.forks(5))
    hand.round(id, Bodies.forks)
    for _ in range(3):
        hand.answer("leaf", value=1, limit=2)
        hand.round(id, Bodies.forks)
    hand.answer("leaf", value=1)
    seen = loaded(hand, id)

    assert len(reads(hand, id)) == 1
    with (
        hand.app.database.reading() as connection,
        counted(hand.app.database.engine) as statements,
    ):
        seen.rows.connection = connection
        (main,) = seen.rows.coroutines([0])

    assert main.coroutine is not None
    assert len(main.coroutine.journal or ()) == 3
    assert len([each for each in statements if each.startswith("SELECT")]) == 4


def test_what_a_load_receives_is_the_same_whatever_exists(postgresql_hand: Hand) -> None:
    hand, sizes = postgresql_hand, {}
    for function in (Bodies.bare, Bodies.wide):
        for children in (100, 900):
            id = suspended_with(hand, children, 10, function)
            with received(hand.app.database.engine) as values:
                loaded(hand, id)
            sizes[function, children] = len(values), sum(values)

    for function in (Bodies.bare, Bodies.wide):
        few, many = sizes[function, 100], sizes[function, 900]
        assert few[0] == many[0]
        assert abs(few[1] - many[1]) < 50  # numbers with more digits


def test_the_input_is_read_only_to_rebuild(postgresql_hand: Hand) -> None:
    hand = postgresql_hand
    ballast = 100_000
    id = hand.start(Bodies.bare(3, "x" * ballast))
    hand.round(id, Bodies.bare)
    hand.answer("leaf", value=1)

    with received(hand.app.database.engine) as of_a_counter:
        seen = loaded(hand, id)
    with (
        hand.app.database.reading() as connection,
        received(hand.app.database.engine) as of_a_rebuild,
    ):
        seen.rows.connection = connection
        (main,) = seen.rows.coroutines([0])
    with (
        hand.app.database.reading() as connection,
        received(hand.app.database.engine) as of_a_warm_one,
    ):
        seen.rows.connection, seen.rows.warm = connection, {0: Slot()}
        seen.rows.coroutines([0])

    assert sum(of_a_counter) < 10_000
    assert sum(of_a_rebuild) > ballast
    assert sum(of_a_warm_one) < 10_000
    assert main.coroutine is not None
    assert hand.app.codec.decode_arguments(main.coroutine.input).args == (3, "x" * ballast)


def test_a_claim_is_one_statement_whatever_it_takes(hand: Hand) -> None:
    worker = new_id()
    new = [NewCall(new_id(), "leaf", "[[1],{}]") for _ in range(20)]
    with hand.app.database.writing() as connection:
        calls.insert_roots(connection, new)
    for limit, taken in ((1, 1), (15, 15), (100, 4)):
        with (
            hand.app.database.writing() as connection,
            counted(hand.app.database.engine) as statements,
        ):
            claimed = calls.claim(connection, worker, ["leaf", "other"], limit, 30)
            rounds.claim_rounds(connection, worker, ["leaf"], None, limit, 30)

        assert len(claimed) == taken
        assert len(statements) == 2


def test_a_start_without_a_key_is_one_statement(hand: Hand) -> None:
    new = NewCall(new_id(), "leaf", "[[1],{}]")
    with (
        hand.app.database.writing() as connection,
        counted(hand.app.database.engine) as statements,
    ):
        calls.accept(connection, new)

    (sent,) = statements
    assert sent.startswith("INSERT")


@pytest.mark.parametrize("analyzed", [False, True])
def test_the_last_round_of_a_journal_reads_each_entry_once(
    postgresql_hand: Hand, analyzed: bool
) -> None:
    hand, length = postgresql_hand, 200
    id = hand.start(Bodies.steps(length))
    hand.round(id, Bodies.steps)
    for _ in range(length - 1):
        hand.answer("leaf", value=1)
        hand.round(id, Bodies.steps)
    hand.answer("leaf", value=1)
    if analyzed:
        with hand.app.database.writing() as connection:
            connection.exec_driver_sql("ANALYZE")

    with touched(hand.app.database.engine) as rows:
        hand.round(id, Bodies.steps)

    assert length <= sum(rows) < length + 25


@pytest.mark.parametrize("function", ["bare", "wide", "promised"])
def test_a_round_that_delivers_is_four_statements(postgresql_hand: Hand, function: str) -> None:
    """Whose caller it is, the locks, the load and the writes."""
    hand = postgresql_hand
    id = suspended_with(hand, 100, 10, getattr(Bodies, function))

    with counted(hand.app.database.engine) as sent:
        hand.round(id, getattr(Bodies, function))

    assert len(sent) == 4


@pytest.mark.parametrize("function", ["bare", "wide", "promised"])
def test_a_round_touches_as_many_rows_whatever_exists(postgresql_hand: Hand, function: str) -> None:
    hand, rows = postgresql_hand, {}
    for children in (100, 1000):
        id = suspended_with(hand, children, 10, getattr(Bodies, function))
        with hand.app.database.writing() as connection:
            connection.exec_driver_sql("ANALYZE")  # as autovacuum does within a minute
        with touched(hand.app.database.engine) as of_each:
            hand.round(id, getattr(Bodies, function))
        rows[children] = sum(of_each)

    assert 0 < rows[1000] <= 1.1 * rows[100]
