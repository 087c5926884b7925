"""What begins now and is waited for later: spawned members, promises, and limits of time.

A body asks for them without waiting, so they are gathered in `Running.asked` until its next wait,
and become rows together with it. In the journal a group that was spawned is an entry of its own,
resolved at once; a wait for one of its members is another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from rowtine.core.directives import Call, Directive, Running, inside
from rowtine.core.payload import Arguments
from rowtine.core.phases import Kind
from rowtine.errors import TimedOut, UsageError

__all__ = ["Ended", "Group", "Next", "Promise", "Spawn", "Stop", "Task", "Timeout", "spawn"]

R = TypeVar("R", covariant=True)

TIMEOUT = "timeout"
"""The name under which the timer of a time limit stands."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """What `spawn` asks for: these members begin, at most `max_concurrency` calls at once."""

    members: tuple[Any, ...]
    shielded: bool = False
    max_concurrency: int | None = None
    token: str | None = None


class Group:
    """Members that were asked for; `first` is the id of the first, once a round has begun them.

    `wait` is what is recorded of them.
    """

    __slots__ = ("first", "open", "wait")

    def __init__(self, wait: Any) -> None:
        self.wait = wait
        self.first: int | None = None
        self.open = len(wait.members)
        """How many the body has not heard of yet."""

    def ids(self) -> range:
        """The ids of the members; of a group that no round has begun, none."""
        first = self.first
        return range(0) if first is None else range(first, first + len(self.wait.members))


class Stop(NamedTuple):
    """What `Task.cancel` asks for."""

    group: Group
    member: int


class Ended(NamedTuple):
    """The member of a group that has ended, and what it came to."""

    member: int
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Next(Directive[Ended]):
    """A wait for the next of these members of a group that ends, `taken` ones left out."""

    group: Group
    within: range
    taken: frozenset[int] = frozenset()

    def __repr__(self) -> str:
        return f"<task of {self.group.wait.function}>"


class Task(Directive[R]):
    """A member that was begun and goes on by itself. Await it for what it comes to, as often as
    you like; cancel it; or pass it to `gather`, `any` or `race`, which then wait for it and leave
    it alone when they lose interest.

    One that nobody has awaited is cancelled when the coroutine that spawned it ends.
    """

    __slots__ = ("_ended", "group", "index")

    def __init__(self, group: Group, index: int = 0) -> None:
        self.group = group
        self.index = index
        self._ended: Ended | None = None

    def __repr__(self) -> str:
        return f"<task of {self.group.wait.members[self.index].function}>"

    def __await__(self) -> Generator[Any, Any, R]:
        if self._ended is None:
            self.settle((yield from self.next().__await__()))
        return cast(R, _value_of(cast(Ended, self._ended)))

    def next(self) -> Next:
        """The wait for this one alone."""
        return Next(self.group, range(self.index, self.index + 1))

    def settle(self, ended: Ended) -> None:
        """Keep what it came to, so that a second await asks nobody."""
        if self._ended is None:
            self._ended = ended
            self.group.open -= 1

    def cancel(self) -> None:
        """Tell it to stop, with its clean-up. Nothing if it has ended; no wait for its end."""
        inside("Task.cancel").asked.append(Stop(self.group, self.index))


class Promise(Task[R]):
    """A value that somebody outside will give: whoever holds `token`.

    Resolved before it is awaited it keeps the value. It may be rejected, and then raises.
    """

    __slots__ = ("token",)

    def __init__(self, group: Group, token: str) -> None:
        super().__init__(group)
        self.token = token

    def __repr__(self) -> str:
        return "<promise>"


def _value_of(ended: Ended) -> Any:
    if ended.error is not None:
        raise ended.error
    return ended.value


def spawn(here: Running, asked: Spawn) -> Group:
    """Ask for members to begin; raises here, at the call, what recording them raises."""
    group = Group(here.record(asked))
    here.asked.append(group)
    here.groups.append(group)
    if len(here.groups) > 2 * here.open_groups + _GROUPS:  # not at each: a body may spawn thousands
        here.groups = [each for each in here.groups if each.open > 0]
        here.open_groups = len(here.groups)
    return group


_GROUPS = 10
"""So many groups that are over may be left among those that a body has begun."""


class Timeout:
    """``async with rowtine.timeout(60):`` ends the block after so many seconds.

    The await at which it stands is cancelled, its clean-up runs, and the block raises
    TimedOut. The seconds are the database's, and count on while nothing runs.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._group: Group | None = None
        self.expired = False
        """Whether the time was up before the block ended."""

    async def __aenter__(self) -> Self:
        here = inside("rowtine.timeout")
        if self._group is not None:
            raise UsageError("a timeout is entered once: make another one")
        if self._seconds is not None:
            timer: Call[None] = Call(TIMEOUT, Arguments((self._seconds,)), Kind.TIMER)
            self._group = spawn(here, Spawn((timer,)))
            here.scopes.append(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._group is None:
            return
        here = inside("rowtine.timeout")
        if self in here.scopes:
            here.scopes.remove(self)
        self._group.open = 0
        if not self.expired:
            here.asked.append(Stop(self._group, 0))
        elif here.told is self and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimedOut(f"not done within {self._seconds:g} s") from error

    def guards(self, timer: int) -> bool:
        """Whether this is the limit whose timer has this id."""
        return self._group is not None and self._group.first == timer
