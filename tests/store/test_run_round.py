"""A round inside the user's own transaction: it stands or falls with what else is in there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import rowtine
from acceptance.support import assert_lawful, blocked, everything, rows, wait_until
from databases import connect, query
from rowtine.store import run_round
from store.by_hand import Hand


class Base(DeclarativeBase):
    pass


class Order(Base):
    """A table of the user's own, in the same database."""

    __tablename__ = "orders"

    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]


SEEN: list[Any] = []
LET_GO, STARTED = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    SEEN.clear()
    LET_GO.clear()
    STARTED.clear()
    yield
    LET_GO.set()


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    made = rowtine.App(database_url, poll_interval=0.02)

    @made.function(name="double")
    def double(x: int) -> int:
        return 2 * x

    @made.coroutine
    async def child(x: int) -> int:
        return await double(x) + 1

    @made.function(name="main")
    async def main(x: int) -> list[Any]:
        SEEN.append("begun")
        first = await double(x)
        pair = await rowtine.gather(child(first), double(7))
        return [first, *pair]

    @made.function(name="quick")
    async def quick(x: int) -> int:
        SEEN.append(x)
        return x

    @made.function(name="failing")
    async def failing() -> None:
        raise ConnectionError("no answer")

    @made.function(name="slow")
    async def slow() -> int:
        STARTED.set()
        LET_GO.wait(60)
        return await double(1)

    yield made
    made.close()
    assert_lawful(database_url)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The user's own engine, made as SQLAlchemy's documentation says."""
    made = create_engine(database_url)
    if made.dialect.name == "sqlite":

        @event.listens_for(made, "connect")
        def connect(connection: Any, record: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(made, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("begin immediate")

    Base.metadata.create_all(made)
    yield made
    made.dispose()


def scheduler(app: rowtine.App, function: str) -> rowtine.OneShotScheduler:
    return rowtine.OneShotScheduler(app.registry.function(function), version=app.version)


def start(app: rowtine.App, function: str, *arguments: Any) -> str:
    return app.start(rowtine.call(function, *arguments)).id


def orders(url: str) -> list[tuple[Any, ...]]:
    name = "orders" if url.startswith("sqlite") else "public.orders"
    return query(url, f"select name, state from {name}")


# --- commit and rollback --------------------------------------------------------------------------


def test_a_round_is_committed_together_with_the_users_rows(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "main", 3)

    with Session(engine) as session:
        session.add(Order(name="A-17", state="begun"))
        output = run_round(session, scheduler(app, "main"), id)
        assert orders(database_url) == []
        assert [row["phase"] for row in rows(database_url, "calls")] == ["queued"]
        session.commit()

    assert isinstance(output, rowtine.Poll)
    assert [(call.function, call.call_id) for call in output.calls] == [("double", 0)]
    assert orders(database_url) == [("A-17", "begun")]
    phases = {row["function"]: row["phase"] for row in rows(database_url, "calls")}
    assert phases == {"main": "suspended", "double": "queued"}


@pytest.mark.parametrize("rounds_before", [0, 1, 2])
@pytest.mark.case(199)
def test_a_rollback_leaves_no_trace_of_the_round(
    rounds_before: int, app: rowtine.App, engine: Engine, database_url: str
) -> None:
    hand = Hand(app)
    main = app.registry.function("main")
    id = start(app, "main", 3)
    for number in range(rounds_before):
        hand.round(id, main)
        hand.answer("double", value=6 + number, limit=2)
    before = everything(database_url)

    with Session(engine) as session:
        session.add(Order(name="A-17", state="begun"))
        output = run_round(session, scheduler(app, "main"), id)
        session.rollback()

    assert everything(database_url) == before
    assert orders(database_url) == []
    again = hand.round(id, main)  # and the same round comes to the same
    assert type(again) is type(output)
    if isinstance(output, rowtine.Poll):
        assert [(c.function, c.call_id, c.input) for c in again.calls] == [
            (c.function, c.call_id, c.input) for c in output.calls
        ]
    else:
        assert again.value == output.value


def test_a_savepoint_that_is_rolled_back_takes_the_round_along_and_nothing_else(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "main", 3)
    before = everything(database_url)

    with Session(engine) as session:
        session.add(Order(name="A-17", state="begun"))
        with session.begin_nested() as savepoint:
            run_round(session, scheduler(app, "main"), id)
            savepoint.rollback()
        session.commit()

    assert everything(database_url) == before
    assert orders(database_url) == [("A-17", "begun")]


def test_a_transaction_that_fails_later_takes_the_round_along(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "main", 3)
    before = everything(database_url)

    def fail_after_the_round() -> None:
        with Session(engine) as session, session.begin():
            run_round(session, scheduler(app, "main"), id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_the_round()

    assert everything(database_url) == before


def test_a_plain_connection_will_do(app: rowtine.App, engine: Engine, database_url: str) -> None:
    id = start(app, "quick", 4)

    with engine.begin() as connection:
        output = run_round(connection, scheduler(app, "quick"), id)

    assert output.value == "4"
    assert app.handle(id).result(timeout=0) == 4


def test_the_users_statements_go_on_as_before_on_the_same_connection(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "quick", 4)

    with Session(engine) as session:
        session.add(Order(name="A-17", state="begun"))
        session.flush()
        run_round(session, scheduler(app, "quick"), id)
        order = session.scalars(select(Order)).one()
        order.state = "done"
        session.commit()

    assert orders(database_url) == [("A-17", "done")]


# --- a whole execution ----------------------------------------------------------------------------


def test_a_whole_execution_is_driven_by_hand(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    hand = Hand(app)
    id = start(app, "main", 3)

    def turn() -> rowtine.Output:
        with Session(engine) as session, session.begin():
            return run_round(session, scheduler(app, "main"), id)

    first = turn()
    assert isinstance(first, rowtine.Poll)
    assert (first.min_results, first.max_results) == (1, 1)
    hand.answer("double", value=6)
    second = turn()
    assert isinstance(second, rowtine.Poll)
    assert [(call.function, call.input) for call in second.calls] == [
        ("double", '{"args":[6]}'),
        ("double", '{"args":[7]}'),
    ]
    assert (second.min_results, second.max_results) == (1, 2)
    assert_lawful(database_url)
    hand.answer("double", value=12)
    third = turn()
    assert isinstance(third, rowtine.Poll)
    assert third.calls == []
    hand.answer("double", value=14)
    last = turn()

    assert isinstance(last, rowtine.Exit)
    assert last.value == "[6,13,14]"
    assert app.handle(id).result(timeout=0) == [6, 13, 14]
    assert rows(database_url, "states") == []
    assert isinstance(turn(), rowtine.Incompatible)


@pytest.mark.case(200)
@pytest.mark.peer_case(103)
def test_what_a_round_by_hand_began_a_worker_finishes(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "main", 3)
    with Session(engine) as session, session.begin():
        run_round(session, scheduler(app, "main"), id)

    with app.worker().start():
        assert app.handle(id).result(timeout=60) == [6, 13, 14]


def test_an_exit_ends_the_call_whatever_a_worker_would_try_again(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "failing")

    with Session(engine) as session, session.begin():
        output = run_round(session, scheduler(app, "failing"), id)

    assert output.status is rowtine.Status.TCP_ERROR
    with pytest.raises(ConnectionError, match="no answer"):
        app.handle(id).result(timeout=0)


def test_a_nested_execution_wakes_its_caller(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    @app.function(name="outer")
    async def outer() -> Any:
        return await rowtine.call("quick", 5)

    outer_id = start(app, "outer")
    Hand(app).round(outer_id, outer)
    ((quick_id,),) = query(database_url, "select id from calls where function = 'quick'")

    with Session(engine) as session, session.begin():
        run_round(session, scheduler(app, "quick"), str(quick_id))
        output = run_round(session, scheduler(app, "outer"), outer_id)

    assert output.value == "5"
    assert app.handle(outer_id).result(timeout=0) == 5


# --- what is refused ------------------------------------------------------------------------------


def test_a_scheduler_of_another_function_is_refused_before_any_code_runs(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "main", 3)
    before = everything(database_url)

    with Session(engine) as session:
        with pytest.raises(rowtine.UsageError, match=r"one of 'main'.*made for 'quick'"):
            run_round(session, scheduler(app, "quick"), id)
        session.commit()

    assert everything(database_url) == before
    assert SEEN == []


def test_an_unknown_call_is_not_found(app: rowtine.App, engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(rowtine.NotFound):
        run_round(session, scheduler(app, "main"), "01890000-0000-7000-8000-0000000000ff")


def test_a_scheduler_of_a_plain_body_is_refused(app: rowtine.App, engine: Engine) -> None:
    body = app.registry.function("main").body
    with Session(engine) as session, pytest.raises(rowtine.UsageError, match=r"@app\.function"):
        run_round(session, rowtine.OneShotScheduler(body), start(app, "main", 1))


def test_a_call_that_a_worker_runs_is_left_to_it(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "quick", 4)
    hand = Hand(app)
    (claimed,) = hand.claim("quick")
    before = everything(database_url)

    with Session(engine) as session, session.begin():
        output = run_round(session, scheduler(app, "quick"), id)

    assert isinstance(output, rowtine.Incompatible)
    assert everything(database_url) == before
    assert SEEN == []
    assert hand.record(hand.outcome(claimed, 4)) == [True]


# --- two at once ----------------------------------------------------------------------------------


@pytest.mark.case(201)
def test_of_two_rounds_at_once_one_makes_the_calls_and_the_other_finds_nothing_to_do(
    app: rowtine.App, engine: Engine, database_url: str
) -> None:
    id = start(app, "slow")
    outputs: list[rowtine.Output] = []

    def turn() -> None:
        with Session(engine) as session, session.begin():
            outputs.append(run_round(session, scheduler(app, "slow"), id))

    first = threading.Thread(target=turn)
    first.start()
    assert STARTED.wait(60)
    second = threading.Thread(target=turn)
    second.start()
    if not database_url.startswith("sqlite"):
        wait_until(lambda: blocked(database_url))
    LET_GO.set()
    for thread in (first, second):
        thread.join(60)

    polls = [output for output in outputs if isinstance(output, rowtine.Poll)]
    assert [len(output.calls) for output in polls] == [1, 0]
    assert [row["call_id"] for row in rows(database_url, "calls") if row["execution_id"]] == [0]


def test_a_round_locks_the_state_of_the_caller_before_its_own(
    postgresql_url: str,
) -> None:
    """States by id: a caller is older. The other way round, an outcome and a round of the caller
    that cancels this execution would wait for each other."""
    with contextlib.ExitStack() as stack:
        app = rowtine.App(postgresql_url)
        stack.callback(app.close)
        engine = create_engine(postgresql_url)
        stack.callback(engine.dispose)

        @app.function(name="inner")
        async def inner() -> int:
            return 1

        @app.function(name="outer")
        async def outer() -> int:
            return await inner()

        hand = Hand(app)
        outer_id = hand.start(outer())
        hand.round(outer_id, outer)
        ((inner_id,),) = query(postgresql_url, "select id from calls where function = 'inner'")
        lock = stack.enter_context(connect(postgresql_url))
        lock.query("begin")
        lock.query("select 1 from states where id = :id for no key update", id=outer_id)

        def turn() -> None:
            with Session(engine) as session, session.begin():
                run_round(session, scheduler(app, "inner"), str(inner_id))

        thread = threading.Thread(target=turn)
        thread.start()
        wait_until(lambda: blocked(postgresql_url))
        # It waits for the caller's state, and holds nothing that whoever has that may want.
        free = lock.query("select 1 from calls where id = :id for update nowait", id=inner_id)
        lock.query("commit")
        thread.join(60)

        assert free == [(1,)]
        assert hand.round(outer_id, outer).value == "1"
        assert_lawful(postgresql_url)


def test_a_body_knows_its_call_and_a_heartbeat_changes_nothing(app: rowtine.App) -> None:
    hand = Hand(app)

    @app.function(name="asks")
    async def asks() -> None:
        rowtine.heartbeat("of the round")
        SEEN.append(rowtine.current())

    id = hand.start(rowtine.call("asks"))
    hand.round(id, app.registry.function("asks"))

    assert [rowtine.Current(id=id, function="asks", attempt=1, root_id=id)] == SEEN
