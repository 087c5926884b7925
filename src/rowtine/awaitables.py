"""What a body awaits, beside calls of functions."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from rowtine.core.directives import Call, Directive, Join, inside
from rowtine.core.payload import Arguments
from rowtine.core.phases import Kind
from rowtine.core.tasks import Promise, Spawn, Task, Timeout
from rowtine.core.tasks import spawn as begin
from rowtine.errors import UsageError
from rowtine.functions import Function, valid_name

__all__ = [
    "all",
    "any",
    "call",
    "gather",
    "promise",
    "race",
    "shield",
    "signal",
    "sleep",
    "sleep_until",
    "spawn",
    "timeout",
]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
D = Directive

LONGEST_WAIT = 100 * 365.25 * 86400
"""Seconds. A timer further away is a mistake, and must be refused here and not at a commit."""

LAST_MOMENT = datetime(9000, 1, 1, tzinfo=UTC)

SLEEP, SLEEP_UNTIL, PROMISE = "sleep", "sleep_until", "promise"
"""The names under which the rows stand of what is no function's call."""


@overload
def gather(  # pyright: ignore[reportOverlappingOverload] - a list, unless their number is known
    a: D[T1], b: D[T2], /, *, cancel_losers: bool = ...
) -> D[tuple[T1, T2]]: ...
@overload
def gather(
    a: D[T1], b: D[T2], c: D[T3], /, *, cancel_losers: bool = ...
) -> D[tuple[T1, T2, T3]]: ...
@overload
def gather(
    a: D[T1], b: D[T2], c: D[T3], d: D[T4], /, *, cancel_losers: bool = ...
) -> D[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(
    a: D[T1], b: D[T2], c: D[T3], d: D[T4], e: D[T5], /, *, cancel_losers: bool = ...
) -> D[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def gather(*members: D[T], cancel_losers: bool = ...) -> D[list[T]]: ...
def gather(*members: D[Any], cancel_losers: bool = True) -> D[Any]:
    """Wait for all members; their values as a list, in order of declaration.

    The first error is raised at once; the members still open are then cancelled, or with
    ``cancel_losers=False`` left to go on. Of nothing: ``[]``, at once.
    """
    return Join(Kind.ALL, members, cancel_losers)


all = gather


def any(*members: D[T], cancel_losers: bool = True) -> D[T]:
    """Wait for the first member that succeeds; its value.

    If all fail: `AnyException` with their errors in order of declaration (of one member: its own
    error). The others are cancelled, as in `gather`. Of nothing: None, at once.
    """
    return Join(Kind.ANY, members, cancel_losers)


def race(*members: D[T], cancel_losers: bool = True) -> D[T]:
    """Wait for the first member that finishes; its value, or its error if it failed.

    The others are cancelled, as in `gather`. Of nothing: None, at once.
    """
    return Join(Kind.RACE, members, cancel_losers)


@overload
def call(function: Function[..., T], *args: Any, **kwargs: Any) -> Call[T]: ...
@overload
def call(function: Call[T]) -> Call[T]: ...
@overload
def call(function: str, *args: Any, **kwargs: Any) -> Call[Any]: ...
def call(function: str | Call[Any] | Function[..., Any], *args: Any, **kwargs: Any) -> Call[Any]:
    """A call of a function by its name, which only the worker that runs it needs to know.

    RegistrationError for a name that no function can have.
    """
    if isinstance(function, Call):
        return function
    if isinstance(function, Function):
        return function(*args, **kwargs)
    return Call(valid_name(function), Arguments(args, kwargs))


def sleep(
    seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0
) -> Call[None]:
    """Wait for the given time, by the database's clock; survives every process.

    Zero and less: on to the next round. ValueError for NaN and for more than 100 years.
    """
    total = seconds + 60 * minutes + 3600 * hours + 86400 * days
    return Call(SLEEP, Arguments((_seconds(total, "sleep"),)), Kind.TIMER)


def sleep_until(moment: datetime) -> Call[None]:
    """Wait until a moment, by the database's clock; a naive one is in UTC.

    A moment that is past: on to the next round. ValueError for one after the year 9000.
    """
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"sleep_until takes a datetime, not {type(moment).__name__}")
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if aware > LAST_MOMENT:
        raise ValueError(f"cannot sleep until {aware}; the last moment is {LAST_MOMENT}")
    return Call(SLEEP_UNTIL, Arguments((aware,)), Kind.TIMER)


def timeout(seconds: float | None) -> Timeout:
    """``async with rowtine.timeout(60):`` ends the block after so many seconds, by the database's
    clock: the durable await at which it stands is cancelled, its clean-up runs, and the block
    raises TimedOut, which is a TimeoutError. None: no limit. Native awaits are not interrupted.
    """
    return Timeout(None if seconds is None else _seconds(seconds, "wait"))


# --------------------------------------------------------------------- what others outside answer


def promise(*, timeout: float | None = None) -> Promise[Any]:
    """A value that somebody outside will give: hand `token` to them, await the promise.

    It begins now, and becomes a row at the next await of the coroutine. Resolved before anybody
    awaits it, it keeps the value; rejected, it raises. After `timeout` seconds it raises
    TimedOut, for good. One that nobody has awaited ends with the coroutine that made it.
    """
    here = inside("rowtine.promise")
    token = here.draw(PROMISE)[:16].hex()
    asked: Call[Any] = Call(PROMISE, _limited(timeout), Kind.PROMISE)
    return Promise(begin(here, Spawn((asked,), token=token)), token)


def signal(name: str, *, timeout: float | None = None) -> Call[Any]:
    """Wait for the next signal of this name that was sent to this execution; its value.

    Signals are queued, in the order in which they were sent, and each is taken by one wait. After
    `timeout` seconds: TimedOut.
    """
    return Call(valid_name(name), _limited(timeout), Kind.SIGNAL)


def _limited(timeout: float | None) -> Arguments:
    if timeout is None:
        return Arguments()
    return Arguments((), {"timeout": _seconds(timeout, "wait")})


def _seconds(seconds: float, verb: str) -> float:
    if math.isnan(seconds) or seconds > LONGEST_WAIT:
        raise ValueError(f"cannot {verb} {seconds} seconds; the longest is 100 years")
    return max(0.0, float(seconds))


# ---------------------------------------------------------------- what begins now and ends later


def spawn(member: D[T]) -> Task[T]:
    """Begin a call, a coroutine or a join now, and await it later.

    It becomes rows at the next await of the coroutine that spawns it. One that has not ended when
    that coroutine ends is cancelled, with its clean-up; to have it finished, await it.
    """
    here = inside("rowtine.spawn")
    if isinstance(member, Task):
        raise UsageError(f"{member!r} has been spawned already: await it, or pass it to gather")
    return Task(begin(here, Spawn((member,))))


async def shield(member: D[T]) -> T:
    """Await something that a cancellation of this coroutine does not reach.

    The await itself raises CancelledError; what it waits for goes on, and the execution does not
    end before it has.
    """
    here = inside("rowtine.shield")
    inner: D[T] = Join(Kind.RACE, (member,))
    task: Task[T] = Task(begin(here, Spawn((inner,), shielded=True)))
    return await task
