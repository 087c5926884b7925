"""Whose turn it is to write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing

from rowtine.codec import JsonCodec
from rowtine.store import Connection, Database
from rowtine.worker.gateway import Gateway
from rowtine.worker.line import Line


def test_who_comes_while_nobody_writes_begins_at_once() -> None:
    line, begun = Line(), list[str]()
    line.enter(lambda: begun.append("one"))

    assert (begun, line.taken) == (["one"], True)


def test_the_others_begin_one_by_one_in_the_order_in_which_they_came() -> None:
    line, begun = Line(), list[str]()
    for name in ("one", "two", "three"):
        line.enter(lambda name=name: begun.append(name))
    assert begun == ["one"]

    for _ in range(2):
        line.leave()
    assert (begun, line.taken) == (["one", "two", "three"], True)

    line.leave()
    assert not line.taken


def test_who_leaves_can_have_come_again() -> None:
    line, begun = Line(), list[str]()
    line.enter(lambda: begun.append("one"))
    line.enter(lambda: begun.append("two"))
    line.enter(lambda: begun.append("one again"))

    line.leave()
    line.leave()

    assert begun == ["one", "two", "one again"]


def test_who_is_cancelled_while_it_stands_in_line_writes_nothing(database_url: str) -> None:
    written: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def write(name: str) -> Callable[[Connection], None]:
        def work(_: Connection) -> None:
            written.append(name)
            begun.set()
            assert go_on.wait(60)

        return work

    async def main() -> None:
        with closing(Database(database_url)) as database:
            gateway = Gateway(database, JsonCodec())
            names = ("one", "cancelled", "two")
            one, cancelled, two = (
                asyncio.create_task(gateway.write(write(name))) for name in names
            )
            while not begun.is_set():
                await asyncio.sleep(0)
            cancelled.cancel()
            go_on.set()
            await asyncio.gather(one, two)
            gateway.close()

    asyncio.run(main())
    assert written == ["one", "two"]
