"""When a failed call is tried again: arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rowtine.core.names import class_name
from rowtine.core.status import Status
from rowtine.errors import RemoteError

__all__ = ["LONGEST_WAIT", "Retry", "asked_wait"]

LONGEST_WAIT = 100 * 365.25 * 86400
"""Seconds. A moment further away is a mistake, and databases cannot add it to their clocks."""

Classes = tuple[type[BaseException] | str, ...]

_NEVER = frozenset({Status.OK, Status.CANCELLED, Status.INCOMPATIBLE_STATE})
"""Statuses that no policy turns into another attempt: nothing has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with full jitter, for failures that a later attempt may change.

    `max_attempts` counts every attempt, the first included; None does not limit them. The wait
    before attempt n + 1 is a random share of ``initial * factor ** (n - 1)`` seconds, at most
    `max_interval`. `give_up_after` seconds after the first failure of the call no further attempt
    begins; None never gives up.

    Which failures: those of a retryable status, unless `retry_on` names the classes of errors that
    are retried; then exactly these are, whatever their status. What `never_on` names is never
    retried. Subclasses count; a text is the dotted name of a class (of a builtin the bare name),
    which need not be imported here. `when` is asked last, about what the others would retry: it is
    given the error, and another attempt needs its yes. If it raises, that is a no.

    An error whose attribute `retry_after` is a number of seconds, or a timedelta, is retried after
    exactly that time, also when its status is not retryable; all the limits hold for it. Times that
    make no sense (negative, NaN, more than 100 years) are taken as not said.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    max_attempts: int | None = None
    initial: float = 0.5
    factor: float = 2.0
    max_interval: float = 300.0
    give_up_after: float | None = 86400.0
    retry_on: Classes | None = None
    never_on: Classes = ()
    when: Callable[[Exception], bool] | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("Retry(max_attempts=...) must be at least 1, or None")
        # Each asks for what is right, so that NaN is refused as well.
        if not (
            0 <= self.initial < math.inf
            and 1 <= self.factor < math.inf
            and 0 <= self.max_interval < math.inf
        ):
            raise ValueError("Retry needs 0 <= initial, 1 <= factor, 0 <= max_interval, all finite")
        if self.give_up_after is not None and not self.give_up_after >= 0:
            raise ValueError("Retry(give_up_after=...) must not be negative")
        for name, listed in (("retry_on", self.retry_on or ()), ("never_on", self.never_on)):
            if not _are_classes(listed):
                raise ValueError(
                    f"Retry({name}=...) takes a tuple of exception classes or their dotted names"
                )
        if self.when is not None and not callable(self.when):
            raise ValueError("Retry(when=...) takes a function of the error")

    def longest_wait(self, attempt: int) -> float:
        """The upper end of the wait after this attempt (1 is the first), in seconds."""
        try:
            return min(self.initial * self.factor ** (attempt - 1), self.max_interval)
        except OverflowError:
            return self.max_interval if self.initial else 0.0

    def next_wait(
        self,
        status: Status,
        attempt: int,
        failing_for: float,
        jitter: float,
        error: Exception | None = None,
    ) -> float | None:
        """Seconds until the next attempt, or None if there is none.

        `failing_for` is the time in seconds since the first failure of this call, `jitter` a
        random number in [0, 1), `error` what the attempt failed with.
        """
        asked = asked_wait(error)
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        wait = self.longest_wait(attempt) * jitter if asked is None else asked
        if self.give_up_after is not None and failing_for + wait > self.give_up_after:
            return None
        return wait if self._permits(status, error, asks=asked is not None) else None

    def _permits(self, status: Status, error: Exception | None, *, asks: bool) -> bool:
        names = _names(error)
        if status in _NEVER or _listed(names, self.never_on):
            return False
        if self.retry_on is None:
            permitted = status.retryable or asks
        else:
            permitted = _listed(names, self.retry_on)
        return permitted and (self.when is None or error is None or _agrees(self.when, error))


def asked_wait(error: Exception | None) -> float | None:
    """The seconds that an error asks for in its attribute `retry_after`, if they make sense."""
    try:
        asked: Any = getattr(error, "retry_after", None)
    except Exception:  # a property of the user's
        return None
    if isinstance(asked, timedelta):
        asked = asked.total_seconds()
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return None
    return float(asked) if 0 <= asked <= LONGEST_WAIT else None


def _are_classes(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        (isinstance(entry, str) and bool(entry))
        or (isinstance(entry, type) and issubclass(entry, BaseException))
        for entry in value  # pyright: ignore[reportUnknownVariableType]
    )


def _names(error: Exception | None) -> frozenset[str]:
    """What an error is: its class and the bases of that, by name."""
    if type(error) is RemoteError:  # its class is not imported here, so its bases are not known
        return frozenset({error.type, "Exception"})
    return frozenset(map(class_name, type(error).__mro__))


def _listed(names: frozenset[str], classes: Iterable[type[BaseException] | str]) -> bool:
    # By name alone, so that a class and its text mean the same, also after a reload.
    return any((c if isinstance(c, str) else class_name(c)) in names for c in classes)


def _agrees(when: Callable[[Exception], bool], error: Exception) -> bool:
    try:
        return bool(when(error))
    except Exception:
        return False
