"""What `calls.details` holds: what the heartbeats of a call have said of it.

``{"claim": 3, "details": ..., "before": ...}``: the last word of the attempt that had this claim,
and the last word of those before it. A body is told the latter only, which stays what it was while
the attempt lasts: one that is rebuilt must find what it found.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rowtine.context import Current
from rowtine.core.payload import Codec, Payload
from rowtine.store.calls import Claimed
from rowtine.store.loading import Execution

__all__ = ["Told", "details_before", "details_to_text"]


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


class Told:
    """What the bodies of an attempt can ask. `renew` is given the column of a heartbeat, or None
    where that says nothing new."""

    __slots__ = ("_attempted", "_renew", "codec")

    def __init__(
        self,
        attempted: Claimed | Execution,
        codec: Codec,
        renew: Callable[[Claimed | Execution, str | None], bool],
    ) -> None:
        self._attempted = attempted
        self._renew = renew
        self.codec = codec

    @property
    def details(self) -> Payload:
        return details_before(self._attempted.claim, self._attempted.details)

    def current(self) -> Current:
        attempted = self._attempted
        return Current(
            id=attempted.id,
            function=attempted.function,
            attempt=attempted.attempt,
            root_id=attempted.root_id,
            caller_id=attempted.caller_id,
            deadline=attempted.deadline,
        )

    def beat(self, details: Payload) -> bool:
        column = None
        if details is not None:
            column = details_to_text(self._attempted.claim, details, self.details)
        return self._renew(self._attempted, column)
