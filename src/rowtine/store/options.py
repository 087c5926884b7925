"""What `calls.options` holds: how one call is run, as far as the call says it.

Delay, deadline and key have columns of their own.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from rowtine.core.names import class_name
from rowtine.core.options import DEFAULT, CallOptions, checked_options
from rowtine.core.retry import Retry
from rowtine.errors import UsageError

__all__ = ["options_from_text", "options_to_text"]

_NUMBERS = ("max_attempts", "initial", "factor", "max_interval", "give_up_after")
_CLASSES = ("retry_on", "never_on")


def options_to_text(options: CallOptions) -> str | None:
    """JSON of what is said; None if nothing is. Classes stand there by their dotted names."""
    document: dict[str, Any] = {}
    if options.retry is not None:
        document["retry"] = _policy(options.retry)
    if options.timeout is not None:
        document["timeout"] = options.timeout
    if not options.cancel_losers:
        document["cancel_losers"] = False
    return msgspec.json.encode(document).decode() if document else None


def _policy(retry: Retry) -> dict[str, Any]:
    policy = {name: getattr(retry, name) for name in _NUMBERS}
    if policy["give_up_after"] == math.inf:  # which JSON has no word for
        policy["give_up_after"] = None
    for name in _CLASSES:
        if (listed := getattr(retry, name)) != getattr(_PLAIN, name):
            policy[name] = [c if isinstance(c, str) else class_name(c) for c in listed]
    return policy


_PLAIN = Retry()


def options_from_text(text: str | None) -> CallOptions:
    """Read it back.

    Never raises: a row that somebody wrote by hand must not stop every worker that claims it. What
    makes no sense counts as not said.
    """
    if text is None:
        return DEFAULT
    try:
        document = msgspec.json.decode(text)
        policy = document.get("retry")
        return checked_options(
            retry=None if policy is None else _retry(policy),
            timeout=document.get("timeout"),
            cancel_losers=document.get("cancel_losers", True),
        )
    except (msgspec.DecodeError, UsageError, AttributeError, TypeError, ValueError):
        return DEFAULT


def _retry(policy: dict[str, Any]) -> Retry:
    said: dict[str, Any] = {name: policy[name] for name in _NUMBERS if name in policy}
    said |= {name: tuple(policy[name]) for name in _CLASSES if name in policy}
    return Retry(**said)
