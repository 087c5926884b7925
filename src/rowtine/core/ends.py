"""What a body's end means: the result of its coroutine."""

from __future__ import annotations

import asyncio
from typing import Any

from rowtine.core.coroutine import Raised, Returned
from rowtine.core.directives import Call
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind
from rowtine.core.results import CoroutineResult
from rowtine.core.status import status_for_error, status_for_output
from rowtine.errors import Cancelled, Reset, UsageError

__all__ = ["failure", "result_of", "success"]


def result_of(
    id: int, end: Returned | Raised, codec: Codec, *, fixed: bool = False
) -> CoroutineResult:
    """The result of coroutine `id`; `fixed` says that the execution's outcome is, so that a tail
    call comes too late."""
    match end:
        case Returned():
            return success(id, end.value, codec)
        case Raised(error=Reset() as reset):
            return _tail_call(id, reset, codec, fixed)
        case Raised():
            return failure(id, end.error, codec)


def success(id: int, value: Any, codec: Codec) -> CoroutineResult:
    """A value; or the error that it cannot be encoded."""
    try:
        payload = codec.encode(value, "the returned value")
    except Exception as error:
        return failure(id, error, codec)
    return CoroutineResult(id, value=payload, status=status_for_output(value))


def failure(id: int, error: BaseException, codec: Codec) -> CoroutineResult:
    """An error."""
    status = status_for_error(error)
    if isinstance(error, asyncio.CancelledError):
        # To whoever waits for it, it is an error like others: not they are told to stop.
        error = Cancelled(*error.args).with_traceback(error.__traceback__)
    return CoroutineResult(
        id,
        error=codec.encode_error(error),
        status=status,
        cause=error if id == 0 else None,
    )


def _tail_call(id: int, reset: Reset, codec: Codec, fixed: bool) -> CoroutineResult:
    call: Any = reset.call
    if not isinstance(call, Call) or call.kind is not Kind.FUNCTION:
        error = TypeError(f"Reset needs a call of a function, not {call!r}")
        return failure(id, error, codec)
    if fixed:
        return failure(id, UsageError("Reset in a clean-up: the outcome is fixed"), codec)
    try:
        codec.encode_arguments(call.arguments)
    except Exception as error:
        return failure(id, error, codec)
    return CoroutineResult(id, call=reset.call)
