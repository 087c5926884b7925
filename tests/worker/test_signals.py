"""Signals at a worker: queued in order, none lost, none taken twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import everything, let_it_be_due, rows, wait_until
from rowtine import Conflict, NotFound

NewApp = Callable[..., rowtine.App]


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="collect")
    async def collect(count: int, names: list[str]) -> Any:
        seen = []
        for number in range(count):
            seen.append(await rowtine.signal(names[number % len(names)]))
        return seen

    @app.function(name="loop")
    async def loop(left: int) -> Any:
        value = await rowtine.signal("step")
        if left:
            raise rowtine.Reset(loop, left - 1)
        return value

    @app.function(name="timed")
    async def timed() -> Any:
        seen: list[Any] = []
        for name in ("first", "second"):
            try:
                seen.append(await rowtine.signal(name, timeout=1000))
            except TimeoutError:
                seen.append(f"no {name}")
        return seen

    @app.function(name="hears")
    async def hears() -> Any:
        return await rowtine.race(rowtine.signal("a"), rowtine.signal("b"))

    return app


def start(app: rowtine.App, function: str, *args: Any) -> rowtine.Handle[Any]:
    return app.start(app.registry.function(function)(*args))


@pytest.mark.peer_case(52)
def test_signals_sent_before_the_first_round_are_taken_in_order(new_app: NewApp) -> None:
    app = define(new_app())
    handle = start(app, "collect", 3, ["n"])
    for number in range(3):
        handle.signal("n", number)

    with app.worker().start():
        assert handle.result(20) == [0, 1, 2]


def test_signals_of_each_name_have_a_queue_of_their_own(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "collect", 4, ["a", "b"])
        for name, value in (("b", 1), ("a", 2), ("b", 3), ("a", 4)):
            handle.signal(name, value)

        assert handle.result(20) == [2, 1, 4, 3]


def test_a_signal_without_a_value_is_none(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "collect", 1, ["n"])
        handle.signal("n")

        assert handle.result(20) == [None]


@pytest.mark.peer_case(39)
def test_a_wait_for_a_signal_may_time_out_and_the_timeout_is_remembered(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "timed")
        wait_until(lambda: waits(database_url))
        let_it_be_due(database_url)
        wait_until(lambda: len(waits(database_url)) == 2)

        handle.signal("first", "too late for it")
        handle.signal("second", 2)

        assert handle.result(20) == ["no first", 2]


def test_unconsumed_signals_are_carried_over_a_tail_call(new_app: NewApp) -> None:
    app = define(new_app())
    handle = start(app, "loop", 3)
    for number in range(4):
        handle.signal("step", number)

    with app.worker().start():
        assert handle.result(20) == 3


def test_a_run_that_begins_anew_finds_the_signals_again(new_app: NewApp) -> None:
    app = new_app()

    @app.function(name="flaky", retry=rowtine.Retry(initial=0))
    async def flaky() -> Any:
        got = [await rowtine.signal("n"), await rowtine.signal("n")]
        if rowtine.current().attempt < 3:
            raise ConnectionError
        return got

    handle = app.start(flaky())
    handle.signal("n", 1)
    handle.signal("n", 2)
    with app.worker().start():
        assert handle.result(20) == [1, 2]


def test_a_signal_that_a_lost_race_took_is_queued_again(new_app: NewApp, database_url: str) -> None:
    """It was sent when the timer had won already, and nobody had told the wait."""
    app = new_app(poll_min_results=2)

    @app.function(name="either")
    async def either() -> Any:
        first = await rowtine.race(rowtine.sleep(0), rowtine.signal("n"))
        return [first, await rowtine.signal("n"), await rowtine.signal("n")]

    handle = app.start(either())
    handle.signal("n", 1)
    handle.signal("n", 2)
    with app.worker().start():
        wait_until(lambda: rows(database_url, "signals")[0]["call_id"])
        handle.signal("n", 3)
        first, *rest = handle.result(20)

    assert rest == ([2, 3] if first == 1 else [1, 2])


def test_a_signal_to_who_is_over_or_does_not_exist_is_an_error(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app())
    with app.worker().start():
        handle = start(app, "collect", 0, ["n"])
        handle.result(20)
    before = everything(database_url)

    with pytest.raises(Conflict, match="is done"):
        handle.signal("n", 1)
    with pytest.raises(NotFound):
        app.handle("01890000-0000-7000-8000-0000000000ff").signal("n", 1)
    assert everything(database_url) == before


@pytest.mark.peer_case(51)
def test_a_signal_that_cannot_be_sent_harms_nobody(plain_app: NewApp) -> None:
    app = define(plain_app())
    with app.worker().start():
        handle = start(app, "collect", 1, ["n"])
        with pytest.raises(TypeError):
            handle.signal("n", threading.Lock())
        with pytest.raises(ValueError, match="name"):
            handle.signal("", 1)

        handle.signal("n", "good")

        assert handle.result(20) == ["good"]


@pytest.mark.slow
@pytest.mark.first_on("postgresql")
def test_no_signal_is_lost_that_is_sent_at_the_moment_of_the_wait(plain_app: NewApp) -> None:
    """A thousand waits, each of which its signal races: whoever has waited is sent the next."""
    app = define(plain_app())
    with app.worker().start():
        handles = [start(app, "collect", 20, ["n"]) for _ in range(50)]
        for number in range(20):
            for handle in handles:
                handle.signal("n", number)

        assert [handle.result(100) for handle in handles] == [list(range(20))] * 50


@pytest.mark.slow
def test_many_senders_lose_nothing(new_app: NewApp) -> None:
    app = define(new_app())
    with app.worker().start():
        handle = start(app, "collect", 80, ["n"])

        def send(sender: int) -> None:
            for number in range(20):
                handle.signal("n", [sender, number])

        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        got = handle.result(60)

    assert sorted(got) == [[sender, number] for sender in range(4) for number in range(20)]
    for sender in range(4):  # those of one sender in their order
        mine = [number for who, number in got if who == sender]
        assert mine == sorted(mine)


def test_of_two_names_that_arrive_together_the_one_sent_first_comes_first(new_app: NewApp) -> None:
    app = define(new_app())
    handle = start(app, "hears")
    handle.signal("b", "sent first")
    handle.signal("a", "sent second")

    with app.worker().start():
        assert handle.result(20) == "sent first"


def waits(url: str) -> list[dict[str, Any]]:
    return [row for row in rows(url, "calls") if row["kind"] == "signal"]
