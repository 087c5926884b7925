"""Many calls of one function: all results in order, or each as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar, overload

from rowtine.core.directives import Call, Directive, Join, inside
from rowtine.core.phases import Kind
from rowtine.core.tasks import Group, Next, Spawn, Task
from rowtine.core.tasks import spawn as begin
from rowtine.errors import UsageError

__all__ = ["as_completed", "map"]

R = TypeVar("R")
T = TypeVar("T")

BATCH = 1_000
"""Members that are begun together. So the memory of a round does not grow with the number of
inputs; the price is that a batch begins when the one before has ended."""


@overload
async def map(
    function: Callable[[T], Directive[R]],
    inputs: Iterable[T],
    *,
    max_concurrency: int | None = None,
) -> list[R]: ...
@overload
async def map(
    function: Callable[[T], Directive[R]],
    inputs: Iterable[T],
    *,
    max_concurrency: int | None = None,
    max_failures: int,
) -> list[R | Exception]: ...
async def map(
    function: Callable[[T], Directive[R]],
    inputs: Iterable[T],
    *,
    max_concurrency: int | None = None,
    max_failures: int = 0,
) -> list[Any]:
    """Call `function` with each input; the values, in the order of the inputs.

    At most `max_concurrency` calls run at once (None: as many as the workers take). Up to
    `max_failures` may fail: their errors then stand in the list in the place of values. One more
    is raised, and what has not ended is cancelled; what has not begun never does. `inputs` may be
    an iterator; it is read 1,000 at a time, and must be the same again at a rebuild.
    """
    limit = _limit(max_concurrency)
    if max_failures < 0:
        raise ValueError("max_failures must not be negative")
    results: list[Any] = []
    failures = 0
    for members in _batches(_members(function, inputs, limit)):
        left = max_failures - failures
        join: Join[list[Any]] = Join(
            Kind.ALL, tuple(members), max_failures=left, max_concurrency=limit
        )
        values = await join
        failures += sum(isinstance(value, Exception) for value in values)
        results += values
    return results


def as_completed(
    members: Iterable[Directive[R]], *, max_concurrency: int | None = None
) -> AsyncIterator[Task[R]]:
    """Begin all members; their tasks, each as it ends: ``async for task in as_completed(...)``.

    ``await task`` is then immediate: its value, or its error. Of more than 1,000 members the next
    1,000 begin when those before have ended. At most `max_concurrency` calls run at once.
    """
    return _AsCompleted(_batches(_refused_if(members, _limit(max_concurrency))), max_concurrency)


class _AsCompleted(AsyncIterator[Task[R]]):
    def __init__(self, batches: Iterator[list[Directive[R]]], limit: int | None) -> None:
        self._batches = batches
        self._limit = limit
        self._group: Group | None = None
        self._tasks: list[Task[R]] = []
        self._taken: set[int] = set()

    def __aiter__(self) -> _AsCompleted[R]:
        return self

    async def __anext__(self) -> Task[R]:
        here = inside("rowtine.as_completed")
        if self._group is None or len(self._taken) == len(self._tasks):
            batch = next(self._batches, None)
            if batch is None:
                raise StopAsyncIteration
            group = begin(here, Spawn(tuple(batch), max_concurrency=self._limit))
            self._group, self._taken = group, set()
            self._tasks = [Task(group, i) for i in range(len(batch))]
        within = range(len(self._tasks))
        ended = await Next(self._group, within, frozenset(self._taken))
        self._taken.add(ended.member)
        task = self._tasks[ended.member]
        task.settle(ended)
        return task


def _members(
    function: Callable[[T], Directive[R]], inputs: Iterable[T], limit: int | None
) -> Iterator[Directive[R]]:
    return _refused_if((function(each) for each in inputs), limit)


def _refused_if(members: Iterable[Directive[R]], limit: int | None) -> Iterator[Directive[R]]:
    """The members, of which only calls can be held back until there is room for them."""
    for member in members:
        if limit is not None and not isinstance(member, Call):
            raise UsageError(
                f"max_concurrency holds back calls, and {member!r} is none: a coroutine runs "
                "inside its caller, so make it an @app.function"
            )
        if limit is not None and isinstance(member, Call) and member.options.delay > 0:
            raise UsageError(
                f"{member!r} has a delay, which counts from when a call is made, and with "
                "max_concurrency it may have to wait for its turn: leave one of the two out"
            )
        yield member


def _batches(members: Iterator[Directive[R]]) -> Iterator[list[Directive[R]]]:
    while batch := list(islice(members, BATCH)):
        yield batch


def _limit(max_concurrency: int | None) -> int | None:
    if max_concurrency is not None and max_concurrency < 1:
        raise ValueError("max_concurrency must be at least 1")
    return max_concurrency
