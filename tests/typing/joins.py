"""Checked by mypy and pyright, never run: what gather, any and race come to."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import rowtine

app = rowtine.App("sqlite:///never-opened.db")


@app.function
def number(n: int) -> int:
    return n


@app.function
async def text(n: int) -> str:
    return str(n)


@app.coroutine
async def ratio(n: int) -> float:
    return n / 2


@app.coroutine
async def raw(n: int) -> bytes:
    return bytes(n)


@app.coroutine
async def flag(n: int) -> bool:
    return n > 0


@app.function
async def a_known_number_of_members_gives_a_tuple() -> None:
    a, b = await rowtine.gather(number(1), text(2))
    assert_type((a, b), tuple[int, str])
    assert_type(await rowtine.gather(number(1), text(2), ratio(3)), tuple[int, str, float])
    assert_type(
        await rowtine.gather(number(1), text(2), ratio(3), raw(4)),
        tuple[int, str, float, bytes],
    )
    assert_type(
        await rowtine.gather(number(1), text(2), ratio(3), raw(4), flag(5), cancel_losers=False),
        tuple[int, str, float, bytes, bool],
    )
    assert_type(await rowtine.gather(number(1), rowtine.sleep(2)), tuple[int, None])


@app.function
async def an_unknown_number_gives_a_list() -> None:
    assert_type(await rowtine.gather(*[number(i) for i in range(10)]), list[int])
    assert_type(await rowtine.all(*[text(i) for i in range(10)]), list[str])
    assert_type(await rowtine.gather(number(1)), list[int])


@app.function
async def joins_nest() -> None:
    (a, b), c = await rowtine.gather(rowtine.gather(number(1), text(2)), ratio(3))
    assert_type((a, b, c), tuple[int, str, float])
    assert_type(await rowtine.gather(*[rowtine.race(number(i)) for i in range(3)]), list[int])


@app.function
async def any_and_race_give_one_of_their_members() -> None:
    assert_type(await rowtine.any(number(1), number(2)), int)
    assert_type(await rowtine.race(*[text(i) for i in range(3)]), str)
    assert_type(await rowtine.race(number(1), rowtine.any(number(2))), int)
    assert_type(await rowtine.race(number(1), rowtine.sleep(2)), int | None)


@app.function
async def what_is_no_directive_is_an_error() -> None:
    await rowtine.gather(1, 2)  # type: ignore[call-overload]
    await rowtine.any("not awaitable")  # type: ignore[arg-type]
    await rowtine.race(_plain())  # type: ignore[arg-type]


async def _plain() -> int:
    return 1
