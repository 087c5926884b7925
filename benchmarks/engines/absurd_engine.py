"""Absurd: tasks whose steps are checkpoints in PostgreSQL, by functions inside the database."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from benchmarks.bodies import async_body
from benchmarks.engines.protocol import Engine, Program, Start
from benchmarks.waiting import on_a_loop

ROOTS, MEMBERS = "default", "members"
"""Queues. A task cannot wait for tasks of its own queue, so a fan-out takes two."""

INSTANCES, CONCURRENCY = 8, 25
"""A client has one connection, and eight of them are faster than one: 200 tasks at once."""

POLL = 0.05
"""Seconds, where the default is 0.25."""


class AbsurdEngine(Engine):
    def prepare(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
            for queue in (ROOTS, MEMBERS):
                connection.execute("SELECT absurd.create_queue(%s)", [queue])

    @contextmanager
    def starting(self) -> Generator[Start]:
        client = Absurd(self.url, queue_name=ROOTS)

        def start(program: Program, workflow: int) -> None:
            params = {"workflow": workflow, "bodies": program.bodies}
            client.spawn(program.shape, params, queue=ROOTS)

        yield start
        client.close()

    def accept(self, program: Program, count: int) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT count(*) FROM generate_series(0, %s::int - 1) AS g, LATERAL"
                " absurd.spawn_task(%s, %s, jsonb_build_object('workflow', g, 'bodies', %s::int),"
                " '{}')",
                [count, ROOTS, program.shape, program.bodies],
            )

    def working(self) -> AbstractContextManager[None]:
        return on_a_loop(self._work)

    async def _work(self, stop: asyncio.Event) -> None:
        clients = [AsyncAbsurd(self.url, queue_name=ROOTS) for _ in range(INSTANCES)]
        members = AsyncAbsurd(self.url, queue_name=MEMBERS)
        for client in (*clients, members):
            _register(client, AsyncAbsurd(self.url, queue_name=MEMBERS))
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(_serve(client, f"roots-{number}", CONCURRENCY))
            group.create_task(_serve(members, "members", 2 * CONCURRENCY))
            await stop.wait()
            for client in (*clients, members):
                client.stop_worker()

    def finished(self) -> int:
        return self.reader.number(
            f"SELECT count(*) FROM absurd.t_{ROOTS} WHERE state = 'completed'"
        )


async def _serve(client: AsyncAbsurd, name: str, concurrency: int) -> None:
    await client.start_worker(worker_id=name, concurrency=concurrency, poll_interval=POLL)
    await client.close()


def _register(client: AsyncAbsurd, spawner: AsyncAbsurd) -> None:
    async def step(ctx: Any, workflow: int, number: int) -> int:
        return int(await ctx.step(str(number), lambda: async_body(workflow, number)))

    @client.register_task(name="steps")
    async def steps(params: dict[str, int], ctx: Any) -> int:
        return sum([await step(ctx, params["workflow"], n) for n in range(params["bodies"])])

    @client.register_task(name="member", queue=MEMBERS)
    async def member(params: dict[str, int], ctx: Any) -> int:
        return await step(ctx, params["workflow"], params["number"])

    @client.register_task(name="fan_out")
    async def fan_out(params: dict[str, int], ctx: Any) -> int:
        async def spawn() -> list[str]:
            return [
                str(
                    (await spawner.spawn("member", {**params, "number": n}, queue=MEMBERS))[
                        "task_id"
                    ]
                )
                for n in range(params["bodies"])
            ]

        results = [
            await ctx.await_task_result(id, queue_name=MEMBERS)
            for id in await ctx.step("spawn", spawn)
        ]
        return sum(result.result for result in results)
