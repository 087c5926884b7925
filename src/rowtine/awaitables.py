"""What a body awaits, beside calls of functions."""

from __future__ import annotations

import math
from typing import Any, TypeVar, overload

from rowtine.core.directives import Call, Directive, Join
from rowtine.core.payload import Arguments
from rowtine.core.phases import Kind
from rowtine.functions import Function, valid_name

__all__ = ["all", "any", "call", "gather", "race", "sleep"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
D = Directive

LONGEST_SLEEP = 100 * 365.25 * 86400
"""Seconds. A timer further away is a mistake, and must be refused here and not at a commit."""

SLEEP = "sleep"
"""The name under which a timer's row stands."""


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
    if math.isnan(total) or total > LONGEST_SLEEP:
        raise ValueError(f"cannot sleep {total} seconds; the longest is 100 years")
    return Call(SLEEP, Arguments((max(0.0, float(total)),)), Kind.TIMER)
