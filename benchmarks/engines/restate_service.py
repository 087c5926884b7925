"""Restate: the services, in a process of their own (`hypercorn benchmarks.engines...:app`)."""

from __future__ import annotations

from typing import TypedDict

import restate
from restate import Context, Service, gather

from benchmarks.bodies import async_body


class Order(TypedDict):
    workflow: int
    bodies: int


service = Service("Bench")


@service.handler()
async def steps(ctx: Context, order: Order) -> int:
    total = 0
    for number in range(order["bodies"]):
        total += await ctx.run_typed(
            str(number), async_body, workflow=order["workflow"], step=number
        )
    return total


@service.handler()
async def fan_out(ctx: Context, order: Order) -> int:
    """Each member is an invocation of its own, with one step."""
    members = [
        ctx.service_call(steps, arg=Order(workflow=number, bodies=1))
        for number in range(order["bodies"])
    ]
    await gather(*members)
    return sum([await member for member in members])


app = restate.app([service])
