"""What is committed: behind which fence, in which order, with which locks, and at which cost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event

import rowtine
from acceptance.support import (
    assert_lawful,
    blocked,
    columns,
    end_leases,
    everything,
    past,
    rows,
    wait_until,
)
from databases import connect, query
from rowtine.clock import new_id
from rowtine.core.status import Status
from rowtine.store import Database, RejectedError, calls, leases, locks, rounds, run_round
from rowtine.store.calls import Claimed
from rowtine.store.committing import Round, commit
from rowtine.store.loading import load
from rowtine.store.outcomes import Outcome, Settled
from rowtine.worker.gateway import Gateway
from store.by_hand import WORKER, Hand


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    made = build(database_url)
    yield made
    made.close()
    assert_lawful(database_url)


def build(url: str, **options: Any) -> rowtine.App:
    made = rowtine.App(url, **options)

    @made.function(name="one")
    def one(x: int) -> int:
        return x

    @made.coroutine
    async def child(x: int) -> int:
        return await one(x)

    @made.function(name="main")
    async def main(x: int) -> int:
        return await one(x) + await one(x + 1)

    @made.function(name="wide")
    async def wide(n: int) -> list[int]:
        return list(await rowtine.gather(*[one(x) for x in range(n)]))

    @made.function(name="deep")
    async def deep(n: int) -> list[int]:
        return list(await rowtine.gather(*[child(x) for x in range(n)]))

    @made.function(name="napper")
    async def napper() -> None:
        try:
            await rowtine.sleep(3600)
        finally:
            await one(1)

    @made.function(name="racing")
    async def racing() -> Any:
        first = await rowtine.race(napper(), one(1))
        return [first, await one(2)]

    return made


@pytest.fixture
def hand(app: rowtine.App) -> Hand:
    return Hand(app)


def suspended(hand: Hand, function: str, *arguments: Any) -> str:
    """An execution after its first round; its id."""
    id = hand.start(rowtine.call(function, *arguments))
    hand.round(id, hand.app.registry.function(function))
    return id


def state(url: str, id: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "states") if row["id"] == id]
    return row


# --- fences ---------------------------------------------------------------------------------------


@pytest.mark.case(201)
def test_of_two_rounds_over_the_same_state_the_second_writes_nothing(
    hand: Hand, database_url: str
) -> None:
    main = hand.app.registry.function("main")
    id = suspended(hand, "main", 3)
    hand.answer("one", value=3)
    first, second = hand.run(id, main), hand.run(id, main)

    assert hand.commit(first) == ([True], [])
    before = everything(database_url)
    assert hand.commit(second) == ([False], [])
    assert everything(database_url) == before

    hand.answer("one", value=4)
    last, late = hand.run(id, main), hand.run(id, main)
    assert hand.commit(last) == ([True], [])
    before = everything(database_url)
    assert hand.commit(late) == ([False], [])
    assert hand.commit(first) == ([False], [])
    assert everything(database_url) == before
    assert hand.app.handle(id).result(timeout=0) == 7


def test_a_first_round_whose_claim_was_taken_over_writes_nothing(
    hand: Hand, database_url: str
) -> None:
    main = hand.app.registry.function("main")
    id = hand.start(rowtine.call("main", 3))
    hand.claim("main")
    stale = hand.run(id, main)
    end_leases(database_url)
    with hand.app.database.writing() as connection:
        leases.recover(connection, 10)
    hand.claim("main")
    fresh = hand.run(id, main)
    before = everything(database_url)

    assert hand.commit(stale) == ([False], [])
    assert everything(database_url) == before
    assert hand.commit(fresh) == ([True], [])
    before = everything(database_url)
    assert hand.commit(fresh) == ([False], [])  # sent again: its reply was lost, say
    assert everything(database_url) == before


def test_in_one_batch_each_fence_is_its_own(hand: Hand, database_url: str) -> None:
    main = hand.app.registry.function("main")
    first, second = suspended(hand, "main", 1), suspended(hand, "main", 2)
    calls = hand.claim("one", limit=2)
    by_caller = {call.caller_id: call for call in calls}
    assert hand.record(hand.outcome(by_caller[first], 10)) == [True]
    good, stale = hand.run(first, main), hand.run(first, main)
    hand.commit(stale)

    held = hand.commit(
        good,
        hand.outcome(by_caller[first], "twice"),
        hand.outcome(by_caller[second], 20),
        replace(hand.outcome(by_caller[second], "zombie"), claim=0),
    )

    assert held == ([False], [False, True, False])
    assert hand.run(second, main).output.changes is not None
    outputs = {row["id"]: row["output"] for row in rows(database_url, "calls")}
    assert outputs[by_caller[first].id] == "10"
    assert outputs[by_caller[second].id] == "20"


def test_a_round_of_an_earlier_run_writes_nothing(hand: Hand, database_url: str) -> None:
    """The rounds of a new run begin at 1 again: the run is part of the fence."""
    main = hand.app.registry.function("main")
    id = suspended(hand, "main", 3)
    hand.answer("one", value=3)
    stale = hand.run(id, main)
    failed = hand.run(id, main)
    assert failed.outcome is None
    over = rowtine.Exit(rowtine.CoroutineResult(0, error=ValueError("x")))
    again = Outcome(id, None, None, Settled(Status.TCP_ERROR, None, "E", ""), retry_in=0.0)
    assert hand.commit(Round(failed.execution, over, again)) == ([True], [])
    hand.round(id, main)
    assert state(database_url, id)["run"] == 1
    before = everything(database_url)

    assert hand.commit(stale) == ([False], [])
    assert everything(database_url) == before


def test_an_outcome_of_a_call_that_the_same_batch_cancels_is_refused(
    hand: Hand, database_url: str
) -> None:
    racing = hand.app.registry.function("racing")
    id = suspended(hand, "racing")
    (loser,) = hand.claim("napper")
    hand.answer("one", value=1)
    decides = hand.run(id, racing)

    held = hand.commit(decides, hand.outcome(loser, "too late"))

    assert held == ([True], [False])
    (row,) = [row for row in rows(database_url, "calls") if row["function"] == "napper"]
    assert (row["phase"], row["status"], row["arrived"]) == ("done", "CANCELLED", None)


def test_an_execution_that_ends_in_the_batch_in_which_it_is_cancelled_is_no_arrival(
    hand: Hand, database_url: str
) -> None:
    racing, napper = (hand.app.registry.function(name) for name in ("racing", "napper"))
    id = suspended(hand, "racing")
    ((nested,),) = query(database_url, "select id from calls where function = 'napper'")
    nested = str(nested)
    hand.round(nested, napper)
    query(database_url, f"update calls set due = {past(database_url)} where kind = 'timer'")
    hand.fire()
    hand.round(nested, napper)  # it is awake, and now calls `one` in its `finally`
    for call in hand.claim("one", limit=2):
        assert hand.record(hand.outcome(call, 1)) == [True]
    decides, ends = hand.run(id, racing), hand.run(nested, napper)
    assert ends.outcome is not None

    assert hand.commit(decides, ends) == ([True, True], [])

    (row,) = [row for row in rows(database_url, "calls") if row["function"] == "napper"]
    assert (row["phase"], row["resolution"], row["arrived"]) == ("done", "cancelled", None)
    assert_lawful(database_url)
    hand.answer("one", value=2)
    assert hand.round(id, racing).value == "[1,2]"


@pytest.mark.case(204)
def test_a_result_for_an_execution_that_is_over_changes_nothing_but_its_own_call(
    hand: Hand, database_url: str
) -> None:
    racing = hand.app.registry.function("racing")
    id = suspended(hand, "racing")
    (loser,) = hand.claim("napper")
    hand.answer("one", value=1)
    hand.round(id, racing)
    hand.answer("one", value=2)
    hand.round(id, racing)
    before = everything(database_url)

    assert hand.record(hand.outcome(loser, "late")) == [False]
    assert everything(database_url) == before


# --- arrivals and wake-ups ------------------------------------------------------------------------


@pytest.mark.case(217)
def test_results_are_delivered_in_the_order_in_which_they_came(
    hand: Hand, database_url: str
) -> None:
    id = suspended(hand, "wide", 12)
    claimed = hand.claim("one", limit=12)
    random.Random(7).shuffle(claimed)
    for call in claimed[:6]:  # one by one,
        hand.record(hand.outcome(call, 1))
    hand.record(*(hand.outcome(call, 1) for call in claimed[6:]))  # and several at once
    call_ids = {row["id"]: row["call_id"] for row in rows(database_url, "calls")}

    with hand.app.database.reading() as connection:
        loaded = load(connection, hand.app.body, hand.app.codec, id)

    delivered = [result.call_id for result in loaded.input.results]
    assert delivered == [call_ids[call.id] for call in claimed[:10]]  # the most that it polled for


def test_a_state_wakes_at_the_first_result(hand: Hand, database_url: str) -> None:
    id = suspended(hand, "wide", 3)
    assert state(database_url, id)["wake_at"] is None

    hand.answer("one", value=1)

    row = state(database_url, id)
    assert row["wake_at"] is not None
    assert (row["arrived"], row["delivered"]) == (1, 0)


def test_a_state_that_wants_several_results_wakes_at_the_last_of_them(
    database_url: str,
) -> None:
    with contextlib.closing(build(database_url)) as app:
        hand = Hand(app)
        id = hand.start(rowtine.call("wide", 5))
        scheduler = rowtine.OneShotScheduler(
            app.registry.function("wide"), version=None, poll_min_results=3
        )
        with app.database.writing() as connection:
            run_round(connection, scheduler, id)

        woken = []
        for _ in range(3):
            woken.append(state(database_url, id)["wake_at"] is not None)
            hand.answer("one", value=1)
        woken.append(state(database_url, id)["wake_at"] is not None)

    assert woken == [False, False, False, True]


def test_it_never_wants_more_results_than_there_will_be(hand: Hand, database_url: str) -> None:
    id = suspended(hand, "wide", 2)
    query(database_url, "update states set poll_min_results = 10 where id = :id", id=id)

    hand.answer("one", value=1)
    assert state(database_url, id)["wake_at"] is None
    hand.answer("one", value=1)
    assert state(database_url, id)["wake_at"] is not None


@pytest.mark.case(203)
def test_what_arrives_while_a_round_runs_is_the_next_rounds(hand: Hand, database_url: str) -> None:
    wide = hand.app.registry.function("wide")
    id = suspended(hand, "wide", 3)
    hand.answer("one", value=0)
    with hand.app.database.writing() as connection:
        assert rounds.claim_rounds(connection, WORKER, ["wide"], None, 1, 30) == [id]
    lease = state(database_url, id)["wake_at"]
    ran = hand.run(id, wide)
    hand.answer("one", value=1)
    assert state(database_url, id)["wake_at"] == lease  # its end, if the worker dies

    assert hand.commit(ran) == ([True], [])

    row = state(database_url, id)
    assert (row["arrived"], row["delivered"], row["worker"]) == (2, 1, None)
    assert row["wake_at"] is not None
    assert row["wake_at"] < lease
    hand.round(id, wide)
    assert state(database_url, id)["wake_at"] is None


def test_a_round_that_took_everything_sleeps_until_something_comes(
    hand: Hand, database_url: str
) -> None:
    id = suspended(hand, "wide", 3)
    hand.answer("one", value=0, limit=2)

    hand.round(id, hand.app.registry.function("wide"))

    row = state(database_url, id)
    assert (row["arrived"], row["delivered"], row["outstanding_calls"]) == (2, 2, 1)
    assert row["wake_at"] is None


def test_the_loser_is_woken_and_told_also_while_a_round_of_its_own_runs(
    hand: Hand, database_url: str
) -> None:
    racing, napper = (hand.app.registry.function(name) for name in ("racing", "napper"))
    id = suspended(hand, "racing")
    ((nested,),) = query(database_url, "select id from calls where function = 'napper'")
    nested = str(nested)
    hand.round(nested, napper)
    query(
        database_url, f"update states set wake_at = {past(database_url)} where id = :id", id=nested
    )
    with hand.app.database.writing() as connection:
        assert rounds.claim_rounds(connection, WORKER, ["napper"], None, 1, 30) == [nested]
    before_it_was_told = hand.run(nested, napper)
    hand.answer("one", value=1)
    hand.round(id, racing)

    assert hand.commit(before_it_was_told) == ([True], [])

    assert state(database_url, nested)["wake_at"] is not None  # to hear of it
    hand.round(nested, napper)
    (told,) = [row for row in rows(database_url, "coroutines") if row["execution_id"] == nested]
    assert told["cancelled"]


@pytest.mark.case(203)
def test_no_result_is_lost_that_comes_while_the_round_before_is_committed(
    postgresql_url: str,
) -> None:
    """The outcome waits for the round's lock and then counts from what the round has left."""
    with contextlib.closing(build(postgresql_url)) as app:
        hand = Hand(app)
        wide = app.registry.function("wide")
        id = suspended(hand, "wide", 2)
        first, second = hand.claim("one", limit=2)
        hand.record(hand.outcome(first, 1))
        ran = hand.run(id, wide)
        with app.database.writing() as connection:
            assert commit(connection, app.codec, [ran])[:2] == ([True], [])
            recording = threading.Thread(target=lambda: hand.record(hand.outcome(second, 2)))
            recording.start()
            wait_until(lambda: blocked(postgresql_url))
        recording.join(60)

        row = state(postgresql_url, id)
        assert (row["arrived"], row["delivered"]) == (2, 1)
        assert row["wake_at"] is not None
        assert hand.round(id, wide).value == "[1,2]"
        assert_lawful(postgresql_url)


@pytest.mark.parametrize("first", ["cancelled", "completed"])
@pytest.mark.peer_case(98)
def test_of_a_cancellation_and_an_outcome_at_once_one_wins(first: str, postgresql_url: str) -> None:
    with contextlib.closing(build(postgresql_url)) as app:
        hand = Hand(app)
        racing = app.registry.function("racing")
        id = suspended(hand, "racing")
        (loser,) = hand.claim("napper")
        hand.answer("one", value=1)
        decides, outcome = hand.run(id, racing), hand.outcome(loser, "in time")
        items = [[decides], [outcome]] if first == "cancelled" else [[outcome], [decides]]
        held: list[tuple[list[bool], list[bool]]] = []
        with app.database.writing() as connection:
            (earlier,) = items[0]
            ran, ended = ([earlier], []) if earlier is decides else ([], [earlier])
            held.append(commit(connection, app.codec, ran, ended)[:2])
            second = threading.Thread(target=lambda: held.append(hand.commit(*items[1])))
            second.start()
            wait_until(lambda: blocked(postgresql_url))
        second.join(60)

        (row,) = [row for row in rows(postgresql_url, "calls") if row["function"] == "napper"]
        if first == "cancelled":
            assert held == [([True], []), ([], [False])]
            assert (row["status"], row["resolution"]) == ("CANCELLED", "cancelled")
        else:
            assert held == [([], [True]), ([True], [])]
            assert (row["status"], row["resolution"]) == ("OK", "cancelled")
        assert row["arrived"] is None
        assert_lawful(postgresql_url)
        hand.answer("one", value=2)
        assert hand.round(id, racing).value == "[1,2]"


# --- lock order -----------------------------------------------------------------------------------


@contextlib.contextmanager
def holding(url: str, table: str, id: str) -> Iterator[Any]:
    """Another connection holds a row for as long as the context lasts."""
    with connect(url) as lock:
        lock.query("begin")
        lock.query(f"select 1 from {table} where id = :id for no key update", id=id)
        yield lock
        lock.query("commit")


def is_free(url: str, table: str, id: str) -> bool:
    """Whether nobody holds a row."""
    return bool(query(url, f"select 1 from {table} where id = :id for update skip locked", id=id))


@pytest.fixture
def postgres(postgresql_url: str) -> Iterator[Hand]:
    app = build(postgresql_url)
    yield Hand(app)
    app.close()
    assert_lawful(postgresql_url)


def test_an_outcome_locks_its_callers_state_before_its_call(
    postgres: Hand, postgresql_url: str
) -> None:
    id = suspended(postgres, "wide", 2)
    (call,) = postgres.claim("one")
    recorded: list[list[bool]] = []

    with holding(postgresql_url, "states", id):
        recording = threading.Thread(
            target=lambda: recorded.append(postgres.record(postgres.outcome(call, 1)))
        )
        recording.start()
        wait_until(lambda: blocked(postgresql_url))
        assert is_free(postgresql_url, "calls", call.id)
    recording.join(60)

    assert recorded == [[True]]


def test_a_batch_locks_states_by_id_and_then_calls(postgres: Hand, postgresql_url: str) -> None:
    ids = sorted(suspended(postgres, "wide", 1) for _ in range(3))
    calls = {call.caller_id: call for call in postgres.claim("one", limit=3)}
    outcomes = [postgres.outcome(calls[id], 1) for id in reversed(ids)]

    with holding(postgresql_url, "states", ids[1]):
        committing = threading.Thread(target=lambda: postgres.commit(*outcomes))
        committing.start()
        wait_until(lambda: blocked(postgresql_url))
        free = [is_free(postgresql_url, "states", id) for id in ids]
        calls_free = [is_free(postgresql_url, "calls", call.id) for call in calls.values()]
    committing.join(60)

    assert free == [False, False, True]
    assert calls_free == [True] * 3


def test_who_gives_rounds_back_locks_states_in_the_order_of_a_batch(
    postgres: Hand, postgresql_url: str
) -> None:
    first, second = sorted(suspended(postgres, "wide", 1) for _ in range(2))
    postgres.answer("one", value=1, limit=2)
    with postgres.app.database.writing() as connection:
        rounds.claim_rounds(connection, WORKER, ["wide"], None, 2, 30)
    # Rows lie in the order in which they were last written: the first is now behind the second.
    query(postgresql_url, "update states set arrived = arrived where id = :id", id=first)

    def work() -> None:
        with postgres.app.database.writing() as connection:
            rounds.release_rounds(connection, WORKER, [first, second])

    with holding(postgresql_url, "states", first):
        working = threading.Thread(target=work)
        working.start()
        wait_until(lambda: blocked(postgresql_url))
        assert is_free(postgresql_url, "states", second)
    working.join(60)


def test_a_heartbeat_passes_by_what_others_hold(postgres: Hand, postgresql_url: str) -> None:
    first, second = sorted(suspended(postgres, "wide", 1) for _ in range(2))
    postgres.answer("one", value=1, limit=2)
    with postgres.app.database.writing() as connection:
        rounds.claim_rounds(connection, WORKER, ["wide"], None, 2, 30)
    claims = dict(query(postgresql_url, "select id, wake_at from states"))

    with (
        holding(postgresql_url, "states", first),
        postgres.app.database.writing() as connection,
    ):
        rounds.renew_rounds(connection, WORKER, [first, second], 3000)
    renewed = dict(query(postgresql_url, "select id, wake_at from states"))

    assert [renewed[id] > claims[id] for id in claims if str(id) == first] == [False]
    assert [renewed[id] > claims[id] for id in claims if str(id) == second] == [True]


def test_a_claim_passes_by_what_others_hold(postgres: Hand, postgresql_url: str) -> None:
    first, second = sorted(suspended(postgres, "wide", 1) for _ in range(2))
    postgres.answer("one", value=1, limit=2)

    with (
        holding(postgresql_url, "states", first),
        postgres.app.database.writing() as connection,
    ):
        assert rounds.claim_rounds(connection, WORKER, ["wide"], None, 2, 30) == [second]


def test_recovery_passes_by_what_a_frozen_worker_holds(postgres: Hand, postgresql_url: str) -> None:
    frozen, dead = (postgres.start(rowtine.call("one", x)) for x in range(2))
    postgres.claim("one", limit=2)
    end_leases(postgresql_url)

    with (
        holding(postgresql_url, "calls", frozen),
        postgres.app.database.writing() as connection,
    ):
        assert leases.recover(connection, 10) == [dead]


# --- one bad item ---------------------------------------------------------------------------------


def bad(outcome: Outcome, how: str) -> Outcome:
    match how:
        case "refused by a constraint":
            return replace(outcome, settled=replace(outcome.settled, error_type="E"))
        case "refused by the driver":
            return replace(outcome, settled=replace(outcome.settled, output={"a": object()}))
        case "no text of any encoding":
            return replace(outcome, settled=Settled(Status.TIMEOUT, None, "E", "\ud800"))
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["refused by a constraint", "refused by the driver", "no text of any encoding"]
)
def test_one_bad_item_of_a_batch_fails_alone(how: str, hand: Hand, database_url: str) -> None:
    ids = [hand.start(rowtine.call("one", x)) for x in range(3)]
    claimed = {call.id: call for call in hand.claim("one", limit=3)}
    outcomes = [hand.outcome(claimed[id], 7) for id in ids]
    outcomes[1] = bad(outcomes[1], how)

    async def commit_all() -> list[Any]:
        gateway = Gateway(hand.app.database, hand.app.codec)
        try:
            told: list[Any] = [None] * len(outcomes)
            for i, item in enumerate(outcomes):
                hear = partial(told.__setitem__, i)
                gateway.commit(item, lambda held, _, hear=hear: hear(held), hear)
            await asyncio.wait_for(gateway.drained(), 60)
            return told
        finally:
            gateway.close()

    first, second, third = asyncio.run(commit_all())

    assert (first, third) == (True, True)
    assert isinstance(second, Exception)
    phases = {row["id"]: row["phase"] for row in rows(database_url, "calls")}
    assert [phases[id] for id in ids] == ["done", "running", "done"]


def test_what_the_database_will_not_take_is_said_in_one_line_without_the_values(
    hand: Hand,
) -> None:
    hand.start(rowtine.call("one", 1))
    (call,) = hand.claim("one")
    outcome = hand.outcome(call, "a secret")
    broken = replace(outcome, settled=replace(outcome.settled, error_type="E"))

    with pytest.raises(RejectedError) as raised:
        hand.record(broken)

    assert "ck_calls_error" in str(raised.value)
    assert "a secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_any_number_of_ids_is_one_parameter(hand: Hand) -> None:
    ids = [new_id() for _ in range(70_000)]  # more than either protocol has numbers for

    with hand.app.database.writing() as connection:
        assert locks.lock_calls(connection, ids) == {}


# --- cost -----------------------------------------------------------------------------------------


class Watch:
    """Counts the statements that a database is sent, and the rows that it hands out."""

    def __init__(self, database: Database) -> None:
        self.statements: list[str] = []
        self.rows = 0
        event.listen(database.engine, "after_cursor_execute", self)

    def __call__(
        self,
        connection: Any,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        many: bool,
    ) -> None:
        if statement.startswith("BEGIN"):
            return  # which only SQLite is sent as a statement
        self.statements.append(statement)
        if statement.lstrip().upper().startswith("SELECT") and cursor.rowcount > 0:
            self.rows += cursor.rowcount  # which SQLite does not tell

    def during(self, work: Callable[[], object]) -> int:
        """How many statements some work takes."""
        before = len(self.statements)
        work()
        return len(self.statements) - before


def test_the_number_of_statements_of_a_batch_does_not_depend_on_its_size(
    hand: Hand, database_url: str
) -> None:
    watch = Watch(hand.app.database)

    def batch(size: int) -> Sequence[Round | Outcome]:
        """Rounds that end and rounds that go on, of every sort, and outcomes."""
        made: list[Round | Outcome] = []
        for _ in range(size):
            for function, arguments in (
                ("main", [1]),
                ("wide", [3]),
                ("deep", [3]),
                ("racing", []),
            ):
                id = suspended(hand, function, *arguments)
                answered, *others = sorted(
                    hand.claim("one", "napper", limit=100), key=lambda call: call.function != "one"
                )
                hand.record(hand.outcome(answered, 1))
                made.append(hand.run(id, hand.app.registry.function(function)))
                if function == "wide":
                    made.append(hand.outcome(others[0], 5))
        return made

    one, many = batch(1), batch(8)
    few = watch.during(lambda: hand.commit(*one))

    assert watch.during(lambda: hand.commit(*many)) == few
    assert few < 30


def test_ten_results_among_ten_thousand_children_load_ten_children_and_a_counter(
    app: rowtine.App, hand: Hand, database_url: str
) -> None:
    deep = app.registry.function("deep")
    id = suspended(hand, "deep", 20)
    multiply_children(database_url, id, 20, 10_000)
    claimed = hand.claim("one", limit=10)
    hand.record(*(hand.outcome(call, 1) for call in claimed))
    watch = Watch(app.database)

    with app.database.reading() as connection:
        loaded = load(connection, app.body, app.codec, id)

    state = loaded.input.state
    assert state is not None
    assert len(loaded.input.results) == 10
    assert len(state.suspended) == 11
    assert min(state.suspended) == 0
    assert state.suspended[0].coroutine is None  # the parent's journal is not loaded
    assert state.outstanding_calls == 10_000
    if not database_url.startswith("sqlite"):
        # Call and state; ten results, ten children, ten waits; the parent and its counter.
        assert watch.rows <= 2 + 3 * 10 + 2
    loading = len(watch.statements)
    assert loading < 10

    ran = hand.run(id, deep)
    writing = watch.during(lambda: hand.commit(ran))

    assert writing < 20
    assert ran.output.changes is not None
    assert len(ran.output.changes.finished) == 10
    ((pending,),) = query(database_url, "select pending from futures")
    assert pending == 9_990


def multiply_children(url: str, id: str, there_are: int, wanted: int) -> None:
    """Give an execution that waits for a gather of children more of them, all like the last."""
    numbers = (
        f"with recursive numbers (n) as (select {there_are + 1}"
        f" union all select n + 1 from numbers where n < {wanted})"
    )
    new_id = (
        "printf('01890000-0000-7000-8000-%012x', n)"
        if url.startswith("sqlite")
        else "cast('01890000-0000-7000-8000-' || lpad(to_hex(n), 12, '0') as uuid)"
    )
    for table, number, fresh in (
        ("coroutines", "id", {"id": "n"}),
        ("calls", "coroutine_id", {"id": new_id, "coroutine_id": "n", "call_id": "n - 1"}),
    ):
        names = columns(url, table)
        values = ", ".join(fresh.get(name, name) for name in names)
        query(
            url,
            f"{numbers} insert into {table} ({', '.join(names)})"
            f" select {values} from {table} cross join numbers"
            f" where execution_id = :id and {number} = {there_are}",
            id=id,
        )
    query(
        url,
        f"update futures set children = {wanted}, pending = {wanted} where execution_id = :id",
        id=id,
    )
    query(
        url,
        f"update states set next_coroutine_id = {wanted + 1}, next_call_id = {wanted},"
        f" outstanding_calls = {wanted}, poll_max_results = 10 where id = :id",
        id=id,
    )


def test_a_round_costs_the_same_however_many_others_wait(hand: Hand) -> None:
    """In statements and in rows, between 10 and 1,000 children."""
    costs = []
    for size in (10, 1_000):
        id = suspended(hand, "deep", size)
        claimed = hand.claim("one", limit=1_000)
        hand.record(*(hand.outcome(call, 1) for call in claimed[:3]))
        watch = Watch(hand.app.database)
        ran = hand.run(id, hand.app.registry.function("deep"))
        hand.commit(ran)
        costs.append((len(watch.statements), watch.rows))

    assert costs[0] == costs[1]


def test_an_idle_look_writes_nothing_and_is_one_statement(hand: Hand) -> None:
    suspended(hand, "wide", 3)
    hand.claim("one", limit=3)
    watch = Watch(hand.app.database)

    with hand.app.database.reading() as connection:
        due = calls.due(connection, hand.app.registry.functions())

    assert (due.calls, due.rounds) == (False, False)
    assert len(watch.statements) == 1


def test_ids_of_claimed_calls_are_in_order(hand: Hand) -> None:
    for x in range(5):
        hand.start(rowtine.call("one", x))

    claimed: list[Claimed] = hand.claim("one", limit=5, worker=new_id())

    assert [call.id for call in claimed] == sorted(call.id for call in claimed)
