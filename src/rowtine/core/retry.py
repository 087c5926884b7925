"""When a failed call is tried again: arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rowtine.core.status import Status

__all__ = ["Retry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with full jitter, for statuses that a later attempt may change.

    `max_attempts` counts every attempt, the first included; None does not limit them. The wait
    before attempt n + 1 is a random share of ``initial * factor ** (n - 1)`` seconds, at most
    `max_interval`. `give_up_after` seconds after the first failure of the call no further attempt
    begins; None never gives up. Statuses that are not retryable fail at once.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    max_attempts: int | None = None
    initial: float = 0.5
    factor: float = 2.0
    max_interval: float = 300.0
    give_up_after: float | None = 86400.0

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("Retry(max_attempts=...) must be at least 1, or None")
        # Each asks for what is right, so that NaN is refused as well.
        if not (self.initial >= 0 and self.factor >= 1 and 0 <= self.max_interval < math.inf):
            raise ValueError("Retry needs initial >= 0, factor >= 1, and 0 <= max_interval < inf")
        if self.give_up_after is not None and not self.give_up_after >= 0:
            raise ValueError("Retry(give_up_after=...) must not be negative")

    def longest_wait(self, attempt: int) -> float:
        """The upper end of the wait after this attempt (1 is the first), in seconds."""
        try:
            return min(self.initial * self.factor ** (attempt - 1), self.max_interval)
        except OverflowError:
            return self.max_interval if self.initial else 0.0

    def next_wait(
        self, status: Status, attempt: int, failing_for: float, jitter: float
    ) -> float | None:
        """Seconds until the next attempt, or None if there is none.

        `failing_for` is the time in seconds since the first failure of this call, `jitter` a
        random number in [0, 1).
        """
        if not status.retryable:
            return None
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        wait = self.longest_wait(attempt) * jitter
        if self.give_up_after is not None and failing_for + wait > self.give_up_after:
            return None
        return wait
