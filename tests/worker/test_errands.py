"""Batches that are written on the event loop, which does not wait for them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from sqlalchemy import text

import rowtine
from databases import connect
from rowtine.store import Database, RejectedError
from rowtine.store.committing import Round
from rowtine.store.outcomes import Outcome
from rowtine.worker.writing import Writing

NewApp = Callable[..., rowtine.App]

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with closing(Database(postgresql_url)) as opened:
        yield opened


async def errand(database: Database, statement: str, **values: Any) -> tuple[Any, str]:
    """What a statement comes to, and in which context that was told."""
    context = copy_context()
    context.run(NAME.set, "the worker")
    writing = context.run(Writing, database)
    told: asyncio.Future[tuple[Any, str]] = asyncio.get_running_loop().create_future()

    def work() -> Any:
        threads.append(threading.current_thread())
        return writing.connection.at_once(
            lambda connection: connection.execute(text(statement), values).scalar()
        )

    threads: list[threading.Thread] = []
    writing.connection.at_once(lambda _: None)  # now it is open
    try:
        writing.at_once(
            work, lambda value: told.set_result((value, NAME.get())), told.set_exception
        )
        return await told
    finally:
        assert threads == [threading.current_thread()]
        writing.close()


def test_the_loop_goes_on_while_an_errand_waits(database: Database, postgresql_url: str) -> None:
    async def main() -> tuple[Any, str]:
        with connect(postgresql_url) as other:
            other.query("select pg_advisory_lock(1)")
            locking = "select 'through' from (select pg_advisory_lock(1)) as locked"
            waiting = asyncio.create_task(errand(database, locking))
            while not other.query("select 1 from pg_locks where not granted"):
                await asyncio.sleep(0)
            other.query("select pg_advisory_unlock(1)")
            return await waiting

    assert asyncio.run(main()) == ("through", "the worker")


def test_what_is_larger_than_the_buffers_of_a_socket_is_sent_in_parts(database: Database) -> None:
    document = "x" * 20_000_000
    value, _ = asyncio.run(errand(database, "select length(:document)", document=document))

    assert value == len(document)


def test_an_error_of_the_database_is_the_one_that_a_thread_would_see(database: Database) -> None:
    with pytest.raises(RejectedError, match="division by zero"):
        asyncio.run(errand(database, "select 1 / 0"))


# --- in a worker ----------------------------------------------------------------------------------


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="step")
    async def step(number: int) -> int:
        return number

    @app.function(name="steps")
    async def steps(count: int) -> int:
        total = 0
        for number in range(count):
            total += await step(number)
        return total

    return app


def test_a_crowd_is_written_by_halves(plain_app: NewApp) -> None:
    """One half runs while the other is written: loop and database do not wait for each other."""
    app = define(plain_app())
    handles = [app.start(rowtine.call("steps", 20)) for _ in range(100)]
    worker = app.worker()
    with worker.start():
        assert [handle.result(timeout=60) for handle in handles] == [190] * 100

    on_postgresql = app.database.in_one_statement
    assert worker.commits().batch_size <= (50 if on_postgresql else 100)
    assert worker.commits().batch_size >= 20


def test_no_batch_is_left_for_the_garbage_collector_to_find(plain_app: NewApp) -> None:
    """One that is in a cycle lives until it looks, and all that it has written with it."""
    app = define(plain_app())
    with app.worker().start():
        gc.collect()
        gc.disable()
        try:
            app.start(rowtine.call("steps", 100)).result(timeout=60)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [each for each in gc.garbage if isinstance(each, Round | Outcome)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert left == []


class Blind(asyncio.SelectorEventLoop):
    """An event loop as Windows has it: it cannot see when a connection is ready."""

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError


def test_a_loop_that_cannot_see_connections_has_batches_written_in_a_thread(
    plain_app: NewApp,
) -> None:
    app = define(plain_app())
    handle = app.start(rowtine.call("steps", 20))
    worker = app.worker()

    async def main() -> int:
        running = asyncio.create_task(worker.run())
        result = await handle
        worker.stop()
        await running
        return result

    with asyncio.Runner(loop_factory=Blind) as runner:
        assert runner.run(main()) == 190
