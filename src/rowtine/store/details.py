"""What `calls.details` holds: what the heartbeats of a call have said of it.

``{"claim": 3, "details": ..., "before": ...}``: the last word of the attempt that had this claim,
and the last word of those before it. A body is told the latter only, which stays what it was while
the attempt lasts: one that is rebuilt must find what it found.
"""

from __future__ import annotations

import msgspec

__all__ = ["details_before", "details_to_text"]


class _Details(msgspec.Struct, omit_defaults=True):
    claim: int
    details: msgspec.Raw
    before: msgspec.Raw | None = None


def details_to_text(claim: int, details: str, before: str | None) -> str:
    """The column, where an attempt says `details`; `before` is what it was told itself."""
    earlier = None if before is None else msgspec.Raw(before.encode())
    said = _Details(claim, msgspec.Raw(details.encode()), earlier)
    return msgspec.json.encode(said).decode()


def details_before(claim: int, text: str | None) -> str | None:
    """The payload that the attempt with this claim is told."""
    if text is None:
        return None
    try:
        said = msgspec.json.decode(text, type=_Details)
    except msgspec.DecodeError:  # written by hand: nobody's progress
        return None
    payload = said.before if said.claim == claim else said.details
    return None if payload is None else bytes(payload).decode()
