"""Executions driven by hand, one transaction a step: timers, ids, and rows that others change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import (
    assert_lawful,
    blocked,
    everything,
    let_it_be_due,
    past,
    rows,
    wait_until,
)
from databases import query
from rowtine.store import recording, workers
from store.by_hand import WORKER, Hand


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    made = build(database_url)
    yield made
    made.close()
    assert_lawful(database_url)


@pytest.fixture
def hand(app: rowtine.App) -> Hand:
    return Hand(app)


def build(url: str) -> rowtine.App:
    made = rowtine.App(url)

    @made.function(name="one")
    def one(x: int) -> int:
        return x

    @made.coroutine
    async def nap(x: int) -> int:
        await rowtine.sleep(3600)
        return await one(x)

    @made.coroutine
    async def child(x: int) -> int:
        return await one(x)

    @made.function(name="main")
    async def main(x: int) -> list[int]:
        return [await one(x), await one(x + 1)]

    @made.function(name="wide")
    async def wide(n: int) -> list[int]:
        first = await one(0)
        return [first, *await rowtine.gather(*[child(x) for x in range(n)], one(n))]

    @made.function(name="naps")
    async def naps() -> list[int]:
        return list(await rowtine.gather(nap(1), nap(2), nap(3)))

    @made.function(name="racing")
    async def racing() -> list[Any]:
        first = await rowtine.race(one(1), rowtine.sleep(3600))
        return [first, await one(2)]

    @made.function(name="outer")
    async def outer() -> list[int]:
        return await main(1)

    return made


def function(hand: Hand, name: str) -> Any:
    return hand.app.registry.function(name)


def suspended(hand: Hand, name: str, *arguments: Any) -> str:
    """An execution after its first round; its id."""
    id = hand.start(rowtine.call(name, *arguments))
    hand.round(id, function(hand, name))
    return id


def the_timer(url: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["kind"] == "timer"]
    return row


# --- timers ---------------------------------------------------------------------------------------


@pytest.mark.peer_case(27)
def test_timers_that_are_due_at_the_same_time_fire_in_one_round_in_the_order_of_their_creation(
    hand: Hand, database_url: str
) -> None:
    id = suspended(hand, "naps")
    let_it_be_due(database_url)

    assert hand.fire() == 3
    output = hand.round(id, function(hand, "naps"))

    assert isinstance(output, rowtine.Poll)
    assert [call.input for call in output.calls] == [f'{{"args":[{x}]}}' for x in (1, 2, 3)]


@pytest.mark.peer_case(30)
def test_a_timer_that_lost_a_race_wakes_nobody(hand: Hand, database_url: str) -> None:
    id = suspended(hand, "racing")
    hand.answer("one", value=1)
    hand.round(id, function(hand, "racing"))

    timer = the_timer(database_url)
    assert (timer["phase"], timer["status"], timer["due"]) == ("done", "CANCELLED", None)
    let_it_be_due(database_url)
    assert hand.fire() == 0
    assert [row["wake_at"] for row in rows(database_url, "states")] == [None]
    hand.answer("one", value=2)
    assert hand.round(id, function(hand, "racing")).value == "[1,2]"


@pytest.mark.peer_case(32)
@pytest.mark.parametrize("first", ["the call", "the timer"])
def test_a_timer_that_fires_beside_what_it_races_with_has_one_end(
    first: str, hand: Hand, database_url: str
) -> None:
    id = suspended(hand, "racing")
    let_it_be_due(database_url)
    steps = [lambda: hand.answer("one", value=1), hand.fire]
    for step in steps if first == "the call" else reversed(steps):
        step()

    hand.round(id, function(hand, "racing"))

    timer = the_timer(database_url)
    assert (timer["phase"], timer["status"]) == ("done", "OK")
    assert hand.fire() == 0
    hand.answer("one", value=2)
    wins = "1" if first == "the call" else "null"
    assert hand.round(id, function(hand, "racing")).value == f"[{wins},2]"


@pytest.mark.peer_case(32)
def test_a_timer_that_fires_while_it_is_being_cancelled_has_one_end(postgresql_url: str) -> None:
    with contextlib.closing(build(postgresql_url)) as app:
        hand = Hand(app)
        id = suspended(hand, "racing")
        hand.answer("one", value=1)
        decides = hand.run(id, function(hand, "racing"))
        let_it_be_due(postgresql_url)
        fired: list[int] = []
        with app.database.writing() as connection:
            fired.append(recording.fire_timers(connection, 10))
            committing = threading.Thread(target=lambda: fired.append(hand.commit(decides)[0][0]))
            committing.start()
            wait_until(lambda: blocked(postgresql_url))
        committing.join(60)

        assert fired == [1, True]
        assert the_timer(postgresql_url)["status"] == "OK"
        hand.answer("one", value=2)
        assert hand.round(id, function(hand, "racing")).value == "[1,2]"
        assert_lawful(postgresql_url)


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.case(174)
def test_a_call_knows_its_caller_and_its_root(hand: Hand, database_url: str) -> None:
    outer = suspended(hand, "outer")
    ((main, *_),) = query(database_url, "select id from calls where function = 'main'")
    hand.round(str(main), function(hand, "main"))

    (one,) = [row for row in rows(database_url, "calls") if row["function"] == "one"]
    assert (one["execution_id"], one["root_id"]) == (str(main), outer)
    tree = query(database_url, "select depth, function from execution_tree order by depth")
    assert tree == [(0, "outer"), (1, "main"), (2, "one")]


@pytest.mark.case(213)
def test_large_ids_of_coroutines_and_calls_fit(hand: Hand, database_url: str) -> None:
    id = suspended(hand, "wide", 5)
    large = 2**31 - 20
    query(database_url, f"update states set next_coroutine_id = {large}, next_call_id = {large}")
    hand.answer("one", value=0)
    hand.round(id, function(hand, "wide"))

    for call in sorted(hand.claim("one", limit=6), key=lambda call: call.input, reverse=True):
        x = int(call.input.partition("[")[2].partition("]")[0])
        assert hand.record(hand.outcome(call, 10 * x)) == [True]
    output = hand.round(id, function(hand, "wide"))

    assert output.value == "[0,0,10,20,30,40,50]"
    ids = sorted(row["call_id"] for row in rows(database_url, "calls") if row["execution_id"])
    assert ids == [0, *range(large, large + 6)]


@pytest.mark.case(214)
def test_results_of_executions_with_the_same_local_ids_never_cross(hand: Hand) -> None:
    ids = [suspended(hand, "main", 10 * n) for n in range(3)]
    for _ in range(2):
        for call in reversed(hand.claim("one", limit=3)):
            number = ids.index(str(call.caller_id))
            assert hand.record(hand.outcome(call, f"for {number}")) == [True]
        outputs = [hand.round(id, function(hand, "main")) for id in ids]

    assert [output.value for output in outputs] == [
        f'["for {number}","for {number}"]' for number in range(3)
    ]


@pytest.mark.case(202)
def test_of_two_outcomes_of_one_call_at_once_the_second_is_refused(postgresql_url: str) -> None:
    with contextlib.closing(build(postgresql_url)) as app:
        hand = Hand(app)
        suspended(hand, "main", 3)
        (call,) = hand.claim("one")
        held: list[list[bool]] = []
        with app.database.writing() as connection:
            held.append(recording.record_outcomes(connection, [hand.outcome(call, "first")]))
            second = threading.Thread(
                target=lambda: held.append(hand.record(hand.outcome(call, "second")))
            )
            second.start()
            wait_until(lambda: blocked(postgresql_url))
        second.join(60)

        assert held == [[True], [False]]
        (row,) = [row for row in rows(postgresql_url, "calls") if row["function"] == "one"]
        assert (row["output"], row["arrived"]) == ('"first"', 1)
        assert [row["arrived"] for row in rows(postgresql_url, "states")] == [1]
        assert_lawful(postgresql_url)


# --- what others change ---------------------------------------------------------------------------


@pytest.mark.peer_case(143)
def test_a_result_that_an_operator_corrects_is_seen_by_the_next_round(
    hand: Hand, database_url: str
) -> None:
    id = suspended(hand, "main", 3)
    hand.answer("one", value=3)
    query(database_url, "update calls set output = '300' where function = 'one'")
    hand.round(id, function(hand, "main"))
    hand.answer("one", value=4)

    assert hand.round(id, function(hand, "main")).value == "[300,4]"


@pytest.mark.peer_case(143)
def test_a_round_that_ran_while_an_operator_changed_the_state_writes_nothing(
    hand: Hand, database_url: str
) -> None:
    id = suspended(hand, "main", 3)
    hand.answer("one", value=3)
    ran = hand.run(id, function(hand, "main"))
    query(database_url, "update calls set output = '300' where function = 'one'")
    query(database_url, "update states set round = round + 1")
    before = everything(database_url)

    assert hand.commit(ran) == ([False], [])
    assert everything(database_url) == before

    hand.round(id, function(hand, "main"))
    hand.answer("one", value=4)
    assert hand.round(id, function(hand, "main")).value == "[300,4]"


@pytest.mark.case(208)
@pytest.mark.peer_case(123)
def test_a_state_of_another_version_is_refused_before_anything_in_it_is_read(
    hand: Hand, database_url: str
) -> None:
    old, new = Hand(hand.app, version="v1"), Hand(hand.app, version="v2")
    id = suspended(old, "main", 3)
    suspended(new, "main", 4)
    hand.answer("one", value=1, limit=2)
    unreadable = '{"$dataclass":"acme.Gone"}'
    query(
        database_url,
        "update coroutines set input = :it where execution_id = :id",
        it=unreadable,
        id=id,
    )
    query(
        database_url, "update calls set output = :it where execution_id = :id", it=unreadable, id=id
    )
    before = everything(database_url)

    output = new.round(id, function(hand, "main"))

    assert isinstance(output, rowtine.Incompatible)
    assert "'v1'" in output.message
    assert everything(database_url) == before
    waiting = "select version, count(*) from states group by version order by version"
    assert query(database_url, waiting) == [("v1", 1), ("v2", 1)]


@pytest.mark.peer_case(109)
def test_a_worker_that_is_silent_is_seen_with_the_calls_that_it_holds(
    hand: Hand, database_url: str
) -> None:
    silent, lively = WORKER, WORKER[:-1] + "f"
    for id in (silent, lively):
        with hand.app.database.writing() as connection:
            row = workers.WorkerRow(id, "host", 1, "boot", None, "[]")
            workers.introduce(connection, row)
    stuck = hand.start(rowtine.call("one", 1))
    hand.claim("one", worker=silent)
    hand.start(rowtine.call("one", 2))
    hand.claim("one", worker=lively)
    long_ago = past(database_url)
    query(database_url, f"update workers set heartbeat_at = {long_ago} where id = '{silent}'")
    an_hour_ago = (
        "(strftime('%s', 'now') - 3600) * 1000000"
        if database_url.startswith("sqlite")
        else "clock_timestamp() - interval '1 hour'"
    )

    found = query(
        database_url,
        "select calls.id, calls.function from calls join workers on workers.id = calls.worker"
        f" where workers.heartbeat_at < {an_hour_ago}",
    )

    assert [(str(id), name) for id, name in found] == [(stuck, "one")]
