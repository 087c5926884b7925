"""What a body logs or warns of, it says once, however often it is rebuilt."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine

import rowtine
from rowtine import quiet
from rowtine.store import run_round
from rowtine.worker import native
from store.by_hand import Hand

NewApp = Callable[..., rowtine.App]

log = logging.getLogger("shop")
RAN: list[str] = []
LOGGED, ASKED = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, "shop")
    monkeypatch.setattr(native, "_reported", set())
    RAN.clear()
    LOGGED.clear()
    ASKED.clear()
    yield
    LOGGED.set()
    ASKED.set()


def said(caplog: pytest.LogCaptureFixture, name: str = "shop") -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == name]


def say(text: str) -> None:
    """Leaves a trace that is not a record, to show how often the line really ran."""
    RAN.append(text)
    log.info(text)


@contextlib.asynccontextmanager
async def announced(what: str) -> AsyncIterator[None]:
    say(f"{what} opens")
    try:
        yield
    finally:
        say(f"{what} closes")


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="step")
    def step(name: str) -> str:
        log.info("step %s", name)
        return name

    @app.coroutine
    async def child(name: str) -> str:
        say(f"{name} begins")
        first = await step(f"{name} one")
        say(f"{name} between")
        await step(f"{name} two")
        say(f"{name} ends")
        return first

    @app.function(name="main")
    async def main() -> None:
        say("main begins")
        async with announced("block"):
            await step("one")
            say("main goes on")
            await helper(app)
        try:
            await rowtine.gather(child("a"), child("b"))
            say("main has gathered")
            await step("last")
        finally:
            say("main is over")

    return app


async def helper(app: rowtine.App) -> None:
    say("helper begins")
    await rowtine.call("step", "of the helper")
    say("helper ends")


OF_MAIN = [
    *("main begins", "block opens", "step one", "main goes on"),
    *("helper begins", "step of the helper", "helper ends", "block closes"),
    *("main has gathered", "step last", "main is over"),
]


@pytest.mark.peer_case(137)
def test_records_of_bodies_appear_once_and_in_their_order(
    new_app: NewApp, warm: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = define(new_app())

    app.run(rowtine.call("main"), timeout=60)

    records = said(caplog)
    assert [text for text in records if not text.startswith(("a ", "b ", "step a", "step b"))] == (
        OF_MAIN
    )
    for name in "ab":
        of_the_child = [text for text in records if text.startswith((f"{name} ", f"step {name}"))]
        assert of_the_child == [
            *(f"{name} begins", f"step {name} one", f"{name} between"),
            *(f"step {name} two", f"{name} ends"),
        ]
    assert (len(RAN) > len(set(RAN))) == (warm == 0), "a rebuild runs the lines again"


def test_a_body_that_is_told_to_stop_says_how_it_cleans_up(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.coroutine
    async def loser() -> None:
        say("waits")
        try:
            await rowtine.sleep(3600)
        finally:
            say("cleans up")

    @app.function(name="main")
    async def main() -> None:
        await rowtine.race(loser(), rowtine.sleep(0.01))

    app.run(main(), timeout=60)

    assert said(caplog) == ["waits", "cleans up"]


def test_tasks_and_time_limits_do_not_make_a_body_repeat_itself(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.function(name="step")
    def step() -> int:
        return 1

    @app.coroutine
    async def task() -> int:
        say("task begins")
        await step()
        say("task ends")
        return await step()

    @app.function(name="main")
    async def main() -> int:
        say("main begins")
        begun = rowtine.spawn(task())
        say("spawned")
        await step()
        say("waits")
        got = await begun
        try:
            async with rowtine.timeout(0.01):
                say("in time")
                await rowtine.sleep(3600)
        except TimeoutError:
            say("time is up")
        return got + await step()

    assert app.run(main(), timeout=60) == 2

    records = said(caplog)
    assert [text for text in records if not text.startswith("task")] == [
        *("main begins", "spawned", "waits", "in time", "time is up")
    ]
    assert [text for text in records if text.startswith("task")] == ["task begins", "task ends"]


def test_a_warning_is_given_once(new_app: NewApp, warm: int) -> None:
    app = new_app()

    @app.function(name="step")
    def step() -> None:
        warnings.warn("of a step", stacklevel=1)

    @app.function(name="main")
    async def main() -> None:
        RAN.append("began")
        warnings.warn("of main", stacklevel=1)
        await step()
        await step()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        app.run(main(), timeout=60)

    assert sorted(str(warning.message) for warning in caught) == ["of a step"] * 2 + ["of main"]
    assert len(RAN) == (1 if warm else 3)


def test_warnings_that_are_captured_by_logging_are_given_once(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.function(name="main")
    async def main() -> None:
        warnings.warn("of main", stacklevel=1)
        await rowtine.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            app.run(main(), timeout=60)
        finally:
            logging.captureWarnings(False)

    (text,) = said(caplog, "py.warnings")
    assert "of main" in text


def test_a_warning_that_is_an_error_is_one_at_a_rebuild_too(new_app: NewApp) -> None:
    app = new_app()

    @app.function(name="main")
    async def main() -> str:
        try:
            warnings.warn("of main", stacklevel=1)
        except UserWarning:
            await rowtine.sleep(0)
            return "caught"
        await rowtine.sleep(0)
        return "not raised"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert app.run(main(), timeout=60) == "caught"


def test_a_factory_of_the_programs_own_goes_on_to_make_the_records(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = define(new_app())
    before = logging.getLogRecordFactory()

    def marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.mark = "mine"
        return record

    with app.worker().start():
        app.start(rowtine.call("step", "zero")).result(timeout=60)
        logging.setLogRecordFactory(marked)  # while the worker runs
        try:
            app.start(rowtine.call("main")).result(timeout=60)
        finally:
            logging.setLogRecordFactory(before)

    records = [record for record in caplog.records if record.name == "shop"]
    assert [record.getMessage() for record in records].count("main begins") == 1
    assert {getattr(record, "mark", None) for record in records[1:]} == {"mine"}


@pytest.fixture
def factory() -> Iterator[Callable[..., logging.LogRecord]]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield logging.LogRecord
    logging.setLogRecordFactory(before)


def test_it_is_installed_once_however_often_it_is_asked_for(
    factory: Callable[..., logging.LogRecord],
) -> None:
    quiet.install()
    first, shown = logging.getLogRecordFactory(), warnings.showwarning
    quiet.install()

    assert first is not factory
    assert logging.getLogRecordFactory() is first
    assert warnings.showwarning is shown


def test_a_thread_that_logs_while_a_body_is_rebuilt_is_heard(
    plain_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = plain_app(warm=0)

    @app.function(name="beside")
    def beside() -> None:
        ASKED.wait(60)
        log.info("beside, while main is rebuilt")
        LOGGED.set()

    @app.function(name="main")
    async def main() -> None:
        RAN.append("main")
        if len(RAN) > 1:  # the rebuild holds the loop until the thread has spoken
            ASKED.set()
            assert LOGGED.wait(60)
        say("main begins")
        await rowtine.sleep(0)

    with app.worker().start():
        handles = [app.start(rowtine.call("beside")), app.start(rowtine.call("main"))]
        for handle in handles:
            handle.result(timeout=60)

    assert sorted(said(caplog)) == ["beside, while main is rebuilt", "main begins"]


def test_an_execution_that_is_rebuilt_does_not_silence_another_one(
    plain_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Two bodies take turns on one loop: the one that is rebuilt stands in a native await."""
    app = plain_app(warm=0)

    @app.function(name="rebuilt")
    async def rebuilt() -> None:
        RAN.append("rebuilt")
        if len(RAN) > 1:
            ASKED.set()
            while not LOGGED.is_set():
                await asyncio.sleep(0.001)
        say("rebuilt begins")
        await rowtine.sleep(0)

    @app.function(name="other")
    async def other() -> None:
        while not ASKED.is_set():
            await asyncio.sleep(0.001)
        log.info("other")
        LOGGED.set()

    with app.worker().start():
        for handle in [app.start(rowtine.call("other")), app.start(rowtine.call("rebuilt"))]:
            handle.result(timeout=60)

    assert sorted(said(caplog)) == ["other", "rebuilt begins"]


def test_a_round_in_the_users_own_transaction_is_quiet_too(
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    factory: Callable[..., logging.LogRecord],
) -> None:
    app = rowtine.App(database_url)
    hand = Hand(app)

    @app.function(name="step")
    def step() -> int:
        return 1

    @app.function(name="main")
    async def main() -> int:
        say("main begins")
        answer = await step()
        say("main ends")
        return answer

    id = hand.start(main())
    scheduler = rowtine.OneShotScheduler(main, version=None)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        run_round(connection, scheduler, id)
    hand.answer("step", value=1)
    with engine.begin() as connection:
        run_round(connection, scheduler, id)
    engine.dispose()

    assert app.handle(id).result(timeout=0) == 1
    app.close()
    assert said(caplog) == ["main begins", "main ends"]
    assert RAN == ["main begins", "main begins", "main ends"]


# --- native awaits ------------------------------------------------------------------------------


async def pause() -> None:
    await asyncio.sleep(0)  # here


def test_a_native_await_beside_durable_ones_is_named_once(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.function(name="mixed")
    async def mixed() -> None:
        await pause()
        await rowtine.sleep(0)
        await pause()
        await rowtine.sleep(0)

    for _ in range(2):
        app.run(mixed(), timeout=60)

    (text,) = said(caplog, "rowtine")
    line = pause.__code__.co_firstlineno + 1
    assert "mixed awaits natively" in text
    assert f"{__file__}:{line} in pause" in text


def test_native_awaits_of_children_are_named_too(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.coroutine
    async def child() -> None:
        await pause()
        await rowtine.sleep(0)

    @app.function(name="main")
    async def main() -> None:
        await rowtine.gather(child(), child())

    app.run(main(), timeout=60)

    (text,) = said(caplog, "rowtine")
    assert "in pause" in text


def test_who_only_awaits_natively_is_not_named(
    new_app: NewApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.function(name="fetch")
    async def fetch() -> None:
        await pause()

    @app.coroutine
    async def child() -> None:
        await pause()

    @app.function(name="main")
    async def main() -> None:
        await rowtine.gather(child(), fetch())
        await fetch()
        await pause()  # no rebuild comes this far

    app.run(main(), timeout=60)

    assert said(caplog, "rowtine") == []
