"""What a body can await. A directive is a template: nothing happens until it is awaited, and
awaited twice it is two waits.

Awaited inside an execution, a directive yields itself to the scheduler. It names what is wanted
and never does it: the scheduler decides, the shell performs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from rowtine.core.discard import Shared
from rowtine.core.payload import Arguments
from rowtine.core.phases import Kind
from rowtine.errors import UsageError

__all__ = ["Body", "Call", "Directive", "Inline", "Join", "Running", "running"]

R = TypeVar("R", covariant=True)


class Running(Shared):
    """How the body that finds this in its context is being run.

    `task` steps it; `native` while it awaits something that is the event loop's business;
    `cancelling` once it has been told to stop and has not heard it yet; `interrupted` once it has
    heard it in a native await. `replaying` while code runs that has run before, for its effects
    on this frame alone. `natives` are the places of native awaits that a rebuild would repeat.
    """

    __slots__ = ("cancelling", "interrupted", "native", "natives", "replaying", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.native = False
        self.cancelling = False
        self.interrupted = False
        self.replaying = False
        self.natives: dict[Any, None] = {}


running: ContextVar[Running | None] = ContextVar("rowtine_running", default=None)
"""Set in the context of every coroutine of an execution; None outside."""


class Directive(Generic[R]):
    """Base of everything that a body awaits durably."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, R]:
        return self._asked()

    def _asked(self) -> Generator[Any, Any, R]:
        """Yield this directive to the scheduler; what it sends back is the value."""
        here = running.get()
        if here is None:
            return (yield from self._outside().__await__())
        if here.task is not asyncio.current_task():
            # A task made by asyncio.gather, create_task or a TaskGroup inherits the context, but
            # its yields go to the event loop, which can do nothing with a directive.
            raise UsageError(
                f"{self!r} was awaited in an asyncio task of its own; "
                "inside an execution use rowtine.gather, rowtine.any or rowtine.race"
            )
        return cast(R, (yield self))

    def _outside(self) -> Coroutine[Any, Any, R]:
        raise self._only_inside()

    def _only_inside(self) -> UsageError:
        return UsageError(f"{self!r} can only be awaited inside an execution")


@dataclass(frozen=True, slots=True)
class Body(Shared):
    """An async callable under the name by which a rebuild finds it again."""

    name: str
    func: Callable[..., Coroutine[Any, Any, Any]] = field(compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Call(Directive[R]):
    """A request to run a function, or to wait for the clock or for somebody else's answer.

    A timer's argument is the number of seconds.
    """

    function: str
    arguments: Arguments = Arguments()
    kind: Kind = Kind.FUNCTION

    def __repr__(self) -> str:
        return f"<call of {self.function}>"


@dataclass(frozen=True, slots=True, repr=False)
class Inline(Directive[R]):
    """A body with its arguments. Awaited, it runs inside the coroutine that awaits it, in the
    same journal; as a member of a join it becomes a coroutine of its own."""

    body: Body
    arguments: Arguments = Arguments()

    def __await__(self) -> Generator[Any, Any, R]:
        if running.get() is None:
            raise self._only_inside()
        body = self.body.func(*self.arguments.args, **self.arguments.kwargs)
        return cast(R, (yield from body.__await__()))

    def __repr__(self) -> str:
        return f"<coroutine {self.body.name}>"


@dataclass(frozen=True, slots=True, repr=False)
class Join(Directive[R]):
    """A wait for several: all, any or race. Empty ones return at once (`[]`, or None)."""

    kind: Kind
    members: tuple[Any, ...] = ()
    cancel_losers: bool = True

    def __await__(self) -> Generator[Any, Any, R]:
        if not self.members:
            return cast(R, [] if self.kind is Kind.ALL else None)
        return (yield from self._asked())

    def __repr__(self) -> str:
        return f"<{self.kind} of {len(self.members)}>"
