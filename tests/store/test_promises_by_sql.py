"""The documented SQL answers a promise as rowtine does: once, and somebody goes on with it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rowtine
from databases import connect, query
from rowtine.store.laws import check
from store.by_hand import Hand

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "schema.md"
SECTION = PAGE.read_text().split("\n## Resolving a promise with SQL\n")[1].split("\n## ")[0]
TRANSACTIONS = dict(re.findall(r"```sql (\w+) transaction\n(.*?)```", SECTION, re.DOTALL))
TOKEN, VALUE = "0123456789abcdef0123456789abcdef", '{"approved":true}'


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    app = rowtine.App(database_url, poll_interval=0.02)

    @app.function(name="approval")
    async def approval() -> Any:
        return await rowtine.promise(timeout=3600)

    @app.function(name="two")
    async def two() -> Any:
        return await rowtine.gather(rowtine.promise(), rowtine.promise())

    with contextlib.closing(app):
        yield app


def suspended(app: rowtine.App, name: str) -> tuple[rowtine.Handle[Any], list[str]]:
    """An execution that waits for its promises, and their tokens."""
    function = app.registry.function(name)
    handle = app.start(function())
    Hand(app).round(handle.id, function)
    tokens = query(
        app.database.url.render_as_string(hide_password=False),
        "select token from calls where execution_id = :id and token is not null order by call_id",
        id=handle.id,
    )
    return handle, [token for (token,) in tokens]


def answer(url: str, token: str, value: Any = None) -> None:
    """Send the page's transaction as any client would, a statement at a time."""
    (kind,) = (name for name in TRANSACTIONS if url.startswith(name))
    text = (
        TRANSACTIONS[kind]
        .replace(TOKEN, token)
        .replace(VALUE, json.dumps(value, separators=(",", ":")))
    )
    with connect(url) as connection:
        for statement in filter(str.strip, text.split(";")):
            connection.query(statement)


def rows(url: str) -> list[Any]:
    tables = ("calls", "states", "coroutines", "futures", "signals")
    return [query(url, f"select * from {table} order by 1, 2, 3") for table in tables]


def test_the_page_has_it_for_both_databases() -> None:
    assert sorted(TRANSACTIONS) == ["postgresql", "sqlite"]
    for text in TRANSACTIONS.values():
        assert TOKEN in text
        assert VALUE in text


def test_a_worker_goes_on_with_the_answer(app: rowtine.App, database_url: str) -> None:
    handle, (token,) = suspended(app, "approval")

    answer(database_url, token, {"approved": True})

    with app.database.reading() as connection:
        assert check(connection) == []
    app.resolve(token, {"approved": True})  # the same answer again
    with pytest.raises(rowtine.Conflict):
        app.resolve(token, "another")
    with app.worker().start():
        assert handle.result(timeout=60) == {"approved": True}
    with app.database.reading() as connection:
        assert check(connection) == []


def test_the_second_time_changes_nothing(app: rowtine.App, database_url: str) -> None:
    handle, (token,) = suspended(app, "approval")
    answer(database_url, token, 1)

    before = rows(database_url)
    answer(database_url, token, 2)
    assert rows(database_url) == before

    with app.worker().start():
        assert handle.result(timeout=60) == 1
    before = rows(database_url)[0]
    answer(database_url, token, 2)
    answer(database_url, "f" * 32, 2)
    assert rows(database_url)[0] == before


def test_answers_are_counted_one_after_the_other(app: rowtine.App, database_url: str) -> None:
    handle, (first, second) = suspended(app, "two")

    answer(database_url, second, "second")
    answer(database_url, first, "first")

    arrived = query(database_url, "select token, arrived from calls where arrived is not null")
    assert sorted(arrived, key=lambda row: row[1]) == [(second, 1), (first, 2)]
    with app.database.reading() as connection:
        assert check(connection) == []
    with app.worker().start():
        assert handle.result(timeout=60) == ["first", "second"]


def test_a_promise_that_nobody_waits_for_any_more_takes_no_answer(
    app: rowtine.App, database_url: str
) -> None:
    handle, (token,) = suspended(app, "approval")
    handle.terminate("enough")

    before = rows(database_url)
    answer(database_url, token, 1)

    assert rows(database_url) == before
