"""DBOS Transact. Nothing is tuned but what the name of an engine says."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, ClassVar

from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.bodies import async_body, body, now
from benchmarks.engines.protocol import Engine, Program, Shape, Start

QUEUE = "bench"


@DBOS.step()
async def step(workflow: int, number: int) -> int:
    return await async_body(workflow, number)


@DBOS.workflow()
async def steps(workflow: int, count: int) -> int:
    total = 0
    for number in range(count):
        total += await step(workflow, number)
    return total


@DBOS.workflow()
async def fan_out(workflow: int, count: int) -> int:
    return sum(await asyncio.gather(*[step(workflow, number) for number in range(count)]))


WORKFLOWS: dict[Shape, Any] = {Shape.STEPS: steps, Shape.FAN_OUT: fan_out}


class Dbos(Engine):
    """Workflows that are started by the process that runs them are timed with their start, which is
    the way of DBOS without queues; those of others pass through a queue."""

    polling: ClassVar[float] = 1.0
    """Seconds between two looks at the queue."""

    def prepare(self) -> None:
        with self.working():
            pass

    @contextmanager
    def starting(self) -> Generator[Start]:
        client = DBOSClient(system_database_url=self.url)

        def start(program: Program, workflow: int) -> None:
            name = WORKFLOWS[program.shape].__qualname__
            client.enqueue({"queue_name": QUEUE, "workflow_name": name}, workflow, program.bodies)

        yield start
        client.destroy()

    @contextmanager
    def working(self) -> Generator[None]:
        DBOS(config=_config(self.url))
        DBOS.launch()
        DBOS.register_queue(QUEUE, polling_interval_sec=self.polling)
        try:
            yield
        finally:
            DBOS.destroy()

    def finished(self) -> int:
        return self.reader.number(
            f"SELECT count(*) FROM {self.reader.table('dbos', 'workflow_status')}"
            " WHERE status = 'SUCCESS'"
        )

    def run(self, program: Program, count: int) -> float:
        async def one(workflow: int) -> None:
            handle = await DBOS.start_workflow_async(
                WORKFLOWS[program.shape], workflow, program.bodies
            )
            await handle.get_result()

        async def every() -> float:
            began = now()
            await asyncio.gather(*map(one, range(count)))
            return now() - began

        with self.working():
            return asyncio.run(every())


@DBOS.step()
def sync_step(workflow: int, number: int) -> int:
    return body(workflow, number)


@DBOS.workflow()
def sync_steps(workflow: int, count: int) -> int:
    return sum(sync_step(workflow, number) for number in range(count))


class DbosSync(Dbos):
    """Workflows and steps are plain functions, each workflow in a thread."""

    def run(self, program: Program, count: int) -> float:
        with self.working():
            began = now()
            handles = [
                DBOS.start_workflow(sync_steps, workflow, program.bodies)
                for workflow in range(count)
            ]
            for handle in handles:
                handle.get_result()
            return now() - began


class DbosPollingFast(Dbos):
    polling = 0.01


def _config(url: str) -> DBOSConfig:
    return {
        "name": "bench",
        "system_database_url": url,
        "log_level": "ERROR",
        # The same for every process, or one would leave alone what another has begun.
        "application_version": "1",
        "executor_id": "bench",
    }
