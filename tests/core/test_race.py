"""race: the first that finishes, also when it failed."""

from __future__ import annotations

from typing import Any

import pytest

from core.scheduling import Begin, durable
from rowtine import Call, any, call, gather, race
from rowtine.core.options import CallOptions


@durable
async def does(name: str) -> Any:
    return await call(name)


@durable
async def race_of(names: list[str]) -> Any:
    return await race(*[does(name) for name in names])


@durable
async def race_call_of(names: list[str]) -> Any:
    return await race(*[call(name) for name in names])


either = pytest.mark.parametrize("race_of", [race_of, race_call_of], ids=["coroutines", "calls"])


@either
@pytest.mark.case(69)
def test_the_first_result_wins(begin: Begin, race_of: Any) -> None:
    execution = begin(race_of, ["a", "b", "c", "d"])

    execution.answer(b=23)

    assert execution.value == 23


@either
def test_the_first_to_finish_may_have_failed(begin: Begin, race_of: Any) -> None:
    execution = begin(race_of, ["a", "b"])

    execution.answer(a=KeyError("a"))

    assert isinstance(execution.error, KeyError)


@pytest.mark.case(71)
def test_a_race_of_nothing_is_none_at_once(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [await race(), await race(race())]

    assert begin(main).value == [None, None]


@pytest.mark.parametrize("nothing", [race, any, gather], ids=lambda join: join.__name__)
def test_a_nested_join_of_nothing_wins_over_members_declared_after_it(
    begin: Begin, nothing: Any
) -> None:
    class Nothing:
        join = staticmethod(nothing)

    @durable
    async def main() -> Any:
        return [await race(Nothing.join(), call("a"), does("b")), await call("c")]

    execution = begin(main)
    assert execution.calls == ["c"]
    assert execution.open == {execution.issued["c"]}

    execution.answer(c=1)
    assert execution.value == [[] if nothing is gather else None, 1]


def test_of_two_joins_of_nothing_the_first_wins(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await race(gather(gather(), race(race())), race())

    execution = begin(main)

    assert execution.value == [[], None]
    assert execution.exit.changes is not None
    ended = [change.resolution for change in execution.exit.changes.joins.values()]
    assert ended == ["result"] * 5 + ["cancelled"]


@pytest.mark.parametrize("cancel_losers", [True, False])
@pytest.mark.case(72)
def test_a_late_result_is_dropped_while_main_waits_for_a_call(
    begin: Begin, cancel_losers: bool
) -> None:
    @durable
    async def main(cancel_losers: bool) -> Any:
        return [await race(call("a"), does("b"), cancel_losers=cancel_losers), await call("c")]

    execution = begin(main, cancel_losers).answer(a=1)
    assert execution.calls == ["c"]

    execution.answer(b=2)
    assert execution.suspended

    execution.answer(c=3)
    assert execution.value == [1, 3]


@either
@pytest.mark.case(74)
def test_of_two_results_in_one_batch_the_first_wins(begin: Begin, race_of: Any) -> None:
    execution = begin(race_of, ["a", "b"])

    execution.answer(b=2, a=1)

    assert execution.value == 2


@either
@pytest.mark.case(75)
def test_a_value_before_an_error_in_one_batch_wins(begin: Begin, race_of: Any) -> None:
    execution = begin(race_of, ["a", "b"])

    execution.answer(a=1, b=KeyError("b"))

    assert execution.value == 1


@pytest.mark.case(51)
def test_a_late_siblings_result_leaves_a_later_race_open(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await gather(does("a"), does("b"), cancel_losers=False)
        except KeyError:
            return await race(does("c"), does("d"))

    execution = begin(main).answer(b=KeyError("b"))

    execution.answer(a="late")
    assert execution.suspended

    execution.answer(d="vd")
    assert execution.value == "vd"


@durable
async def careful(name: str) -> Any:
    try:
        return await call(name)
    finally:
        await call(f"clean {name}")


def test_losers_clean_up_beside_main(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [await race(careful("a"), gather(careful("b")), call("c")), await call("d")]

    execution = begin(main)

    execution.answer(c=1)
    assert execution.calls == ["clean a", "clean b", "d"]

    execution.answer(**{"clean b": None, "d": 2})
    assert execution.suspended

    execution.answer(**{"clean a": None})
    assert execution.value == [1, 2]


def test_a_call_may_say_that_it_goes_on_when_it_loses(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        spared: Call[Any] = Call("a", options=CallOptions(cancel_losers=False))
        first = await race(spared, call("b"), call("c"))
        return [first, await call("d")]

    execution = begin(main).answer(b=2)

    assert sorted(execution.functions[id] for id in execution.open) == ["a", "d"]
    assert execution.answer(d=4).value == [2, 4]
