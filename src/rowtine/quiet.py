"""A rebuild is quiet: what a body has logged or warned of once, it does not say again.

A rebuilt body runs through code that has run before, up to the await at which it stood. Log records
that are made on the way get a level below every handler, and warnings are dropped. What tells them
apart is the context of the body, so whoever else logs at the same moment is heard: other bodies,
the threads of sync functions.

Nothing of `logging` is switched off meanwhile, since a level or a filter is everybody's.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

from rowtine.core.directives import running

__all__ = ["install", "replaying"]

_BELOW = logging.NOTSET - 1
"""No handler has a level so low."""

_lock = threading.Lock()


def replaying() -> bool:
    """Whether the code that asks runs for a rebuild, and has run before."""
    here = running.get()
    return here is not None and here.replaying


class _Records:
    """Makes log records as the factory before it did."""

    def __init__(self, factory: Callable[..., logging.LogRecord]) -> None:
        self._factory = factory

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._factory(*args, **kwargs)
        if replaying():
            record.levelno = _BELOW
        return record


class _Warnings:
    """Shows warnings as the function before it did.

    A filter would be too much: one that turns a warning into an error must do so at a rebuild too.
    The price: Python does not hand on to `showwarning` where the object of a ResourceWarning was
    allocated, which it knows while `tracemalloc` runs.
    """

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if not replaying():
            self._show(*args, **kwargs)


def _installed() -> bool:
    return isinstance(logging.getLogRecordFactory(), _Records) and isinstance(
        warnings.showwarning, _Warnings
    )


def install() -> None:
    """Stand in front of the factory of log records and of `warnings.showwarning`.

    Does nothing where it has been done. It is asked for whenever a body may be rebuilt, because a
    program may set its own factory at any time, and `warnings.catch_warnings` puts back what it
    has found.
    """
    if _installed():
        return
    with _lock:
        if not isinstance(factory := logging.getLogRecordFactory(), _Records):
            logging.setLogRecordFactory(_Records(factory))
        if not isinstance(show := warnings.showwarning, _Warnings):
            warnings.showwarning = _Warnings(show)
