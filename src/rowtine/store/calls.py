"""The statements on calls, outside of rounds. Each takes values, and holds no session.

Lock order, here and everywhere: states by id, then calls by id, then coroutines and futures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Payload
from rowtine.core.phases import CoroutinePhase, Kind, Phase
from rowtine.core.status import Status
from rowtine.store.dialect import each_of, first_of_each, insert_unless_there
from rowtine.store.options import options_from_text, options_to_text
from rowtine.store.outcomes import Settled
from rowtine.store.recording import CLOCKED
from rowtine.store.tables import calls, coroutines, states
from rowtine.store.types import after, moment, moment_values, now, seconds_since

__all__ = [
    "SEAT",
    "Accepted",
    "Claimed",
    "Due",
    "NewCall",
    "Seat",
    "Standing",
    "accept",
    "claim",
    "due",
    "insert_roots",
    "seat_of",
    "standing",
]


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call that somebody outside of any execution asks for."""

    id: str
    function: str
    input: Payload
    options: CallOptions = DEFAULT


@dataclass(frozen=True, slots=True)
class Accepted:
    """The call that stands for a start: the new one, or that which its key has started before."""

    id: str
    input: Payload


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a call is waited for: in which run of its caller, by whom, at which place."""

    run: int
    coroutine_id: int
    seq: int
    call_id: int
    parent_id: int | None = None
    serves: int | None = None
    limited: bool = False
    """Whether its end makes room for the next member of its join."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A call that this worker now holds. `claim` fences whatever it comes to."""

    id: str
    claim: int
    function: str
    input: Payload
    attempt: int
    run: int
    caller_id: str | None
    root_id: str
    failing_for: float
    """Seconds since the first failure of this call; 0 if there was none."""
    began: datetime
    """The time of this claim, which is that of its first round."""
    deadline: datetime | None = None
    details: str | None = None
    """What heartbeats have said, as `store.details` has it."""
    options: CallOptions = DEFAULT
    seat: Seat | None = None
    """None of a root, which nobody in the database waits for."""


def accept(connection: Connection, new: NewCall) -> Accepted:
    """Accept a call, unless its key has started one already.

    Whoever started it first may not have committed yet: the insert waits for them.
    """
    key = new.options.key
    while True:
        insert_roots(connection, [new])
        if key is None:
            return Accepted(new.id, new.input)
        row = connection.execute(_OF_KEY, {"key": key, "function": new.function}).first()
        if row is not None:
            return Accepted(row.id, row.input)
        # It was there a moment ago, and has been deleted since.


_OF_KEY = select(
    calls.c.id, func.coalesce(calls.c.asked_input, calls.c.input).label("input")
).where(
    calls.c.key == bindparam("key"),
    func.coalesce(calls.c.asked_function, calls.c.function) == bindparam("function"),
)


def insert_roots(connection: Connection, new: Sequence[NewCall]) -> None:
    """Accept calls. One that is already there (the same id sent again, or the same key) stays as
    it is."""
    if new:
        statement = insert_unless_there(connection, calls).values(_ROOT)
        connection.execute(statement, [_root_row(call) for call in new])


_ROOT: dict[str, Any] = {
    "id": bindparam("id_", type_=calls.c.id.type),
    "function": bindparam("f"),
    "input": bindparam("i", type_=calls.c.input.type),
    "options": bindparam("said", type_=calls.c.options.type),
    "key": bindparam("k", type_=calls.c.key.type),
    "deadline": moment("deadline"),
    "kind": Kind.FUNCTION.value,
    "phase": Phase.QUEUED.value,
    "due": after(bindparam("wait", type_=Float())),
    "created_at": now(),
}


def _root_row(call: NewCall) -> dict[str, Any]:
    return {
        "id_": call.id,
        "f": call.function,
        "i": call.input,
        "said": options_to_text(call.options),
        "k": call.options.key,
        "wait": call.options.delay,
        **moment_values("deadline", call.options.deadline),
    }


def _goes_on(id: Any) -> Any:
    """What a caller, or the root, asked for before it was told to stop does not begin any more:
    its round comes first, and decides what is still wanted.

    One for each, and no EXISTS: that would become a join, which may begin at all calls.
    """
    caller = calls.alias()
    told = (
        select(caller.c.cancelling)
        .join(
            coroutines,
            and_(
                coroutines.c.execution_id == caller.c.id,
                coroutines.c.run == caller.c.current_run,
                coroutines.c.id == 0,
            ),
        )
        .where(
            caller.c.id == id,
            caller.c.cancelling,
            coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
            ~coroutines.c.cancelled,
        )
    )
    return told.correlate(calls).scalar_subquery().is_not(true())


_CALLERS_GO_ON = (_goes_on(calls.c.execution_id), _goes_on(calls.c.root_id))


def claim(
    connection: Connection, worker: str, functions: Collection[str], limit: int, lease: float
) -> list[Claimed]:
    """Take up to `limit` due calls of these functions, the oldest first, for `lease` seconds.

    The CTE is materialized: without it a nested-loop plan claims more than the limit.
    """
    if not functions or limit < 1:
        return []
    names = each_of(connection, functions)
    oldest = first_of_each(connection, names, _oldest(names.c.value, limit))
    due = (
        select(oldest.c.id)
        .order_by(oldest.c.due, oldest.c.id)
        .limit(limit)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    statement = (
        update(calls)
        .where(calls.c.id.in_(select(due.c.id)))
        .values(
            phase=Phase.RUNNING.value,
            claim=calls.c.claim + 1,
            attempt=calls.c.attempt + 1,
            due=null(),
            worker=worker,
            lease_expires=after(literal(lease)),
            started_at=now(),
        )
        .returning(
            calls.c.id,
            calls.c.claim,
            calls.c.function,
            calls.c.input,
            calls.c.attempt,
            calls.c.current_run.label("run"),
            calls.c.execution_id,
            func.coalesce(calls.c.root_id, calls.c.id).label("root_id"),
            func.coalesce(seconds_since(calls.c.first_failed_at), 0.0).label("failing_for"),
            calls.c.started_at.label("began"),
            calls.c.deadline,
            calls.c.details,
            calls.c.options,
            *SEAT,
        )
    )
    claimed = [_claimed(row) for row in connection.execute(statement)]
    return sorted(claimed, key=lambda call: call.id)


_FOR_WORKERS = calls.c.kind == literal_column(f"'{Kind.FUNCTION.value}'")
"""Not a parameter, with which no database would know that the index has them all."""


def _oldest(function: ColumnElement[str], limit: int) -> Select[*tuple[Any, ...]]:
    """The oldest due calls of a function, locked.

    One function at a time: what is due of one stands in order in the index, and what is due of
    several does not. What is found stays locked to the end of the claim, which takes the oldest of
    all: others skip the rest for that moment.
    """
    return (
        select(calls.c.id, calls.c.due)
        .where(
            _FOR_WORKERS,
            calls.c.function == function,
            calls.c.due <= now(),
            *_CALLERS_GO_ON,
        )
        .order_by(calls.c.due, calls.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )


def _claimed(row: Any) -> Claimed:
    return Claimed(
        id=row.id,
        claim=row.claim,
        function=row.function,
        input=row.input,
        attempt=row.attempt,
        run=row.run,
        caller_id=row.execution_id,
        root_id=row.root_id,
        failing_for=row.failing_for,
        began=row.began,
        deadline=row.deadline,
        details=row.details,
        options=options_from_text(row.options),
        seat=seat_of(row),
    )


SEAT: Any = (
    calls.c.run.label("seat_run"),
    calls.c.coroutine_id,
    calls.c.seq,
    calls.c.call_id,
    calls.c.parent_id,
    calls.c.serves,
    calls.c.parked,
)


def seat_of(row: Any) -> Seat | None:
    """The seat of a call, of whose row the columns `SEAT` were read, and `execution_id`."""
    if row.execution_id is None:
        return None
    return Seat(
        row.seat_run,
        row.coroutine_id,
        row.seq,
        row.call_id,
        row.parent_id,
        row.serves,
        limited=row.parked is not None,
    )


# ---------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Due:
    """What a look finds that the clock has made due."""

    work: bool
    """Calls or rounds that can be claimed."""
    clocked: bool
    """Timers, and promises and waits for signals whose time is up."""
    lost: bool
    """Calls whose lease has ended."""
    late: bool
    """Calls whose deadline has passed."""
    next_in: float | None
    """Seconds until the next of these calls, a timer or a round is due; None if there is none."""


def due(connection: Connection, functions: Collection[str]) -> Due:
    """Whether there is something to claim or to see to: one read, so that an idle worker writes
    nothing."""
    waiting = select(calls.c.id).where(calls.c.due <= now())
    mine = and_(_FOR_WORKERS, calls.c.function.in_(sorted(functions)))
    function = select(calls.c.function).where(calls.c.id == states.c.id).scalar_subquery()
    woken = select(states.c.id).where(states.c.wake_at <= now(), function.in_(sorted(functions)))
    lapsed = select(calls.c.id).where(calls.c.worker.is_not(None), calls.c.lease_expires < now())
    late = select(calls.c.id).where(calls.c.deadline <= now(), calls.c.finished_at.is_(None))
    names = each_of(connection, functions)
    later = select(func.min(calls.c.due)).where(calls.c.due > now())
    next_of_each = later.where(_FOR_WORKERS, calls.c.function == names.c.value).correlate(names)
    next_call = select(func.min(next_of_each.scalar_subquery())).select_from(names)
    next_clock = later.where(CLOCKED).scalar_subquery()
    next_round = (
        select(func.min(states.c.wake_at))
        .where(states.c.wake_at > now(), states.c.worker.is_(None))
        .scalar_subquery()
    )
    row = connection.execute(
        select(
            or_(waiting.where(mine).exists(), woken.exists()).label("work"),
            waiting.where(CLOCKED).exists().label("clocked"),
            lapsed.exists().label("lost"),
            late.exists().label("late"),
            (-seconds_since(next_call.scalar_subquery())).label("call_in"),
            (-seconds_since(next_clock)).label("clock_in"),
            (-seconds_since(next_round)).label("round_in"),
        )
    ).one()
    nexts = [
        seconds for seconds in (row.call_in, row.clock_in, row.round_in) if seconds is not None
    ]
    return Due(
        bool(row.work),
        bool(row.clocked),
        bool(row.lost),
        bool(row.late),
        max(0.0, min(nexts)) if nexts else None,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands, for whoever waits for it."""

    phase: Phase
    settled: Settled


def standing(connection: Connection, id: str) -> Standing | None:
    """How a call stands, with what its last attempt came to; None if there is no such call."""
    row = connection.execute(
        select(
            calls.c.phase,
            calls.c.status,
            calls.c.output,
            calls.c.error_type,
            calls.c.error_message,
            calls.c.error_traceback,
        ).where(calls.c.id == id)
    ).first()
    if row is None:
        return None
    status = Status(row.status or Status.UNSPECIFIED)
    return Standing(
        Phase(row.phase),
        Settled(status, row.output, row.error_type, row.error_message, row.error_traceback),
    )
