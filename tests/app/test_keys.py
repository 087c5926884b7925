"""Keys of idempotency: a function and a key are one call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import nursery as nurseries
from acceptance import program
from acceptance.support import assert_lawful, rows
from databases import query

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()


@dataclass
class Order:
    sku: str


def double(x: int, *, times: int = 1, unit: str = "") -> int:
    RAN.append(x)
    return 2 * x * times


def other(x: int) -> int:
    return x


def ship(order: Order) -> str:
    return order.sku


class Functions:
    """For bodies: free variables are refused, globals are not."""

    double: Any


async def inside(how: str) -> str:
    try:
        if how == "options":
            Functions.double.options(key="k")
        else:
            await Keyed.call
    except rowtine.UsageError as error:
        return str(error)
    return "accepted"


class Keyed:
    call: Any


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    made = rowtine.App(database_url, poll_interval=0.02)
    for function in (double, other, ship, inside):
        made.function(function)
    Functions.double = made.registry.function("double")
    yield made
    made.close()
    assert_lawful(database_url)


def keyed(app: rowtine.App, key: str, *args: Any, function: str = "double", **kwargs: Any) -> Any:
    return app.registry.function(function).options(key=key)(*args, **kwargs)


@pytest.mark.peer_case(110)
def test_two_starts_with_one_key_are_one_call(app: rowtine.App, database_url: str) -> None:
    first = app.start(keyed(app, "k", 1))
    second = app.start(keyed(app, "k", 1))

    assert first.id == second.id
    (row,) = rows(database_url, "calls")
    assert (row["id"], row["key"]) == (first.id, "k")


@pytest.mark.peer_case(110)
def test_the_key_outlives_the_call_and_the_result_is_that_of_the_first(app: rowtine.App) -> None:
    assert app.run(keyed(app, "k", 3), timeout=60) == 6

    assert app.run(keyed(app, "k", 3), timeout=60) == 6
    assert app.start(keyed(app, "k", 3)).result(timeout=0) == 6
    assert RAN == [3]


def test_on_a_loop_it_is_the_same(app: rowtine.App) -> None:
    async def main() -> tuple[str, str]:
        first = await app.astart(keyed(app, "k", 1))
        second = await app.astart(keyed(app, "k", 1))
        return first.id, second.id

    first, second = asyncio.run(main())

    assert first == second


@pytest.mark.peer_case(110)
def test_a_key_is_free_again_when_its_call_is_deleted(app: rowtine.App, database_url: str) -> None:
    first = app.start(keyed(app, "k", 1))
    query(database_url, "delete from calls")

    assert app.start(keyed(app, "k", 2)).id != first.id


def test_functions_have_keys_of_their_own(app: rowtine.App) -> None:
    assert app.start(keyed(app, "k", 1)).id != app.start(keyed(app, "k", 1, function="other")).id
    assert app.start(keyed(app, "k", 1)).id != app.start(keyed(app, "l", 1)).id


def test_the_same_key_with_other_arguments_is_a_conflict_that_says_which(app: rowtine.App) -> None:
    first = app.start(keyed(app, "k", 1))

    with pytest.raises(rowtine.Conflict) as conflict:
        app.start(keyed(app, "k", 2))

    assert str(conflict.value) == (
        f"the key 'k' of double belongs to call {first.id} with input "
        '{"args":[1]}, now it is {"args":[2]}'
    )
    assert isinstance(conflict.value, rowtine.UsageError)


def test_the_order_of_named_arguments_is_no_difference(app: rowtine.App) -> None:
    first = app.start(keyed(app, "k", 1, times=2, unit="m"))

    assert app.start(keyed(app, "k", 1, unit="m", times=2)).id == first.id
    with pytest.raises(rowtine.Conflict):
        app.start(keyed(app, "k", 1, unit="m", times=3))


def test_arguments_are_compared_in_the_form_of_today(app: rowtine.App, database_url: str) -> None:
    first = app.start(keyed(app, "k", Order("tea"), function="ship"))
    text = app.codec.encode_arguments(rowtine.Arguments((Order("tea"),)))
    query(database_url, "update calls set input = :new", new=text.replace(":", ": "))

    assert app.start(keyed(app, "k", Order("tea"), function="ship")).id == first.id


def test_what_was_recorded_and_cannot_be_read_is_a_conflict(
    app: rowtine.App, database_url: str
) -> None:
    app.start(keyed(app, "k", Order("tea"), function="ship"))
    wrong = '{"args": [{"$dataclass": ["no.Such", {}]}]}'
    query(database_url, "update calls set input = :new", new=wrong)

    with pytest.raises(rowtine.Conflict, match="cannot be read"):
        app.start(keyed(app, "k", Order("tea"), function="ship"))


def test_after_a_tail_call_the_key_is_still_that_of_what_was_asked(
    app: rowtine.App, database_url: str
) -> None:
    handle = app.start(keyed(app, "k", 1))
    query(
        database_url,
        "update calls set asked_function = function, asked_input = input,"
        " function = 'other', input = '[7]'",
    )

    assert app.start(keyed(app, "k", 1)).id == handle.id


@pytest.mark.peer_case(69)
@pytest.mark.parametrize("how", ["options", "await"])
def test_inside_an_execution_a_key_is_refused(app: rowtine.App, how: str) -> None:
    Keyed.call = keyed(app, "k", 1)

    message = app.run(rowtine.call("inside", how), timeout=60)

    assert "inside an execution" in message


def test_a_sync_function_may_start_with_a_key(app: rowtine.App, database_url: str) -> None:
    @app.function
    def outer() -> None:
        here = Functions.double.home
        here.start(Functions.double.options(key="k")(1))
        here.start(Functions.double.options(key="k")(1))

    app.run(outer(), timeout=60)

    assert len([row for row in rows(database_url, "calls") if row["function"] == "double"]) == 1


# --- races --------------------------------------------------------------------------------------

THREADS = 32


@pytest.mark.peer_case(110)
def test_of_32_starters_at_once_one_makes_the_call(app: rowtine.App, database_url: str) -> None:
    barrier = threading.Barrier(THREADS)

    def start(number: int) -> tuple[str, list[str]]:
        barrier.wait(60)
        same = app.start(keyed(app, "k", 1)).id
        return same, [app.start(keyed(app, f"key {n}", n)).id for n in range(3)]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(start, range(THREADS)))

    assert len({same for same, _ in found}) == 1
    assert len({tuple(ids) for _, ids in found}) == 1
    assert len(rows(database_url, "calls")) == 4


def test_of_starters_with_different_arguments_one_wins_and_the_others_are_told(
    app: rowtine.App, database_url: str
) -> None:
    barrier = threading.Barrier(8)

    def start(number: int) -> str | None:
        barrier.wait(60)
        try:
            return app.start(keyed(app, "k", number)).id
        except rowtine.Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(start, range(8)))

    (row,) = rows(database_url, "calls")
    assert [id for id in found if id is not None] == [row["id"]]


@pytest.mark.peer_case(110)
def test_starters_in_other_processes_are_no_different(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = tmp_path / "diary"
    monkeypatch.setenv(program.EFFECTS, str(diary))
    with nurseries.opened(tmp_path / "log") as nursery:
        children = [
            nursery.fork(
                "acceptance.workers:start_keyed",
                {program.EFFECTS: str(diary)},
                url=database_url,
                threads=8,
            )
            for _ in range(4)
        ]
        assert [child.wait() for child in children] == [0] * 4

    ids = program.effects(diary)
    assert len(ids) == 1
    assert ids.total() == THREADS
    (row,) = rows(database_url, "calls")
    assert [f"started {row['id']}"] == list(ids)
    assert_lawful(database_url)
