"""Procrastinate: jobs in PostgreSQL, each fetched and finished by a function in the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import procrastinate

from benchmarks.bodies import async_body
from benchmarks.engines.protocol import JOB, Engine, Program, Start
from benchmarks.waiting import on_a_loop

CONCURRENCY = 50


class Procrastinate(Engine):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        logging.getLogger("procrastinate").setLevel(logging.ERROR)

    def prepare(self) -> None:
        async def prepare() -> None:
            async with _app(self.url).open_async() as app:
                await app.schema_manager.apply_schema_async()

        asyncio.run(prepare())

    @contextmanager
    def starting(self) -> Generator[Start]:
        with procrastinate.App(
            connector=procrastinate.SyncPsycopgConnector(conninfo=self.url)
        ).open() as app:

            def start(program: Program, workflow: int) -> None:
                app.configure_task(program.shape).defer(workflow=workflow)

            yield start

    def accept(self, program: Program, count: int) -> None:
        async def accept() -> None:
            async with _app(self.url).open_async() as app:
                orders: list[dict[str, Any]] = [{"workflow": number} for number in range(count)]
                await app.configure_task(program.shape).batch_defer_async(*orders)

        asyncio.run(accept())

    def working(self) -> AbstractContextManager[None]:
        return on_a_loop(self._work)

    async def _work(self, stop: asyncio.Event) -> None:
        async with _app(self.url).open_async() as app:
            worker = asyncio.create_task(
                app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)
            )
            await stop.wait()
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    def finished(self) -> int:
        return self.reader.number(
            "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
        )


def _app(url: str) -> procrastinate.App:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name=JOB.shape)
    async def job(workflow: int) -> int:
        return await async_body(workflow, 0)

    return app
