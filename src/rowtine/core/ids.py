"""Ids of calls: UUIDv7, so that rows made later sort later (RFC 9562, section 5.7)."""

from __future__ import annotations

__all__ = ["head_of", "uuid7"]


def head_of(milliseconds: int) -> str:
    """How the ids of this moment begin, a Unix time in milliseconds."""
    head = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}"
    return f"{head[:8]}-{head[8:]}-7"


def uuid7(head: str, counter: int, chance: str) -> str:
    """A UUIDv7 from the head of its moment, a 12-bit counter, and 16 random hexadecimal digits, of
    which the last 62 bits are taken."""
    # Written by hand: uuid.UUID takes ten times as long.
    return f"{head}{counter & 0xFFF:03x}-{_VARIANT[chance[0]]}{chance[1:4]}-{chance[4:]}"


_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
