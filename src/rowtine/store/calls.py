"""The statements on calls, outside of rounds. Each takes values, and holds no session.

Lock order, here and everywhere: states by id, then calls by id, then coroutines and futures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    null,
    select,
    true,
    update,
)

from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Payload
from rowtine.core.phases import CoroutinePhase, Kind, Phase
from rowtine.core.status import Status
from rowtine.core.values import value
from rowtine.store.dialect import each_of, first_of_each, insert_unless_there
from rowtine.store.options import options_from_text, options_to_text
from rowtine.store.outcomes import Settled
from rowtine.store.prepared import Prepared
from rowtine.store.recording import CLOCKED
from rowtine.store.tables import calls, coroutines, states
from rowtine.store.types import (
    Id,
    after,
    among,
    as_text,
    moment,
    moment_read,
    moment_values,
    now,
    seconds_since,
    soon_on_disk,
)

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


@value
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


class Seat(Struct, frozen=True):
    """Where a call is waited for: in which run of its caller, by whom, at which place."""

    run: int
    coroutine_id: int
    seq: int
    call_id: int
    parent_id: int | None = None
    serves: int | None = None
    limited: bool = False
    """Whether its end makes room for the next member of its join."""


class Claimed(Struct, frozen=True):
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
        row = _OF_KEY.execute(connection, {"key": key, "function": new.function}).first()
        if row is not None:
            return Accepted(row.id, row.input)
        # It was there a moment ago, and has been deleted since.


_OF_KEY = Prepared(
    select(
        as_text(calls.c.id).label("id"),
        func.coalesce(calls.c.asked_input, calls.c.input).label("input"),
    ).where(
        calls.c.key == bindparam("key"),
        func.coalesce(calls.c.asked_function, calls.c.function) == bindparam("function"),
    )
)


def insert_roots(connection: Connection, new: Sequence[NewCall]) -> None:
    """Accept calls. One that is already there (the same id sent again, or the same key) stays as
    it is."""
    name = connection.dialect.name
    if (insert := _INSERT_ROOT.get(name)) is None:
        statement = insert_unless_there(connection, calls).values(_ROOT)
        insert = _INSERT_ROOT[name] = Prepared(statement)
    rows = [_root_row(call) for call in new]
    if rows:
        insert.execute(connection, rows if len(rows) > 1 else rows[0])


_INSERT_ROOT: dict[str, Prepared] = {}
"""By the name of the dialect: SQLAlchemy has one such insert for each."""

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

    A server may forget a claim in a crash: then the body begins once more, as if the worker had
    died. The outcome of the first is as good, and whichever commits first is the only one. Where
    the number of attempts is limited, claims have to be `leases.put_on_disk`.
    """
    if not functions or limit < 1:
        return []
    values = {"functions": functions, "most": limit, "by": worker, "lease": lease}
    claimed = [
        _claimed(row) for row in _claim_of(connection.dialect.name).execute(connection, values)
    ]
    return sorted(claimed, key=attrgetter("id"))


_FOR_WORKERS = calls.c.kind == literal_column(f"'{Kind.FUNCTION.value}'")
"""Not a parameter, with which no database would know that the index has them all."""


def _oldest(function: ColumnElement[str]) -> Select[*tuple[Any, ...]]:
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
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True, key_share=True)
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


@lru_cache
def _claim_of(dialect: str) -> Prepared:
    names = each_of(dialect, "functions")
    oldest = first_of_each(dialect, names, _oldest(names.c.value))
    due = (
        select(oldest.c.id)
        .order_by(oldest.c.due, oldest.c.id)
        .limit(bindparam("most"))
        .cte("due")
        # Without it a nested-loop plan claims more than the limit.
        .prefix_with("MATERIALIZED")
    )
    return Prepared(
        update(calls)
        .where(calls.c.id.in_(select(due.c.id)), soon_on_disk())
        .values(
            phase=Phase.RUNNING.value,
            claim=calls.c.claim + 1,
            attempt=calls.c.attempt + 1,
            due=null(),
            worker=bindparam("by", type_=Id()),
            lease_expires=after(bindparam("lease", type_=Float())),
            started_at=now(),
        )
        .returning(
            as_text(calls.c.id).label("id"),
            calls.c.claim,
            calls.c.function,
            calls.c.input,
            calls.c.attempt,
            calls.c.current_run,
            as_text(calls.c.execution_id).label("execution_id"),
            as_text(calls.c.root_id).label("root_id"),
            func.coalesce(seconds_since(calls.c.first_failed_at), 0.0).label("failing_for"),
            calls.c.started_at,
            calls.c.deadline,
            calls.c.details,
            calls.c.options,
            *SEAT,
        )
    )


def _claimed(row: Any) -> Claimed:
    id, claim, function, input, attempt, run, caller, root, failing_for, began, *more = row
    deadline, details, options, *seat = more
    return Claimed(
        id,
        claim,
        function,
        input,
        attempt,
        run,
        caller,
        root or id,
        failing_for,
        moment_read(began),
        None if deadline is None else moment_read(deadline),
        details,
        options_from_text(options),
        None if caller is None else seat_of(*seat),
    )


def seat_of(
    run: int,
    coroutine_id: int,
    seq: int,
    call_id: int,
    parent_id: int | None,
    serves: int | None,
    parked: bool | None,
) -> Seat:
    """The seat of a call, of whose row the columns `SEAT` were read."""
    return Seat(run, coroutine_id, seq, call_id, parent_id, serves, parked is not None)


# ---------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Due:
    """What a look finds that the clock has made due."""

    calls: bool
    """Calls that can be claimed."""
    rounds: bool
    """Rounds that can be claimed."""
    clocked: bool
    """Timers, and promises and waits for signals whose time is up."""
    lost: bool
    """Calls whose lease has ended."""
    late: bool
    """Calls whose deadline has passed."""
    next_in: float | None
    """Seconds until the next of these calls, a timer, a round or a deadline is due; None if there
    is none."""


def due(connection: Connection, functions: Collection[str]) -> Due:
    """Whether there is something to claim or to see to: one read, so that an idle worker writes
    nothing."""
    look = _look(connection.dialect.name)
    found = look.execute(connection, {"functions": functions}).one()
    queued, woken, clocked, lost, late, *waits = found
    nexts = [seconds for seconds in waits if seconds is not None]
    next_in = max(0.0, min(nexts)) if nexts else None
    return Due(bool(queued), bool(woken), bool(clocked), bool(lost), bool(late), next_in)


@lru_cache
def _look(dialect: str) -> Prepared:
    waiting = select(calls.c.id).where(calls.c.due <= now())
    mine = and_(_FOR_WORKERS, among(calls.c.function, "functions"))
    function = select(calls.c.function).where(calls.c.id == states.c.id).scalar_subquery()
    woken = select(states.c.id).where(states.c.wake_at <= now(), among(function, "functions"))
    lapsed = select(calls.c.id).where(calls.c.worker.is_not(None), calls.c.lease_expires < now())
    deadline, unfinished = calls.c.deadline, calls.c.finished_at.is_(None)
    late = select(calls.c.id).where(deadline <= now(), unfinished)
    next_late = select(func.min(deadline)).where(deadline > now(), unfinished).scalar_subquery()
    names = each_of(dialect, "functions")
    later = select(func.min(calls.c.due)).where(calls.c.due > now())
    next_of_each = later.where(_FOR_WORKERS, calls.c.function == names.c.value).correlate(names)
    next_call = select(func.min(next_of_each.scalar_subquery())).select_from(names)
    next_clock = later.where(CLOCKED).scalar_subquery()
    next_round = (
        select(func.min(states.c.wake_at))
        .where(states.c.wake_at > now(), states.c.worker.is_(None))
        .scalar_subquery()
    )
    return Prepared(
        select(
            waiting.where(mine).exists().label("calls"),
            woken.exists().label("rounds"),
            waiting.where(CLOCKED).exists().label("clocked"),
            lapsed.exists().label("lost"),
            late.exists().label("late"),
            (-seconds_since(next_call.scalar_subquery())).label("call_in"),
            (-seconds_since(next_clock)).label("clock_in"),
            (-seconds_since(next_round)).label("round_in"),
            (-seconds_since(next_late)).label("late_in"),
        )
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands, for whoever waits for it."""

    phase: Phase
    settled: Settled


def standing(connection: Connection, id: str) -> Standing | None:
    """How a call stands, with what its last attempt came to; None if there is no such call."""
    row = _STANDING.execute(connection, {"id": id}).first()
    if row is None:
        return None
    phase, status, output, error_type, message, traceback = row
    came_to = Settled(Status(status or Status.UNSPECIFIED), output, error_type, message, traceback)
    return Standing(Phase(phase), came_to)


_STANDING = Prepared(
    select(
        calls.c.phase,
        calls.c.status,
        calls.c.output,
        calls.c.error_type,
        calls.c.error_message,
        calls.c.error_traceback,
    ).where(calls.c.id == bindparam("id", type_=Id()))
)
