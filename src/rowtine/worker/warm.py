"""The executions that a worker keeps in memory between two rounds: a bounded LRU.

Nothing is only here: a warm execution saves reading and rebuilding what its rows say too. It is
valid for the run and round after which it was kept, and belongs to whoever takes it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from msgspec import Struct

from rowtine.core.coroutine import Slot
from rowtine.core.futures import AllFuture, AnyFuture, CallFuture, Future, RaceFuture, Remaining
from rowtine.core.phases import Kind
from rowtine.core.state import Coroutine, State
from rowtine.core.steps import frames
from rowtine.store.loading import Execution

__all__ = ["Kept", "Warm", "drop", "merged"]

_SMALL = 100
"""Members up to which the results of a join are kept, and not read again when it is ready."""


class Kept(Struct, frozen=True):
    """A suspended execution, as its last round left it."""

    execution: Execution
    state: State

    @property
    def slots(self) -> Mapping[int, Slot]:
        """Its frames, by coroutine."""
        return frames(self.state)


class Warm:
    """Keeps executions with up to `limit` coroutines in all; dropping one runs no user code."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._coroutines = 0

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, execution_id: str) -> Kept | None:
        """An execution that is kept, which from now on it is not."""
        kept = self._kept.pop(execution_id, None)
        if kept is not None:
            self._coroutines -= len(kept.state.suspended)
        return kept

    def peek(self, execution_id: str) -> Kept | None:
        """The same, and it stays where it is."""
        return self._kept.get(execution_id)

    def keep(self, execution: Execution, state: State) -> None:
        """Keep an execution; those used longest ago make room."""
        execution.arrived = {}
        self.put_back(Kept(execution, _slim(state, self._limit)))

    def put_back(self, kept: Kept) -> None:
        """Keep one that was taken and not used."""
        if not kept.state.suspended:
            return
        self._kept[kept.execution.id] = kept
        self._coroutines += len(kept.state.suspended)
        while self._coroutines > self._limit:
            self.drop(next(iter(self._kept)))

    def drop(self, execution_id: str) -> None:
        if (kept := self.take(execution_id)) is not None:
            drop(kept.slots)

    def clear(self) -> None:
        """Drop everything."""
        while self._kept:
            self.drop(next(iter(self._kept)))


def merged(kept: Kept | None, state: State) -> State:
    """A state as a round left it, with the bodies that were in memory and that it did not touch."""
    if kept is None:
        return state
    suspended = {
        id: coroutine
        for id, coroutine in kept.state.suspended.items()
        if coroutine.coroutine is not None and coroutine.coroutine.slot.warm
    }
    if not suspended:
        return state  # it has touched all that there was
    for id, now in state.suspended.items():
        before = suspended.get(id)
        counted = before is not None and now.coroutine is None and now.kind is before.kind
        suspended[id] = replace(now, coroutine=before.coroutine) if before and counted else now
    return replace(state, suspended=suspended)


def drop(slots: Mapping[int, Slot]) -> None:
    """Let go of frames without running any of their code."""
    for slot in slots.values():
        slot.drop()


def _slim(state: State, limit: int) -> State:
    """The state, of which nothing is left but what is worth keeping: bodies with their frames, up
    to `limit`, and small joins.

    Calls that are members of a join are made again of what they come to, long lists of results are
    read again when they are complete, and the journal of a body that is here is not needed.
    """
    kept: dict[int, Coroutine] = {}
    for id, coroutine in state.suspended.items():
        if len(kept) < limit and _is_worth_keeping(coroutine):
            kept[id] = coroutine
            if coroutine.coroutine is not None:
                coroutine.coroutine.journal = None
            if len(coroutine.members) > _SMALL:
                coroutine.result = _slim_future(coroutine)
        elif coroutine.coroutine is not None:
            coroutine.coroutine.slot.drop()
    state.suspended = kept
    state.ended, state.ready, state.prev_callers, state.callers = {}, [], [], {}
    return state


def _is_worth_keeping(coroutine: Coroutine) -> bool:
    if coroutine.kind is Kind.COROUTINE:
        return coroutine.coroutine is not None and coroutine.coroutine.slot.warm
    is_join = coroutine.result is not None and not isinstance(coroutine.result, CallFuture)
    return is_join and len(coroutine.members) <= _SMALL


def _slim_future(coroutine: Coroutine) -> Future | None:
    future = coroutine.result
    members = coroutine.members
    match future:
        case AllFuture():
            waiting = Remaining(members, len(future.waiting))
            return replace(future, waiting=waiting, results={})
        case AnyFuture():
            return replace(future, waiting=Remaining(members, len(future.waiting)), errors={})
        case RaceFuture():
            return replace(future, waiting=Remaining(members, len(future.waiting)))
        case _:
            return future
