"""What can be said of one call beside its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rowtine.core.retry import Retry

__all__ = ["DEFAULT", "CallOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How one call is run. None: as its function says.

    Not part of a journal's comparison: a deploy may change how often a call is tried.
    """

    retry: Retry | None = None
    timeout: float | None = None
    """Seconds of running time of one attempt."""
    deadline: datetime | float | None = None
    """A moment, or seconds from acceptance, after which the call ends with a TimeoutError."""
    delay: float = 0.0
    """Seconds from acceptance before the first attempt."""
    key: str | None = None
    """Of idempotency: two starts of one function with one key are one call."""
    cancel_losers: bool = True
    """Whether the call is cancelled when the join that it is a member of was decided by others."""


DEFAULT = CallOptions()
