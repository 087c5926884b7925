"""What a call says of itself goes before what its function says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import let_it_be_due, rows, wait_until

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []
LET_GO = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


class Functions:
    """For bodies: free variables are refused, globals are not."""

    first: Any
    second: Any


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("by", ["start", "await"])
def test_the_timeout_of_a_call_goes_before_that_of_its_function(
    by: str, kind: str, new_app: NewApp
) -> None:
    app = new_app()

    @app.function(name="sync", timeout=3600)
    def in_a_thread() -> None:
        LET_GO.wait(60)

    @app.function(name="async", timeout=3600)
    async def on_the_loop() -> None:
        await asyncio.sleep(3600)

    @app.function(retry=rowtine.Retry(max_attempts=1))
    async def main() -> None:
        await Functions.first()

    options = {"timeout": 0.05, "retry": rowtine.Retry(max_attempts=1)}
    Functions.first = app.registry.function(kind).options(**options)

    with pytest.raises(TimeoutError, match=r"its timeout of 0\.05 s"):
        app.run(Functions.first() if by == "start" else main(), timeout=60)


def test_the_timeout_of_a_call_holds_in_its_later_rounds(new_app: NewApp) -> None:
    app = new_app()

    @app.function
    def leaf() -> None: ...

    @app.function
    async def main() -> None:
        await leaf()
        await asyncio.sleep(3600)

    once = rowtine.Retry(max_attempts=1)
    with pytest.raises(TimeoutError, match=r"its timeout of 0\.3 s"):
        app.run(main.options(timeout=0.3, retry=once)(), timeout=60)


def test_a_delayed_call_runs_when_its_time_has_come(plain_app: NewApp, database_url: str) -> None:
    app = plain_app()

    @app.function
    def leaf() -> str:
        return "done"

    handle = app.start(leaf.options(delay=3600)())
    other = app.start(leaf())
    with app.worker().start():
        other.result(timeout=60)
        assert {row["phase"] for row in rows(database_url, "calls")} == {"queued", "done"}
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "done"


# --- tail calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_tail_call_brings_its_own_options(
    kind: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="sync")
    def in_a_thread() -> None:
        raise rowtine.Reset(Functions.second.options(delay=3600, timeout=9))

    @app.function(name="async")
    async def on_the_loop() -> None:
        raise rowtine.Reset(Functions.second.options(delay=3600, timeout=9)())

    @app.function(name="second")
    def second() -> str:
        return "done"

    Functions.second = second
    handle = app.start(app.registry.function(kind).options(key="k", timeout=60, deadline=1000)())
    with app.worker().start():
        (row,) = wait_until(
            lambda: [row for row in rows(database_url, "calls") if row["function"] == "second"]
        )
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "done"

    options = row["options"]
    assert options in ('{"timeout":9.0}', {"timeout": 9.0})
    assert (row["key"], row["phase"]) == ("k", "queued")
    assert row["deadline"] is not None


@pytest.mark.parametrize("own", [{"key": "l"}, {"deadline": 5}], ids=["key", "deadline"])
def test_a_tail_call_has_no_key_and_no_deadline_of_its_own(
    own: dict[str, Any], plain_app: NewApp
) -> None:
    app = plain_app()

    @app.function(name="first")
    def first() -> None:
        raise rowtine.Reset(Functions.second)

    @app.function(name="second")
    def second() -> None: ...

    Functions.second = second.options(**own)
    with pytest.raises(rowtine.UsageError, match="keeps the key and the deadline"):
        app.run(first(), timeout=60)
