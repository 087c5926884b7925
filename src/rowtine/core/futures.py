"""One idea of a future, four ways to fold it.

A future takes results until it is ready, and from then on nothing changes it. A result that it
does not wait for (a duplicate, a stranger, one that comes late) changes nothing either, so that
delivery may be repeated at will.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSet, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from rowtine.core.phases import Kind
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.errors import AnyException

__all__ = [
    "AllFuture",
    "AnyFuture",
    "CallFuture",
    "Future",
    "JoinFuture",
    "RaceFuture",
    "Remaining",
]


class Remaining(MutableSet[int]):
    """The children still waited for, when they are not in memory.

    A future of 100,000 children is a counter beside the few that a round touches: `members` are
    all ids, `pending` of them had not ended when it was loaded. The rows never deliver a result
    twice, so a member that has not ended in this round is one that is waited for.
    """

    __slots__ = ("_ended", "_pending", "members")

    def __init__(self, members: range, pending: int) -> None:
        self.members = members
        self._pending = pending
        self._ended: set[int] = set()

    def __contains__(self, item: object) -> bool:
        return item in self.members and item not in self._ended

    def __iter__(self) -> Iterator[int]:
        raise TypeError("of a loaded future only the number of pending children is known")

    def __len__(self) -> int:
        return self._pending - len(self._ended)

    def __copy__(self) -> Remaining:
        mine = Remaining(self.members, self._pending)
        mine._ended = set(self._ended)
        return mine

    def add(self, value: int) -> None:
        self._ended.discard(value)

    def discard(self, value: int) -> None:
        if value in self:
            self._ended.add(value)


@dataclass(slots=True)
class CallFuture:
    """The wait for one call: `call_id`, once it is issued (None takes any result)."""

    result: CallResult | None = None
    first_error: Exception | None = None
    call_id: int | None = None

    def add_result(self, result: CallResult) -> None:
        if self.ready() or (self.call_id is not None and result.call_id != self.call_id):
            return
        self.result = result
        self.first_error = result.error

    def add_error(self, error: Exception) -> None:
        if not self.ready():
            self.first_error = error

    def ready(self) -> bool:
        return self.result is not None or self.first_error is not None

    def error(self) -> Exception | None:
        return self.first_error

    def value(self) -> Any:
        return None if self.result is None else self.result.value

    def copied(self) -> CallFuture:
        """A future of its own, as of the other kinds."""
        return CallFuture(self.result, self.first_error, self.call_id)


def _no_results() -> dict[int, CoroutineResult]:
    return {}


def _no_errors() -> dict[int, Exception]:
    return {}


@dataclass(slots=True)
class AllFuture:
    """Ready when every child has ended, or at the first error that `max_failures` does not cover.
    Values in declaration order; a failure that was borne stands there as its error."""

    order: Sequence[int] = ()
    waiting: MutableSet[int] = field(default_factory=set[int])
    results: dict[int, CoroutineResult] = field(default_factory=_no_results)
    first_error: Exception | None = None
    max_failures: int = 0
    failed: int = 0

    def add_result(self, result: CoroutineResult) -> None:
        if self.ready() or result.coroutine_id not in self.waiting:
            return
        self.waiting.discard(result.coroutine_id)
        self.results[result.coroutine_id] = result
        if result.error is not None:
            self.failed += 1
            if self.failed > self.max_failures:
                self.first_error = result.error

    def add_error(self, error: Exception) -> None:
        if not self.ready():
            self.first_error = error

    def ready(self) -> bool:
        return self.first_error is not None or not self.waiting

    def error(self) -> Exception | None:
        return self.first_error

    def value(self) -> list[Any]:
        ended = [self.results[id] for id in self.order]
        return [result.value if result.error is None else result.error for result in ended]

    def copied(self) -> AllFuture:
        return AllFuture(
            self.order,
            copy(self.waiting),
            dict(self.results),
            self.first_error,
            self.max_failures,
            self.failed,
        )


@dataclass(slots=True)
class AnyFuture:
    """Ready at the first value, or when every child has failed. Of nothing: ready, with None."""

    order: Sequence[int] = ()
    waiting: MutableSet[int] = field(default_factory=set[int])
    first_result: CoroutineResult | None = None
    errors: dict[int, Exception] = field(default_factory=_no_errors)
    generic_error: Exception | None = None

    def add_result(self, result: CoroutineResult) -> None:
        if self.ready() or result.coroutine_id not in self.waiting:
            return
        self.waiting.discard(result.coroutine_id)
        if result.error is None:
            self.first_result = result
        else:
            self.errors[result.coroutine_id] = result.error

    def add_error(self, error: Exception) -> None:
        if not self.ready():
            self.generic_error = error

    def ready(self) -> bool:
        return self.first_result is not None or self.generic_error is not None or not self.waiting

    def error(self) -> Exception | None:
        if self.generic_error is not None:
            return self.generic_error
        if self.first_result is not None or self.waiting or not self.errors:
            return None
        if len(self.errors) == 1:
            return next(iter(self.errors.values()))
        return AnyException([self.errors[id] for id in self.order])

    def value(self) -> Any:
        return None if self.first_result is None else self.first_result.value

    def copied(self) -> AnyFuture:
        return AnyFuture(
            self.order,
            copy(self.waiting),
            self.first_result,
            dict(self.errors),
            self.generic_error,
        )


@dataclass(slots=True)
class RaceFuture:
    """Ready at the first child that finishes, also when it failed. Of nothing: ready, with None."""

    waiting: MutableSet[int] = field(default_factory=set[int])
    first_result: CoroutineResult | None = None
    first_error: Exception | None = None

    def add_result(self, result: CoroutineResult) -> None:
        if self.ready() or result.coroutine_id not in self.waiting:
            return
        self.waiting.discard(result.coroutine_id)
        self.first_result = result
        self.first_error = result.error

    def add_error(self, error: Exception) -> None:
        if not self.ready():
            self.first_error = error

    def ready(self) -> bool:
        return self.first_result is not None or self.first_error is not None or not self.waiting

    def error(self) -> Exception | None:
        return self.first_error

    def value(self) -> Any:
        return None if self.first_result is None else self.first_result.value

    def copied(self) -> RaceFuture:
        return RaceFuture(copy(self.waiting), self.first_result, self.first_error)


JoinFuture = AllFuture | AnyFuture | RaceFuture
Future = CallFuture | JoinFuture


def join_future(
    kind: Kind,
    order: Sequence[int],
    waiting: MutableSet[int],
    max_failures: int = 0,
    failed: int = 0,
) -> JoinFuture:
    """An open future of this kind over these children. A wait for the next of some tasks is a
    race between them."""
    match kind:
        case Kind.ALL:
            return AllFuture(order=order, waiting=waiting, max_failures=max_failures, failed=failed)
        case Kind.ANY:
            return AnyFuture(order=order, waiting=waiting)
        case _:
            return RaceFuture(waiting=waiting)
