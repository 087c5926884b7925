"""The state machines, as tables. CHECK constraints, docs and tests are derived from these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

__all__ = [
    "CALL_KINDS",
    "CALL_MOVES",
    "COROUTINE_KINDS",
    "COROUTINE_MOVES",
    "FUTURE_KINDS",
    "JOIN_KINDS",
    "WITHDRAWN",
    "CoroutinePhase",
    "Kind",
    "Phase",
    "Resolution",
]


class Kind(StrEnum):
    """What a coroutine can wait for, and what a member of a join is."""

    FUNCTION = "function"
    """A call that a worker answers by running a function."""
    TIMER = "timer"
    """A call that the clock answers."""
    PROMISE = "promise"
    """A call that whoever holds its token answers."""
    SIGNAL = "signal"
    """A call that the next signal of its name answers."""
    COROUTINE = "coroutine"
    """A body inside the same execution: the one kind with a journal."""
    ALL = "all"
    ANY = "any"
    RACE = "race"
    SPAWN = "spawn"
    """Members that begin, and that nobody waits for yet."""
    TASK = "task"
    """A wait for the next of some spawned members that ends."""


CALL_KINDS = (Kind.FUNCTION, Kind.TIMER, Kind.PROMISE, Kind.SIGNAL)
JOIN_KINDS = (Kind.ALL, Kind.ANY, Kind.RACE)
FUTURE_KINDS = (*JOIN_KINDS, Kind.SPAWN, Kind.TASK)
"""Kinds that have a row in `futures`: they have members."""
COROUTINE_KINDS = (Kind.COROUTINE, *JOIN_KINDS, Kind.TASK)
"""Kinds that have a row in `coroutines`; a call that is a member of a join needs none."""


class Phase(StrEnum):
    """Where a call stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    DONE = "done"


CALL_MOVES: Mapping[Phase, frozenset[Phase]] = {
    # Queued to done: a timer that fires, a promise that is resolved, a call that is cancelled.
    Phase.QUEUED: frozenset({Phase.RUNNING, Phase.DONE}),
    # Running to queued: a retry, a tail call, a lost lease, a worker that gives it back.
    Phase.RUNNING: frozenset({Phase.QUEUED, Phase.SUSPENDED, Phase.DONE}),
    # Suspended to queued: a retry or a tail call of an execution that had suspended.
    Phase.SUSPENDED: frozenset({Phase.QUEUED, Phase.DONE}),
    Phase.DONE: frozenset(),
}


class CoroutinePhase(StrEnum):
    """Where a coroutine stands between two rounds; inside a round it may also be running."""

    SUSPENDED = "suspended"
    DONE = "done"


COROUTINE_MOVES: Mapping[CoroutinePhase, frozenset[CoroutinePhase]] = {
    CoroutinePhase.SUSPENDED: frozenset({CoroutinePhase.DONE}),
    CoroutinePhase.DONE: frozenset(),
}


class Resolution(StrEnum):
    """How a wait ended, as its coroutine saw it; a rebuild replays exactly this."""

    RESULT = "result"
    ERROR = "error"
    POLL_ERROR = "poll_error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    """The time limit was over in which the coroutine was."""


WITHDRAWN = frozenset({Resolution.CANCELLED, Resolution.TIMEOUT})
"""The caller gave up, before or after there was an outcome."""
