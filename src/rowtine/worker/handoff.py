"""Hand-off: what ends in the process that holds its caller warm goes to the caller at once.

The end of a call, the round of its caller that hears it and the calls that this round makes are
one item of one commit: a step of a sequence costs one transaction, and reads nothing. An end never
waits for longer than it takes to run a round that awaits nothing: if the round takes longer, the
end is written by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from msgspec import Struct

from rowtine.core.exchange import Input
from rowtine.core.futures import CallFuture
from rowtine.core.phases import Kind
from rowtine.core.results import CallResult
from rowtine.core.state import Coroutine
from rowtine.store.calls import Seat
from rowtine.store.committing import Round
from rowtine.store.outcomes import Outcome, error_of
from rowtine.worker.warm import Kept, Warm

__all__ = ["End", "Handoff", "Turn", "round_input", "taken"]


class End(Struct, eq=False):
    """The end of a call: its outcome, or the last round of its execution.

    Whoever brings it is told by `tell` whether its fence held, or None if nobody has written it and
    they have to. What came of that they tell by `recorded`, if somebody waits for it.
    """

    what: Outcome | Round
    outcome: Outcome
    seat: Seat
    tell: Callable[[End, bool | None], None]
    told: bool = False
    waited_for: asyncio.Future[bool] | None = None

    def written(self, held: bool | None) -> None:
        """Tell whoever brought it, once."""
        if not self.told:
            self.told = True
            self.tell(self, held)

    def refuse(self) -> asyncio.Future[bool]:
        """Have it written by whoever brought it; whether its fence held then."""
        self.waited_for = asyncio.get_running_loop().create_future()
        self.written(None)
        return self.waited_for

    def recorded(self, held: bool) -> None:
        """Whoever brought it has written it."""
        if self.waited_for is not None and not self.waited_for.done():
            self.waited_for.set_result(held)


class Turn(Struct, frozen=True):
    """The next round of a warm execution, and the ends that it is given."""

    kept: Kept
    ends: Sequence[End]


class Handoff:
    """Who has to hear of which ends. Used by the loop alone."""

    def __init__(self, warm: Warm, most: int, begin: Callable[[Turn], None]) -> None:
        self._warm = warm
        self._most = most
        self._begin = begin
        self._waiting: dict[str, list[End]] = {}
        self._starting: list[str] = []
        """Executions whose turn begins when this pass of the loop is over."""
        self._busy: dict[str, bool] = {}
        """Executions whose turn it is -> whether it takes long, so that ends do not wait for it."""
        self._claimed: dict[str, Callable[[str], None]] = {}

    def offer(
        self,
        what: Outcome | Round,
        outcome: Outcome,
        seat: Seat | None,
        tell: Callable[[End, bool | None], None],
    ) -> End | None:
        """Hand the end of a call to its caller; None if whoever brings it has to write it."""
        caller = outcome.execution_id
        if caller is None or seat is None or not outcome.done:
            return None
        if caller in self._busy:
            if self._busy[caller]:
                return None
        elif (kept := self._warm.peek(caller)) is None or not _waits(kept, seat):
            return None
        elif caller not in self._waiting:
            # What else ends in this pass of the loop goes with it.
            if not self._starting:
                asyncio.get_running_loop().call_soon(self._start)
            self._starting.append(caller)
        end = End(what, outcome, seat, tell)
        self._waiting.setdefault(caller, []).append(end)
        return end

    def postpone(self, execution_id: str, claimed: Callable[[str], None]) -> bool:
        """Whether a turn of an execution is on its way that has been claimed; `claimed` is called
        when that is over."""
        if execution_id not in self._busy:
            return False
        self._claimed[execution_id] = claimed
        return True

    def takes_long(self, execution_id: str) -> None:
        """A turn waits for something else than its commit."""
        self._busy[execution_id] = True
        self._refuse(execution_id)

    def over(self, execution_id: str) -> Turn | None:
        """A turn is over: the next one, if there is something for it."""
        self._busy.pop(execution_id, None)
        if (claimed := self._claimed.pop(execution_id, None)) is None:
            return self._next(execution_id)
        self._refuse(execution_id)
        claimed(execution_id)
        return None

    def _start(self) -> None:
        starting, self._starting = self._starting, []
        for id in starting:
            if id not in self._busy and (turn := self._next(id)) is not None:
                self._begin(turn)

    def _next(self, execution_id: str) -> Turn | None:
        if (ends := self._waiting.pop(execution_id, None)) is None:
            return None
        kept = self._warm.take(execution_id)
        fit: list[End] = []
        for end in ends:
            if kept is not None and _waits(kept, end.seat):
                fit.append(end)
            else:
                end.written(None)
        if kept is None:
            return None
        if len(fit) > self._most:
            fit, self._waiting[execution_id] = fit[: self._most], fit[self._most :]
        if not fit:
            self._warm.put_back(kept)
            return None
        self._busy[execution_id] = False
        return Turn(kept, fit)

    def _refuse(self, execution_id: str) -> None:
        for end in self._waiting.pop(execution_id, ()):
            end.written(None)


def _waits(kept: Kept, seat: Seat) -> bool:
    """Whether an execution waits for the call with this seat, as far as it is in memory."""
    if seat.run != kept.execution.run:
        return False
    suspended = kept.state.suspended
    if seat.parent_id is not None:
        parent = suspended.get(seat.parent_id)
        return parent is not None and parent.seq == seat.serves
    match suspended.get(seat.coroutine_id):
        case Coroutine(result=CallFuture(call_id=call_id)):
            return call_id == seat.call_id
        case _:
            return False


def round_input(kept: Kept, ends: Sequence[End], now: datetime | None) -> Input:
    """What the next round of a warm execution is given."""
    state, execution = kept.state, kept.execution
    results: list[CallResult] = []
    members: dict[int, Coroutine] = {}
    for end in ends:
        seat, settled = end.seat, end.outcome.settled
        error = None if settled.error_type is None else error_of(settled)
        results.append(CallResult(seat.call_id, settled.output if error is None else None, error))
        if seat.parent_id is not None:
            members[seat.coroutine_id] = _member(seat)
    if members:
        state = replace(state, suspended={**state.suspended, **members})
    return Input(
        state=state,
        results=results,
        cancel=execution.cancelling,
        reason=execution.cancel_reason,
        now=now,
    )


def _member(seat: Seat) -> Coroutine:
    """A call that is a member of a join, as the round needs to know it."""
    return Coroutine(
        id=seat.coroutine_id,
        parent_id=seat.parent_id,
        coroutine=None,
        result=CallFuture(call_id=seat.call_id),
        kind=Kind.FUNCTION,
        seq=seat.seq,
        serves=seat.serves,
        limited=seat.limited,
    )


def taken(ends: Sequence[End]) -> dict[int, Outcome | Round]:
    """What a round was given, as it is written with it."""
    return {end.seat.call_id: end.what for end in ends}
