"""The documented views, asked with sqlite3 and psycopg alone, about rows written by plain SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from databases import Connection, connect
from rowtine.core.phases import (
    CALL_KINDS,
    CALL_MOVES,
    COROUTINE_MOVES,
    CoroutinePhase,
    Kind,
    Phase,
    Resolution,
)
from rowtine.core.status import Status
from rowtine.store.tables import metadata

# The ids that the documentation uses, so that its examples have something to find.
CHECKOUT = "019b0000-0000-7000-8000-000000000001"
QUOTE = "019b0000-0000-7000-8000-000000000002"
LOOKUP = "019b0000-0000-7000-8000-000000000003"
CHARGE = "019b0000-0000-7000-8000-000000000004"
RESERVE = "019b0000-0000-7000-8000-000000000005"
TIMER = "019b0000-0000-7000-8000-000000000006"
REPORT = "019b0000-0000-7000-8000-000000000007"
MAIL = "019b0000-0000-7000-8000-000000000008"
CLEANUP = "019b0000-0000-7000-8000-000000000009"
IMPORT = "019b0000-0000-7000-8000-00000000000a"
ORDER = "019b0000-0000-7000-8000-000000000011"
PROMISE = "019b0000-0000-7000-8000-000000000012"
PAID = "019b0000-0000-7000-8000-000000000013"
LIMIT = "019b0000-0000-7000-8000-000000000014"
PACK = "019b0000-0000-7000-8000-000000000015"
LABEL = "019b0000-0000-7000-8000-000000000016"
WORKER = "019b0000-0000-7000-8000-00000000000f"


CANARY = "canary"
"""What no view may show."""


# ------------------------------------------------------------------------------- rows, by plain SQL


@dataclass(frozen=True)
class Ago:
    """A moment so many seconds before now (after it, if negative), by the database's clock."""

    seconds: float

    def sql(self, sqlite: bool) -> str:
        if sqlite:
            now = "cast((julianday('now') - 2440587.5) * 86400000000 as integer)"
            return f"{now} - {self.seconds * 1_000_000:.0f}"
        return f"clock_timestamp() - interval '{self.seconds} seconds'"


class Rows:
    """A database of one kind or the other, and how to fill it."""

    def __init__(self, connection: Connection, sqlite: bool) -> None:
        self.connection = connection
        self.sqlite = sqlite

    def insert(self, table: str, **columns: Any) -> None:
        places = {
            name: value.sql(self.sqlite) if isinstance(value, Ago) else f":{name}"
            for name, value in columns.items()
        }
        self.connection.query(
            f"insert into {table} ({', '.join(places)}) values ({', '.join(places.values())})",
            **{name: value for name, value in columns.items() if not isinstance(value, Ago)},
        )

    def call(self, id: str, function: str, phase: str, **columns: Any) -> None:
        row = {"kind": "function", "input": "[]", "created_at": Ago(60), **columns}
        self.insert("calls", id=id, function=function, phase=phase, **row)

    def child(self, id: str, function: str, phase: str, number: int, **columns: Any) -> None:
        row = {
            "execution_id": CHECKOUT,
            "root_id": CHECKOUT,
            "run": 0,
            "call_id": number,
            "seq": 0,
            "created_round": 1,
            **columns,
        }
        self.call(id, function, phase, **row)

    def rows(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a query finds; ids as text on both databases."""
        return [
            tuple(str(value) if isinstance(value, UUID) else value for value in row)
            for row in self.connection.query(text, **parameters)
        ]


@pytest.fixture
def empty(database_url: str) -> Iterator[Rows]:
    with connect(database_url) as connection:
        yield Rows(connection, database_url.startswith("sqlite"))


@pytest.fixture
def shop(empty: Rows) -> Rows:
    """A checkout whose main coroutine waits for all of a coroutine, a call and a timer.

    A worker runs what the coroutine waits for, and a report; a mail is queued, a clean-up done, an
    import failed.
    """
    shop = empty
    shop.insert(
        "workers",
        id=WORKER,
        host="amber",
        pid=4242,
        boot_id="b",
        functions='["charge", "report"]',
        started_at=Ago(3600),
        heartbeat_at=Ago(1),
    )
    held = {"worker": WORKER, "lease_expires": Ago(-30), "started_at": Ago(5), "attempt": 1}
    over = {"finished_at": Ago(600), "attempt": 1, "created_at": Ago(603)}

    shop.call(CHECKOUT, "checkout", "suspended", attempt=1, started_at=Ago(60))
    shop.insert(
        "states",
        id=CHECKOUT,
        seed="5eed",
        semantics=1,
        run=0,
        round=2,
        next_coroutine_id=4,
        next_call_id=4,
        outstanding_calls=3,
        arrived=1,
        delivered=1,
        poll_min_results=1,
        poll_max_results=3,
        running_seconds=0.2,
    )
    coroutine = {"execution_id": CHECKOUT, "run": 0, "kind": "coroutine", "phase": "suspended"}
    shop.insert("coroutines", **coroutine, id=0, function="checkout", created_at=Ago(60))
    shop.insert(
        "coroutines",
        **coroutine,
        id=1,
        parent_id=0,
        serves=1,
        function="pay",
        input="[]",
        created_at=Ago(50),
    )

    shop.child(
        QUOTE,
        "quote",
        "done",
        0,
        coroutine_id=0,
        status="OK",
        output="1",
        attempt=1,
        created_at=Ago(60),
        finished_at=Ago(50),
        delivered_round=2,
        resolution="result",
        resolved_at=Ago(50),
        source_file="shop.py",
        source_line=11,
    )
    shop.child(
        LOOKUP,
        "lookup",
        "done",
        0,
        execution_id=QUOTE,
        coroutine_id=0,
        status="OK",
        attempt=2,
        finished_at=Ago(52),
        delivered_round=2,
        resolution="result",
        resolved_at=Ago(52),
    )
    shop.insert(
        "futures",
        execution_id=CHECKOUT,
        run=0,
        coroutine_id=0,
        seq=1,
        kind="all",
        function="all(pay, reserve, sleep)",
        first_child=1,
        children=3,
        pending=3,
        cancel_losers=True,
        created_round=2,
        source_file="shop.py",
        source_line=12,
        await_stack="shop.py:12 in checkout",
        created_at=Ago(50),
    )
    shop.child(
        CHARGE,
        "charge",
        "running",
        1,
        coroutine_id=1,
        source_file="shop.py",
        source_line=30,
        await_stack="shop.py:30 in pay",
        created_at=Ago(50),
        **held,
    )
    member = {"parent_id": 0, "serves": 1, "source_file": "shop.py", "source_line": 12}
    shop.child(
        RESERVE,
        "reserve",
        "queued",
        2,
        coroutine_id=2,
        status="TEMPORARY_ERROR",
        error_type="OSError",
        error_message="no stock",
        attempt=1,
        due=Ago(-30),
        first_failed_at=Ago(40),
        created_at=Ago(50),
        **member,
    )
    shop.child(
        TIMER,
        "sleep",
        "queued",
        3,
        coroutine_id=3,
        kind="timer",
        input="[3600.0]",
        due=Ago(-3600),
        created_at=Ago(50),
        **member,
    )

    shop.call(REPORT, "report", "running", **held)
    shop.call(MAIL, "mail", "queued", due=Ago(20), created_at=Ago(20))
    shop.call(CLEANUP, "cleanup", "done", status="OK", **over)
    shop.call(
        IMPORT,
        "import",
        "done",
        status="PERMANENT_ERROR",
        error_type="KeyError",
        error_message="'price'",
        **over,
    )
    return shop


@pytest.fixture
def office(shop: Rows) -> Rows:
    """The shop, and an order that was told to stop.

    Its main coroutine waits for a promise, within a limit of time. One child waits for a signal,
    while others are queued, one for two calls of which one is parked, and one for a running task.
    """
    office = shop
    office.call(
        ORDER,
        "order",
        "suspended",
        deadline=Ago(-3000),
        cancelling=True,
        cancel_reason="closing time",
    )
    office.insert(
        "states",
        id=ORDER,
        seed="5eed",
        semantics=1,
        run=0,
        round=2,
        next_coroutine_id=11,
        next_call_id=6,
        outstanding_calls=6,
        arrived=0,
        delivered=0,
        poll_min_results=1,
        poll_max_results=3,
        running_seconds=0.2,
    )
    mine = {"execution_id": ORDER, "run": 0, "created_at": Ago(40)}
    body = {**mine, "kind": "coroutine", "phase": "suspended"}
    office.insert("coroutines", **body, id=0, function="order", cancelled=True)
    for id, name in ((1, "listen"), (4, "pack_all"), (7, "labels")):
        office.insert("coroutines", **body, id=id, parent_id=0, serves=0, function=name, input="[]")
    future = {**mine, "created_round": 1, "cancel_losers": True, "source_file": "order.py"}
    over = {"resolution": "result", "resolved_at": Ago(40), "pending": 0}
    group = {**future, **over, "coroutine_id": 0, "kind": "spawn", "children": 1}
    office.insert("futures", **group, seq=0, function="spawn(promise)", first_child=2)
    office.insert("futures", **group, seq=1, function="spawn(timeout)", first_child=3)
    task = {**future, "kind": "task", "children": 1, "pending": 1, "source_line": 40}
    office.insert("futures", **task, coroutine_id=0, seq=2, function="promise", first_child=2)
    office.insert(
        "futures",
        **future,
        coroutine_id=4,
        seq=0,
        kind="all",
        function="all(pack, pack)",
        first_child=5,
        children=2,
        pending=2,
        max_concurrency=1,
        max_failures=1,
        source_line=50,
    )
    office.insert(
        "futures",
        **{**group, "coroutine_id": 7},
        seq=0,
        function="spawn(label)",
        first_child=8,
    )
    office.insert("futures", **task, coroutine_id=7, seq=1, function="label", first_child=8)
    asked = {"execution_id": ORDER, "root_id": ORDER, "created_at": Ago(40)}
    office.child(
        PROMISE,
        "promise",
        "queued",
        0,
        **asked,
        kind="promise",
        token=CANARY,
        coroutine_id=2,
        parent_id=0,
        serves=0,
        due=Ago(-7200),
    )
    office.child(
        LIMIT,
        "timeout",
        "queued",
        1,
        **asked,
        kind="timer",
        coroutine_id=3,
        parent_id=0,
        serves=1,
        due=Ago(-600),
    )
    office.child(
        PAID, "paid", "queued", 2, **asked, kind="signal", coroutine_id=1, source_file="order.py"
    )
    held = {"worker": WORKER, "lease_expires": Ago(-30), "started_at": Ago(5), "attempt": 1}
    member = {**asked, "parent_id": 4, "serves": 0}
    office.child(PACK, "pack", "running", 3, **member, coroutine_id=5, parked=False, **held)
    parked = PACK.replace("15", "17")
    office.child(parked, "pack", "queued", 4, **member, coroutine_id=6, parked=True)
    member = {**asked, "parent_id": 7, "serves": 0}
    office.child(LABEL, "label", "running", 5, **member, coroutine_id=8, **held)
    for number in (1, 2):
        office.insert(
            "signals",
            execution_id=ORDER,
            number=number,
            name="sold",
            value=f'"{CANARY}"',
            created_at=Ago(9),
        )
    return office


def about(seconds: float) -> Any:
    """A length of time, and what the test itself may have taken."""
    return pytest.approx(seconds + 30, abs=30.1)


# ---------------------------------------------------------------------------------------- in_flight


IN_FLIGHT = "execution_id, coroutine_id, parent_id, execution, coroutine, state"


@pytest.mark.case(206)
def test_in_flight_shows_what_has_begun_or_is_to_begin_and_where_it_stands(shop: Rows) -> None:
    rows = shop.rows(f"select {IN_FLIGHT}, file, line from in_flight order by 1, 2")

    assert rows == [
        (CHECKOUT, 0, None, "checkout", "checkout", "suspended", "shop.py", 12),
        (CHECKOUT, 1, 0, "checkout", "pay", "suspended", "shop.py", 30),
        (CHARGE, 0, None, "charge", "charge", "running", None, None),
        (RESERVE, 0, None, "reserve", "reserve", "queued", None, None),
        (REPORT, 0, None, "report", "report", "running", None, None),
        (MAIL, 0, None, "mail", "mail", "queued", None, None),
    ]


@pytest.mark.case(206)
def test_in_flight_says_what_each_waits_for_and_who_works_on_it(shop: Rows) -> None:
    rows = shop.rows(
        "select coroutine, kind, waits_for, pending, call_id, worker, host, pid"
        " from in_flight order by execution_id, coroutine_id"
    )

    nothing, nobody, somebody = (None,) * 4, (None,) * 3, (WORKER, "amber", 4242)
    assert rows == [
        ("checkout", "all", "all(pay, reserve, sleep)", 3, None, *nobody),
        ("pay", "function", "charge", None, CHARGE, *somebody),
        ("charge", *nothing, *somebody),
        ("reserve", *nothing, *nobody),
        ("report", *nothing, *somebody),
        ("mail", *nothing, *nobody),
    ]


@pytest.mark.case(206)
def test_in_flight_says_since_when(shop: Rows) -> None:
    rows = shop.rows("select coroutine, seconds from in_flight order by execution_id, coroutine_id")

    assert rows == [
        ("checkout", about(50)),
        ("pay", about(50)),
        ("charge", about(5)),
        ("reserve", about(50)),
        ("report", about(5)),
        ("mail", about(20)),
    ]


def test_a_suspended_coroutine_may_wait_for_a_timer_or_a_promise(shop: Rows) -> None:
    for kind in CALL_KINDS:
        token = "t" if kind is Kind.PROMISE else None
        shop.rows(
            "update calls set kind = :kind, token = :token where id = :id",
            kind=kind.value,
            token=token,
            id=CHARGE,
        )

        rows = shop.rows("select kind, waits_for from in_flight where coroutine = 'pay'")

        assert rows == [(kind.value, "charge")]


def test_a_call_that_became_another_is_waited_for_under_its_first_name(shop: Rows) -> None:
    shop.rows(
        "update calls set asked_function = function, asked_input = input, function = 'charge_later'"
        " where id = :id",
        id=CHARGE,
    )

    assert shop.rows("select waits_for from in_flight where call_id = :id", id=CHARGE) == [
        ("charge",)
    ]
    assert shop.rows("select waits_for from awaits where call_id = :id", id=CHARGE) == [("charge",)]
    assert shop.rows("select function from outstanding_calls where id = :id", id=CHARGE) == [
        ("charge_later",)
    ]


def test_coroutines_of_an_earlier_run_are_not_in_flight(shop: Rows) -> None:
    shop.rows("update calls set current_run = 1 where id = :id", id=CHECKOUT)

    assert shop.rows("select * from in_flight where execution_id = :id", id=CHECKOUT) == []


def test_a_worker_that_has_gone_is_still_known_by_its_id(shop: Rows) -> None:
    shop.rows("delete from workers")

    for view in ("in_flight", "outstanding_calls"):
        rows = shop.rows(f"select distinct worker, host, pid from {view} where worker is not null")
        assert rows == [(WORKER, None, None)]


def test_in_flight_shows_a_task_with_the_call_that_it_is(office: Rows) -> None:
    rows = office.rows(
        "select coroutine, kind, waits_for, pending, parked, call_id, pid from in_flight"
        " where execution_id = :id order by coroutine_id",
        id=ORDER,
    )

    assert rows == [
        ("order", "task", "promise", 1, None, PROMISE, None),
        ("listen", "signal", "paid", None, None, PAID, None),
        ("pack_all", "all", "all(pack, pack)", 2, 1, None, None),
        ("labels", "task", "label", 1, None, LABEL, 4242),
    ]


def test_in_flight_says_when_the_clock_will_end_a_wait(office: Rows) -> None:
    """The main coroutine's promise has two hours left, its limit of time ten minutes; and all have
    fifty minutes until the deadline."""

    def left() -> list[tuple[Any, ...]]:
        return office.rows(
            "select coroutine, seconds_left from in_flight where execution_id = :id"
            " order by coroutine_id",
            id=ORDER,
        )

    deadline = pytest.approx(3000 - 30, abs=30.1)
    others = [("listen", deadline), ("pack_all", deadline), ("labels", deadline)]
    assert left() == [("order", pytest.approx(600 - 30, abs=30.1)), *others]

    office.rows(
        "update calls set phase = 'done', status = 'CANCELLED', due = null,"
        " finished_at = created_at where id = :id",
        id=LIMIT,
    )
    office.rows("update calls set deadline = null where id = :id", id=ORDER)
    assert left() == [
        ("order", pytest.approx(7200 - 30, abs=30.1)),
        *((name, None) for name, _ in others),
    ]


def test_in_flight_says_who_was_told_to_stop_and_why(office: Rows) -> None:
    rows = office.rows("select distinct execution, cancel_reason from in_flight where cancelling")

    assert rows == [("order", "closing time")]


# ------------------------------------------------------------------------------------------- awaits


def test_awaits_shows_every_wait_alike_resolved_or_not(shop: Rows) -> None:
    rows = shop.rows(
        "select run, coroutine_id, seq, kind, waits_for, state, call_id, first_child, children,"
        " pending, file, line from awaits where execution_id = :id order by 1, 2, 3",
        id=CHECKOUT,
    )

    one = (None, None, None)
    assert rows == [
        (0, 0, 0, "function", "quote", "result", QUOTE, *one, "shop.py", 11),
        (0, 0, 1, "all", "all(pay, reserve, sleep)", "pending", None, 1, 3, 3, "shop.py", 12),
        (0, 1, 0, "function", "charge", "pending", CHARGE, *one, "shop.py", 30),
        (0, 2, 0, "function", "reserve", "pending", RESERVE, *one, "shop.py", 12),
        (0, 3, 0, "timer", "sleep", "pending", TIMER, *one, "shop.py", 12),
    ]


def test_awaits_shows_the_await_stack(shop: Rows) -> None:
    rows = shop.rows(
        "select coroutine_id, await_stack from awaits where await_stack is not null order by 1"
    )

    assert rows == [(0, "shop.py:12 in checkout"), (1, "shop.py:30 in pay")]


def test_a_root_is_nobodys_wait(shop: Rows) -> None:
    shop.rows("delete from futures")

    count = shop.rows("select count(*) from awaits where execution_id is null")

    assert count == [(0,)]


def test_a_wait_counts_until_it_is_resolved(shop: Rows) -> None:
    shop.rows("update futures set resolution = 'result', resolved_at = created_at")

    rows = shop.rows(
        "select waits_for, state, seconds from awaits where coroutine_id = 0 order by 3"
    )

    assert rows == [
        ("all(pay, reserve, sleep)", "result", 0.0),
        ("lookup", "result", about(8)),
        ("quote", "result", about(10)),
    ]
    assert rows[2][2] == pytest.approx(10, abs=1)  # the call's time, not the time since


def test_a_wait_that_was_given_up_counts_until_then(shop: Rows) -> None:
    shop.rows(
        "update calls set resolution = 'timeout', delivered_round = 3, decided_by = 9,"
        f" resolved_at = {Ago(40).sql(shop.sqlite)} where id = :id",
        id=CHARGE,
    )

    rows = shop.rows("select state, decided_by, seconds from awaits where call_id = :id", id=CHARGE)

    assert rows == [("timeout", 9, pytest.approx(10, abs=1))]


# -------------------------------------------------------------------------------- outstanding_calls


@pytest.mark.case(206)
@pytest.mark.peer_case(109)
def test_outstanding_calls_shows_every_open_call_and_who_holds_it(shop: Rows) -> None:
    rows = shop.rows(
        "select id, function, kind, phase, status, attempt, execution_id, coroutine_id,"
        " worker, host, pid, error from outstanding_calls order by 1"
    )

    nobody, somebody = (None,) * 3, (WORKER, "amber", 4242)
    root, first, pay = (None, None), (CHECKOUT, 2), (CHECKOUT, 1)
    function = "function"
    assert rows == [
        (CHECKOUT, "checkout", function, "suspended", None, 1, *root, *nobody, None),
        (CHARGE, "charge", function, "running", None, 1, *pay, *somebody, None),
        (RESERVE, "reserve", function, "queued", "TEMPORARY_ERROR", 1, *first, *nobody, "no stock"),
        (TIMER, "sleep", "timer", "queued", None, 0, CHECKOUT, 3, *nobody, None),
        (REPORT, "report", function, "running", None, 1, *root, *somebody, None),
        (MAIL, "mail", function, "queued", None, 0, *root, *nobody, None),
    ]


def test_a_call_is_outstanding_until_its_caller_has_consumed_it(shop: Rows) -> None:
    def phases() -> list[tuple[Any, ...]]:
        return shop.rows("select phase from outstanding_calls where id = :id", id=TIMER)

    shop.rows(
        "update calls set phase = 'done', status = 'OK', due = null, finished_at = created_at,"
        " arrived = 2 where id = :id",
        id=TIMER,
    )
    assert phases() == [("done",)]

    shop.rows(
        "update calls set arrived = null, delivered_round = 3, resolution = 'result',"
        " resolved_at = finished_at where id = :id",
        id=TIMER,
    )
    assert phases() == []


def test_a_call_that_nobody_waits_for_any_more_is_outstanding_while_it_runs(shop: Rows) -> None:
    shop.rows(
        "update calls set resolution = 'cancelled', delivered_round = 3, resolved_at = created_at"
        " where id = :id",
        id=CHARGE,
    )

    assert shop.rows("select phase from outstanding_calls where id = :id", id=CHARGE) == [
        ("running",)
    ]


# ----------------------------------------------------------------------------------- execution_tree


def test_the_tree_of_an_execution_is_in_the_order_of_its_calls(shop: Rows) -> None:
    rows = shop.rows(
        "select depth, id, execution_id, coroutine_id, function, kind, phase, status, attempt"
        " from execution_tree where root_id = :id order by path",
        id=CHECKOUT,
    )

    function = "function"
    assert rows == [
        (0, CHECKOUT, None, None, "checkout", function, "suspended", None, 1),
        (1, QUOTE, CHECKOUT, 0, "quote", function, "done", "OK", 1),
        (2, LOOKUP, QUOTE, 0, "lookup", function, "done", "OK", 2),
        (1, CHARGE, CHECKOUT, 1, "charge", function, "running", None, 1),
        (1, RESERVE, CHECKOUT, 2, "reserve", function, "queued", "TEMPORARY_ERROR", 1),
        (1, TIMER, CHECKOUT, 3, "sleep", "timer", "queued", None, 0),
    ]


def test_every_call_stands_in_one_tree_and_the_oldest_root_comes_first(shop: Rows) -> None:
    trees = shop.rows("select root_id, depth from execution_tree order by path")

    assert len(trees) == shop.rows("select count(*) from calls")[0][0]
    roots = [root for root, depth in trees if depth == 0]
    assert roots == [CHECKOUT, REPORT, MAIL, CLEANUP, IMPORT]
    assert [root for root, _ in trees] == sorted(root for root, _ in trees)


def test_calls_stand_in_the_order_of_numbers_and_runs_not_of_texts(shop: Rows) -> None:
    def id(run: int, number: int) -> str:
        return f"019b0000-0000-7000-9000-{run:04}{number:08}"

    places = [(run, number) for run in (0, 2, 10) for number in (9, 10, 100, 99999999)]
    for run, number in reversed(places):
        # The place in the tree must come from the number, so the ids run the other way.
        shop.child(
            id(9999 - run, 99999999 - number),
            f"{run}.{number}",
            "queued",
            number,
            execution_id=MAIL,
            root_id=MAIL,
            run=run,
            coroutine_id=number,
            due=Ago(1),
        )

    rows = shop.rows(
        "select function from execution_tree where root_id = :id and depth > 0 order by path",
        id=MAIL,
    )

    assert rows == [(f"{run}.{number}",) for run, number in places]


# ----------------------------------------------------------------------------------- in all of them


VIEWS: Mapping[str, list[str]] = {
    "awaits": ["since"],
    "in_flight": ["since", "until", "deadline"],
    "outstanding_calls": ["since", "due", "lease_expires", "deadline"],
    "execution_tree": ["since", "finished"],
}


@pytest.mark.parametrize("view", VIEWS)
def test_times_are_readable_and_right(office: Rows, view: str) -> None:
    for column in VIEWS[view]:
        moments = [
            moment
            for (moment,) in office.rows(f"select {column} from {view}")
            if moment is not None
        ]
        assert moments
        for moment in moments:
            if office.sqlite:
                assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", moment)
                read = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
            else:
                assert moment.tzinfo is not None
                read = moment
            assert abs(datetime.now(UTC) - read) < timedelta(hours=3)


def test_readable_times_and_seconds_agree(shop: Rows) -> None:
    if shop.sqlite:
        text = "(julianday('now') - julianday(since)) * 86400 - seconds"
    else:
        text = "extract(epoch from statement_timestamp() - since) - seconds"

    for view in ("in_flight", "outstanding_calls"):
        for (difference,) in shop.rows(f"select {text} from {view}"):
            assert float(difference) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_no_calls_is_empty(empty: Rows, view: str) -> None:
    assert empty.rows(f"select * from {view}") == []


def test_in_flight_never_reads_through_the_history(shop: Rows) -> None:
    """Finished calls may be millions: every part of the view begins at an index of open ones."""
    if shop.sqlite:
        plan = [row[3] for row in shop.rows("explain query plan select * from in_flight")]
        through = [step for step in plan if re.match("SCAN [eckf]\\b(?!.* INDEX ix_calls_)", step)]
        assert [step for step in plan if "ix_calls_worker" in step], plan
        assert through == []
    else:
        # On so few rows the planner rightly reads everything; told not to, it shows that it need
        # not.
        shop.rows("set enable_seqscan = off")
        plan = [row[0] for row in shop.rows("explain select * from in_flight")]
        assert not [step for step in plan if "Seq Scan on calls" in step]


def test_the_views_show_no_payload_and_no_token(office: Rows) -> None:
    """So that a role which may read only them sees what happens, and not the data."""
    office.rows(f"update calls set input = '\"{CANARY}\"', details = '\"{CANARY}\"'")
    office.rows(f"update calls set output = '\"{CANARY}\"' where status is not null")
    office.rows(f"update coroutines set input = '\"{CANARY}\"'")
    office.rows(f"update states set seed = '{CANARY}'")

    for view in VIEWS:
        assert CANARY not in str(office.rows(f"select * from {view}"))


# ------------------------------------------------------------------------------- the documentation


PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "schema.md"
TEXT = PAGE.read_text()
QUESTIONS = TEXT.split("\n## Questions")[1].split("\n## ")[0]
EXAMPLES = re.findall(
    r"^### ([^\n]+)|^```(sql[^\n]*)\n(.*?)^```$", QUESTIONS, re.MULTILINE | re.DOTALL
)


def examples() -> Iterator[Any]:
    """The SQL of the page, each under its heading and once for each database that it is for."""
    heading, number = "", 0
    for title, marks, statement in EXAMPLES:
        if title:
            heading, number = title, 0
            continue
        number += 1
        for kind in marks.split()[1:] or ["sqlite", "postgresql"]:
            yield pytest.param(kind, statement, id=f"{kind}-{heading} {number}")


@pytest.mark.parametrize(("database_url", "statement"), list(examples()), indirect=["database_url"])
def test_every_example_runs_and_finds_something(office: Rows, statement: str) -> None:
    assert office.rows(statement)


def test_every_example_for_one_database_has_a_sister_for_the_other() -> None:
    marks = [marks for _, marks, _ in EXAMPLES if marks and marks != "sql"]

    assert marks == ["sql postgresql", "sql sqlite"] * (len(marks) // 2)
    assert marks


def documented(heading: str) -> list[list[list[str]]]:
    """The tables under a heading: for each its rows, for each row its cells."""
    section = TEXT.split(f"\n### {heading}\n")[1].split("\n#")[0]
    tables = re.findall(r"^\|[^\n]*\n\|---[^\n]*\n((?:\|[^\n]*\n)+)", section, re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        for table in tables
    ]


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("table", [table.name for table in metadata.sorted_tables])
def test_every_column_of_a_table_has_a_line(table: str) -> None:
    (rows,) = documented(f"`{table}`")

    columns = metadata.tables[f"{metadata.schema}.{table}"].columns.keys()
    assert [word for name, _ in rows for word in words(name)] == columns
    assert all(meaning for _, meaning in rows)


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_has_a_line(empty: Rows, view: str) -> None:
    (rows,) = documented(f"`{view}`")

    if empty.sqlite:
        columns = [row[1] for row in empty.rows(f"pragma table_info({view})")]
    else:
        columns = [
            name
            for (name,) in empty.rows(
                "select column_name from information_schema.columns where table_schema = 'rowtine'"
                " and table_name = :view order by ordinal_position",
                view=view,
            )
        ]
    assert [word for name, _ in rows for word in words(name)] == columns
    assert all(meaning for _, meaning in rows)


@pytest.mark.parametrize(
    ("heading", "moves"),
    [("Phases of a call", CALL_MOVES), ("Phases of a coroutine", COROUTINE_MOVES)],
)
def test_the_documented_moves_are_the_moves(
    heading: str, moves: Mapping[Phase | CoroutinePhase, frozenset[Phase | CoroutinePhase]]
) -> None:
    phases, rows = documented(heading)

    assert [words(phase)[0] for phase, _ in phases] == [phase.value for phase in moves]
    assert sorted((words(old)[0], words(new)[0]) for old, new, _ in rows) == sorted(
        (old.value, new.value) for old, allowed in moves.items() for new in allowed
    )


@pytest.mark.parametrize(("heading", "enum"), [("Kinds", Kind), ("Resolutions", Resolution)])
def test_every_word_has_a_line(heading: str, enum: type[Kind | Resolution]) -> None:
    (rows,) = documented(heading)

    assert [words(name)[0] for name, _ in rows] == [word.value for word in enum]


def test_the_documented_statuses_say_which_are_tried_again() -> None:
    (rows,) = documented("Statuses")

    assert {words(name)[0]: answer for name, answer in rows} == {
        status.value: "yes" if status.retryable else "no" for status in Status
    }
