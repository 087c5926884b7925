"""What is left of an error that crosses the database: all that Python shows of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import rows

NewApp = Callable[..., rowtine.App]

ONCE = rowtine.Retry(max_attempts=1)


class Declined(Exception):
    """An error of the user's, whose class takes more than its message."""

    def __init__(self, order: str, code: int) -> None:
        super().__init__(f"{order} was declined")
        self.order, self.code = order, code


def charge() -> None:
    raise ConnectionError("no answer")


def raise_with_all() -> None:
    """Cause, context, notes, and a group in a group."""
    try:
        {}["the context"]
    except KeyError:
        try:
            charge()
        except ConnectionError as cause:
            error = Declined("A-17", 402)
            error.add_note("noted by charge")
            raise error from cause


def raise_in_a_context() -> None:
    try:
        charge()
    except ConnectionError:
        raise Declined("A-17", 402)  # noqa: B904 - the context is what this is about


def raise_a_group() -> None:
    members: list[Exception] = []
    for fail in (raise_with_all, raise_in_a_context):
        try:
            fail()
        except Declined as error:
            members.append(error)
    inner = ExceptionGroup("inner", [ValueError("innermost")])
    inner.add_note("noted on the inner one")
    raise ExceptionGroup("outer", [*members, inner])


RAISED: dict[str, Callable[[], None]] = {
    "with all": raise_with_all,
    "in a context": raise_in_a_context,
    "group": raise_a_group,
}


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="fail", retry=ONCE)
    def fail(how: str) -> None:
        RAISED[how]()

    @app.function(name="child", retry=ONCE)
    async def child(how: str) -> None:
        await rowtine.sleep(0)
        RAISED[how]()

    @app.coroutine
    async def member(how: str) -> None:
        await rowtine.sleep(0)
        RAISED[how]()

    @app.function(name="through a child")
    async def through_a_child(how: str) -> None:
        await child(how)

    @app.function(name="through a sync function")
    async def through_a_function(how: str) -> None:
        await fail(how)

    @app.function(name="through a member")
    async def through_a_member(how: str) -> None:
        await rowtine.gather(rowtine.sleep(0), member(how))

    @app.function(name="any")
    async def through_any(how: str) -> None:
        await rowtine.any(member(how), fail(how))

    @app.function(name="any in a gather")
    async def through_any_in_a_gather(how: str) -> None:
        await rowtine.gather(rowtine.any(member(how), child(how)))

    return app


WAYS = ("fail", "child", "through a child", "through a sync function", "through a member")


def raised_by(app: rowtine.App, *call: str) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is the test's question
        app.run(rowtine.call(*call), timeout=60)
    return raised.value


def text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def stored(url: str, function: str) -> str:
    (row,) = [row for row in rows(url, "calls") if row["function"] == function]
    text: str = row["error_traceback"]
    return text


@pytest.mark.peer_case(20, 68)
@pytest.mark.parametrize("way", WAYS)
def test_cause_and_notes_arrive_by_every_way(way: str, new_app: NewApp, database_url: str) -> None:
    error = raised_by(define(new_app()), way, "with all")

    assert isinstance(error, Declined)
    assert (error.order, error.code, str(error)) == ("A-17", 402, "A-17 was declined")
    assert error.__notes__ == ["noted by charge"]
    for text in (stored(database_url, way), text_of(error)):
        assert "ConnectionError: no answer" in text
        assert "direct cause of the following" in text
        assert "noted by charge" in text
        assert f'"{__file__}"' in text
        assert f"line {charge.__code__.co_firstlineno + 1}, in charge" in text
        assert "in raise_with_all" in text


@pytest.mark.parametrize("way", WAYS)
def test_the_context_arrives_by_every_way(way: str, new_app: NewApp, database_url: str) -> None:
    error = raised_by(define(new_app()), way, "in a context")

    assert isinstance(error, Declined)
    for text in (stored(database_url, way), text_of(error)):
        assert "ConnectionError: no answer" in text
        assert "During handling of the above exception" in text
        assert "in raise_in_a_context" in text


def looks_whole(error: BaseException) -> None:
    assert isinstance(error, ExceptionGroup)
    assert error.message == "outer"
    first, second, inner = error.exceptions
    assert isinstance(first, Declined)
    assert isinstance(second, Declined)
    assert first.__notes__ == ["noted by charge"]
    assert (second.order, second.code) == ("A-17", 402)
    assert isinstance(inner, ExceptionGroup)
    assert inner.__notes__ == ["noted on the inner one"]
    assert repr(inner.exceptions) == "(ValueError('innermost'),)"


def shows_the_group(text: str) -> None:
    for part in (
        "ConnectionError: no answer",
        "During handling of the above exception",
        "direct cause of the following",
        "noted by charge",
        "noted on the inner one",
        "ValueError: innermost",
        "in raise_a_group",
        "in raise_in_a_context",
        "in charge",
        f'"{__file__}"',
    ):
        assert part in text, part


@pytest.mark.parametrize("way", WAYS)
def test_a_group_arrives_as_a_group_with_its_members(
    way: str, new_app: NewApp, database_url: str
) -> None:
    error = raised_by(define(new_app()), way, "group")

    looks_whole(error)
    shows_the_group(stored(database_url, way))
    shows_the_group(text_of(error))


@pytest.mark.parametrize("way", ["any", "any in a gather"])
def test_when_all_members_of_an_any_fail_the_text_shows_them_all(
    way: str, new_app: NewApp, database_url: str
) -> None:
    error = raised_by(define(new_app()), way, "group")

    assert isinstance(error, rowtine.AnyException)
    for member in error.exceptions:
        looks_whole(member)
    for text in (stored(database_url, way), text_of(error)):
        shows_the_group(text)
        assert text.count("noted on the inner one") >= 2


def test_a_body_that_prints_the_error_of_an_any_sees_its_members(new_app: NewApp) -> None:
    app = define(new_app())

    @app.function(name="main")
    async def main() -> str:
        try:
            await rowtine.any(rowtine.call("fail", "group"), rowtine.call("child", "with all"))
        except rowtine.AnyException as error:
            return text_of(error)
        return ""

    shows_the_group(app.run(main(), timeout=60))


def test_an_error_that_is_caught_can_be_taken_apart_and_printed(new_app: NewApp) -> None:
    app = define(new_app())

    @app.function(name="main")
    async def main() -> list[Any]:
        caught: list[Any] = []
        try:
            await rowtine.call("fail", "group")
        except* Declined as group:
            caught += [[member.code, len(text_of(member)) > 0] for member in group.exceptions]
        except* ValueError as group:
            caught.append("in raise_a_group" in text_of(group))
        return caught

    assert app.run(main(), timeout=60)[:2] == [[402, True], [402, True]]


def test_what_is_raised_while_an_error_is_handled_shows_both(
    new_app: NewApp, database_url: str
) -> None:
    """The cause of an error that came through the database is its text; its context stays too."""
    app = define(new_app())

    @app.function(name="main")
    async def main() -> None:
        try:
            raise LookupError("handled in main")
        except LookupError:
            await rowtine.call("fail", "in a context")

    error = raised_by(app, "main")

    for text in (stored(database_url, "main"), text_of(error)):
        assert "LookupError: handled in main" in text
        assert "in raise_in_a_context" in text


def test_an_error_raised_from_one_that_came_keeps_its_text(
    new_app: NewApp, database_url: str
) -> None:
    app = define(new_app())

    @app.function(name="main")
    async def main() -> None:
        try:
            await rowtine.call("child", "with all")
        except Declined as error:
            raise RuntimeError("the order cannot be shipped") from error

    error = raised_by(app, "main")

    assert isinstance(error, RuntimeError)
    for text in (stored(database_url, "main"), text_of(error)):
        assert "in raise_with_all" in text
        assert "ConnectionError: no answer" in text
        assert "noted by charge" in text


@pytest.mark.peer_case(68)
def test_a_parent_that_catches_the_error_of_a_child_goes_on(new_app: NewApp) -> None:
    app = define(new_app())

    @app.function(name="main")
    async def main() -> str:
        try:
            await rowtine.call("child", "with all")
        except Declined as error:
            await rowtine.sleep(0)
            return f"{error.order}: {error.code}"
        return ""

    assert app.run(main(), timeout=60) == "A-17: 402"


class Base(BaseException):
    """No Exception: nothing like it is ever rebuilt."""


@pytest.mark.peer_case(20)
def test_a_group_with_a_member_of_no_known_class_says_all_the_same(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()

    @app.function(name="unknown member", retry=ONCE)
    def unknown_member() -> None:
        class Local(Exception):
            pass

        raise ExceptionGroup("many", [Local("here"), ValueError("there")])

    @app.function(name="base member", retry=ONCE)
    def base_member() -> None:
        raise BaseExceptionGroup("many", [Base("here"), ValueError("there")])

    group = raised_by(app, "unknown member")
    assert isinstance(group, ExceptionGroup)
    local, plain = group.exceptions
    assert isinstance(local, rowtine.RemoteError)
    assert "Local" in str(local)
    assert isinstance(plain, ValueError)

    remote = raised_by(app, "base member")
    assert isinstance(remote, rowtine.RemoteError)
    for error, function in ((group, "unknown member"), (remote, "base member")):
        for text in (stored(database_url, function), text_of(error)):
            assert "here" in text
            assert "ValueError: there" in text
