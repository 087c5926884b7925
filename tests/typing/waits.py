"""Checked by mypy and pyright, never run: what is awaited later, and in numbers."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from datetime import datetime
from typing import Any, assert_type
from uuid import UUID

import rowtine

app = rowtine.App("sqlite:///never-opened.db")


@app.function
def number(n: int) -> int:
    return n


@app.coroutine
async def text(n: int) -> str:
    return str(n)


@app.function
async def tasks_have_the_type_of_what_was_spawned() -> None:
    task: rowtine.Task[int] = rowtine.spawn(number(1))
    assert_type(await task, int)
    assert_type(await rowtine.gather(task, rowtine.spawn(text(2))), tuple[int, str])
    assert_type(await rowtine.shield(text(3)), str)
    task.cancel()


@app.function
async def a_map_is_a_list_and_with_failures_one_of_errors_too() -> None:
    assert_type(await rowtine.map(number, [1, 2], max_concurrency=2), list[int])
    assert_type(await rowtine.map(text, [1, 2], max_failures=1), list[str | Exception])
    async for task in rowtine.as_completed([number(1), number(2)]):
        assert_type(await task, int)
    await rowtine.map(number, ["x"])  # type: ignore[arg-type]


@app.function
async def what_others_answer_may_be_anything() -> None:
    answer: rowtine.Promise[bool] = rowtine.promise(timeout=60)
    assert_type(answer.token, str)
    assert_type(await answer, bool)
    assert_type(await rowtine.signal("name", timeout=1), Any)
    async with rowtine.timeout(60) as limit:
        await rowtine.sleep_until(rowtine.now())
    assert_type(limit.expired, bool)


@app.function
async def time_and_chance_have_plain_types() -> None:
    assert_type(rowtine.now(), datetime)
    assert_type(rowtine.random(), float)
    assert_type(rowtine.uuid(), UUID)


def handles_stop_and_signal() -> None:
    handle = app.start(number(1))
    assert_type(handle.cancel("why"), bool)
    assert_type(handle.terminate(), bool)
    handle.signal("name", [1])
    app.resolve("token", 1)
    app.reject("token", ValueError())
