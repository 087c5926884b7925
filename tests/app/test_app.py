"""The ways in: start, run, handles; and what is refused at the door."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

import rowtine
from databases import query
from rowtine.config import Settings
from rowtine.store import Database


def double(x: int) -> int:
    return 2 * x


async def twice(x: int) -> int:
    first: int = await rowtine.call("double", x)
    second: int = await rowtine.call("double", first)
    return second


async def starts_inside(how: str) -> str:
    try:
        app = Apps.here
        if how == "run":
            app.run(rowtine.call("double", 1))
        elif how == "start":
            app.start(rowtine.call("double", 1))
        else:
            app.handle("0").result()
    except rowtine.UsageError as error:
        return str(error)
    return "accepted"


async def passes_a_lock() -> str:
    try:
        await rowtine.call("double", {"items": [threading.Lock()]})
    except TypeError as error:
        return str(error)
    return "accepted"


async def passes_too_much() -> str:
    try:
        await rowtine.call("double", "x" * 3_000_000)
    except rowtine.PayloadError as error:
        return str(error)
    return "accepted"


class Apps:
    """The app of the running test, for bodies: free variables are refused, globals are not."""

    here: rowtine.App


def make(url: str, **options: Any) -> rowtine.App:
    app = rowtine.App(url, **options)
    for function in (double, twice, starts_inside, passes_a_lock, passes_too_much):
        app.function(function)
    Apps.here = app
    return app


def test_run_is_the_worker_until_the_result_is_there(database_url: str, warm: int) -> None:
    app = make(database_url, warm=warm)

    assert app.run(rowtine.call("twice", 3), timeout=60) == 12


def test_start_accepts_durably_before_any_worker_lives(database_url: str) -> None:
    app = make(database_url)

    handle = app.start(rowtine.call("twice", 3))

    (row,) = query(database_url, "SELECT id, function, phase, input FROM calls")
    assert [str(value) for value in row] == [handle.id, "twice", "queued", '{"args":[3]}']


@pytest.mark.case(180)
def test_a_handle_in_another_app_gets_the_result(database_url: str) -> None:
    handle = make(database_url).start(rowtine.call("twice", 3))
    other = rowtine.App(database_url)

    with make(database_url).worker().start():
        assert other.handle(handle.id).result(timeout=60) == 12


def test_a_handle_can_be_awaited_and_so_can_a_call_outside(database_url: str) -> None:
    app = make(database_url)
    function = app.registry.function("twice")

    async def main() -> tuple[int, int]:
        handle = await app.astart(function(3))
        return await handle, await function(4)

    with app.worker().start():
        assert asyncio.run(main()) == (12, 16)


def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_call_stays(
    database_url: str,
) -> None:
    handle = make(database_url).start(rowtine.call("twice", 3))

    with pytest.raises(TimeoutError, match="no result of"):
        handle.result(timeout=0.01)

    assert query(database_url, "SELECT phase FROM calls") == [("queued",)]


def test_an_unknown_id_is_not_found(database_url: str) -> None:
    with pytest.raises(rowtine.NotFound, match="there is no call 0193"):
        make(database_url).handle("01930000-0000-7000-8000-000000000000").result()


@pytest.mark.parametrize("how", ["run", "start", "result"])
def test_inside_an_execution_the_ways_in_are_refused(sqlite_url: str, how: str) -> None:
    app = make(sqlite_url)

    message = app.run(rowtine.call("starts_inside", how), timeout=60)

    assert "inside an execution" in message
    assert "await the call itself" in message


def test_a_value_that_cannot_be_stored_is_refused_where_it_is_passed(
    database_url: str, warm: int
) -> None:
    app = make(database_url, warm=warm)

    message = app.run(rowtine.call("passes_a_lock"), timeout=60)

    assert message.startswith("argument 1, ['items'][0]: ")
    assert query(database_url, "SELECT count(*) FROM calls WHERE function = 'double'") == [(0,)]


def test_a_payload_over_the_limit_is_refused_with_the_limit(database_url: str) -> None:
    app = make(database_url)

    message = app.run(rowtine.call("passes_too_much"), timeout=60)

    assert "limit is 2" in message
    assert query(database_url, "SELECT count(*) FROM calls WHERE function = 'double'") == [(0,)]


def test_start_stores_nothing_of_a_call_that_it_refuses(database_url: str) -> None:
    app = make(database_url)

    with pytest.raises(TypeError, match="argument 1"):
        app.start(rowtine.call("double", object()))
    with pytest.raises(rowtine.UsageError, match="not a call of a function"):
        app.start(rowtine.sleep(1))

    assert query(database_url, "SELECT count(*) FROM calls") == [(0,)]


@dataclass
class Order:
    number: int


def test_a_class_that_no_annotation_names_can_be_registered(database_url: str) -> None:
    app = make(database_url)
    app.function(name="echo")(echo)
    with pytest.raises(TypeError, match="Order"):
        app.start(rowtine.call("echo", Order(1)))

    app.register(Order)

    assert app.run(rowtine.call("echo", Order(1)), timeout=60) == Order(1)


def echo(value: Any) -> Any:
    return value


# ------------------------------------------------------------------------------------ the database


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:secret@host/db", "rowtine cannot use 'mysql'"),
        ("postgresql+asyncpg://u:secret@host/db", "through psycopg, not asyncpg"),
        ("sqlite://", "in memory ends with its connection"),
        ("sqlite:///:memory:", "in memory ends with its connection"),
        ("no url at all", "this is not a database URL"),
        ("postgresql://u:secret@host:port/db", "this is not a database URL"),
        ("sqlite:////no/such/directory/x.db", "there is no directory"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_what_to_write(url: str, words: str) -> None:
    with pytest.raises(rowtine.DatabaseError, match=words) as caught:
        Database(url)

    assert "secret" not in str(caught.value)


def test_a_database_without_tables_says_which_command_makes_them(empty_database_url: str) -> None:
    with pytest.raises(rowtine.SchemaError, match="run `rowtine migrate"):
        make(empty_database_url).run(rowtine.call("double", 1))


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    app = make("postgresql://user:topsecret@127.0.0.1:1/db")

    with pytest.raises(rowtine.DatabaseError) as caught:
        app.start(rowtine.call("double", 1))

    assert "cannot reach postgresql+psycopg://user:***@127.0.0.1:1/db" in str(caught.value)
    assert "topsecret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schema_name_is_checked(postgresql_url: str) -> None:
    with pytest.raises(rowtine.DatabaseError, match="not a plain identifier"):
        make(postgresql_url, schema='x"; DROP TABLE calls; --').start(rowtine.call("double", 1))


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 0},
        {"concurrency": 0},
        {"warm": -1},
        {"poll_max_results": 0},
        {"poll_min_results": 5, "poll_max_results": 4},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(rowtine.UsageError):
        Settings(**options)
