"""Time and chance inside coroutines: the same at every rebuild.

A clock or a random number read in a coroutine would differ the next time, and with it what the
code does. Inside an `@app.function` that awaits nothing durable, use the standard library.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from rowtine.core.directives import inside
from rowtine.errors import UsageError

__all__ = ["now", "random", "uuid"]


def now() -> datetime:
    """The time, in UTC and by the database's clock, at which the last await returned: the same for
    all code up to the next one. Before the first await: when this coroutine began."""
    moment = inside("rowtine.now").now
    if moment is None:
        raise UsageError("rowtine.now() needs rounds that are given a time: Input(now=...)")
    return moment


def random() -> float:
    """A number in [0, 1) that is the same at every rebuild. Not for secrets."""
    return (int.from_bytes(inside("rowtine.random").draw("random")[:8]) >> 11) / 2**53


def uuid() -> UUID:
    """A random UUID (version 4, RFC 9562) that is the same at every rebuild: for idempotency keys
    of what a function calls elsewhere. Another use of `random` before it does not change it."""
    return UUID(bytes=inside("rowtine.uuid").draw("uuid")[:16], version=4)
