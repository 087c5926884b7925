"""Promises at a worker: handed out, answered from outside, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import everything, let_it_be_due, rows, wait_until
from rowtine import Cancelled, Conflict, NotFound

NewApp = Callable[..., rowtine.App]

TOKENS: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    TOKENS.clear()


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="tell")
    def tell(token: str) -> None:
        TOKENS.append(token)

    @app.function(name="approval")
    async def approval(timeout: float | None = None) -> Any:
        answer = rowtine.promise(timeout=timeout)
        await tell(answer.token)
        try:
            return ["answered", await answer]
        except (KeyError, TimeoutError) as error:
            return [type(error).__name__, str(error)]

    @app.function(name="two")
    async def two(reverse: bool) -> Any:
        first, second = rowtine.promise(), rowtine.promise()
        await rowtine.gather(tell(first.token), tell(second.token))
        pair = (second, first) if reverse else (first, second)
        return [await promise for promise in pair]

    @app.function(name="early")
    async def early() -> Any:
        answer = rowtine.promise(timeout=100)
        await tell(answer.token)
        await rowtine.signal("go")
        try:
            return await answer
        except TimeoutError:
            return "too late"

    @app.function(name="reminders")
    async def reminders() -> Any:
        answer = rowtine.promise()
        await tell(answer.token)
        for sent in range(10):
            if (given := await rowtine.race(answer, rowtine.sleep(1000))) is not None:
                return [sent, given]
        return None

    return app


def start(app: rowtine.App, function: str, *args: Any) -> rowtine.Handle[Any]:
    handle = app.start(app.registry.function(function)(*args))
    wanted = 2 if function == "two" else 1
    wait_until(lambda: len(TOKENS) >= wanted)
    return handle


def test_a_promise_is_resolved_by_who_has_its_token(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval")

        app.resolve(TOKENS[0], {"by": "Ada", "at": (1, 2)})

        assert handle.result(20) == ["answered", {"by": "Ada", "at": (1, 2)}]


def test_a_promise_that_is_rejected_raises_the_error(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval")

        app.reject(TOKENS[0], KeyError("no"))

        assert handle.result(20) == ["KeyError", "'no'"]


@pytest.mark.peer_case(49)
def test_a_promise_may_be_resolved_with_nothing(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval")

        app.resolve(TOKENS[0])

        assert handle.result(20) == ["answered", None]


@pytest.mark.peer_case(42)
def test_a_promise_that_is_resolved_before_it_is_awaited_keeps_its_value(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "early")

        app.resolve(TOKENS[0], 7)
        handle.signal("go")

        assert handle.result(20) == 7


@pytest.mark.peer_case(43)
def test_a_promise_whose_time_is_up_before_it_is_awaited_raises_then(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "early")
        let_it_be_due(database_url)
        wait_until(lambda: all(r["phase"] == "done" for r in promises(database_url)))

        handle.signal("go")

        assert handle.result(20) == "too late"
    with pytest.raises(Conflict):
        app.resolve(TOKENS[0], 7)


@pytest.mark.peer_case(44)
@pytest.mark.parametrize("reverse", [False, True])
def test_promises_may_be_resolved_in_any_order(new_app: NewApp, reverse: bool) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "two", reverse)
        first, second = (row["token"] for row in sorted_promises(app))

        app.resolve(second, "second")
        app.resolve(first, "first")

        expected = ["second", "first"] if reverse else ["first", "second"]
        assert handle.result(20) == expected


@pytest.mark.peer_case(36)
def test_the_same_answer_again_is_fine_and_another_is_a_conflict(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval")
        app.resolve(TOKENS[0], [1])
        app.resolve(TOKENS[0], [1])
        with pytest.raises(Conflict, match="another answer"):
            app.resolve(TOKENS[0], [2])
        with pytest.raises(Conflict):
            app.reject(TOKENS[0], ValueError("late"))

        assert handle.result(20) == ["answered", [1]]
    before = everything(database_url)
    app.resolve(TOKENS[0], [1])
    with pytest.raises(Conflict):
        app.resolve(TOKENS[0], [2])
    assert everything(database_url) == before


def test_a_rejection_again_is_the_same_answer(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval")
        app.reject(TOKENS[0], KeyError("no"))
        app.reject(TOKENS[0], KeyError("no"))
        with pytest.raises(Conflict):
            app.reject(TOKENS[0], KeyError("not at all"))

        assert handle.result(20) == ["KeyError", "'no'"]


def test_an_unknown_token_is_an_error_and_creates_nothing(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app())
    before = everything(database_url)

    with pytest.raises(NotFound, match="no promise has this token"):
        app.resolve("0" * 32, 1)

    assert everything(database_url) == before


def test_a_value_that_cannot_be_stored_is_refused_and_the_promise_stays_open(
    plain_app: NewApp,
) -> None:
    app = define(plain_app())
    with app.worker().start():
        handle = start(app, "approval")
        with pytest.raises(TypeError):
            app.resolve(TOKENS[0], threading.Lock())
        with pytest.raises(TypeError, match="Exception"):
            app.reject(TOKENS[0], "no")  # type: ignore[arg-type]

        app.resolve(TOKENS[0], 1)

        assert handle.result(20) == ["answered", 1]


def test_a_promise_is_not_resolved_from_inside_an_execution(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(name="wrong")
    async def wrong() -> str:
        try:
            app.resolve("0" * 32, 1)
        except rowtine.UsageError as error:
            return str(error)
        return ""

    assert "inside an execution" in app.run(wrong(), timeout=20)


def test_a_time_limit_of_a_promise_is_a_recorded_result(new_app: NewApp, database_url: str) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval", 0.05)

        assert handle.result(20) == ["TimedOut", "nobody answered in time"]
    (row,) = promises(database_url)
    assert (row["status"], row["resolution"]) == ("TIMEOUT", "error")
    with pytest.raises(Conflict):
        app.resolve(TOKENS[0], "late")


def test_a_promise_outlives_the_races_that_are_tired_of_it(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "reminders")
        for sent in range(1, 3):
            wait_until(lambda sent=sent: len(timers(database_url)) >= sent)
            let_it_be_due(database_url)
        wait_until(lambda: len(timers(database_url)) == 3)

        app.resolve(TOKENS[0], "at last")

        assert handle.result(20) == [2, "at last"]


def test_a_promise_of_a_cancelled_execution_takes_no_answer(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "approval")
        assert handle.cancel("not needed")
        with pytest.raises(Cancelled, match="not needed"):
            handle.result(20)

    with pytest.raises(Conflict):
        app.resolve(TOKENS[0], 1)


@pytest.mark.peer_case(48)
def test_promises_are_answered_while_no_worker_runs(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handles = [app.start(app.registry.function("approval")()) for _ in range(30)]
        wait_until(lambda: len(TOKENS) == 30)
    for number, token in enumerate(TOKENS):
        app.resolve(token, number)
    with app.worker().start():
        answers = sorted(handle.result(30)[1] for handle in handles)

    assert answers == list(range(30))


@pytest.mark.peer_case(40)
def test_all_that_wait_for_one_promise_resume_once(new_app: NewApp) -> None:
    app = new_app()

    @app.function(name="hand_out")
    def hand_out(token: str) -> None:
        TOKENS.append(token)

    @app.function(name="many")
    async def many() -> Any:
        answer = rowtine.promise()
        await hand_out(answer.token)
        return await rowtine.gather(*[answer] * 20)

    with app.worker().start():
        handle = app.start(many())
        wait_until(lambda: TOKENS)
        app.resolve(TOKENS[0], 1)

        assert handle.result(20) == [1] * 20


def test_two_that_answer_at_once_agree_on_one_answer(plain_app: NewApp) -> None:
    app = define(plain_app())
    with app.worker().start():
        handle = start(app, "approval")
        begin = threading.Barrier(8)
        taken: list[int] = []

        def answer(number: int) -> None:
            begin.wait()
            try:
                app.resolve(TOKENS[0], number)
                taken.append(number)
            except Conflict:
                pass

        threads = [threading.Thread(target=answer, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(taken) == 1
        assert handle.result(20) == ["answered", taken[0]]


def promises(url: str) -> list[dict[str, Any]]:
    return [row for row in rows(url, "calls") if row["kind"] == "promise"]


def sorted_promises(app: rowtine.App) -> list[dict[str, Any]]:
    url = app.database.url.render_as_string(hide_password=False)
    return sorted(promises(url), key=lambda row: row["call_id"])


def timers(url: str) -> list[dict[str, Any]]:
    return [row for row in rows(url, "calls") if row["kind"] == "timer"]
