"""Ids of calls: UUIDv7, so that rows made later sort later (RFC 9562, section 5.7)."""

from __future__ import annotations

__all__ = ["uuid7"]


def uuid7(milliseconds: int, counter: int, random: int) -> str:
    """A UUIDv7 from a Unix time in milliseconds, a 12-bit counter and 62 random bits (of more, the
    last ones)."""
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (counter & 0xFFF) << 64
    value |= 0b10 << 62 | random & ((1 << 62) - 1)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
