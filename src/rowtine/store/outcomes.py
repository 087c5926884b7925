"""What the shell hands to the store: one finished attempt of one call."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Codec, Payload
from rowtine.core.results import CoroutineResult
from rowtine.core.status import Status
from rowtine.errors import RemoteError

__all__ = ["Outcome", "Settled", "error_of", "settled", "tail_of"]


class Settled(Struct, frozen=True):
    """A value or an error, as the columns hold it. With an error, `output` is for its rebuild."""

    status: Status = Status.OK
    output: Payload = None
    error_type: str | None = None
    error_message: str | None = None
    error_traceback: str | None = None

    def columns(self) -> dict[str, Any]:
        return {
            "status": self.status.value,
            "output": self.output,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "error_traceback": self.error_traceback,
        }


class Outcome(Struct, frozen=True):
    """What one attempt of a call came to, and what follows from it.

    `claim` is the fence: it must still be the call's. None where a round is the fence.
    `retry_in` seconds: the call is queued again. `tail`: it goes on as another function with
    another input, in a new run, and with `tail_options`. Neither: it is done.
    """

    id: str
    claim: int | None
    execution_id: str | None
    settled: Settled
    retry_in: float | None = None
    tail: tuple[str, Payload] | None = None
    tail_options: CallOptions = DEFAULT

    @property
    def done(self) -> bool:
        return self.retry_in is None and self.tail is None


def error_of(settled: Settled) -> RemoteError | None:
    """The error, in stored form."""
    if settled.error_type is None:
        return None
    message, traceback = settled.error_message or "", settled.error_traceback
    return RemoteError(settled.error_type, message, traceback, settled.output)


def settled(result: CoroutineResult, codec: Codec) -> Settled:
    """The columns of a result."""
    if result.error is None:
        return Settled(status=result.status, output=result.value)
    error = result.error
    if not isinstance(error, RemoteError):
        encoded = codec.encode_error(error)
        error = encoded if isinstance(encoded, RemoteError) else RemoteError("Error", str(encoded))
    status = Status.PERMANENT_ERROR if result.status is Status.OK else result.status
    return Settled(status, error.details, error.type, error.message, error.traceback)


def tail_of(result: CoroutineResult, codec: Codec) -> tuple[str, Any] | None:
    """The function and encoded input with which a call goes on, if it came to a tail call."""
    if result.call is None:
        return None
    return result.call.function, codec.encode_arguments(result.call.arguments)
