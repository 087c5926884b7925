"""What user code may do without harm to anybody but its own call."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import program
from acceptance.nursery import Child
from acceptance.support import assert_lawful, rows
from rowtine.worker.loop import BackgroundWorker

NewApp = Callable[..., rowtine.App]
Fork = Callable[..., Child]

RAN: list[Any] = []
LET_GO = threading.Event()
ONCE = rowtine.Retry(max_attempts=1)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    RAN.clear()
    LET_GO.clear()
    yield
    LET_GO.set()


def the_call(url: str, function: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["function"] == function]
    return row


# --- what ends others -----------------------------------------------------------------------------


class TwoWords(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")
        self.one, self.two = one, two


def ended(background: BackgroundWorker) -> AssertionError | None:
    """That the worker has ended, which is not to be taken for the call's error."""
    return None if background.error is None else AssertionError(repr(background.error))


def make_error(name: str) -> BaseException:
    return ENDS[name][0]()


ENDS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "sys.exit": (lambda: SystemExit(3), "PERMANENT_ERROR"),
    "Ctrl-C": (KeyboardInterrupt, "PERMANENT_ERROR"),
    "cancelled": (asyncio.CancelledError, "CANCELLED"),
    "generator": (lambda: GeneratorExit("g"), "PERMANENT_ERROR"),
    "base": (lambda: BaseException("b"), "PERMANENT_ERROR"),
    "stop": (lambda: StopIteration("s"), "PERMANENT_ERROR"),
    "memory": (MemoryError, "TEMPORARY_ERROR"),
}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", ENDS)
def test_whatever_a_function_raises_is_its_calls_error_and_not_the_workers_end(
    name: str,
    kind: str,
    plain_app: NewApp,
    database_url: str,
) -> None:
    app = plain_app()

    @app.function(name="sync", retry=ONCE)
    def in_a_thread(name: str) -> None:
        raise make_error(name)

    @app.function(name="async", retry=ONCE)
    async def on_the_loop(name: str) -> None:
        raise make_error(name)

    @app.function(name="next")
    def next_() -> str:
        return "the worker lives"

    with app.worker().start() as background:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - an Exception whatever it was
            app.start(rowtine.call(kind, name)).wait(60, lambda: ended(background))
        assert app.start(next_()).wait(60, lambda: ended(background)) == "the worker lives"

    assert background.error is None
    assert not isinstance(raised.value, TimeoutError | AssertionError)
    row = the_call(database_url, kind)
    assert (row["status"], row["attempt"]) == (ENDS[name][1], 1)


@pytest.mark.xfail(reason="asyncio ends the loop in which a task of anybody's exits")
def test_a_task_of_the_functions_own_that_exits_does_not_end_the_worker(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="main", retry=ONCE)
    async def main() -> None:
        async def leave() -> None:
            sys.exit(3)

        await asyncio.create_task(leave())

    @app.function(name="next")
    def next_() -> str:
        return "the worker lives"

    with app.worker().start() as background:
        with pytest.raises(rowtine.RemoteError, match="SystemExit"):
            app.start(main()).wait(60, lambda: ended(background))
        assert app.start(next_()).wait(60, lambda: ended(background)) == "the worker lives"

    assert background.error is None


@pytest.mark.parametrize("how", ["exit", "crash"])
def test_a_process_that_user_code_ends_counts_as_an_attempt_that_failed(
    how: str, database_url: str, diary: Path, fork: Fork
) -> None:
    with closing(program.build(database_url, poll_interval=0.02)) as app:
        handle = app.start(rowtine.call("killing", how))
        for number in (1, 2):
            child = fork("acceptance.workers:work", url=database_url, poll_interval=0.02, lease=0.5)
            assert child.wait() != 0
            assert the_call(database_url, "killing")["attempt"] == number
        other = app.start(rowtine.call("double", 1))
        with app.worker().start():
            assert other.result(timeout=60) == 2
            with pytest.raises(rowtine.Interrupted, match="attempt 2 of 2"):
                handle.result(timeout=60)

    assert program.effects(diary)[f"killing {how}"] == 2
    assert_lawful(database_url)


# --- what cannot be stored ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_value_that_cannot_be_stored_fails_its_call_and_names_the_place(
    kind: str, new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="sync")
    def in_a_thread() -> Any:
        return {"a": [1, threading.Lock()]}

    @app.function(name="async")
    async def on_the_loop() -> Any:
        return {"a": [1, threading.Lock()]}

    @app.function(name="main")
    async def main(kind: str) -> str:
        try:
            await rowtine.call(kind)
        except TypeError as error:
            return str(error)
        return "not raised"

    message = app.run(main(kind), timeout=60)

    assert "lock" in message
    assert "['a'][1]" in message
    assert the_call(database_url, kind)["status"] == "INVALID_ARGUMENT"


@pytest.mark.peer_case(19)
def test_an_argument_that_cannot_be_stored_is_refused_at_the_call_and_nothing_is_stored(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="one")
    def one(order: Any) -> Any:
        return order

    @app.function(name="main")
    async def main() -> str:
        try:
            await one({"items": [threading.Lock()]})
        except TypeError as error:
            refused = str(error)
        return refused + " / " + await one("stored")

    with pytest.raises(TypeError, match=r"argument 'order'.*\['items'\]\[0\]"):
        app.start(one({"items": [threading.Lock()]}))
    assert rows(database_url, "calls") == []
    result = app.run(main(), timeout=60)

    assert "argument 'order'" in result
    assert result.endswith("/ stored")
    assert [row["seq"] for row in rows(database_url, "calls") if row["function"] == "one"] == [0]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.case(216)
def test_a_result_of_three_megabytes_is_refused_with_the_limit_in_the_message(
    kind: str, plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(name="sync")
    def in_a_thread() -> str:
        return "x" * 3_000_000

    @app.function(name="async")
    async def on_the_loop() -> str:
        return "x" * 3_000_000

    with pytest.raises(rowtine.PayloadError, match=r"2097152|2 Mi?B|2,097,152"):
        app.run(rowtine.call(kind), timeout=60)

    row = the_call(database_url, kind)
    assert (row["status"], row["attempt"]) == ("INVALID_ARGUMENT", 1)


def test_a_gather_whose_values_together_are_too_large_fails_and_the_worker_lives(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app(max_payload_bytes=10_000)

    @app.function(name="big")
    def big() -> str:
        return "x" * 6_000

    @app.function(name="main")
    async def main() -> int:
        return len(await rowtine.gather(rowtine.gather(big(), big()), big()))

    with pytest.raises(rowtine.PayloadError):
        app.run(main(), timeout=60)


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", "\ud800", "\N{SNOWMAN}", "line\nline", "'; drop table calls --", "%s :x"]
)
@pytest.mark.case(216)
def test_any_text_can_be_in_a_value_and_in_an_error(
    text: str, new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function
    def echo(text: str) -> str:
        return text

    @app.function(retry=ONCE)
    def fail(text: str) -> None:
        raise KeyError(text)

    @app.function(retry=ONCE)
    async def main(text: str) -> list[str]:
        value = await echo(text)
        try:
            await fail(text)
        except KeyError as error:
            return [value, error.args[0]]
        return []

    assert app.run(main(text), timeout=60) == [text, text]


@pytest.mark.peer_case(20)
def test_an_error_whose_class_needs_two_arguments_is_rebuilt_as_it_was(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function
    def fail() -> None:
        raise TwoWords("here", "there")

    @app.function
    async def main() -> str:
        try:
            await fail()
        except TwoWords as error:
            return f"{error.one}, {error.two}: {error}"
        return ""

    assert app.run(main(), timeout=60) == "here, there: here and there"


@pytest.mark.peer_case(20)
def test_an_error_that_cannot_even_say_what_it_is_fails_its_call_all_the_same(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

        __repr__ = __str__

    @app.function(name="fail")
    def fail() -> None:
        raise Mute

    @app.function
    async def main() -> str:
        try:
            await fail()
        except Exception as error:
            return type(error).__name__
        return ""

    assert app.run(main(), timeout=60) in ("Mute", "RemoteError")
    assert the_call(database_url, "fail")["status"] == "PERMANENT_ERROR"


@pytest.mark.case(160)
@pytest.mark.peer_case(135)
def test_a_traceback_names_the_users_lines_and_none_of_ours(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    def helper() -> None:
        raise KeyError("deep")

    Helpers.helper = staticmethod(helper)  # type: ignore[attr-defined]

    @app.function(name="fail")
    def fail() -> None:
        Helpers.helper()  # type: ignore[attr-defined]

    with pytest.raises(KeyError):
        app.run(fail(), timeout=60)

    text = the_call(database_url, "fail")["error_traceback"]
    assert "in helper" in text
    assert "in fail" in text
    assert "/rowtine/" not in text


class Helpers:
    pass


# --- threads, loops, contexts ---------------------------------------------------------------------


def test_sync_functions_run_in_threads_and_at_the_same_time(plain_app: NewApp) -> None:
    app = plain_app(concurrency=3)

    @app.function
    def meet(x: int) -> bool:
        RAN.append(threading.current_thread())
        return Meeting.point.wait(60) >= 0

    Meeting.point = threading.Barrier(3)
    handles = [app.start(meet(x)) for x in range(3)]
    with app.worker().start():
        assert [handle.result(timeout=60) for handle in handles] == [True] * 3

    assert len(set(RAN)) == 3
    assert threading.main_thread() not in RAN


class Meeting:
    point: threading.Barrier


def test_async_functions_run_on_one_loop_at_the_same_time(plain_app: NewApp) -> None:
    app = plain_app(concurrency=3)

    @app.function
    async def meet(x: int) -> int:
        RAN.append((x, asyncio.get_running_loop(), threading.current_thread()))
        while len(RAN) < 3:
            await asyncio.sleep(0.001)
        return x

    handles = [app.start(meet(x)) for x in range(3)]
    with app.worker().start():
        assert [handle.result(timeout=60) for handle in handles] == [0, 1, 2]

    assert len({(loop, thread) for _, loop, thread in RAN}) == 1


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_each_run_of_a_sync_function_has_a_context_of_its_own(plain_app: NewApp) -> None:
    app = plain_app(concurrency=1)  # one thread for all

    @app.function
    def mark(x: str) -> str:
        before = VARIABLE.get()
        VARIABLE.set(x)
        return before

    handles = [app.start(mark(x)) for x in "abc"]
    with app.worker().start():
        assert [handle.result(timeout=60) for handle in handles] == ["unset"] * 3


def test_a_coroutine_keeps_its_context_over_its_waits_and_shares_it_with_nobody(
    new_app: NewApp,
) -> None:
    app = new_app()

    @app.function
    def one() -> int:
        return 1

    @app.coroutine
    async def child(x: str) -> list[str]:
        seen = [VARIABLE.get()]
        VARIABLE.set(x)
        await one()
        return [*seen, VARIABLE.get()]

    @app.function
    async def main() -> list[Any]:
        VARIABLE.set("main")
        await one()
        children = await rowtine.gather(child("a"), child("b"))
        return [*children, VARIABLE.get()]

    assert app.run(main(), timeout=60) == [["unset", "a"], ["unset", "b"], "main"]


def test_a_function_that_blocks_the_loop_costs_nobody_their_result(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app(lease=0.6)

    @app.function(name="rude")
    async def rude() -> str:
        RAN.append("rude")
        LET_GO.wait(2)
        return "rude"

    @app.function(name="polite")
    def polite(x: int) -> int:
        return x

    @app.function(name="main")
    async def main() -> list[Any]:
        return list(await rowtine.gather(rude(), *[polite(x) for x in range(5)]))

    assert app.run(main(), timeout=60) == ["rude", 0, 1, 2, 3, 4]
    assert RAN == ["rude"]


def test_awaiting_durable_calls_through_asyncio_gather_says_what_to_use(new_app: NewApp) -> None:
    app = new_app()

    @app.function
    def one() -> int:
        return 1

    @app.function
    async def main() -> None:
        async def wait() -> int:
            return await one()

        await asyncio.gather(wait(), wait())

    with pytest.raises(rowtine.UsageError, match=r"rowtine\.gather"):
        app.run(main(), timeout=60)


def test_a_native_await_in_a_later_round_works(new_app: NewApp) -> None:
    app = new_app()

    @app.function
    def one() -> int:
        return 1

    @app.function
    async def main() -> int:
        value = await one()
        await asyncio.sleep(0.01)
        return value + await one()

    assert app.run(main(), timeout=60) == 2


def test_what_a_function_changes_in_its_arguments_reaches_nobody(new_app: NewApp) -> None:
    app = new_app()

    @app.function
    def add(xs: list[int]) -> list[int]:
        xs.append(9)
        return xs

    @app.coroutine
    async def child(xs: list[int]) -> list[int]:
        xs.append(8)
        return await add(xs)

    @app.function
    async def main(xs: list[int]) -> list[Any]:
        (theirs,) = await rowtine.gather(child(xs))
        return [xs, theirs]

    mine = [1]
    assert app.run(main(mine), timeout=60) == [[1], [1, 8, 9]]
    assert mine == [1]
