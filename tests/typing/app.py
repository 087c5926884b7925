"""Checked by mypy and pyright, never run: the ways in, and what comes back."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from typing import Any, assert_type

import rowtine

app = rowtine.App("sqlite:///never-opened.db", version="1", warm=0, lease=10.0)


@app.function
async def answer(question: str) -> int:
    return len(question)


@app.register
@dataclass
class Parcel:
    weight: float


def from_plain_code() -> None:
    assert_type(app.run(answer("?")), int)
    assert_type(app.run(answer("?"), timeout=5), int)
    handle = app.start(answer("?"))
    _ = assert_type(handle, rowtine.Handle[int])
    assert_type(handle.id, str)
    assert_type(handle.result(), int)
    assert_type(handle.result(timeout=1.5), int)
    _ = assert_type(app.handle(handle.id), rowtine.Handle[Any])


async def from_a_loop() -> None:
    handle = await app.astart(answer("?"))
    _ = assert_type(handle, rowtine.Handle[int])
    assert_type(await handle, int)
    assert_type(await answer("?"), int)


def wrong_uses_are_errors() -> None:
    app.run(answer)  # type: ignore[arg-type]
    app.run("answer")  # type: ignore[arg-type]
    _ = app.start(rowtine.gather(answer("?"), answer("!")))  # type: ignore[arg-type]
    rowtine.App(warm="no")  # type: ignore[arg-type]
    rowtine.App(no_such_option=1)  # type: ignore[call-arg]
    rowtine.Retry(5)  # type: ignore[call-arg]
    text: str = app.run(answer("?"))  # type: ignore[assignment]
    del text


def a_registered_class_stays_what_it_is() -> None:
    assert_type(Parcel(1.0).weight, float)
