"""States that do not fit are left as they are, say why, and go on when the code fits again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import rowtine
from acceptance.support import everything, let_it_be_due, past, rows, wait_until
from databases import query
from store.by_hand import Hand

NewApp = Callable[..., rowtine.App]
Define = Callable[[rowtine.App], None]

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()


def root(url: str) -> dict[str, Any]:
    (row,) = [row for row in rows(url, "calls") if row["execution_id"] is None]
    return row


def steps(app: rowtine.App) -> None:
    """What every version has."""

    @app.function(name="a")
    def a(x: int) -> int:
        return x

    @app.function(name="b")
    def b(x: int) -> int:
        return 10 * x


def original(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        RAN.append("original")
        first = await rowtine.call("a", x)
        await rowtine.sleep(3600)
        return [first, await rowtine.call("b", x)]


# --- the version of the app -----------------------------------------------------------------------


@pytest.mark.peer_case(121, 123)
def test_a_worker_of_another_version_leaves_a_state_alone(
    new_app: NewApp, database_url: str
) -> None:
    old, new = new_app(version="v1"), new_app(version="v2")
    original(old)
    original(new)
    handle = old.start(rowtine.call("main", 1))
    with old.worker().start():
        wait_until(lambda: any(row["kind"] == "timer" for row in rows(database_url, "calls")))
        wait_until(lambda: [row["version"] for row in rows(database_url, "states")] == ["v1"])
    let_it_be_due(database_url)
    RAN.clear()

    with new.worker().start():
        wait_until(lambda: any(row["arrived"] for row in rows(database_url, "calls")))
        before = everything(database_url, without=["heartbeat_at"])
        assert new.run(rowtine.call("b", 1), timeout=60) == 10  # what is new it does run
    assert RAN == []
    after = everything(database_url)
    assert after["states"] == before["states"]
    assert all(row in after["calls"] for row in before["calls"])
    with pytest.raises(TimeoutError):
        handle.result(timeout=0)

    with old.worker().start():
        assert handle.result(timeout=60) == [1, 10]


@pytest.mark.case(208)
@pytest.mark.peer_case(123)
def test_a_round_that_is_forced_on_another_version_changes_no_row_and_runs_no_code(
    new_app: NewApp, database_url: str
) -> None:
    app = new_app()
    original(app)
    main = app.registry.function("main")
    id = Hand(app).start(main(1))
    Hand(app, version="v1").round(id, main)
    Hand(app).answer("a", value=1)
    before = everything(database_url)
    RAN.clear()

    output = Hand(app, version="v2").round(id, main)

    assert output.status is rowtine.Status.INCOMPATIBLE_STATE
    assert isinstance(output, rowtine.Incompatible)
    assert "'v1'" in output.message
    assert "'v2'" in output.message
    assert everything(database_url) == before
    assert RAN == []


def test_a_state_of_other_semantics_is_held(new_app: NewApp, database_url: str) -> None:
    app = new_app()
    original(app)
    handle = app.start(rowtine.call("main", 1))
    with app.worker().start():
        wait_until(lambda: any(row["kind"] == "timer" for row in rows(database_url, "calls")))
    query(database_url, "update states set semantics = 99")
    let_it_be_due(database_url)
    RAN.clear()

    with app.worker().start():
        wait_until(lambda: root(database_url)["status"] == "INCOMPATIBLE_STATE")

    assert "semantics 99" in root(database_url)["error_message"]
    assert RAN == []
    query(database_url, "update states set semantics = 1")
    go_on(database_url)
    with app.worker().start():
        assert handle.result(timeout=60) == [1, 10]


def go_on(url: str) -> None:
    """Let the time pass for which a state that does not fit is held."""
    query(url, f"update states set wake_at = {past(url)}")


# --- the code -------------------------------------------------------------------------------------


def another_function(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        first = await rowtine.call("b", x)
        await rowtine.sleep(3600)
        return [first]


def another_order(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        await rowtine.sleep(3600)
        return [await rowtine.call("a", x), await rowtine.call("b", x)]


def another_input(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        first = await rowtine.call("a", x + 1)
        await rowtine.sleep(3600)
        return [first]


def another_kind(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        (first,) = await rowtine.gather(rowtine.call("a", x))
        await rowtine.sleep(3600)
        return [first]


def fewer_steps(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        return [x]


def an_error_before(app: rowtine.App) -> None:
    steps(app)

    @app.function(name="main")
    async def main(x: int) -> list[int]:
        raise KeyError(x)


CHANGES: dict[str, tuple[Define, list[str]]] = {
    "function": (another_function, ["wait 0", "function a", "function b"]),
    "order": (another_order, ["wait 0", "function a", "timer sleep"]),
    "input": (another_input, ["wait 0", "function a", "1", "2"]),
    "kind": (another_kind, ["wait 0", "function a", "all(a)"]),
    "fewer": (fewer_steps, ["wait 0", "function a", "returns"]),
    "error": (an_error_before, ["wait 0", "function a", "KeyError"]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.case(104)
@pytest.mark.peer_case(126, 127)
def test_code_that_does_not_fit_the_journal_is_named_and_a_fix_goes_on(
    change: str, plain_app: NewApp, database_url: str
) -> None:
    define, words = CHANGES[change]
    fits, changed = plain_app(), plain_app()
    original(fits)
    define(changed)
    handle = fits.start(rowtine.call("main", 1))
    with fits.worker().start():
        wait_until(lambda: any(row["kind"] == "timer" for row in rows(database_url, "calls")))
    let_it_be_due(database_url)
    left_out = ("wake_at", "worker", "status", "error_message", "heartbeat_at", "arrived")

    with changed.worker().start():
        wait_until(lambda: any(row["arrived"] for row in rows(database_url, "calls")))
        before = everything(database_url, without=left_out)
        wait_until(lambda: root(database_url)["status"] == "INCOMPATIBLE_STATE")
        wait_until(lambda: [row["worker"] for row in rows(database_url, "states")] == [None])
        after = everything(database_url, without=left_out)

    assert after == before
    held = root(database_url)
    assert (held["phase"], held["attempt"]) == ("suspended", 1)
    for word in ("main", *words):
        assert word in held["error_message"]
    with pytest.raises(TimeoutError):
        handle.result(timeout=0)

    go_on(database_url)
    with fits.worker().start():
        assert handle.result(timeout=60) == [1, 10]
    assert (root(database_url)["status"], root(database_url)["error_message"]) == ("OK", None)


def test_a_held_state_that_goes_on_no_longer_says_that_it_does_not_fit(
    plain_app: NewApp, database_url: str
) -> None:
    fits, changed = plain_app(), plain_app()
    steps(fits)
    another_function(changed)

    @fits.function(name="main")
    async def main(x: int) -> None:
        await rowtine.call("a", x)
        await rowtine.sleep(3600)

    id = Hand(fits).start(main(1))
    Hand(fits).round(id, main)
    Hand(fits).answer("a", value=1)
    with changed.worker().start():
        wait_until(lambda: root(database_url)["status"] == "INCOMPATIBLE_STATE")
    go_on(database_url)
    with fits.worker().start():
        wait_until(lambda: any(row["kind"] == "timer" for row in rows(database_url, "calls")))

    row = root(database_url)
    assert (row["phase"], row["status"], row["error_message"]) == ("suspended", None, None)


def test_a_child_whose_body_is_gone_is_held(plain_app: NewApp, database_url: str) -> None:
    fits, changed = plain_app(), plain_app()

    def define(app: rowtine.App, child_name: str) -> None:
        @app.function(name="one")
        def one() -> int:
            return 1

        async def child() -> int:
            return await rowtine.call("one")

        child.__qualname__ = child_name
        made = app.coroutine(child)

        @app.function(name="main")
        async def main() -> list[int]:
            return list(await rowtine.gather(made(), made()))

    define(fits, "child")
    define(changed, "renamed")
    main = fits.registry.function("main")
    id = Hand(fits).start(main())
    Hand(fits).round(id, main)
    Hand(fits).answer("one", value=1, limit=2)

    with changed.worker().start():
        wait_until(lambda: root(database_url)["status"] == "INCOMPATIBLE_STATE")
    assert "'child'" in root(database_url)["error_message"]
    go_on(database_url)
    with fits.worker().start():
        assert fits.handle(id).result(timeout=60) == [1, 1]


@pytest.mark.case(105)
def test_a_comment_above_a_suspended_function_changes_nothing(
    new_app: NewApp, database_url: str
) -> None:
    """Functions are known by name: neither file nor line is compared."""
    first, second = new_app(), new_app()
    original(first)

    steps(second)

    # A comment, and another place in the file.
    @second.function(name="main")
    async def main(x: int) -> list[int]:
        first = await rowtine.call("a", x)

        await rowtine.sleep(3600)
        return [first, await rowtine.call("b", x)]

    handle = first.start(rowtine.call("main", 1))
    with first.worker().start():
        wait_until(lambda: any(row["kind"] == "timer" for row in rows(database_url, "calls")))
    let_it_be_due(database_url)

    with second.worker().start():
        assert handle.result(timeout=60) == [1, 10]


def test_a_held_state_harms_nobody_else(plain_app: NewApp, database_url: str) -> None:
    app, changed = plain_app(), plain_app()
    original(app)
    another_function(changed)
    app.start(rowtine.call("main", 1))
    with app.worker().start():
        wait_until(lambda: any(row["kind"] == "timer" for row in rows(database_url, "calls")))
    let_it_be_due(database_url)

    with changed.worker().start():
        wait_until(lambda: root(database_url)["status"] == "INCOMPATIBLE_STATE")
        assert changed.start(rowtine.call("b", 3)).result(timeout=60) == 30
