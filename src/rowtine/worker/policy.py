"""What a worker decides, as arithmetic: no clock, no database, no thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from rowtine.core.directives import Call
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind
from rowtine.core.results import CoroutineResult
from rowtine.core.retry import Retry
from rowtine.core.status import Status, status_for_error
from rowtine.errors import Interrupted, Reset, UsageError
from rowtine.functions import Function
from rowtine.store.outcomes import Outcome, Settled, settled, tail_of

__all__ = [
    "Attempted",
    "backoff",
    "conclude",
    "failure",
    "heartbeat_interval",
    "interrupted",
    "poll_wait",
    "retry_of",
    "returned",
    "runs_at_most_once",
    "tail_call",
    "timed_out",
    "timeout_of",
]


def heartbeat_interval(lease: float) -> float:
    """Seconds between renewals: one may fail without harm."""
    return lease / 3


SELDOM = 5.0
"""Seconds between two looks of a worker that is told of what is due: what nobody tells of is that
another worker was lost, and what a notice that was lost would have told."""


def poll_wait(interval: float, jitter: float, *, told: bool = False) -> float:
    """Seconds to the next look, spread so that workers that started together drift apart."""
    return (max(interval, SELDOM) if told else interval) * (0.75 + 0.5 * jitter)


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after the n-th failure of the database in a row."""
    return min(0.05 * 2.0 ** min(failures, 20), 5.0) * (0.5 + 0.5 * jitter)


class Attempted(Protocol):
    """What is known of the attempt that has ended: a claimed call, or an execution."""

    @property
    def id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def failing_for(self) -> float: ...
    @property
    def caller_id(self) -> str | None: ...
    @property
    def options(self) -> CallOptions: ...


def retry_of(attempted: Attempted, function: Function[..., Any]) -> Retry:
    """What the call itself says, else what its function says."""
    return attempted.options.retry or function.retry


def timeout_of(attempted: Attempted, function: Function[..., Any]) -> float | None:
    """Likewise, in seconds."""
    return attempted.options.timeout or function.timeout


def returned(attempted: Attempted, claim: int | None, result: CoroutineResult) -> Outcome:
    """The outcome of an attempt that has come to a value."""
    settled = Settled(result.status, result.value)
    return Outcome(attempted.id, claim, attempted.caller_id, settled)


def conclude(
    attempted: Attempted,
    claim: int | None,
    result: CoroutineResult,
    *,
    retry: Retry,
    jitter: Callable[[], float],
    codec: Codec,
) -> Outcome:
    """What the result of an attempt means for the call: done, another attempt, or a tail call.

    `claim` is the fence, None where the round is one.
    """
    if result.call is not None and (error := _unfit_tail(result.call)) is not None:
        result = failure(error, codec)
    tail = tail_of(result, codec)
    retry_in = None
    if tail is None and result.error is not None:
        retry_in = retry.next_wait(
            result.status,
            attempted.attempt,
            attempted.failing_for,
            jitter(),
            result.cause
            if isinstance(result.cause, Exception)
            else codec.decode_error(result.error),
        )
    return Outcome(
        attempted.id,
        claim,
        attempted.caller_id,
        settled(result, codec),
        retry_in=retry_in,
        tail=tail,
        tail_options=DEFAULT if result.call is None else result.call.options,
    )


def _unfit_tail(call: Call[Any]) -> Exception | None:
    """What is wrong with the options of a tail call: the call itself stays the one it was."""
    if call.options.key is None and call.options.deadline is None:
        return None
    return UsageError(f"a tail call keeps the key and the deadline of its call: {call!r} has own")


def timed_out(function: str, timeout: float | None) -> TimeoutError:
    """The error of an attempt that has run for too long."""
    return TimeoutError(f"{function} ran for longer than its timeout of {timeout} s")


def interrupted(attempt: int, retry: Retry) -> Interrupted | None:
    """The error of a call whose last permitted attempt ended with its worker."""
    if retry.max_attempts is None or attempt <= retry.max_attempts:
        return None
    return Interrupted(
        f"the worker was lost during attempt {attempt - 1} of {retry.max_attempts}; "
        "whether the body came to its end is unknown"
    )


def runs_at_most_once(retry: Retry) -> bool:
    """Whether a body that has begun must not begin again, whatever became of its worker."""
    return retry.max_attempts == 1


def failure(error: BaseException, codec: Codec) -> CoroutineResult:
    """An error as a result."""
    status = status_for_error(error)
    return CoroutineResult(
        0,
        error=codec.encode_error(error),
        status=Status.PERMANENT_ERROR if status is Status.OK else status,
        cause=error,
    )


def tail_call(reset: Reset, codec: Codec) -> CoroutineResult:
    """What a sync function comes to that ends with another call."""
    call: Any = reset.call
    if not isinstance(call, Call) or call.kind is not Kind.FUNCTION:
        return failure(TypeError(f"Reset needs a call of a function, not {call!r}"), codec)
    try:
        codec.encode_arguments(call.arguments)
    except Exception as error:
        return failure(error, codec)
    return CoroutineResult(0, call=reset.call)
