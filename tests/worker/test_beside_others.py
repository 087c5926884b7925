"""Apps and workers beside others that are none of their business."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance.support import assert_lawful, rows, wait_until
from databases import connect, query
from rowtine.clock import new_id
from rowtine.store import schema

NewApp = Callable[..., rowtine.App]

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    RAN.clear()


class A:
    name = "a"


class B:
    name = "b"


def define(app: rowtine.App, tenant: type[A | B]) -> rowtine.App:
    @app.function(name="step")
    def step(x: int) -> str:
        RAN.append((tenant.name, x))
        return f"{tenant.name} {x}"

    @app.function(name="main")
    async def main(x: int) -> list[str]:
        first = await step(x)
        await rowtine.sleep(0.01)
        return [first, *await rowtine.gather(step(x + 1), step(x + 2))]

    return app


def expected(tenant: str, x: int) -> list[str]:
    return [f"{tenant} {x + n}" for n in range(3)]


@pytest.fixture
def tenants(
    request: pytest.FixtureRequest, kind: str, warm: int, tmp_path: Path
) -> Iterator[dict[str, rowtine.App]]:
    """Two apps with equal names: in two schemas of one PostgreSQL database, in two SQLite files."""
    url = request.getfixturevalue(f"{kind}_url")
    other, other_schema = url, "other"
    if kind == "sqlite":
        other, other_schema = f"sqlite:///{tmp_path}/other.db", "rowtine"
    schema.migrate(other, schema=other_schema)
    made = {
        "a": rowtine.App(url, warm=warm, poll_interval=0.02),
        "b": rowtine.App(other, schema=other_schema, warm=warm, poll_interval=0.02),
    }
    define(made["a"], A)
    define(made["b"], B)
    yield made
    for app in made.values():
        app.close()


@pytest.mark.peer_case(144)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_tenants_do_not_see_each_others_calls_even_with_the_same_ids(
    tenants: dict[str, rowtine.App], monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = {}
    for name, app in tenants.items():
        ids = iter([f"01890000-0000-7000-8000-00000000000{n}" for n in range(1, 6)])
        with monkeypatch.context() as patched:
            patched.setattr("rowtine.clock.new_id", lambda ids=ids: next(ids))
            handles[name] = [app.start(rowtine.call("main", 10 * n)) for n in range(5)]
    assert [h.id for h in handles["a"]] == [h.id for h in handles["b"]]

    with tenants["a"].worker().start():
        for n, handle in enumerate(handles["a"]):
            assert handle.result(timeout=60) == expected("a", 10 * n)
    assert {tenant for tenant, _ in RAN} == {"a"}
    with tenants["b"].worker().start():
        for n, handle in enumerate(handles["b"]):
            assert handle.result(timeout=60) == expected("b", 10 * n)

    assert len(RAN) == len(set(RAN)) == 30


@pytest.mark.peer_case(104)
def test_two_workers_that_go_by_one_id_run_nothing_twice(
    new_app: NewApp, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = define(new_app(concurrency=2), A)
    id = new_id()
    with monkeypatch.context() as patched:
        patched.setattr("rowtine.clock.new_id", lambda: id)
        workers = [app.worker(), app.worker()]
    assert [worker.id for worker in workers] == [id, id]

    handles = [app.start(rowtine.call("main", 10 * n)) for n in range(10)]
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker.start())
        results = [handle.result(timeout=60) for handle in handles]

    assert results == [expected("a", 10 * n) for n in range(10)]
    assert len(RAN) == len(set(RAN)) == 30
    assert query(database_url, "select max(claim) from calls where kind = 'function'") == [(1,)]
    assert_lawful(database_url)


LET_GO = threading.Event()


@pytest.mark.parametrize("locked", ["calls", "states"])
def test_who_looks_at_a_row_in_an_open_transaction_holds_up_nobody_else(
    locked: str, postgresql_url: str
) -> None:
    app = rowtine.App(postgresql_url, lease=60)
    LET_GO.clear()

    @app.function(name="wait")
    async def wait() -> str:
        await asyncio.to_thread(LET_GO.wait, 60)
        return "waited"

    @app.function(name="one")
    async def one(x: int) -> int:
        return x + 1

    @app.function(name="chain")
    async def chain(x: int) -> int:
        for _ in range(5):
            x = await one(x)
        return x

    @app.function(name="watched")
    async def watched() -> str:
        return await wait()

    handle = app.start(watched())
    with app.worker().start():
        wait_until(lambda: len(rows(postgresql_url, "calls")) == 2)
        with connect(postgresql_url) as somebody:
            somebody.query("begin")
            somebody.query(f"select 1 from {locked} for update")
            LET_GO.set()
            # Long enough for batches that are tried, split and tried again; with the patience of
            # other sessions of ours each of these would take ten seconds.
            others = [app.start(chain(n)).result(timeout=8) for n in range(3)]
            still = phases(postgresql_url)
            somebody.query("commit")

        assert handle.result(timeout=30) == "waited"
    app.close()

    assert others == [5, 6, 7]
    assert still["wait"] == "running"
    assert_lawful(postgresql_url)


def test_who_looks_at_a_call_that_runs_costs_no_other_call_its_lease(postgresql_url: str) -> None:
    app = rowtine.App(postgresql_url, lease=2)
    LET_GO.clear()

    @app.function(name="wait")
    async def wait(name: str) -> str:
        await asyncio.to_thread(LET_GO.wait, 60)
        return name

    looked_at, other = app.start(wait("looked at")), app.start(wait("other"))
    kept = (  # for longer than a lease and its heartbeat
        f"select count(*) from calls where id = '{other.id}'"
        " and lease_expires > started_at + interval '6 seconds'"
    )
    with app.worker().start():
        wait_until(lambda: set(phases(postgresql_url).values()) == {"running"})
        try:
            with connect(postgresql_url) as somebody:
                somebody.query("begin")
                somebody.query(f"select 1 from calls where id = '{looked_at.id}' for update")
                wait_until(lambda: query(postgresql_url, kept) == [(1,)], timeout=20)
                somebody.query("commit")
        finally:
            LET_GO.set()

        assert [looked_at.result(timeout=30), other.result(timeout=30)] == ["looked at", "other"]
    app.close()

    assert query(postgresql_url, f"select attempt from calls where id = '{other.id}'") == [(1,)]
    assert_lawful(postgresql_url)


@pytest.mark.parametrize(
    "locked",
    [
        "calls where kind = 'timer' and due < now() + interval '30 seconds'",
        "states where id in (select execution_id from calls where kind = 'timer')",
        "calls where deadline is not null",
    ],
    ids=["a timer", "who waits for a timer", "a call with a deadline"],
)
def test_what_the_clock_has_made_due_and_somebody_has_locked_holds_up_nobody_else(
    locked: str, postgresql_url: str
) -> None:
    app = rowtine.App(postgresql_url, poll_interval=0.1)

    @app.function(name="one")
    async def one(x: int) -> int:
        return x + 1

    @app.function(name="sleeps")
    async def sleeps(seconds: float) -> str:
        await rowtine.sleep(seconds)
        return "slept"

    def counted(condition: str) -> int:
        ((count,),) = query(postgresql_url, f"select count(*) from calls where {condition}")
        return int(count)

    handle = app.start(sleeps.options(deadline=60)(1.0))
    late = app.start(sleeps.options(deadline=1.0)(60))
    with app.worker().start():
        wait_until(lambda: counted("kind = 'timer'") == 2)
        with connect(postgresql_url) as somebody:
            somebody.query("begin")
            somebody.query(f"select 1 from {locked} for update")
            # A timer that is not locked is due for no longer than it takes to see to it.
            wait_until(lambda: counted("kind = 'timer' and created_at < now() - interval '1 s'"))
            wait_until(lambda: counted("deadline < now()") == 1)
            others = [app.start(one(n)).result(timeout=8) for n in range(20)]
            somebody.query("commit")

        assert handle.result(timeout=30) == "slept"
        with pytest.raises(rowtine.TimedOut):
            late.result(timeout=30)
    app.close()

    assert others == list(range(1, 21))
    assert_lawful(postgresql_url)


def phases(url: str) -> dict[str, str]:
    return {row["function"]: row["phase"] for row in rows(url, "calls")}
