"""Tasks that have made their first step when they are given out: a coroutine that ends, or is
suspended by its scheduler, without awaiting natively costs no pass of the event loop.

asyncio has this itself, but not in Python 3.11, and in 3.12 at first with the flaw that whoever
asks such a Task for its coroutine crashes the interpreter. So up to 3.13 it is rebuilt here: a real
Task stands over a coroutine whose first step is made ahead, as the current task, and what that step
yielded is handed to the Task at its own first step. Whoever asks asyncio.current_task() sees the
one Task that there is, from the first line on: asyncio.timeout, TaskGroup and anyio hold on to it.

Nearly all steps of bodies end without a native await, and to make a Task costs more than they do.
So they are made in the name of a `Spare` one, which belongs to whoever awaits natively first.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import (
    _enter_task,  # pyright: ignore[reportPrivateUsage] # documented, in "Extending"
    _leave_task,  # pyright: ignore[reportPrivateUsage]
)
from collections.abc import Callable, Coroutine
from sys import getrefcount
from typing import Any, TypeVar, cast
from weakref import getweakrefcount

__all__ = ["Begun", "begin", "first", "start"]

T = TypeVar("T")


def start(
    coroutine: Coroutine[Any, Any, T],
    *,
    context: contextvars.Context | None = None,
    name: str | None = None,
) -> asyncio.Task[T]:
    """A Task of the running loop that has made its first step, in `context` or a copy of this one.

    SystemExit and KeyboardInterrupt of that step are raised here, on their way out of the loop;
    every other error is the Task's.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 14):
        return asyncio.Task(coroutine, loop=loop, context=context, name=name, eager_start=True)
    if context is None:
        context = contextvars.copy_context()
    begun = Begun(coroutine)
    task: asyncio.Task[T] = asyncio.Task(begun, loop=loop, context=context, name=name)
    current = asyncio.current_task(loop)
    if current is not None:
        _leave_task(loop, current)
    _enter_task(loop, task)
    try:
        context.run(begun.step, task)
    finally:
        _leave_task(loop, task)
        if current is not None:
            _enter_task(loop, current)
        if begun.over:
            # All that it lacks is a pass of the loop: one that closes before has lost nothing.
            task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001
    return task


def begin(
    coroutine: Coroutine[Any, Any, None], *, name: str | None = None
) -> asyncio.Task[None] | None:
    """Make the first step of a coroutine that does not ask for its Task in it, in a copy of this
    context; the Task of what is left, or None if it has ended."""
    context = contextvars.copy_context()
    begun = Begun(coroutine)
    context.run(begun.step)
    if begun.over and begun.error is None:
        return None
    return asyncio.Task(begun, context=context, name=name)


def first(
    context: contextvars.Context, step: Callable[[asyncio.Task[Any]], T | Begun[T]]
) -> T | asyncio.Task[T]:
    """Make a step in a context and in the name of a Task, which it is given: what it came to; or,
    if it gives back what has begun to await natively, the Task that goes on with that."""
    loop = asyncio.get_running_loop()
    spare, _spares.spare = _spares.spare, None
    if spare is None or spare.loop is not loop or not spare.is_as_new():
        spare = Spare(loop)
    task, current = spare.task, asyncio.current_task(loop)
    if current is not None:
        _leave_task(loop, current)
    _enter_task(loop, task)
    try:
        made: Any = context.run(step, task)
    finally:
        _leave_task(loop, task)
        if current is not None:
            _enter_task(loop, current)
    if made.__class__ is not Begun:  # an ABC, which isinstance takes long to ask
        _spares.spare = spare
        return cast(T, made)
    spare.go_on(made, context)
    return task


class Begun(Coroutine[Any, Any, T]):
    """A coroutine whose first step is made ahead of its Task's, or of whoever awaits it.

    `over` once it has ended in that step; then `value` or `error` is what it came to.
    """

    __slots__ = ("_coroutine", "_kept", "error", "over", "value")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._kept: Any = _NOTHING
        """What the first step has yielded, until the Task asks for it."""
        self.over = False
        self.value: Any = None
        self.error: BaseException | None = None

    def step(self, task: asyncio.Task[T] | None = None) -> None:
        """Make the first step, where that is of a Task as `task`."""
        try:
            kept = self._coroutine.send(None)
        except StopIteration as stop:
            self.over, self.value = True, stop.value
            if task is not None and task.cancelling():  # by itself, as there was nobody else
                self.error = asyncio.CancelledError()
        except (SystemExit, KeyboardInterrupt):
            self.over, self.error = True, asyncio.CancelledError()  # raised once is enough
            raise
        except BaseException as error:
            self.over, self.error = True, error
        else:
            self._kept = _Awaited(kept) if _is_awaited(kept) else kept

    def send(self, value: Any, /) -> Any:
        if self.over:
            self._end()
        kept, self._kept = self._kept, _NOTHING
        if kept is _NOTHING:
            return self._coroutine.send(value)
        return kept.handed_on() if isinstance(kept, _Awaited) else kept

    def throw(self, error: Any, /, *rest: Any) -> Any:
        if self.over:
            self._end()  # a cancel came too late
        kept, self._kept = self._kept, _NOTHING
        # As Task.cancel does it: what is awaited is told, and may take its time to stop.
        told = isinstance(error, asyncio.CancelledError) and isinstance(kept, _Awaited)
        if told and kept.future.cancel(*error.args):
            return kept.handed_on()
        return self._coroutine.throw(error, *rest)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:
        """Names and frames, for whoever prints a Task."""
        return getattr(self._coroutine, name)

    def _end(self) -> None:
        if self.error is not None:
            raise self.error
        raise StopIteration(self.value)


_NOTHING = object()


class _Awaited:
    """A future that a first step awaits.

    `__await__` sets a flag on it, which the Task that it is meant for takes off again. Another one
    that awaits the same future must not take it in between, so it is put on at the hand-over.
    """

    __slots__ = ("future",)

    def __init__(self, future: Any) -> None:
        self.future = future
        future._asyncio_future_blocking = False  # noqa: SLF001

    def handed_on(self) -> Any:
        self.future._asyncio_future_blocking = True  # noqa: SLF001
        return self.future


def _is_awaited(kept: Any) -> bool:
    return getattr(kept, "_asyncio_future_blocking", None) is True


class Spare(Coroutine[Any, Any, Any]):
    """The coroutine of a Task in whose name steps are made one after the other, until one of them
    awaits natively and takes the Task along.

    Libraries keep what they know of a task by the task. So one that anybody but asyncio holds on to
    after a step, in whatever way, is not used again: then nobody can tell it from a new one.
    """

    __slots__ = (
        "_begun",
        "_context",
        "_references",
        "_weak_references",
        "_woken",
        "loop",
        "task",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._begun: Begun[Any] | None = None
        self._context = contextvars.copy_context()
        self._woken = _Awaited(loop.create_future())
        self.task: asyncio.Task[Any] = asyncio.Task(self, loop=loop)
        self.task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001
        task = self.task  # counted as `is_as_new` does
        self._references, self._weak_references = getrefcount(task), getweakrefcount(task)

    def is_as_new(self) -> bool:
        """Whether nobody but asyncio holds on to the Task, or has stopped it."""
        task = self.task
        return (
            getrefcount(task) == self._references
            and getweakrefcount(task) == self._weak_references
            and not task.cancelling()
            and not task.done()
        )

    def go_on(self, begun: Begun[Any], context: contextvars.Context) -> None:
        """Have the Task go on with what has begun in this context."""
        self._begun, self._context = begun, context
        self.task._log_destroy_pending = True  # type: ignore[attr-defined] # noqa: SLF001
        del self.task  # which holds on to this: what is not a cycle needs no garbage collector
        if not self._woken.future.done():  # else the Task was cancelled, and is about to hear it
            self._woken.future.set_result(None)

    def send(self, value: Any, /) -> Any:
        if self._begun is None:
            return self._woken.handed_on()
        return self._context.run(self._begun.send, value)

    def throw(self, error: Any, /, *rest: Any) -> Any:
        if self._begun is None:
            raise error
        return self._context.run(self._begun.throw, error, *rest)

    def close(self) -> None:
        if self._begun is not None:
            self._begun.close()

    def __await__(self) -> Any:
        raise TypeError("only its own Task runs it")

    def __getattr__(self, name: str) -> Any:
        """Names and frames, for whoever prints a Task."""
        return getattr(self._begun, name)


class _Spares:
    """The last spare Task. One is enough, unless steps are made within steps, or in several threads
    in turn; and as only the thread that runs its loop uses it, no two of them ever do."""

    spare: Spare | None = None


_spares = _Spares()
