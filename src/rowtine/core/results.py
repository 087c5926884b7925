"""What a call or a coroutine came to. Values are payloads: in the codec's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rowtine.core.directives import Call
from rowtine.core.payload import Payload
from rowtine.core.status import Status

__all__ = ["CallResult", "CoroutineResult"]


@dataclass(slots=True)
class CallResult:
    """The outcome of the call that has this `call_id` in its execution."""

    call_id: int
    value: Payload = None
    error: Exception | None = None


@dataclass(slots=True)
class CoroutineResult:
    """The outcome of a coroutine: a value, or an error, or a tail call (`call`)."""

    coroutine_id: int
    value: Payload = None
    error: Exception | None = None
    call: Call[Any] | None = None
    status: Status = Status.OK
    cause: BaseException | None = field(default=None, compare=False, repr=False)
    """The error as it was raised in this process, for whoever decides on another attempt: in its
    stored form a class may be known by its name only."""
