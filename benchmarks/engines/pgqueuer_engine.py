"""PgQueuer: jobs in PostgreSQL, whose rows are deleted when they are done and logged in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import timedelta

import asyncpg
from pgqueuer import PgQueuer as Worker
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.bodies import async_body
from benchmarks.engines.protocol import JOB, Engine, Program, Start
from benchmarks.waiting import on_a_loop

BATCH, CONCURRENCY = 25, 50
AT_ONCE = 1000
"""Jobs that one statement stores."""


class PgQueuer(Engine):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._accepted = 0

    def prepare(self) -> None:
        async def prepare() -> None:
            async with _driver(self.url) as driver:
                await Queries(driver).install()

        asyncio.run(prepare())

    @contextmanager
    def starting(self) -> Generator[Start]:
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(self.url))
            queries = Queries(AsyncpgDriver(connection))

            def start(program: Program, workflow: int) -> None:
                runner.run(_enqueue(queries, program, [workflow]))

            yield start
            runner.run(connection.close())

    def accept(self, program: Program, count: int) -> None:
        async def accept() -> None:
            async with _driver(self.url) as driver:
                for first in range(0, count, AT_ONCE):
                    some = range(first, min(count, first + AT_ONCE))
                    await _enqueue(Queries(driver), program, some)

        asyncio.run(accept())
        self._accepted += count

    def working(self) -> AbstractContextManager[None]:
        return on_a_loop(self._work)

    async def _work(self, stop: asyncio.Event) -> None:
        async with _driver(self.url) as driver:
            worker = Worker(driver)

            @worker.entrypoint(JOB.shape)
            async def job(job: Job) -> None:
                await async_body(int(job.payload or b"0"), 0)

            running = asyncio.create_task(
                worker.run(
                    batch_size=BATCH,
                    max_concurrent_tasks=CONCURRENCY,
                    dequeue_timeout=timedelta(seconds=1),
                )
            )
            await stop.wait()
            worker.shutdown.set()
            await running

    def finished(self) -> int:
        """Of those that were accepted here: what is done leaves no row in the queue."""
        return self._accepted - self.reader.number("SELECT count(*) FROM pgqueuer")


async def _enqueue(queries: Queries, program: Program, workflows: Sequence[int]) -> None:
    count = len(workflows)
    payloads: list[bytes | None] = [str(workflow).encode() for workflow in workflows]
    await queries.enqueue([program.shape] * count, payloads, [0] * count)


@asynccontextmanager
async def _driver(url: str) -> AsyncGenerator[AsyncpgDriver]:
    connection = await asyncpg.connect(url)
    try:
        yield AsyncpgDriver(connection)
    finally:
        await connection.close()
