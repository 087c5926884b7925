"""Whose turn it is to write."""

from __future__ import annotations

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
