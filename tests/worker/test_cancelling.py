"""Executions that are told to stop, or ended, from outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import everything, let_it_be_due, past, rows, wait_until
from databases import query
from rowtine import Cancelled, NotFound, UsageError

NewApp = Callable[..., rowtine.App]

RAN: list[str] = []
BEGUN, LET_GO = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    BEGUN.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="note")
    def note(what: str) -> str:
        RAN.append(what)
        return what

    @app.function(name="hold")
    def hold() -> str:
        BEGUN.set()
        LET_GO.wait(30)
        RAN.append("held to the end")
        return "held"

    @app.function(name="beating")
    def beating() -> str:
        BEGUN.set()
        while True:
            LET_GO.wait(0.01)
            try:
                rowtine.heartbeat()
            except asyncio.CancelledError:
                RAN.append("heard it")
                raise

    @app.function(name="failing")
    def failing() -> None:
        RAN.append("failed")
        error = ConnectionError()
        error.retry_after = 1000  # type: ignore[attr-defined]
        raise error

    @app.function(name="waiting")
    async def waiting(what: str, cleans_up: bool = True) -> Any:
        wait: Any = {
            "sleep": lambda: rowtine.sleep(days=1),
            "call": hold,
            "promise": rowtine.promise,
            "signal": lambda: rowtine.signal("never"),
            "gather": lambda: rowtine.gather(rowtine.sleep(days=1), rowtine.signal("never")),
            "task": lambda: rowtine.spawn(rowtine.sleep(days=1)),
        }[what]()
        try:
            await wait
        except asyncio.CancelledError as told:
            if cleans_up:
                await note(f"clean-up: {told}")
            raise

    @app.function(name="parent")
    async def parent(what: str, depth: int) -> Any:
        try:
            if depth:
                return await parent(what, depth - 1)
            return await waiting(what)
        except asyncio.CancelledError:
            await note(f"parent {depth}")
            raise

    @app.function(name="stubborn")
    async def stubborn() -> str:
        try:
            await rowtine.sleep(days=1)
        except asyncio.CancelledError:
            return await note("all the same")
        return "?"

    @app.function(name="shielding")
    async def shielding() -> str:
        try:
            return await rowtine.shield(hold())
        except asyncio.CancelledError:
            await note("told")
            raise

    @app.function(name="catching")
    async def catching() -> str:
        try:
            return await waiting("sleep")
        except Cancelled as error:
            return f"child: {error}"

    return app


def start(app: rowtine.App, function: str, *args: Any) -> rowtine.Handle[Any]:
    return app.start(app.registry.function(function)(*args))


def suspended(url: str, count: int = 1) -> None:
    wait_until(lambda: sum(row["phase"] == "suspended" for row in rows(url, "calls")) >= count)


@pytest.mark.peer_case(79, 94)
@pytest.mark.parametrize("what", ["sleep", "call", "promise", "signal", "gather", "task"])
def test_a_waiting_execution_is_told_at_its_await_and_cleans_up(
    new_app: NewApp, database_url: str, what: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "waiting", what)
        suspended(database_url)

        assert handle.cancel("no more")
        with pytest.raises(Cancelled, match="no more"):
            handle.result(20)
        LET_GO.set()

    assert RAN[:1] == ["clean-up: no more"]
    open_ = [row for row in rows(database_url, "calls") if row["phase"] != "done"]
    assert open_ == []


@pytest.mark.peer_case(78)
def test_a_call_that_has_not_begun_never_begins(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    handle = start(app, "note", "never")

    assert handle.cancel("why")

    with app.worker().start(), pytest.raises(Cancelled, match="why"):
        handle.result(20)
    assert RAN == []
    (row,) = rows(database_url, "calls")
    assert (row["phase"], row["status"], row["attempt"]) == ("done", "CANCELLED", 0)


@pytest.mark.peer_case(80)
def test_a_running_function_hears_it_at_its_heartbeat(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "beating")
        assert BEGUN.wait(20)

        assert handle.cancel("enough")
        with pytest.raises(Cancelled, match="enough"):
            handle.result(20)

        wait_until(lambda: RAN == ["heard it"])


@pytest.mark.peer_case(80)
def test_the_late_outcome_of_a_cancelled_call_is_refused(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app(grace=0))
    with app.worker().start():
        handle = start(app, "hold")
        assert BEGUN.wait(20)
        handle.cancel("enough")
        before = everything(database_url, without=["heartbeat_at"])
        LET_GO.set()
        wait_until(lambda: RAN)

        with pytest.raises(Cancelled, match="enough"):
            handle.result(20)
    assert everything(database_url)["calls"] == before["calls"]


@pytest.mark.peer_case(81)
def test_a_whole_tree_is_told_and_each_of_it_cleans_up(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "parent", "sleep", 3)
        suspended(database_url, 5)

        handle.cancel("all of you")
        with pytest.raises(Cancelled, match="all of you"):
            handle.result(20)
        wait_until(lambda: all(row["phase"] == "done" for row in rows(database_url, "calls")))

    assert sorted(RAN) == ["clean-up: ", "parent 0", "parent 1", "parent 2", "parent 3"]


def test_a_child_is_cancelled_and_its_caller_sees_an_error(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "catching")
        suspended(database_url, 2)
        (child,) = (row for row in rows(database_url, "calls") if row["function"] == "waiting")

        assert app.handle(child["id"]).cancel("the child alone")

        assert handle.result(20) == "child: the child alone"


@pytest.mark.peer_case(87)
def test_a_call_that_waits_for_its_next_attempt_is_cancelled_now(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "failing")
        wait_until(lambda: rows(database_url, "calls")[0]["first_failed_at"])

        handle.cancel("no more tries")
        with pytest.raises(Cancelled, match="no more tries"):
            handle.result(5)

    assert RAN == ["failed"]


@pytest.mark.peer_case(84)
def test_to_cancel_twice_is_to_cancel_once_and_the_first_reason_stays(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    handle = start(app, "waiting", "sleep")
    with app.worker().start():
        suspended(database_url)
    assert handle.cancel("first")
    before = everything(database_url, without=["wake_at"])
    assert handle.cancel("second")
    assert everything(database_url, without=["wake_at"]) == before

    with app.worker().start(), pytest.raises(Cancelled, match="first"):
        handle.result(20)
    assert RAN == ["clean-up: first"]


@pytest.mark.peer_case(84)
def test_what_is_over_cannot_be_cancelled_and_what_is_not_there_is_an_error(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app())
    with app.worker().start():
        handle = start(app, "note", "done")
        assert handle.result(20) == "done"
    before = everything(database_url)

    assert handle.cancel() is False
    assert handle.terminate() is False
    for stop in (rowtine.Handle.cancel, rowtine.Handle.terminate):
        with pytest.raises(NotFound):
            stop(app.handle("01890000-0000-7000-8000-0000000000ff"), "who?")
    assert everything(database_url) == before


def test_a_timer_is_cancelled_through_the_execution_that_waits_for_it(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app())
    with app.worker().start():
        start(app, "waiting", "sleep")
        suspended(database_url)
    (timer,) = (row for row in rows(database_url, "calls") if row["kind"] == "timer")

    with pytest.raises(UsageError, match="is a timer"):
        app.handle(timer["id"]).cancel()


@pytest.mark.peer_case(85)
def test_a_body_that_goes_on_comes_to_its_value(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "stubborn")
        suspended(database_url)
        handle.cancel("please")

        assert handle.result(20) == "all the same"


@pytest.mark.peer_case(82, 83)
def test_cancelled_and_answered_at_once_has_one_outcome_and_keeps_it(
    new_app: NewApp, database_url: str
) -> None:
    """The cancellation comes first in a round, whatever has arrived with it."""
    app = new_app()

    @app.function(name="once")
    async def once() -> str:
        try:
            await rowtine.signal("go")
        except asyncio.CancelledError:
            seen = "cancelled"
        else:
            seen = "answered"
        await rowtine.signal("end")
        return seen

    with app.worker().start():
        handle = app.start(once())
        suspended(database_url)
    handle.signal("go", 1)
    handle.cancel()
    handle.signal("end")

    with app.worker().start():
        assert handle.result(20) == "cancelled"


@pytest.mark.peer_case(98)
@pytest.mark.slow
def test_of_cancelling_and_ending_exactly_one_wins(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handles = [start(app, "note", str(number)) for number in range(60)]
        taken = [handle.cancel("race") for handle in handles]
        seen = []
        for handle in handles:
            try:
                seen.append(handle.result(30))
            except Cancelled:
                seen.append("cancelled")

    for number, (cancelled, value) in enumerate(zip(taken, seen, strict=True)):
        assert value == ("cancelled" if cancelled else str(number))


def test_pending_calls_of_who_is_told_to_stop_do_not_begin(
    new_app: NewApp, database_url: str
) -> None:
    """They were queued before the cancellation, and a worker looks for both at once."""
    app = new_app()

    @app.function(name="note")
    def note(what: str) -> None:
        RAN.append(what)

    @app.function(name="fan")
    async def fan() -> None:
        await rowtine.gather(*(note.options(delay=1000)("never") for _ in range(20)))

    with app.worker().start():
        handle = app.start(fan())
        suspended(database_url)
    handle.cancel("too late for them")
    let_it_be_due(database_url)

    with app.worker().start(), pytest.raises(Cancelled):
        handle.result(20)
    assert RAN == []


def test_a_shielded_call_ends_before_the_execution_does(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "shielding")
        assert BEGUN.wait(20)
        suspended(database_url)
        handle.cancel("stop")
        wait_until(lambda: RAN == ["told"])
        LET_GO.set()

        with pytest.raises(Cancelled, match="stop"):
            handle.result(20)
    assert RAN == ["told", "held to the end"]
    (held,) = (row for row in rows(database_url, "calls") if row["function"] == "hold")
    assert (held["phase"], held["status"]) == ("done", "OK")


# ------------------------------------------------------------------------------------- terminate


@pytest.mark.peer_case(92)
def test_terminate_ends_a_tree_at_once_without_clean_up(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "parent", "sleep", 2)
        suspended(database_url, 4)

        assert handle.terminate("operator")

        assert all(row["phase"] == "done" for row in rows(database_url, "calls"))
        assert rows(database_url, "states") == []
        with pytest.raises(Cancelled, match="operator"):
            handle.result(20)
    assert RAN == []


def test_terminate_ends_what_is_shielded_or_cleaning_up(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "shielding")
        assert BEGUN.wait(20)
        suspended(database_url)
        handle.cancel("stop")
        wait_until(lambda: RAN == ["told"])

        assert handle.terminate("now")
        with pytest.raises(Cancelled, match="now"):
            handle.result(20)
        LET_GO.set()
    assert all(row["phase"] == "done" for row in rows(database_url, "calls"))


def test_the_caller_of_what_is_terminated_goes_on(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "catching")
        suspended(database_url, 2)
        (child,) = (row for row in rows(database_url, "calls") if row["function"] == "waiting")

        app.handle(child["id"]).terminate("that one")

        assert handle.result(20) == "child: that one"


def test_terminate_ends_a_running_call_and_refuses_its_outcome(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app(grace=0))
    with app.worker().start():
        handle = start(app, "hold")
        assert BEGUN.wait(20)

        assert handle.terminate("now")
        with pytest.raises(Cancelled, match="now"):
            handle.result(20)
        LET_GO.set()


@pytest.mark.peer_case(89)
@pytest.mark.slow
def test_what_was_killed_in_numbers_is_never_tried_again(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app())
    with app.worker().start():
        handles = [start(app, "failing") for _ in range(200)]
        wait_until(lambda: len(RAN) == 200)
        wait_until(lambda: all(r["phase"] == "queued" for r in rows(database_url, "calls")))
        assert all(handle.terminate() for handle in handles)
        let_it_be_due(database_url)
        assert start(app, "note", "afterwards").result(20) == "afterwards"

    assert RAN.count("failed") == 200
    assert {row["phase"] for row in rows(database_url, "calls")} == {"done"}


# -------------------------------------------------------------------------------------- deadlines


@pytest.mark.case(218)
def test_a_deadline_ends_a_suspended_execution_and_all_below_it(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        call = app.registry.function("parent").options(deadline=1000)("sleep", 1)
        handle = app.start(call)
        suspended(database_url, 3)
        pass_deadlines(database_url)

        with pytest.raises(TimeoutError, match="deadline"):
            handle.result(20)
    assert all(row["phase"] == "done" for row in rows(database_url, "calls"))
    assert RAN == []


def test_a_deadline_ends_what_nobody_has_begun(plain_app: NewApp, database_url: str) -> None:
    app = define(plain_app())
    handle = app.start(app.registry.function("note").options(deadline=0, delay=1000)("never"))

    with app.worker().start(), pytest.raises(TimeoutError, match="deadline"):
        handle.result(20)


def test_a_caller_sees_the_deadline_of_what_it_called(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())

    @app.function(name="bounded")
    async def bounded() -> str:
        waiting = app.registry.function("waiting")
        try:
            return str(await waiting.options(deadline=0.05)("sleep"))
        except TimeoutError as error:
            return str(error)

    with app.worker().start():
        assert "deadline" in app.start(bounded()).result(20)


def pass_deadlines(url: str) -> None:
    query(url, f"update calls set deadline = {past(url)} where deadline is not null")
