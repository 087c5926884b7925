"""Time and chance in coroutines, which a rebuild must find as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import rowtine
from core.scheduling import Begin, durable, recorder
from rowtine import UsageError, call, gather


def test_chance_is_the_same_at_every_rebuild_and_differs_between_draws(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def main() -> Any:
        drawn = [rowtine.random(), rowtine.uuid(), rowtine.random()]
        await call("a")
        drawn += [rowtine.random(), rowtine.uuid()]
        seen.events.append(list(drawn))
        await call("b")
        return len({str(each) for each in drawn})

    execution = begin(main).answer(a=1).answer(b=2)

    assert execution.value == 5
    assert all(drawn == seen.events[0] for drawn in seen.events)
    assert all(0 <= drawn < 1 for drawn in seen.events[0] if isinstance(drawn, float))


def test_one_kind_of_chance_does_not_move_another(begin: Begin) -> None:
    """Peers' case 146: a `random` that a deploy adds changes no id that was drawn after it."""
    seen = recorder()

    @durable
    async def main(extra: bool) -> Any:
        if extra:
            rowtine.random()
        seen.events.append(rowtine.uuid())
        return None

    begin(main, False)
    begin(main, True)

    assert len(set(seen.events)) == 1


def test_coroutines_of_one_execution_draw_for_themselves(begin: Begin) -> None:
    @durable
    async def child() -> str:
        return str(rowtine.uuid())

    @durable
    async def main() -> Any:
        return await gather(child(), child())

    first, second = begin(main).value

    assert first != second


@pytest.mark.parametrize("name", ["now", "random", "uuid", "promise"])
def test_it_works_inside_executions_only(name: str) -> None:
    with pytest.raises(UsageError, match=f"rowtine.{name} works only inside an execution"):
        getattr(rowtine, name)()


def test_time_stands_still_between_two_awaits(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def child() -> Any:
        seen.events.append(("child", rowtine.now()))
        await call("b")

    @durable
    async def main() -> Any:
        seen.events.append(("begin", rowtine.now()))
        await call("a")
        seen.events.append(("a", rowtine.now()))
        await gather(child())
        seen.events.append(("end", rowtine.now()))

    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    execution = begin.at(noon)(main)
    execution.at(noon + timedelta(hours=1)).answer(a=1)
    execution.at(noon + timedelta(hours=2)).answer(b=1)

    assert set(seen.events) == {
        ("begin", noon),
        ("a", noon + timedelta(hours=1)),
        ("child", noon + timedelta(hours=1)),
        ("end", noon + timedelta(hours=2)),
    }


def test_without_a_time_there_is_none(begin: Begin) -> None:
    @durable
    async def main() -> Any:
        rowtine.now()

    assert "Input(now=...)" in str(begin(main).error)
