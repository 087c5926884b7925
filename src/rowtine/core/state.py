"""The state of one execution between two rounds, as values.

A state is never changed by a round: the same state may be run again, after a lost reply say, and
comes to the same output. It may be partial: the store loads only what a round touches, and answers
for the rest through a `Loader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rowtine.core.coroutine import Continuation
from rowtine.core.futures import Future
from rowtine.core.journal import Wait
from rowtine.core.phases import Kind
from rowtine.core.results import CoroutineResult

__all__ = ["SEMANTICS", "Coroutine", "Loader", "State"]

SEMANTICS = 1
"""The engine's semantics number. A corrected ordering rule raises it, and never changes a run
that began under the old one."""


@dataclass(slots=True)
class Coroutine:
    """One coroutine of an execution; `result` is the future it waits for.

    `coroutine` is None for members of a join that have no body (calls and nested joins: what
    their future comes to is what they come to), and for a body that is not loaded yet.
    """

    id: int
    parent_id: int | None
    coroutine: Continuation | None
    result: Future | None = None
    kind: Kind = Kind.COROUTINE
    seq: int = 0
    """The position of the current wait in the journal."""
    serves: int | None = None
    """The position of the parent's wait that this one is a member of."""
    wait: Wait | None = None
    """What it waits for; of a loaded counter without its members."""
    members: range = range(0)
    """The ids of the members of the join it waits for."""
    cancelled: bool = False
    """Whether it has been told to stop, which happens once."""
    shielded: bool = False
    """Whether it goes on when the coroutine that spawned it, or the main one, ends."""
    limited: bool = False
    """Whether it is a call whose end makes room for the next member of its join."""

    def copied(self) -> Coroutine:
        """One that a round may change: with a future of its own. (`copy` and `replace` find out
        anew each time which fields there are, which takes several times as long.)"""
        return Coroutine(
            self.id,
            self.parent_id,
            self.coroutine,
            None if self.result is None else self.result.copied(),
            self.kind,
            self.seq,
            self.serves,
            self.wait,
            self.members,
            self.cancelled,
            self.shielded,
            self.limited,
        )


def _no_coroutines() -> dict[int, Coroutine]:
    return {}


def _no_results() -> dict[int, CoroutineResult]:
    return {}


def _no_callers() -> dict[int, int]:
    return {}


@dataclass(slots=True)
class State:
    """Everything a scheduler remembers of one execution."""

    version: str | None
    suspended: dict[int, Coroutine] = field(default_factory=_no_coroutines)
    ready: list[Coroutine] = field(default_factory=list[Coroutine])
    next_coroutine_id: int = 0
    next_call_id: int = 0
    prev_callers: list[int] = field(default_factory=list[int])
    """The coroutines that made a call in the last round: a poll error is theirs."""
    outstanding_calls: int = 0
    ended: dict[int, CoroutineResult] = field(default_factory=_no_results)
    """What spawned coroutines came to, in the order in which they ended."""
    seed: str = ""
    """Drawn anew for each run: what is chance in it, is drawn from this."""
    exit: CoroutineResult | None = None
    """What the main coroutine came to, while the last clean-up is still running."""
    semantics: int = SEMANTICS
    callers: dict[int, int] = field(default_factory=_no_callers, compare=False, repr=False)
    """Who waits for each call, as far as the round before knew it. What is missing here is looked
    for among all that are suspended."""

    def copied(self) -> State:
        """One that a round may change."""
        return State(
            self.version,
            self.suspended.copy(),
            self.ready.copy(),
            self.next_coroutine_id,
            self.next_call_id,
            self.prev_callers.copy(),
            self.outstanding_calls,
            self.ended.copy(),
            self.seed,
            self.exit,
            self.semantics,
            self.callers.copy(),
        )


class Loader(Protocol):
    """Answers for what a partial state left out. Each method is asked at most when needed.

    Who waits for the results of a round must be in the state that it is given.
    """

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        """Those of `ids` (None: all) that are suspended, whole: body, journal or frame, wait."""
        ...

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        """Those of `ids` that wait for a join, with no more than its counter."""
        ...

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        """What the members of the coroutine's join came to in earlier rounds."""
        ...

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        """Those that wait for one of the coroutines `ids` as a task, with its counter only."""
        ...

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        """Those of `ids` that ended in earlier rounds, in the order in which they did."""
        ...
