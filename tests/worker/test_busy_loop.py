"""What happens while user code blocks the event loop of its worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import rows, wait_until
from databases import connect
from rowtine.worker.gateway import Gateway

NewApp = Callable[..., rowtine.App]

SUSPEND, BLOCK, BLOCKED, LET_GO = (threading.Event() for _ in range(4))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for event in (SUSPEND, BLOCK, BLOCKED, LET_GO):
        event.clear()
    yield
    for event in (SUSPEND, BLOCK, LET_GO):
        event.set()


async def until(event: threading.Event) -> None:
    """Wait on the loop, without blocking it, for an event that the test sets."""
    while not event.is_set():
        await asyncio.sleep(0.001)


def test_a_round_that_is_claimed_while_the_loop_is_blocked_is_run_at_once(
    new_app: NewApp, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that suspends an execution and the claim of its next round are both through
    before the loop hears of either."""
    app = new_app(lease=3600, poll_interval=0.01)

    @app.function(name="napper")
    async def napper() -> str:
        await until(SUSPEND)
        await rowtine.sleep(0)
        return "woken"

    @app.function(name="clock")
    async def clock() -> None:
        await rowtine.sleep(1)

    @app.function(name="blocker")
    async def blocker() -> None:
        await until(BLOCK)
        BLOCKED.set()
        LET_GO.wait(60)

    writes: list[int] = []
    write = Gateway.write

    async def counted(self: Gateway, work: Any) -> Any:
        writes.append(1)
        return await write(self, work)

    monkeypatch.setattr(Gateway, "write", counted)

    def phases() -> dict[str, str]:
        return {row["function"]: row["phase"] for row in rows(database_url, "calls")}

    handle = app.start(napper())
    app.start(blocker())
    with app.worker().start():
        wait_until(lambda: phases() == {"napper": "running", "blocker": "running"})
        app.start(clock())
        wait_until(lambda: phases().get("clock") == "suspended")
        with connect(database_url) as lock:
            # Nothing is committed until the claim stands in line behind the napper's suspension:
            # the timer that falls due meanwhile makes the worker claim.
            if database_url.startswith("sqlite"):
                lock.query("begin immediate")
            else:
                lock.query("begin")
                lock.query("select 1 from calls where function = 'napper' for update")
            queued = len(writes)
            SUSPEND.set()
            wait_until(lambda: len(writes) >= queued + 2)
            BLOCK.set()
            assert BLOCKED.wait(60)
            lock.query("commit")
        wait_until(lambda: any(row["worker"] for row in rows(database_url, "states")))
        LET_GO.set()

        assert handle.result(timeout=30) == "woken"
