"""What a running body can ask of the call that it runs for, and say of it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from rowtine.core.payload import Codec, Payload
from rowtine.errors import UsageError

__all__ = ["Current", "Here", "current", "heartbeat", "here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The call that a body runs for. `id` is also that of its execution."""

    id: str
    function: str
    attempt: int
    """1 at the first; a round or a rebuild of an execution is none of its own."""
    root_id: str
    """The call that somebody started from outside: the call itself, or what it was made for."""
    caller_id: str | None = None
    """The execution that made this call; None for a root."""
    deadline: datetime | None = None
    """The moment, in UTC, after which the call ends as TimedOut."""
    details: Any = None
    """What the last heartbeat of the attempts before this one said."""


class Here(Protocol):
    """What a worker leaves in the context of the bodies that it runs."""

    @property
    def codec(self) -> Codec: ...

    @property
    def details(self) -> Payload:
        """What the heartbeats of the attempts before have said."""
        ...

    def current(self) -> Current: ...

    def beat(self, details: Payload) -> bool:
        """Renew the lease and write details; whether the call is still this worker's to run."""
        ...


here: ContextVar[Here | None] = ContextVar("rowtine_here", default=None)


def current() -> Current:
    """The call that this code runs for. In an async function it is the same at every rebuild.

    UsageError outside a call; DecodeError if the details of its heartbeats fit no class of today.
    """
    found = _here("current")
    details = found.details
    if details is None:
        return found.current()
    return replace(found.current(), details=found.codec.decode(details))


def heartbeat(details: Any = None) -> None:
    """Say that the work goes on, and how far it is.

    Renews the lease of the call and stores `details` (None: leaves what was said before), which the
    next attempt finds in ``rowtine.current().details``. One transaction, made in this thread: once
    a second is often enough. On an event loop it holds up the loop for so long; use ``await
    asyncio.to_thread(rowtine.heartbeat, details)`` where that is too long.

    asyncio.CancelledError if the call was cancelled, its time is over or another worker has taken
    it: nothing that this body does counts any more. TypeError or PayloadError if `details` cannot
    be stored. A database that is away is a warning in the log. UsageError outside a call.
    """
    found = _here("heartbeat")
    payload = None if details is None else found.codec.encode(details, "the details")
    if not found.beat(payload):
        raise asyncio.CancelledError(f"call {found.current().id} is no longer to be run here")


def _here(what: str) -> Here:
    found = here.get()
    if found is None:
        raise UsageError(
            f"rowtine.{what}() outside a call: it is for code that runs in a function of an App "
            "(and in a thread of its own only with contextvars.copy_context)"
        )
    return found
