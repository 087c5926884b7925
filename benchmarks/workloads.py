"""What is measured: programs whose bodies do nothing, so that all time is rowtine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rowtine

STEPS_OF_A_WORKFLOW = 10


@dataclass(frozen=True, slots=True)
class Programs:
    """The functions, registered with one app."""

    chain: Callable[[int], rowtine.Call[int]]
    """So many async steps, one after the other."""
    sync_chain: Callable[[int], rowtine.Call[int]]
    fan_out: Callable[[int], rowtine.Call[int]]
    """A gather of so many async steps."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`steps` calls, made by the executions of `roots`; the roots themselves are not counted."""

    name: str
    steps: int
    roots: Callable[[Programs], list[rowtine.Call[Any]]]


def workloads(workflows: int, members: int, length: int) -> list[Workload]:
    """The workloads, in the sizes given."""
    steps = workflows * STEPS_OF_A_WORKFLOW
    return [
        Workload(
            f"{workflows} x {STEPS_OF_A_WORKFLOW} async steps",
            steps,
            lambda run: [run.chain(STEPS_OF_A_WORKFLOW) for _ in range(workflows)],
        ),
        Workload(
            f"{workflows} x {STEPS_OF_A_WORKFLOW} sync steps",
            steps,
            lambda run: [run.sync_chain(STEPS_OF_A_WORKFLOW) for _ in range(workflows)],
        ),
        Workload(f"gather of {members}", members, lambda run: [run.fan_out(members)]),
        Workload(f"chain of {length}", length, lambda run: [run.chain(length)]),
    ]


def register(app: rowtine.App) -> Programs:
    """Register the functions. The steps are the plainest there can be."""

    @app.function(name="step")
    async def step(i: int) -> int:
        return i + 1

    @app.function(name="sync_step")
    def sync_step(i: int) -> int:
        return i + 1

    @app.function(name="chain")
    async def chain(length: int) -> int:
        last = 0
        for _ in range(length):
            last = await step(last)
        return last

    @app.function(name="sync_chain")
    async def sync_chain(length: int) -> int:
        last = 0
        for _ in range(length):
            last = await sync_step(last)
        return last

    @app.function(name="fan_out")
    async def fan_out(members: int) -> int:
        return sum(await rowtine.gather(*[step(i) for i in range(members)]))

    return Programs(chain, sync_chain, fan_out)
