"""What a body can await. A directive is a template: nothing happens until it is awaited, and
awaited twice it is two waits.

Awaited inside an execution, a directive yields itself to the scheduler. It names what is wanted
and never does it: the scheduler decides, the shell performs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from rowtine.core.discard import Shared
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Arguments
from rowtine.core.phases import Kind
from rowtine.core.values import value
from rowtine.errors import UsageError

__all__ = ["Body", "Call", "Directive", "Inline", "Join", "Running", "inside", "running"]

R = TypeVar("R", covariant=True)


class Running(Shared):
    """How the body that finds this in its context is being run.

    `task` steps it; `native` while it awaits something that is the event loop's business;
    `cancelling` once it has been told to stop (for a `reason`) and has not heard it yet;
    `interrupted` once it has heard it in a native await.

    `asked` is what it has asked for since its last wait without waiting for it: to begin members,
    to stop some. `groups` are all that it has begun, of which it has looked through all but a few
    and kept `open_groups`, and `scopes` the time limits that it is in; `told` is the one that it
    was last told of by a CancelledError, None if that was no time limit.

    `replaying` while code runs that has run before, to bring the frame to where it stood. `natives`
    are the places of native awaits that a rebuild would repeat.
    """

    __slots__ = (
        "asked",
        "cancelling",
        "coroutine_id",
        "draws",
        "groups",
        "interrupted",
        "native",
        "natives",
        "now",
        "open_groups",
        "reason",
        "record",
        "replaying",
        "scopes",
        "seed",
        "task",
        "told",
    )

    def __init__(
        self,
        coroutine_id: int = 0,
        seed: str = "",
        record: Callable[[Any], Any] = lambda directive: directive,
    ) -> None:
        self.coroutine_id = coroutine_id
        self.seed = seed
        self.record = record
        self.now: datetime | None = None
        self.task: asyncio.Task[Any] | None = None
        self.native = False
        self.cancelling = False
        self.reason: str | None = None
        self.interrupted = False
        self.replaying = False
        self.natives: dict[Any, None] = {}
        self.asked: list[Any] = []
        self.groups: list[Any] = []
        self.open_groups = 0
        self.scopes: list[Any] = []
        self.told: Any = None
        self.draws: dict[str, int] = {}

    def draw(self, purpose: str) -> bytes:
        """32 bytes that look like chance, and are the same at every rebuild.

        Each purpose has a sequence of its own, so that a new use of one changes nothing of the
        others.
        """
        number = self.draws.get(purpose, 0)
        self.draws[purpose] = number + 1
        text = f"{self.seed}/{self.coroutine_id}/{purpose}/{number}"
        return hashlib.sha256(text.encode()).digest()


running: ContextVar[Running | None] = ContextVar("rowtine_running", default=None)
"""Set in the context of every coroutine of an execution; None outside."""


def inside(what: str) -> Running:
    """How the body that calls this is being run; UsageError outside of any."""
    here = running.get()
    if here is None:
        raise UsageError(f"{what} works only inside an execution")
    if here.task is not _current_task():
        raise UsageError(
            f"{what} was used in an asyncio task or a thread of its own, whose order a rebuild "
            "could not repeat: use it in the coroutine itself"
        )
    return here


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop, that took the context along
        return None


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
        if here.task is not _current_task():
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


@value
class Call(Directive[R]):
    """A request to run a function, or to wait for the clock or for somebody else's answer.

    A timer's argument is the number of seconds.
    """

    function: str
    arguments: Arguments = Arguments()
    kind: Kind = Kind.FUNCTION
    options: CallOptions = field(default=DEFAULT, compare=False)

    def __repr__(self) -> str:
        return f"<call of {self.function}>"


@value
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
    """A wait for several: all, any or race. Empty ones return at once (`[]`, or None).

    An `all` may bear `max_failures`, and let no more than `max_concurrency` calls run at once.
    """

    kind: Kind
    members: tuple[Any, ...] = ()
    cancel_losers: bool = True
    max_failures: int = 0
    max_concurrency: int | None = None

    def __await__(self) -> Generator[Any, Any, R]:
        if not self.members:
            return cast(R, [] if self.kind is Kind.ALL else None)
        return (yield from self._asked())

    def __repr__(self) -> str:
        return f"<{self.kind} of {len(self.members)}>"
