"""Outcome -> rows: what attempts of calls came to, each behind its fence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, literal_column, select

from rowtine.codec import class_name
from rowtine.core.options import CallOptions
from rowtine.core.payload import Payload
from rowtine.core.phases import Kind, Phase
from rowtine.core.status import Status
from rowtine.errors import Cancelled, TimedOut
from rowtine.store import statements as sql
from rowtine.store.each import Each, write
from rowtine.store.locks import lock, lock_calls, lock_states
from rowtine.store.options import options_to_text
from rowtine.store.outcomes import Outcome, Settled
from rowtine.store.tables import calls, states
from rowtine.store.types import among, now

__all__ = ["fire_timers", "holds", "outcome_rows", "record_outcomes", "write_outcomes"]

Writes = dict[Each, list[dict[str, Any]]]


def record_outcomes(
    connection: Connection, outcomes: Sequence[Outcome], *, phase: Phase = Phase.RUNNING
) -> list[bool]:
    """Write what attempts came to; for each, whether its fence held.

    An outcome whose claim has moved on, or whose call was cancelled, writes nothing: somebody
    else answers for that call.
    """
    if not outcomes:
        return []
    lock_states(connection, {o.execution_id for o in outcomes if o.execution_id is not None})
    standing = lock_calls(connection, [outcome.id for outcome in outcomes])
    held = [holds(outcome, standing, phase) for outcome in outcomes]
    write_outcomes(connection, [o for o, holds in zip(outcomes, held, strict=True) if holds])
    return held


def holds(outcome: Outcome, standing: Mapping[str, Any], phase: Phase = Phase.RUNNING) -> bool:
    """Whether the fence of an outcome holds, as its call is `standing`."""
    call = standing.get(outcome.id)
    return call is not None and bool(call.phase == phase.value and call.claim == outcome.claim)


def write_outcomes(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes whose fences hold; their callers' states and they themselves are locked."""
    if not outcomes:
        return
    callers = {o.execution_id for o in outcomes if o.execution_id is not None}
    arrived = {row.id: row.arrived for row in connection.execute(_ARRIVED, {"ids": callers})}
    ended = {outcome.id for outcome in outcomes}
    told = {row.id: row.withdrawn for row in connection.execute(_TOLD, {"ids": ended})}
    writes = outcome_rows(outcomes, arrived, told)
    write(connection, *sql.in_order(writes))


_ARRIVED = select(states.c.id, states.c.arrived).where(among(states.c.id))

_TOLD = select(calls.c.id, calls.c.delivered_round.is_not(None).label("withdrawn")).where(
    among(calls.c.id), calls.c.cancelling
)


def outcome_rows(
    outcomes: Iterable[Outcome], arrived: Mapping[str, int], told: Mapping[str, bool]
) -> Writes:
    """The rows of outcomes. `arrived` counts what has come in for each execution before; `told`
    are the calls that were told to stop, and whether their callers wait no more.

    An execution that was told to stop has no further run, whatever it came to, and its end is no
    arrival for a caller that told it to. Each arrival gets its place in its caller's order.
    """
    counters = Counter(arrived)
    writes: Writes = {}
    for each in outcomes:
        outcome = _ended(each) if each.id in told else each
        row = {"id_": outcome.id, **outcome.settled.columns()}
        caller = outcome.execution_id
        if outcome.tail is not None:
            tail = _tail_row(outcome.id, outcome.tail, outcome.tail_options)
            writes.setdefault(sql.TAIL, []).append(tail)
        elif outcome.retry_in is not None:
            writes.setdefault(sql.AGAIN, []).append({**row, "wait": outcome.retry_in})
        else:
            arrives = caller is not None and caller in arrived and not told.get(outcome.id)
            if caller is not None and arrives:
                counters[caller] += 1
            row["arrival"] = counters[caller] if caller is not None and arrives else None
            writes.setdefault(sql.DONE, []).append(row)
    moved = [
        {"id_": id, "now_arrived": now_arrived}
        for id, now_arrived in counters.items()
        if now_arrived > arrived[id]
    ]
    if moved:
        writes[sql.ARRIVE] = moved
    return writes


def _tail_row(id: str, tail: tuple[str, Payload], options: CallOptions) -> dict[str, Any]:
    function, input = tail
    said = options_to_text(options)
    return {"id_": id, "f": function, "i": input, "said": said, "wait": options.delay}


def _ended(outcome: Outcome) -> Outcome:
    """The outcome as the end of its call, where another attempt or a tail call would follow."""
    if outcome.tail is not None:
        told = Settled(Status.CANCELLED, None, class_name(Cancelled), "")
        return replace(outcome, tail=None, settled=told)
    return replace(outcome, retry_in=None)


def fire_timers(connection: Connection, limit: int) -> int:
    """Answer the timers that are due, in the order in which they are, and end the promises and
    waits for signals whose time is up; how many there were. What somebody else has locked is left
    for later."""
    due = (
        select(calls.c.id, calls.c.claim, calls.c.execution_id, calls.c.kind)
        .where(calls.c.due <= now(), CLOCKED)
        .order_by(calls.c.due, calls.c.id)
        .limit(limit)
    )
    fired = [
        Outcome(id, fence, execution_id, Settled() if kind == Kind.TIMER else _TIME_IS_UP)
        for id, fence, execution_id, kind in connection.execute(due)
    ]
    if not fired:
        return 0
    callers = {o.execution_id for o in fired if o.execution_id is not None}
    locked = lock(connection, callers, {outcome.id for outcome in fired}, free=True)
    held = [
        outcome
        for outcome in fired
        if outcome.execution_id in locked.states and holds(outcome, locked.calls, Phase.QUEUED)
    ]
    write_outcomes(connection, held)
    return len(held)


CLOCKED = calls.c.kind != literal_column(f"'{Kind.FUNCTION.value}'")
"""What the clock answers, or ends: each is queued, and due at that moment. Not a parameter, with
which no database would know that the index has them all."""

_TIME_IS_UP = Settled(Status.TIMEOUT, None, class_name(TimedOut), "nobody answered in time")
