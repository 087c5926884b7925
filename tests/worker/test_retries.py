"""Which failures are tried again, when, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import rowtine
from acceptance.support import let_it_be_due, rows, wait_until
from databases import query
from rowtine.core import status as statuses
from rowtine.core.status import RETRYABLE, Status

NewApp = Callable[..., rowtine.App]
Row = dict[str, Any]

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()


@pytest.fixture
def middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw of chance is 0.5: the wait is half of the longest."""
    monkeypatch.setattr("rowtine.clock.jitter", lambda: 0.5)


class Failure(Exception):
    """An error that means the status it holds."""


@pytest.fixture
def failures() -> Iterator[None]:
    before = dict(statuses._ERRORS)
    statuses.register_error_type(Failure, lambda error: Status(error.args[0]))
    yield
    statuses._ERRORS.clear()
    statuses._ERRORS.update(before)


def the_call(url: str) -> Row:
    (row,) = rows(url, "calls")
    return row


def seconds(url: str, of: str, since: str) -> float:
    """The seconds between two columns of the one call."""
    if url.startswith("sqlite"):
        ((microseconds,),) = query(url, f"select {of} - {since} from calls")
        return microseconds / 1_000_000
    ((value,),) = query(url, f"select extract(epoch from {of} - {since})::float from calls")
    return value


def set_back(url: str, column: str, by: int) -> None:
    """Move a moment into the past."""
    if url.startswith("sqlite"):
        query(url, f"update calls set {column} = {column} - {by * 1_000_000}")
    else:
        query(url, f"update calls set {column} = {column} - interval '{by} seconds'")


def attempts(url: str, number: int) -> Callable[[], bool]:
    """Whether this many attempts have failed, and another one waits."""
    return lambda: (row := the_call(url))["attempt"] == number and row["phase"] == "queued"


# --- which --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
@pytest.mark.case(171)
@pytest.mark.peer_case(10)
def test_each_status_is_tried_again_or_fails_at_once_as_the_table_says(
    status: Status, kind: str, plain_app: NewApp, database_url: str, failures: None
) -> None:
    app = plain_app()
    retry = rowtine.Retry(max_attempts=3, initial=0)

    @app.function(name="sync", retry=retry)
    def in_a_thread() -> None:
        RAN.append(1)
        raise Failure(status.value)

    @app.function(name="async", retry=retry)
    async def on_the_loop() -> None:
        RAN.append(1)
        raise Failure(status.value)

    with pytest.raises(Failure, match=status.value):
        app.run(rowtine.call(kind), timeout=60)

    assert len(RAN) == (3 if status in RETRYABLE else 1)
    row = the_call(database_url)
    assert (row["phase"], row["status"], row["attempt"]) == ("done", status.value, len(RAN))


@pytest.mark.case(169)
def test_a_temporary_failure_is_not_seen_by_whoever_waits(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="flaky", retry=rowtine.Retry(initial=0.01))
    def flaky() -> str:
        RAN.append(1)
        if len(RAN) < 3:
            raise ConnectionError("not yet")
        return "at last"

    @app.function
    async def main() -> str:
        return await flaky()

    assert app.run(main(), timeout=60) == "at last"
    (row,) = [row for row in rows(database_url, "calls") if row["function"] == "flaky"]
    assert (row["attempt"], row["status"], row["error_type"]) == (3, "OK", None)


@pytest.mark.peer_case(8, 68)
def test_after_the_last_attempt_the_error_reaches_the_caller_who_can_catch_it(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="flaky", retry=rowtine.Retry(max_attempts=4, initial=0.01))
    def flaky() -> None:
        RAN.append(1)
        raise ConnectionError(f"attempt {len(RAN)}")

    @app.function
    async def main() -> str:
        try:
            await flaky()
        except ConnectionError as error:
            return f"caught: {error}"
        return "not caught"

    assert app.run(main(), timeout=60) == "caught: attempt 4"
    assert len(RAN) == 4


@pytest.mark.peer_case(14)
def test_a_step_that_succeeded_is_not_run_again_when_the_next_one_fails_for_a_while(
    new_app: NewApp,
) -> None:
    app = new_app()

    @app.function(name="first")
    def first() -> int:
        RAN.append("first")
        return 1

    @app.function(name="second", retry=rowtine.Retry(initial=0.01))
    def second() -> int:
        RAN.append("second")
        if RAN.count("second") < 3:
            raise TimeoutError
        return 2

    @app.function
    async def main() -> list[int]:
        return [await first(), await second()]

    assert app.run(main(), timeout=60) == [1, 2]
    assert RAN == ["first", "second", "second", "second"]


def test_another_attempt_of_an_execution_is_a_new_run_that_begins_at_the_beginning(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="step")
    def step(x: int) -> int:
        RAN.append(x)
        return x

    @app.function(name="main", retry=rowtine.Retry(initial=0.01))
    async def main() -> str:
        await step(1)
        if len(RAN) < 3:
            await step(2)
            raise ConnectionError
        return "done"

    assert app.run(main(), timeout=60) == "done"
    assert RAN == [1, 2, 1]
    (root,) = [row for row in rows(database_url, "calls") if row["function"] == "main"]
    assert (root["current_run"], root["attempt"]) == (1, 2)
    steps = [row for row in rows(database_url, "calls") if row["function"] == "step"]
    assert sorted((row["run"], row["seq"]) for row in steps) == [(0, 0), (0, 1), (1, 0)]
    assert sorted((row["run"], row["id"]) for row in rows(database_url, "coroutines")) == [
        (0, 0),
        (1, 0),
    ]


def test_results_of_an_earlier_run_are_nobodys_business(new_app: NewApp, database_url: str) -> None:
    """What the first run of an execution was still waiting for ends with it."""
    app = new_app()

    @app.function(name="fail")
    def fail() -> None:
        RAN.append("fail")
        if len(RAN) == 1:
            raise KeyError("once")

    @app.function(name="main", retry=rowtine.Retry(initial=0))
    async def main() -> str:
        try:
            await rowtine.gather(fail(), rowtine.sleep(3600), cancel_losers=False)
        except KeyError:
            raise ConnectionError from None
        return "done"

    handle = app.start(main())
    with app.worker().start():
        wait_until(lambda: [row["run"] for row in rows(database_url, "states")] == [1])
        let_it_be_due(database_url)
        assert handle.result(timeout=60) == "done"

    timers = [row for row in rows(database_url, "calls") if row["kind"] == "timer"]
    assert sorted((row["run"], row["status"]) for row in timers) == [(0, "CANCELLED"), (1, "OK")]


@pytest.mark.peer_case(8)
def test_a_call_that_always_fails_runs_as_often_as_it_may(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(max_attempts=4, initial=0))
    def fail() -> None:
        RAN.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        app.run(fail(), timeout=60)

    assert len(RAN) == 4


class Sold(Exception):
    pass


class Returned(Sold):
    pass


@pytest.mark.peer_case(10)
@pytest.mark.parametrize("listed", [Sold, f"{__name__}.Sold"], ids=["class", "name"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_exactly_the_listed_errors_are_tried_again(
    kind: str, listed: Any, plain_app: NewApp
) -> None:
    """Those of the function, and those of the call where it says so."""
    app = plain_app()
    policy = rowtine.Retry(max_attempts=3, initial=0, retry_on=(listed,))
    errors: dict[str, type[Exception]] = {"listed": Returned, "unlisted": ConnectionError}

    def run(which: str) -> None:
        RAN.append(which)
        raise errors[which]

    @app.function(name="sync")
    def in_a_thread(which: str) -> None:
        Bodies.run(which)

    @app.function(name="async")
    async def on_the_loop(which: str) -> None:
        Bodies.run(which)

    @app.function(name="its own", retry=policy)
    def with_its_own(which: str) -> None:
        Bodies.run(which)

    Bodies.run = run
    for call in (app.registry.function(kind).options(retry=policy), with_its_own):
        for which, error in errors.items():
            with pytest.raises(error):
                app.run(call(which), timeout=60)

    assert RAN == 2 * ["listed", "listed", "listed", "unlisted"]


class Bodies:
    """For functions: free variables are refused, globals are not."""

    run: Callable[[str], None]


def test_what_is_never_retried_fails_at_once(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(initial=0, never_on=(ConnectionRefusedError,)))
    def fail() -> None:
        RAN.append(1)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        app.run(fail(), timeout=60)

    assert RAN == [1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_predicate_sees_the_error_with_its_attributes(kind: str, plain_app: NewApp) -> None:
    app = plain_app()
    policy = rowtine.Retry(initial=0, when=lambda error: getattr(error, "errno", 0) != 4003)

    def run(which: str) -> None:
        RAN.append(1)
        raise OSError(4000 + len(RAN), which)

    @app.function(name="sync", retry=policy)
    def in_a_thread() -> None:
        Bodies.run("x")

    @app.function(name="async", retry=policy)
    async def on_the_loop() -> None:
        Bodies.run("x")

    Bodies.run = run
    with pytest.raises(OSError, match="4003"):
        app.run(rowtine.call(kind), timeout=60)

    assert len(RAN) == 3


# --- when ---------------------------------------------------------------------------------------


@pytest.mark.peer_case(9)
def test_the_waits_grow_by_the_factor_and_stand_in_the_rows(
    plain_app: NewApp, database_url: str, middle: None
) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(initial=1000, factor=3, max_interval=20_000))
    def fail() -> None:
        raise ConnectionError

    app.start(fail())
    waits = []
    with app.worker().start():
        for number in range(1, 6):
            wait_until(attempts(database_url, number))
            waits.append(seconds(database_url, "due", "started_at"))
            if number < 5:
                let_it_be_due(database_url)

    # Half of 1000, 3000, 9000, and of no more than 20000; and the moment that the attempt took.
    for wait, longest in zip(waits, (1000, 3000, 9000, 20_000, 20_000), strict=True):
        assert longest / 2 <= wait < longest / 2 + 60


@pytest.mark.peer_case(9)
def test_the_waits_of_2_and_6_seconds_stand_in_the_rows(
    plain_app: NewApp, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowtine.clock.jitter", lambda: 1.0)
    app = plain_app()

    @app.function(retry=rowtine.Retry(initial=2000, factor=3, max_interval=100_000))
    def fail() -> None:
        raise ConnectionError

    app.start(fail())
    waits = []
    with app.worker().start():
        for number in (1, 2):
            wait_until(attempts(database_url, number))
            waits.append(seconds(database_url, "due", "started_at"))
            let_it_be_due(database_url)

    assert 2000 <= waits[0] < 2060
    assert 6000 <= waits[1] < 6060


class Limited(Exception):
    def __init__(self, retry_after: Any) -> None:
        super().__init__("come back later")
        self.retry_after = retry_after


@pytest.mark.peer_case(16)
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("after", [3000, timedelta(seconds=3000)], ids=["number", "timedelta"])
def test_the_time_that_an_error_asks_for_stands_in_the_row(
    kind: str, after: Any, plain_app: NewApp, database_url: str
) -> None:
    """Though its status is none that is retried."""
    app = plain_app()

    def run(which: str) -> None:
        raise Limited(after)

    @app.function(name="sync")
    def in_a_thread() -> None:
        Bodies.run("")

    @app.function(name="async")
    async def on_the_loop() -> None:
        Bodies.run("")

    Bodies.run = run
    app.start(rowtine.call(kind))
    with app.worker().start():
        wait_until(attempts(database_url, 1))

    assert the_call(database_url)["status"] == "PERMANENT_ERROR"
    assert 3000 <= seconds(database_url, "due", "started_at") < 3060


def test_the_time_that_an_error_asks_for_gives_no_attempt_more(plain_app: NewApp) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(max_attempts=2))
    def fail() -> None:
        RAN.append(1)
        raise Limited(0)

    @app.function(retry=rowtine.Retry(give_up_after=100))
    def fail_for_long() -> None:
        RAN.append(1)
        raise Limited(101)

    for call in (fail(), fail_for_long()):
        with pytest.raises(Limited):
            app.run(call, timeout=60)

    assert len(RAN) == 3


def test_a_call_that_waits_for_another_attempt_says_why(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(initial=1000))
    def fail() -> None:
        raise ConnectionError("no answer")

    app.start(fail())
    with app.worker().start():
        wait_until(attempts(database_url, 1))

    row = the_call(database_url)
    assert (row["status"], row["error_type"]) == ("TCP_ERROR", "ConnectionError")
    assert row["error_message"] == "no answer"
    assert (row["worker"], row["lease_expires"], row["finished_at"]) == (None, None, None)


# --- for how long -------------------------------------------------------------------------------


def test_giving_up_counts_from_the_first_failure_of_the_call(
    plain_app: NewApp, database_url: str, middle: None
) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(initial=1, give_up_after=100))
    def fail() -> None:
        RAN.append(1)
        raise ConnectionError

    handle = app.start(fail())
    set_back(database_url, "created_at", 1_000_000)  # how long it waited does not count
    with app.worker().start():
        wait_until(attempts(database_url, 1))
        set_back(database_url, "first_failed_at", 50)
        let_it_be_due(database_url)
        wait_until(attempts(database_url, 2))
        assert seconds(database_url, "due", "first_failed_at") > 50  # the second keeps the first
        set_back(database_url, "first_failed_at", 60)
        let_it_be_due(database_url)
        with pytest.raises(ConnectionError):
            handle.result(timeout=60)

    assert len(RAN) == 3


def test_no_attempt_begins_after_the_time_to_give_up(
    plain_app: NewApp, database_url: str, middle: None
) -> None:
    app = plain_app()

    @app.function(retry=rowtine.Retry(initial=1000, give_up_after=100))
    def fail() -> None:
        RAN.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):  # the next attempt would be due in 500 s
        app.run(fail(), timeout=60)

    assert len(RAN) == 1
