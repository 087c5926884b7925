"""What a body can ask of its call, and say of it: `rowtine.current` and `rowtine.heartbeat`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import rowtine
from acceptance.support import end_leases, rows, wait_until
from databases import query
from rowtine.clock import new_id
from rowtine.store import calls, leases

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []
STARTED, LET_GO = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    STARTED.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


def the_call(url: str, function: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["function"] == function]
    return row


# --- current ------------------------------------------------------------------------------------


def test_a_sync_function_knows_its_call(plain_app: NewApp, database_url: str) -> None:
    app = plain_app()

    @app.function(name="leaf")
    def leaf() -> None:
        RAN.append(rowtine.current())

    @app.function(name="main")
    async def main() -> None:
        await leaf()

    app.run(main(), timeout=60)

    root, call = the_call(database_url, "main"), the_call(database_url, "leaf")
    assert [
        rowtine.Current(
            id=call["id"],
            function="leaf",
            attempt=1,
            root_id=root["id"],
            caller_id=root["id"],
        )
    ] == RAN


def test_a_root_call_has_no_caller_and_is_its_own_root(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(name="leaf")
    def leaf() -> None:
        RAN.append(rowtine.current())

    deadline = datetime(2090, 1, 1, tzinfo=UTC)
    handle = app.start(leaf.options(deadline=deadline)())
    with app.worker().start():
        handle.result(timeout=60)

    (current,) = RAN
    assert (current.id, current.root_id, current.caller_id) == (handle.id, handle.id, None)
    assert current.deadline == deadline


def test_in_an_async_function_it_is_the_same_at_every_rebuild(new_app: NewApp) -> None:
    app = new_app()

    @app.function(name="leaf")
    def leaf() -> None: ...

    @app.coroutine
    async def helper() -> None:
        RAN.append(rowtine.current())
        await leaf()
        RAN.append(rowtine.current())

    @app.function(name="main")
    async def main() -> None:
        RAN.append(rowtine.current())
        rowtine.heartbeat({"of": "the first round"})
        await leaf()
        RAN.append(rowtine.current())
        await rowtine.gather(helper(), helper())
        RAN.append(rowtine.current())

    handle = app.start(main.options(deadline=1000)())
    with app.worker().start():
        handle.result(timeout=60)

    assert len(RAN) >= 6
    assert all(current == RAN[0] for current in RAN)
    assert (RAN[0].id, RAN[0].function, RAN[0].attempt) == (handle.id, "main", 1)
    assert RAN[0].details is None


def test_each_attempt_has_its_number(new_app: NewApp) -> None:
    app = new_app()

    @app.function(name="leaf")
    def leaf() -> None: ...

    @app.function(retry=rowtine.Retry(initial=0))
    async def main() -> None:
        await leaf()
        RAN.append(rowtine.current().attempt)
        if len(RAN) < 3:
            raise ConnectionError

    app.run(main(), timeout=60)

    assert RAN == [1, 2, 3]


@pytest.mark.parametrize("ask", [rowtine.current, rowtine.heartbeat])
def test_outside_a_call_there_is_nothing_to_ask(ask: Callable[[], Any]) -> None:
    with pytest.raises(rowtine.UsageError, match="outside a call"):
        ask()


# --- heartbeat ----------------------------------------------------------------------------------


@pytest.mark.peer_case(97)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_heartbeat_renews_the_lease(kind: str, plain_app: NewApp, database_url: str) -> None:
    app = plain_app(lease=3600)

    def body() -> None:
        RAN.append(the_call(database_url, kind)["lease_expires"])
        rowtine.heartbeat()
        RAN.append(the_call(database_url, kind)["lease_expires"])

    @app.function(name="sync")
    def in_a_thread() -> None:
        Bodies.here()

    @app.function(name="async")
    async def on_the_loop() -> None:
        Bodies.here()

    Bodies.here = body
    app.run(rowtine.call(kind), timeout=60)

    assert RAN[0] < RAN[1]


class Bodies:
    """For functions: free variables are refused, globals are not."""

    here: Callable[[], None]


@pytest.mark.peer_case(97)
def test_a_heartbeat_of_a_later_round_renews_its_claim(new_app: NewApp, database_url: str) -> None:
    app = new_app(lease=3600)

    def body() -> None:
        rowtine.heartbeat("in the second round")
        (state,) = rows(database_url, "states")
        rowtine.heartbeat("still in it")
        (later,) = rows(database_url, "states")
        RAN.extend([state["wake_at"], later["wake_at"], later["worker"]])

    @app.function(name="leaf")
    def leaf() -> None: ...

    @app.function(name="main")
    async def main() -> None:
        await leaf()
        Bodies.here()

    Bodies.here = body
    app.run(main(), timeout=60)

    assert RAN[0] < RAN[1]
    assert RAN[2] is not None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_next_attempt_finds_what_the_last_heartbeat_said(kind: str, plain_app: NewApp) -> None:
    app = plain_app()

    def body() -> int:
        done: set[int] = rowtine.current().details or set()
        RAN.append(done)
        for page in range(5):
            if page in done:
                continue
            done = done | {page}
            rowtine.heartbeat(done)
            if page == 2:
                raise ConnectionError
        rowtine.heartbeat()
        return len(done)

    @app.function(name="sync", retry=rowtine.Retry(initial=0))
    def in_a_thread() -> int:
        return Work.here()

    @app.function(name="async", retry=rowtine.Retry(initial=0))
    async def on_the_loop() -> int:
        return Work.here()

    Work.here = body

    assert app.run(rowtine.call(kind), timeout=60) == 5
    assert [set(), {0, 1, 2}] == RAN


class Work:
    here: Callable[[], int]


def test_what_is_said_stands_in_the_row_and_stays_there(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="leaf", retry=rowtine.Retry(initial=0))
    def leaf() -> None:
        rowtine.heartbeat({"page": rowtine.current().attempt})
        rowtine.heartbeat()
        if rowtine.current().attempt == 1:
            raise ConnectionError

    app.run(leaf(), timeout=60)

    ((text,),) = query(database_url, "select cast(details as text) from calls")
    assert text == '{"claim":2,"details":{"page":2},"before":{"page":1}}'


def test_a_tail_call_is_told_nothing_of_what_was_said_before(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="leaf")
    def leaf(n: int) -> None:
        RAN.append(rowtine.current().details)
        rowtine.heartbeat(n)
        if n == 0:
            raise rowtine.Reset(rowtine.call("leaf", 1))

    app.run(leaf(0), timeout=60)

    assert RAN == [None, None]


def test_details_that_cannot_be_stored_are_refused_where_they_are_said(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="leaf")
    def leaf() -> str:
        try:
            rowtine.heartbeat({"lock": [threading.Lock()]})
        except TypeError as error:
            return str(error)
        return "accepted"

    assert app.run(leaf(), timeout=60).startswith("the details, ['lock'][0]: ")
    assert the_call(database_url, "leaf")["details"] is None


# --- a heartbeat that comes too late ------------------------------------------------------------


@pytest.mark.peer_case(80)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_call_that_was_cancelled_hears_it_at_its_next_heartbeat(
    kind: str, new_app: NewApp, database_url: str
) -> None:
    """And what it comes to, late, is refused."""
    app = new_app(lease=3600)

    def body() -> None:
        STARTED.set()
        wait_until(lambda: the_call(database_url, kind)["status"])
        try:
            rowtine.heartbeat()
        except asyncio.CancelledError as error:
            RAN.append(str(error))
        else:
            RAN.append("not heard")
        LET_GO.set()

    @app.function(name="sync")
    def in_a_thread() -> None:
        Bodies.here()

    @app.function(name="async")
    async def on_the_loop() -> None:
        await asyncio.to_thread(Bodies.here)

    @app.function(name="quick")
    def quick() -> str:
        STARTED.wait(60)
        return "first"

    @app.function(name="main")
    async def main(kind: str) -> str:
        winner: str = await rowtine.race(rowtine.call(kind), quick())
        return winner

    Bodies.here = body
    handle = app.start(main(kind))
    with app.worker().start(), app.worker().start():
        assert LET_GO.wait(60)
        assert handle.result(timeout=60) == "first"

    assert [f"call {the_call(database_url, kind)['id']} is no longer to be run here"] == RAN
    assert the_call(database_url, kind)["status"] == "CANCELLED"


def test_a_call_whose_time_is_over_hears_it_at_its_next_heartbeat(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(timeout=0.05, retry=rowtine.Retry(max_attempts=1))
    def slow() -> None:
        STARTED.wait(60)
        try:
            rowtine.heartbeat()
        except asyncio.CancelledError:
            RAN.append("heard")
        LET_GO.set()

    handle = app.start(slow())
    with app.worker().start():
        with pytest.raises(TimeoutError):
            handle.result(timeout=60)
        STARTED.set()
        assert LET_GO.wait(60)

    assert RAN == ["heard"]


def test_a_call_that_another_worker_has_taken_hears_it_at_its_next_heartbeat(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(lease=3600, concurrency=1)  # so that the first worker has no room for it

    @app.function(name="leaf")
    def leaf() -> str:
        RAN.append(rowtine.current().attempt)
        if len(RAN) > 1:
            return "of the second"
        STARTED.set()
        LET_GO.wait(60)
        try:
            rowtine.heartbeat("late")
        except asyncio.CancelledError:
            RAN.append("heard")
        return "of the first"

    def take() -> list[calls.Claimed]:
        with app.database.writing() as connection:
            leases.recover(connection, 10)
            return calls.claim(connection, new_id(), ["leaf"], 1, 3600)

    handle = app.start(leaf())
    with app.worker().start():
        assert STARTED.wait(60)
        end_leases(database_url)
        (taken,) = wait_until(take)
        LET_GO.set()
        wait_until(lambda: "heard" in RAN)
        end_leases(database_url)
        assert handle.result(timeout=60) == "of the second"

    assert taken.attempt == 2
    assert RAN == [1, "heard", 3]
    assert the_call(database_url, "leaf")["details"] is None


def test_an_execution_that_is_told_to_stop_hears_it_at_its_next_heartbeat(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app(lease=3600)

    @app.function(name="leaf")
    def leaf() -> None: ...

    def body() -> None:
        query(database_url, "update calls set cancelling = true where function = 'main'")
        try:
            rowtine.heartbeat()
        except asyncio.CancelledError:
            RAN.append("heard")
            raise

    @app.function(name="main")
    async def main() -> None:
        await leaf()
        Bodies.here()

    Bodies.here = body
    app.start(main())
    with app.worker().start():
        wait_until(lambda: the_call(database_url, "main")["status"] == "CANCELLED")

    assert RAN == ["heard"]


def test_a_database_that_is_away_for_a_while_stops_no_work(
    plain_app: NewApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = plain_app()

    def away(*_: object) -> bool:
        raise rowtine.store.TransientError("gone for a while")

    @app.function(name="leaf")
    def leaf() -> str:
        with Patched.context() as patch:
            patch.setattr("rowtine.store.leases.heartbeat", Patched.away)
            rowtine.heartbeat("unheard")
        return "done"

    Patched.context, Patched.away = monkeypatch.context, away

    assert app.run(leaf(), timeout=60) == "done"
    assert "no heartbeat: gone for a while" in caplog.text


class Patched:
    context: Any
    away: Any
