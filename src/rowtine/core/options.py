"""What can be said of one call beside its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rowtine.core.retry import LONGEST_WAIT, Retry
from rowtine.errors import UsageError

__all__ = ["DEFAULT", "CallOptions", "checked_options"]

MAX_KEY = 200
"""Characters in a key of idempotency; a limit of the column too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How one call is run. None: as its function says.

    Not part of a journal's comparison: a deploy may change how often a call is tried.
    """

    retry: Retry | None = None
    timeout: float | None = None
    """Seconds of running time of one attempt."""
    deadline: datetime | float | None = None
    """A moment, or seconds from acceptance, after which the call ends as TimedOut."""
    delay: float = 0.0
    """Seconds from acceptance before the first attempt."""
    key: str | None = None
    """Of idempotency: two starts of one function with one key are one call."""
    cancel_losers: bool = True
    """Whether the call is cancelled when the join that it is a member of was decided by others."""


DEFAULT = CallOptions()


def checked_options(
    *,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    deadline: datetime | float | timedelta | None = None,
    delay: float | timedelta = 0.0,
    key: str | None = None,
    cancel_losers: bool = True,
) -> CallOptions:
    """Options as a caller wrote them; UsageError, which names the option, if they make no sense.

    A timedelta is as good as seconds; a naive datetime is taken as UTC.
    """
    return CallOptions(
        retry=_retry(retry),
        timeout=None if timeout is None else _timeout(timeout),
        deadline=None if deadline is None else _deadline(deadline),
        delay=_seconds("delay", delay),
        key=None if key is None else _key(key),
        cancel_losers=bool(cancel_losers),
    )


def _retry(retry: Any) -> Retry | None:
    if retry is not None and not isinstance(retry, Retry):
        raise UsageError(f"options(retry=...) takes a rowtine.Retry, not {retry!r}")
    if retry is not None and retry.when is not None:
        raise UsageError(
            "Retry(when=...) is code, which cannot be stored with a call: "
            "put it on the function, @app.function(retry=...), or use retry_on and never_on"
        )
    return retry


def _timeout(timeout: Any) -> float:
    seconds = _seconds("timeout", timeout)
    if seconds == 0:
        raise UsageError("options(timeout=...) must be more than 0 seconds")
    return seconds


def _deadline(deadline: Any) -> datetime | float:
    if isinstance(deadline, datetime):
        try:
            return deadline.replace(tzinfo=deadline.tzinfo or UTC).astimezone(UTC)
        except OverflowError:
            raise UsageError(f"options(deadline={deadline}) is no moment in UTC") from None
    return _seconds("deadline", deadline)


def _seconds(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        or_a_moment = ", a timedelta or a datetime" if name == "deadline" else " or a timedelta"
        raise UsageError(f"options({name}=...) takes seconds{or_a_moment}, not {value!r}")
    if not 0 <= seconds <= LONGEST_WAIT:  # in this form it refuses NaN as well
        raise UsageError(f"options({name}={value}) is not between 0 and 100 years")
    return float(seconds)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise UsageError(f"options(key=...) takes a text, not {key!r}")
    if not (1 <= len(key) <= MAX_KEY and key.isprintable()):
        raise UsageError(
            f"a key has 1 to {MAX_KEY} printable characters, {key[:40]!r} has {len(key)}"
        )
    return key
