"""rowtine with its default settings."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import rowtine
from benchmarks.bodies import async_body, body
from benchmarks.engines.protocol import Engine, Program, Shape, Start
from rowtine.store import schema
from rowtine.worker.garbage import collect_seldom


class Rowtine(Engine):
    """Steps are async functions, which run on the worker's event loop."""

    step: Callable[[int, int], Any] = staticmethod(async_body)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.app = rowtine.App(url)
        self.programs = register(self.app, self.step)
        collect_seldom()  # as `rowtine worker` does at its start

    def prepare(self) -> None:
        schema.migrate(self.url)

    def starting(self) -> AbstractContextManager[Start]:
        def start(program: Program, workflow: int) -> None:
            _ = self.app.start(self.programs[program.shape](workflow, program.bodies))

        return nullcontext(start)

    @contextmanager
    def working(self) -> Generator[None]:
        with self.app.worker().start() as worker:
            yield
            if worker.error is not None:
                raise worker.error

    def finished(self) -> int:
        return self.reader.number(
            f"SELECT count(*) FROM {self.reader.table('rowtine', 'calls')}"
            " WHERE execution_id IS NULL AND phase = 'done' AND status = 'OK'"
        )

    def close(self) -> None:
        super().close()
        self.app.close()


class RowtineSync(Rowtine):
    """Steps are sync functions, each of which holds a thread of the worker."""

    step = staticmethod(body)


def register(
    app: rowtine.App, step_body: Callable[[int, int], Any]
) -> dict[Shape, Callable[[int, int], rowtine.Call[Any]]]:
    """The programs, for one app: each takes the number of a workflow and how many bodies it has."""
    step = app.function(name="step")(step_body)

    @app.function(name="steps")
    async def steps(workflow: int, count: int) -> int:
        total = 0
        for number in range(count):
            total += await step(workflow, number)
        return total

    @app.function(name="fan_out")
    async def fan_out(workflow: int, count: int) -> int:
        return sum(await rowtine.gather(*[step(workflow, number) for number in range(count)]))

    return {
        Shape.JOB: lambda workflow, _: step(workflow, 0),
        Shape.STEPS: steps,
        Shape.FAN_OUT: fan_out,
    }
