"""Checked by mypy and pyright, never run: what the decorators keep of a signature."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_type

import rowtine

app = rowtine.App("sqlite:///never-opened.db")


@dataclass
class Order:
    id: str


@app.function
def charge(order: Order, cents: int = 0) -> float:
    return cents / 100


@app.function
async def reserve(order: Order) -> list[str]:
    return [order.id]


@app.function(name="ship-it", retry=rowtine.Retry(max_attempts=3), timeout=30)
async def ship(order: Order, *, express: bool = False) -> str:
    return order.id


@app.function(retry=rowtine.Retry(max_attempts=None), timeout=0.5)
def weigh(order: Order) -> int:
    return 1


@app.coroutine
async def helper(order: Order, times: int) -> bytes:
    return order.id.encode() * times


def plain_calls_are_templates(order: Order) -> None:
    _ = assert_type(charge(order), rowtine.Call[float])
    _ = assert_type(charge(order, cents=5), rowtine.Call[float])
    _ = assert_type(reserve(order), rowtine.Call[list[str]])
    _ = assert_type(ship(order, express=True), rowtine.Call[str])
    _ = assert_type(weigh(order), rowtine.Call[int])


def options_keep_the_signature(order: Order) -> None:
    later = charge.options(delay=60, key="k", deadline=datetime(2030, 1, 1, tzinfo=UTC))
    _ = assert_type(later(order, cents=5), rowtine.Call[float])
    _ = assert_type(ship.options(timeout=5)(order, express=True), rowtine.Call[str])
    _ = assert_type(reserve.options(retry=rowtine.Retry())(order), rowtine.Call[list[str]])
    _ = later("order")  # type: ignore[arg-type]
    _ = later()  # type: ignore[call-arg]
    charge.options(delay="soon")  # type: ignore[arg-type]
    charge.options(timeout=5, often=True)  # type: ignore[call-arg]


def inside_a_call() -> None:
    assert_type(rowtine.current(), rowtine.Current)
    assert_type(rowtine.current().caller_id, str | None)
    rowtine.heartbeat({"page": 7})


def which_errors() -> None:
    _ = rowtine.Retry(retry_on=(ConnectionError, "shop.Sold"), when=lambda error: bool(error.args))
    _ = rowtine.Retry(retry_on=ConnectionError)  # type: ignore[arg-type]
    _ = rowtine.Retry(when=lambda: True)  # type: ignore[arg-type, misc]


@app.function
async def awaiting_gives_the_return_type(order: Order) -> None:
    assert_type(await charge(order), float)
    assert_type(await reserve(order), list[str])
    assert_type(await ship(order), str)
    assert_type(await weigh(order), int)
    assert_type(await helper(order, 2), bytes)
    assert_type(await helper(order, times=2), bytes)
    assert_type(await rowtine.call(charge, order), float)
    assert_type(await rowtine.call(charge(order)), float)
    await rowtine.sleep(1)
    await rowtine.sleep(hours=24)


@app.function
async def wrong_arguments_are_errors(order: Order) -> None:
    await charge("order")  # type: ignore[arg-type]
    await charge(order, cents="5")  # type: ignore[arg-type]
    await charge()  # type: ignore[call-arg]
    await charge(order, 1, 2)  # type: ignore[call-arg]
    await ship(order, True)  # type: ignore[call-arg]
    await ship(order, express="yes")  # type: ignore[arg-type]
    await weigh(order, 1)  # type: ignore[call-arg]
    await helper(order)  # type: ignore[call-arg]
    await helper(order, "twice")  # type: ignore[arg-type]


def wrong_options_are_errors() -> None:
    @app.function(timeout="30")  # type: ignore[call-overload, untyped-decorator]
    def one() -> None: ...

    @app.function(retry=5)  # type: ignore[call-overload, untyped-decorator]
    def two() -> None: ...

    @app.coroutine  # type: ignore[arg-type]
    def three() -> None: ...
