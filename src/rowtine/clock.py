"""The one module that reads this machine's clocks and random source.

What is stored or compared between processes uses the database's time instead; a worker's clock may
be an hour wrong. These are for waits inside one process and for the readable half of an id.
"""

from __future__ import annotations

import random
import secrets
import time

from rowtine.core.ids import IdSource

__all__ = ["jitter", "monotonic", "new_id"]

monotonic = time.monotonic
"""Seconds, for measuring how long something took in this process."""

jitter = random.SystemRandom().random
"""A random number in [0, 1)."""

_ids = IdSource()


def new_id() -> str:
    """A new UUIDv7."""
    return _ids.next(time.time_ns() // 1_000_000, secrets.randbits(62))
