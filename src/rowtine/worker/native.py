"""Says where executions await natively, which they do again at every rebuild."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rowtine.core.places import Where

__all__ = ["report"]

log = logging.getLogger("rowtine")

_reported: set[tuple[str, int]] = set()
"""Of this process: every execution of a function comes through the same places."""


def report(function: str, places: Iterable[Where]) -> None:
    """Log each place once."""
    for place in places:
        if (key := (place.file, place.line)) not in _reported:
            _reported.add(key)
            log.warning(
                "%s awaits natively at %s and suspends later: that await runs again at every "
                "rebuild. What takes time or has effects belongs into an @app.function.",
                function,
                place.stack[-1],
            )
