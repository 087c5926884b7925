"""How deep calls and awaits may be nested, and blocks that stand open meanwhile."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Callable

import pytest

import rowtine
from acceptance.support import rows, wait_until

NewApp = Callable[..., rowtine.App]

DEEP = 500
HELPERS = 300
RAN: list[str] = []


class Bottom(Exception):
    def __init__(self, depth: int, why: str) -> None:
        super().__init__(f"{why} at {depth}")
        self.depth, self.why = depth, why


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()


# --- executions in executions -------------------------------------------------------------------


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="down")
    async def down(depth: int, fails: bool) -> int:
        if depth == DEEP:
            if fails:
                raise Bottom(depth, "nothing there")
            return depth
        return await down(depth + 1, fails)

    return app


@pytest.mark.slow
@pytest.mark.first_on("sqlite")
def test_an_execution_that_waits_for_one_that_waits_gets_its_result_from_500_deep(
    plain_app: NewApp, database_url: str
) -> None:
    app = define(plain_app(warm=DEEP // 2))  # half of the levels are rebuilt on the way up

    assert app.run(rowtine.call("down", 1, False), timeout=120) == DEEP

    calls = rows(database_url, "calls")
    assert len(calls) == DEEP
    assert {row["phase"] for row in calls} == {"done"}


@pytest.mark.slow
@pytest.mark.first_on("postgresql")
def test_an_error_500_deep_comes_up_as_what_it_is(plain_app: NewApp, database_url: str) -> None:
    app = define(plain_app(warm=DEEP // 2))

    with pytest.raises(Bottom, match="nothing there at 500") as raised:
        app.run(rowtine.call("down", 1, True), timeout=120)

    assert (raised.value.depth, raised.value.why) == (DEEP, "nothing there")
    calls = rows(database_url, "calls")
    assert len(calls) == DEEP
    assert {row["error_type"] for row in calls} == {f"{__name__}.Bottom"}
    assert max(len(row["error_traceback"]) for row in calls) < 70_000


# --- awaits in awaits ---------------------------------------------------------------------------


async def helper(depth: int) -> int:
    if depth == HELPERS:
        RAN.append("bottom")
        first = await rowtine.call("one")
        return first + await rowtine.call("one")
    try:
        return await helper(depth + 1)
    finally:
        RAN.append("finally")


def test_a_body_that_stands_300_awaits_deep_goes_on_there(
    new_app: NewApp, database_url: str, warm: int
) -> None:
    app = new_app()

    @app.function(name="one")
    def one() -> int:
        return 1

    @app.function(name="main")
    async def main() -> int:
        return await helper(1)

    assert app.run(main(), timeout=60) == 2

    assert RAN.count("finally") == HELPERS - 1
    assert RAN.count("bottom") == (1 if warm else 3)


# --- blocks that stand open while nothing runs ---------------------------------------------------


@contextlib.asynccontextmanager
async def block() -> AsyncIterator[None]:
    RAN.append("opens")
    try:
        yield
    finally:
        RAN.append("closes")


@pytest.mark.case(118)
def test_finally_and_async_with_end_once_when_their_block_ends(new_app: NewApp, warm: int) -> None:
    app = new_app()

    @app.function(name="step")
    def step(name: str) -> None:
        gc.collect()  # what was dropped would end here
        RAN.append(name)

    @app.function(name="main")
    async def main() -> None:
        try:
            async with block():
                await step("one")
                await step("two")
            await step("three")
        finally:
            RAN.append("finally")
            await step("four")

    app.run(main(), timeout=60)

    opened = RAN.count("opens")
    once = [what for what in RAN if what != "opens"]
    if warm:
        assert opened == 1
        assert once == ["one", "two", "closes", "three", "finally", "four"]
    else:
        # Each rebuild goes through the blocks anew, up to where it stands.
        assert opened == 5
        assert once == [
            *("one", "two", "closes", "three"),
            *("closes", "finally", "four"),
            *("closes", "finally"),
        ]


@pytest.mark.case(118)
def test_a_block_that_is_open_is_not_left_when_its_frame_is_dropped(
    plain_app: NewApp, database_url: str
) -> None:
    app = plain_app(warm=0)

    @app.function(name="main")
    async def main() -> None:
        try:
            async with block():
                await rowtine.sleep(3600)
        finally:
            RAN.append("finally")

    app.start(main())
    with app.worker().start():
        wait_until(lambda: any(row["phase"] == "suspended" for row in rows(database_url, "calls")))
    gc.collect()

    assert RAN == ["opens"]


@pytest.mark.case(117)
def test_a_bare_raise_after_an_await_raises_what_is_being_handled(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="log")
    def log(text: str) -> None:
        RAN.append(text)

    @app.function(name="main")
    async def main() -> None:
        try:
            raise Bottom(1, "first")
        except Bottom as error:
            await log(error.why)
            try:
                raise KeyError("second")
            except KeyError:
                await log("nested")
            raise

    with pytest.raises(Bottom, match="first at 1"):
        app.run(main(), timeout=60)

    assert RAN == ["first", "nested"]
