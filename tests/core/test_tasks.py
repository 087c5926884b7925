"""What begins now and is waited for later: spawned calls and coroutines, promises."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from core.scheduling import Begin, durable, recorder
from rowtine import (
    Cancelled,
    UsageError,
    as_completed,
    call,
    gather,
    map,
    promise,
    race,
    shield,
    spawn,
)
from rowtine.core import tasks
from rowtine.core.coroutine import Continuation
from rowtine.core.exchange import Input
from rowtine.core.payload import Arguments
from rowtine.core.scheduler import OneShotScheduler
from rowtine.core.tasks import Group


@durable
async def does(name: str) -> Any:
    return await call(name)


def test_a_spawned_call_is_issued_with_the_next_wait(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        task = spawn(call("a"))
        b = await call("b")
        return [await task, b]

    execution = begin(main)

    assert execution.calls == ["a", "b"]
    execution.answer(b=2)
    assert execution.suspended
    execution.answer(a=1)
    assert execution.value == [1, 2]


def test_a_task_that_ended_before_it_is_awaited_keeps_its_value(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        task = spawn(does("a"))
        b = await call("b")
        return [await task, b, await task]

    execution = begin(main)

    execution.answer(a=1)
    assert execution.suspended
    execution.answer(b=2)
    assert execution.value == [1, 2, 1]


def test_a_task_and_what_it_is_waited_for_with_may_end_in_one_round(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        task = spawn(does("a"))
        b = await call("b")
        return [await task, b]

    assert begin(main).answer(a=1, b=2).value == [1, 2]


def test_the_error_of_a_task_is_raised_at_each_await(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        task = spawn(call("a"))
        seen = []
        for _ in range(2):
            try:
                await task
            except KeyError as error:
                seen.append(error.args[0])
        return seen

    assert begin(main).answer(a=KeyError("no")).value == ["no", "no"]


def test_tasks_may_be_members_of_joins(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        a, b = spawn(call("a")), spawn(does("b"))
        first = await race(a, b)
        return [first, await gather(a, b, call("c"))]

    execution = begin(main)

    execution.answer(b=2)
    assert execution.calls == ["c"]
    execution.answer(c=3)
    assert execution.suspended
    assert execution.answer(a=1).value == [2, [1, 2, 3]]


def test_a_wait_that_loses_interest_leaves_its_task_alone(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        a = spawn(call("a"))
        await race(a, call("b"))
        return await a

    execution = begin(main).answer(b=2)

    assert execution.suspended
    assert execution.answer(a=1).value == 1


def test_a_task_that_nobody_awaited_is_cancelled_when_its_coroutine_ends(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def child() -> None:
        try:
            await call("a")
        except asyncio.CancelledError:
            seen.events.append("told to stop")
            await call("clean-up")
            raise

    @durable
    async def part() -> str:
        spawn(child())
        spawn(call("never mind"))
        await call("b")
        return "part"

    @durable
    async def main() -> Any:
        return [await gather(part()), await call("c")]

    execution = begin(main)
    assert execution.calls == ["a", "never mind", "b"]
    execution.answer(b=2)

    assert seen.events[:1] == ["told to stop"]
    assert execution.calls == ["clean-up", "c"]
    execution.answer(c=3)
    assert execution.suspended  # the clean-up is part of the execution
    execution.resume(execution.result("clean-up"))
    assert execution.value == [["part"], 3]


def test_a_task_that_is_spawned_at_the_end_never_begins(begin: Begin) -> None:
    @durable
    async def main() -> int:
        await call("a")
        spawn(call("b"))
        return 1

    assert begin(main).answer(a=0).value == 1


def test_a_task_can_be_told_to_stop(begin: Begin) -> None:
    @durable
    async def child() -> str:
        try:
            return await call("a")
        except asyncio.CancelledError:
            return await call("instead")

    @durable
    async def main() -> Any:
        body, plain = spawn(child()), spawn(call("b"))
        await call("c")
        body.cancel()
        plain.cancel()
        try:
            await plain
        except Cancelled:
            return await body

    execution = begin(main).answer(c=0)

    assert execution.calls == ["instead"]
    assert execution.resume(execution.result("instead", 7)).value == 7


def test_a_task_may_be_spawned_and_cancelled_before_it_begins(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        task = spawn(call("a"))
        task.cancel()
        return await call("b")

    execution = begin(main)

    assert execution.calls == ["b"]
    assert execution.answer(b=1).value == 1


def test_what_cannot_be_recorded_is_refused_where_it_is_spawned(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            spawn(asyncio.sleep(0))  # type: ignore[arg-type]
        except TypeError as error:
            return str(error)

    assert "plain coroutine" in begin(main).value


def test_a_spawned_task_is_awaited_by_who_spawned_it(begin: Begin) -> None:
    with pytest.raises(UsageError, match="inside an execution"):
        spawn(call("a"))


def test_a_join_may_be_spawned(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        both = spawn(gather(call("a"), does("b")))
        none = spawn(gather())
        await call("c")
        return [await both, await none]

    assert begin(main).answer(c=0, a=1).answer(b=2).value == [[1, 2], []]


def test_a_shielded_call_outlives_the_cancellation_of_its_caller(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            return await shield(call("a"))
        except asyncio.CancelledError:
            await call("clean-up")
            raise

    execution = begin(main)
    execution.resume(cancel=True)
    assert execution.calls == ["clean-up"]
    execution.resume(execution.result("clean-up"))

    assert execution.suspended  # `a` goes on
    assert execution.resume(execution.result("a")).status == "CANCELLED"


def test_a_shield_changes_nothing_for_who_is_not_cancelled(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [await shield(call("a")), await shield(does("b"))]

    assert begin(main).answer(a=1).answer(b=2).value == [1, 2]


def test_promises_have_tokens_and_are_issued_before_they_are_awaited(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        first, second = promise(), promise(timeout=60)
        await call("tell", first.token, second.token)
        return [await first, await second]

    execution = begin(main)

    assert execution.calls == ["promise", "promise", "tell"]
    execution.answer(tell=None)
    tokens = [call for call, name in execution.functions.items() if name == "promise"]
    execution.resume(execution.result(tokens[1], "2"))
    assert execution.resume(execution.result(tokens[0], "1")).value == ["1", "2"]


def test_as_completed_gives_tasks_in_the_order_in_which_they_end(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        seen = []
        async for task in as_completed([call("a"), does("b"), call("c"), call("d")]):
            try:
                seen.append(await task)
            except KeyError:
                seen.append(await call("mend"))
        return seen

    execution = begin(main)

    assert execution.calls == ["a", "b", "c", "d"]
    execution.answer(c=3)
    execution.answer(a=KeyError("a"))
    execution.answer(b=2, d=4)
    execution.resume(execution.result("mend", 1))
    assert execution.value == [3, 1, 4, 2]  # of the coroutine more was left to do


@pytest.mark.peer_case(63)
def test_who_has_enough_stops_and_the_others_are_cancelled_at_the_end(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        enough = []
        async for task in as_completed([call("a"), call("b"), call("c"), call("d")]):
            enough.append(await task)
            if len(enough) == 2:
                break
        return enough

    execution = begin(main).answer(c=3).answer(b=2)

    assert execution.value == [3, 2]
    assert execution.open == set()


def test_as_completed_takes_tasks_that_go_on_already(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        tasks = [spawn(call("a")), spawn(does("b"))]
        return [await task async for task in as_completed(tasks)]

    assert begin(main).answer(b=2).answer(a=1).value == [2, 1]


def test_as_completed_of_nothing_ends_at_once(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return [await task async for task in as_completed([])]

    assert begin(main).value == []


def test_map_gives_values_in_order(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await map(does, ["a", "b", "c"])

    assert begin(main).answer(c=3).answer(a=1, b=2).value == [1, 2, 3]


def test_map_of_nothing_is_nothing(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await map(does, [])

    assert begin(main).value == []


def test_map_bears_as_many_failures_as_it_is_told(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        values = await map(does, ["a", "b", "c", "d"], max_failures=2)
        return [str(value) for value in values]

    execution = begin(main).answer(a=KeyError("x")).answer(c=KeyError("y"), b=2)
    assert execution.answer(d=4).value == ["'x'", "2", "'y'", "4"]


def test_map_raises_the_failure_that_is_too_many(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await map(does, ["a", "b", "c"], max_failures=1)

    execution = begin(main).answer(a=KeyError("x"))
    assert execution.suspended
    assert str(execution.answer(c=KeyError("y")).error) == "'y'"


def test_map_lets_no_more_run_than_it_is_told(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        return await map(call, ["a", "b", "c", "d"], max_concurrency=2)

    execution = begin(main)

    assert [request.parked for request in execution.output.calls] == [False, False, True, True]
    execution.answer(a=1, b=2)
    assert execution.output.changes.released == {(0, 0): 2}
    assert execution.answer(d=4, c=3).value == [1, 2, 3, 4]


def test_max_concurrency_of_what_cannot_be_held_back_is_refused(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        try:
            await map(does, ["a"], max_concurrency=1)
        except UsageError as error:
            return str(error)

    assert "make it an @app.function" in begin(main).value


async def spawning(count: int) -> None:
    """Run the first round of a body that spawns so many calls."""

    @durable
    async def main(count: int) -> Any:
        begun = [spawn(call("a")) for _ in range(count)]
        return await begun[0]

    await OneShotScheduler(main).run(Input(arguments=Arguments((count,))))


def test_what_a_body_spawns_takes_memory_in_proportion_to_how_much_it_is() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            asyncio.run(spawning(count))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)

    assert peak(2_000) < 5 * peak(500)


def test_a_body_that_spawns_looks_through_what_it_has_spawned_before_once_in_a_while() -> None:
    looks: list[Group] = []

    def look(group: Group) -> int:
        looks.append(group)
        return 1

    counted = type("Counted", (Group,), {"open": property(look, lambda *_: None)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "Group", counted)
        asyncio.run(spawning(2_000))

    assert 0 < len(looks) < 10 * 2_000


def test_a_round_copies_the_journal_of_a_body_that_spawns_once_however_much_it_spawns() -> None:
    copies: list[object] = []
    slot: Any = Continuation.__dict__["journal"]

    def replace(continuation: Continuation, journal: object) -> None:
        copies.append(journal)
        slot.__set__(continuation, journal)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Continuation, "journal", property(slot.__get__, replace))
        asyncio.run(spawning(3))
        of_few = len(copies)
        asyncio.run(spawning(200))

    assert 0 < of_few == len(copies) - of_few
