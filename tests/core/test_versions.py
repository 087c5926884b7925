"""What a state must fit: version, semantics, and the journal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from core.scheduling import COLD, JSON, Begin, Execution, durable, recorder
from rowtine import DecodeError, call, gather, race, sleep
from rowtine.core.coroutine import Slot
from rowtine.core.exchange import Incompatible, Input, Poll
from rowtine.core.payload import Arguments
from rowtine.core.scheduler import OneShotScheduler


@durable
async def main() -> Any:
    return await call("foo")


def resumed(execution: Execution, version: str | None) -> Any:
    """The next round, by a scheduler of this version."""
    execution.scheduler.version = version
    return execution.answer(foo=1)


@pytest.mark.parametrize("version", ["v1", "", None])
@pytest.mark.case(98)
def test_a_state_goes_on_under_its_own_version(begin: Begin, version: str | None) -> None:
    execution = begin.using(version=version)(main)
    assert execution.state.version == version

    assert resumed(execution, version).value == 1


@pytest.mark.parametrize(("saved", "here"), [("v1", "v2"), ("v1", ""), ("", "v2")])
def test_a_state_of_another_version_is_refused(begin: Begin, saved: str, here: str) -> None:
    execution = begin.using(version=saved)(main)

    refusal = resumed(execution, here).refusal

    assert repr(saved) in refusal
    assert repr(here) in refusal


@pytest.mark.parametrize(("saved", "here"), [(None, "v2"), ("v1", None)])
def test_without_a_version_the_journal_decides_alone(
    begin: Begin, saved: str | None, here: str | None
) -> None:
    execution = begin.using(version=saved)(main)

    assert resumed(execution, here).value == 1


@pytest.mark.case(208)
def test_the_version_is_compared_before_any_code_runs(begin: Begin) -> None:
    seen = recorder()

    @durable
    async def watched() -> Any:
        await call("foo")
        seen.events.append("ran")

    execution = begin.using(version="v1")(watched)

    resumed(execution, "v2")

    assert seen.events == []
    assert execution.refusal


def test_another_semantics_number_is_refused(begin: Begin) -> None:
    execution = begin(main)
    state = replace(execution.state, semantics=0)

    output = asyncio.run(execution.scheduler.run(Input(state=state)))

    assert isinstance(output, Incompatible)
    assert "semantics 0" in output.message


@pytest.mark.parametrize("junk", ["junk", 7, b"", []], ids=repr)
@pytest.mark.case(99)
def test_a_state_that_is_none_is_refused(junk: Any) -> None:
    output = asyncio.run(OneShotScheduler(main).run(Input(state=junk)))

    assert isinstance(output, Incompatible)
    assert type(junk).__name__ in output.message


def _without_wait(execution: Execution) -> None:
    execution.state.suspended[0].wait = None


def _without_body(execution: Execution) -> None:
    execution.state.suspended[0].coroutine = None


def _without_journal(execution: Execution) -> None:
    coroutine = execution.state.suspended[0]
    assert coroutine.coroutine is not None
    coroutine.coroutine.slot.drop()
    coroutine.coroutine = replace(coroutine.coroutine, journal=None, slot=Slot())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_wait, "lacks what it waits for"),
        (_without_body, "lacks its body"),
        (_without_journal, "neither frame nor journal"),
    ],
)
@pytest.mark.case(100)
def test_a_state_with_a_part_missing_is_refused(damage: Any, said: str) -> None:
    execution = Begin(COLD)(main)
    damage(execution)

    assert said in execution.answer(foo=1).refusal


# ------------------------------------------------------------------------------- changed code


@durable
async def recorded() -> Any:
    await call("a", 1)
    await gather(call("b"), main())
    return await call("last")


def suspended_at_last(begin: Begin) -> Execution:
    execution = begin(recorded).answer(a=1).answer(b=2, foo=3)
    assert execution.calls == ["last"]
    return execution


@durable
async def unchanged() -> Any:
    # A comment above, and an edit below the await at which it is suspended.
    await call("a", 1)
    await gather(call("b"), main())
    value = await call("last")
    return [value, await call("new")]


@pytest.mark.case(105)
def test_code_may_move_and_change_where_it_has_not_been(begin: Begin) -> None:
    execution = suspended_at_last(begin).redeploy(unchanged)

    execution.answer(last=1)
    assert execution.calls == ["new"]

    assert execution.answer(new=2).value == [1, 2]


@durable
async def other_call() -> Any:
    await call("x", 1)


@durable
async def other_kind() -> Any:
    await sleep(1)


@durable
async def other_input() -> Any:
    await call("a", 2)


@durable
async def other_join() -> Any:
    await call("a", 1)
    await race(call("b"), main())


@durable
async def other_member() -> Any:
    await call("a", 1)
    await gather(call("b"), call("foo"))


@durable
async def more_members() -> Any:
    await call("a", 1)
    await gather(call("b"), main(), main())


@durable
async def other_last() -> Any:
    await call("a", 1)
    await gather(call("b"), main())
    await call("end")


@durable
async def fewer_steps() -> Any:
    await call("a", 1)
    return "done"


@durable
async def no_steps() -> Any:
    return "done"


@durable
async def fails_early() -> Any:
    await call("a", 1)
    raise KeyError("new")


@durable
async def needs_an_argument(new: int) -> Any:
    await call("a", new)


@pytest.mark.parametrize(
    ("changed", "position", "was", "now"),
    [
        (other_call, 0, "function a", "function x"),
        (other_kind, 0, "function a", "timer sleep"),
        (other_input, 0, "function a", "input"),
        (other_join, 1, "all(b, main)", "race(b, main)"),
        (other_member, 1, "all(b, main)", "all(b, foo)"),
        (more_members, 1, "all(b, main)", "all(b, main, main)"),
        (other_last, 2, "function last", "function end"),
        (fewer_steps, 1, "all(b, main)", "returns"),
        (no_steps, 0, "function a", "returns"),
        (fails_early, 1, "all(b, main)", "KeyError('new')"),
        (needs_an_argument, 0, "function a", "TypeError"),
    ],
    ids=lambda value: value.name if isinstance(value, durable) else "",
)
@pytest.mark.case(104)
@pytest.mark.peer_case(126)
def test_code_that_asks_for_something_else_is_refused(
    begin_cold: Begin, changed: Any, position: int, was: str, now: str
) -> None:
    execution = suspended_at_last(begin_cold).redeploy(changed)

    refusal = execution.answer(last=1).refusal

    assert f"{changed.name}, wait {position}: " in refusal
    assert was in refusal
    assert now in refusal


@pytest.mark.peer_case(126)
def test_a_refused_state_goes_on_once_the_code_fits_again(begin: Begin) -> None:
    execution = suspended_at_last(begin)
    poll = execution.output
    execution.redeploy(other_last).answer(last=1)

    execution.output = poll
    execution.redeploy(recorded).answer(last=1)

    assert execution.value == 1


def test_a_round_with_one_refused_coroutine_does_nothing_at_all() -> None:
    @durable
    async def both() -> Any:
        return await gather(recorded(), main(), recorded())

    execution = Begin(JSON)(both)
    state = execution.state
    for id in (1, 3):
        child = state.suspended[id]
        assert child.coroutine is not None
        child.coroutine.slot.drop()
        child.coroutine = replace(child.coroutine, body=other_call.body, slot=Slot())
    before = repr(state)
    poll = execution.output

    execution.resume(*(execution.result(id) for id in (0, 1, 2)))

    assert "other_call, wait 0" in execution.refusal
    assert isinstance(poll, Poll)
    assert repr(poll.state) == before


class Renewing:
    """A codec whose types have changed since: what it reads gets a new optional field."""

    def __init__(self) -> None:
        self.new = False
        self.codec = JSON.codec()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)

    def encode_arguments(self, arguments: Arguments) -> Any:
        kwargs = {"optional": None, **arguments.kwargs} if self.new else arguments.kwargs
        return self.codec.encode_arguments(replace(arguments, kwargs=kwargs))

    def decode_arguments(self, payload: Any) -> Arguments:
        if self.new == "broken":
            raise DecodeError("field 'x' is missing")
        return self.codec.decode_arguments(payload)


@durable
async def takes_anything(**kwargs: Any) -> Any:
    return [await call("a", 1), await call("b", 2)]


@pytest.mark.peer_case(128)
def test_inputs_are_compared_as_todays_types_have_them() -> None:
    codec = Renewing()
    execution = Begin(JSON).using(codec=codec)(takes_anything).answer(a=1)

    codec.new = True
    execution.answer(b=2)

    assert execution.value == [1, 2]


def test_an_input_that_cannot_be_read_today_is_refused() -> None:
    codec = Renewing()
    execution = Begin(JSON).using(codec=codec)(takes_anything).answer(a=1)

    codec.new = "broken"

    assert "field 'x' is missing" in execution.answer(b=2).refusal
