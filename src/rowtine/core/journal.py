"""A journal: what a coroutine has asked for, line by line, and what each came to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Any

from msgspec import Struct

from rowtine.core.directives import Body, Call, Directive, Inline, Join
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Codec, Payload
from rowtine.core.phases import JOIN_KINDS, Kind, Resolution
from rowtine.core.tasks import Next, Spawn, Task
from rowtine.core.values import value
from rowtine.errors import UsageError

__all__ = ["Entry", "Wait", "describe", "mismatch", "placed", "record", "record_spawn"]


@value
class Wait:
    """What a coroutine asked for, as it is recorded and compared.

    `function` is the name of the function or body; for a join it describes the members, so that
    a nested join can be compared by its row alone.
    """

    kind: Kind
    function: str
    input: Payload = None
    members: tuple[Wait, ...] = ()
    children: range | None = None
    """Of a wait for tasks: the ids of those that it is for."""
    taken: frozenset[int] = field(default=frozenset(), compare=False)
    """... and those of them that were waited for before."""
    next: Next | None = field(default=None, compare=False)
    """... and how the body names them, before they have ids."""
    body: Body | None = field(default=None, compare=False)
    cancel_losers: bool = field(default=True, compare=False)
    max_failures: int = field(default=0, compare=False)
    max_concurrency: int | None = field(default=None, compare=False)
    options: CallOptions = field(default=DEFAULT, compare=False)
    token: str | None = field(default=None, compare=False)


class Entry(Struct, frozen=True):
    """A wait and what it came to: one line of a journal.

    `at` is the time of the round that it was told in. `decided_by` is the coroutine that decided
    it, where somebody did: the task that ended, the timer of the time limit. Of a group that was
    spawned, the value is the id of its first member. `reason` is why it was cancelled.
    """

    wait: Wait
    resolution: Resolution = Resolution.RESULT
    value: Payload = None
    error: Exception | None = None
    at: datetime | None = None
    decided_by: int | None = None
    reason: str | None = None


def record(directive: Directive[Any], codec: Codec) -> Wait:
    """What `directive` asks for, encoded; raises what the codec raises, at the await."""
    match directive:
        case Call():
            if directive.options.key is not None:
                raise UsageError(
                    f"{directive!r} has a key: keys are for calls that are started from outside"
                )
            return Wait(
                directive.kind,
                directive.function,
                codec.encode_arguments(directive.arguments),
                options=directive.options,
            )
        case Inline():
            return Wait(
                Kind.COROUTINE,
                directive.body.name,
                codec.encode_arguments(directive.arguments),
                body=directive.body,
            )
        case Join():
            members = tuple(_record_member(member, codec) for member in directive.members)
            return Wait(
                directive.kind,
                _signature(directive.kind, members),
                members=members,
                cancel_losers=directive.cancel_losers,
                max_failures=directive.max_failures,
                max_concurrency=directive.max_concurrency,
            )
        case Task():
            return record(directive.next(), codec)
        case Next():
            return _record_next(directive)
        case _:
            raise TypeError(f"cannot await {directive!r} here")


def record_spawn(asked: Spawn, codec: Codec) -> Wait:
    """What is begun now and waited for later, encoded; raises as `record` does."""
    members = tuple(_record_member(member, codec) for member in asked.members)
    if asked.token is not None:
        members = tuple(replace(member, token=asked.token) for member in members)
    return Wait(
        Kind.SPAWN,
        _signature(Kind.SPAWN, members),
        members=members,
        cancel_losers=not asked.shielded,
        max_concurrency=asked.max_concurrency,
    )


def _record_next(directive: Next) -> Wait:
    group, within = directive.group, directive.within
    one = len(within) == 1
    function = group.wait.members[within.start].function if one else group.wait.function
    return placed(Wait(Kind.TASK, function, cancel_losers=False, next=directive))


def placed(wait: Wait) -> Wait:
    """The wait with the ids of the tasks that it is for, where they have them by now."""
    if wait.next is not None and (first := wait.next.group.first) is not None:
        within = wait.next.within
        return replace(
            wait,
            children=range(first + within.start, first + within.stop),
            taken=frozenset(first + member for member in wait.next.taken),
        )
    if any(member.next is not None or member.members for member in wait.members):
        return replace(wait, members=tuple(placed(member) for member in wait.members))
    return wait


def _record_member(member: object, codec: Codec) -> Wait:
    if isinstance(member, Directive):
        return record(member, codec)  # pyright: ignore[reportUnknownArgumentType]
    if asyncio.iscoroutine(member):
        name = getattr(member, "__qualname__", repr(member))
        member.close()  # never started, so there is nothing of the user's to run
        raise TypeError(
            f"{name} is a plain coroutine: mark it with @app.coroutine to pass it to "
            "gather, any or race (or await it directly)"
        )
    raise TypeError(
        f"{member!r} is not awaitable durably: gather, any and race take calls of an "
        "@app.function or @app.coroutine, rowtine.call, rowtine.sleep, and each other"
    )


_LONGEST_SIGNATURE = 200


def _signature(kind: Kind, members: Sequence[Wait]) -> str:
    names = ", ".join(member.function for member in members)
    if len(names) > _LONGEST_SIGNATURE:
        names = f"{len(members)} members: {names[: _LONGEST_SIGNATURE - 40]}..."
    return f"{kind}({names})"


def mismatch(recorded: Wait, came: Wait, codec: Codec) -> str | None:
    """Say how `came` differs from what was recorded, or None if the journal fits.

    Kind and function gate. Inputs are compared after the recorded one has gone through today's
    types, so that a new optional field of a class is no difference.
    """
    if (recorded.kind, recorded.function) != (came.kind, came.function):
        return f"recorded {describe(recorded)}, the code now asks for {describe(came)}"
    if recorded.kind in JOIN_KINDS and not recorded.members:
        return None  # a nested join is recorded by its signature alone
    if recorded.children is not None and recorded.children != came.children:
        return f"recorded a wait for {_tasks(recorded)}, the code now waits for {_tasks(came)}"
    if len(recorded.members) != len(came.members):
        return f"recorded {len(recorded.members)} members, the code now has {len(came.members)}"
    for i, (old, new) in enumerate(zip(recorded.members, came.members, strict=True)):
        if difference := mismatch(old, new, codec):
            return f"member {i}: {difference}"
    if recorded.input == came.input:
        return None
    try:
        renewed = codec.encode_arguments(codec.decode_arguments(recorded.input))
    except Exception as error:
        return f"the recorded input of {describe(recorded)} cannot be read: {error}"
    if renewed == came.input:
        return None
    what = describe(recorded)
    return f"{what} was recorded with input {_short(renewed)}, now it is {_short(came.input)}"


def describe(wait: Wait) -> str:
    """A wait, for an error message."""
    plain = wait.kind in JOIN_KINDS or wait.kind is Kind.SPAWN
    return wait.function if plain else f"{wait.kind} {wait.function}"


def _tasks(wait: Wait) -> str:
    ids = wait.children or range(0)
    return f"task {ids.start}" if len(ids) == 1 else f"tasks {ids.start} to {ids.stop - 1}"


def _short(payload: Payload) -> str:
    text = str(payload)
    return text if len(text) <= 200 else text[:200] + "..."
