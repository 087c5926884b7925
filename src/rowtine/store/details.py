"""What `calls.details` holds: what the heartbeats of a call have said of it.

``{"claim": 3, "details": ..., "before": ...}``: the last word of the attempt that had this claim,
and the last word of those before it. A body is told the latter only, which stays what it was while
the attempt lasts: one that is rebuilt must find what it found.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rowtine.context import Current, Here
from rowtine.core.payload import Codec
from rowtine.store.calls import Claimed
from rowtine.store.loading import Execution

__all__ = ["details_before", "details_to_text", "told"]


def details_to_text(claim: int, details: str, before: str | None) -> str:
    """The column, where an attempt says `details`; `before` is what it was told itself."""
    parts: dict[str, object] = {"claim": claim, "details": msgspec.Raw(details.encode())}
    if before is not None:
        parts["before"] = msgspec.Raw(before.encode())
    return msgspec.json.encode(parts).decode()


def details_before(claim: int, text: str | None) -> str | None:
    """The payload that the attempt with this claim is told."""
    if text is None:
        return None
    try:
        parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        said_by = int(bytes(parts["claim"]))
    except (KeyError, ValueError):  # written by hand: nobody's progress
        return None
    payload = parts.get("before" if said_by == claim else "details")
    return None if payload is None else bytes(payload).decode()


def told(attempted: Claimed | Execution, codec: Codec, beat: Callable[[str | None], bool]) -> Here:
    """What the bodies of this attempt can ask. `beat` is given the column, or None where a
    heartbeat says nothing new."""
    before = details_before(attempted.claim, attempted.details)

    def say(details: str | None) -> bool:
        claim = attempted.claim
        return beat(None if details is None else details_to_text(claim, details, before))

    return Here(lambda: _current(attempted), before, codec, say)


def _current(attempted: Claimed | Execution) -> Current:
    return Current(
        id=attempted.id,
        function=attempted.function,
        attempt=attempted.attempt,
        root_id=attempted.root_id,
        caller_id=attempted.caller_id,
        deadline=attempted.deadline,
    )
