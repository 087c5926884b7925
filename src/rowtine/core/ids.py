"""Ids of calls: UUIDv7, so that rows made later sort later (RFC 9562, section 5.7)."""

from __future__ import annotations

__all__ = ["uuid7"]


def uuid7(milliseconds: int, counter: int, random: int) -> str:
    """A UUIDv7 from a Unix time in milliseconds, a 12-bit counter and 62 random bits (of more, the
    last ones)."""
    # Written by hand: uuid.UUID takes three times as long.
    head, random = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}", random & ((1 << 62) - 1)
    node = random & 0xFFFF_FFFF_FFFF
    return f"{head[:8]}-{head[8:]}-7{counter & 0xFFF:03x}-{0x8000 | random >> 48:04x}-{node:012x}"
