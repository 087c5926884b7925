"""The statements on calls, outside of rounds. Each takes values, and holds no session.

Lock order, here and everywhere: states by id, then calls by id, then coroutines and futures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Float,
    Row,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from rowtine.codec import class_name
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Payload
from rowtine.core.phases import CoroutinePhase, Kind, Phase
from rowtine.core.status import Status
from rowtine.errors import Cancelled, TimedOut
from rowtine.store.dialect import insert_unless_there
from rowtine.store.options import options_from_text, options_to_text
from rowtine.store.outcomes import Outcome, Settled
from rowtine.store.tables import calls, coroutines, states
from rowtine.store.types import after, moment, moment_values, now, seconds_since

__all__ = [
    "Accepted",
    "Claimed",
    "NewCall",
    "Standing",
    "accept",
    "anything_due",
    "claim",
    "fire_timers",
    "give_back",
    "give_back_unknown",
    "heartbeat",
    "insert_roots",
    "record_outcomes",
    "recover",
    "renew",
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


_caller = calls.alias()

_caller_is_to_stop = (
    # What a caller, or the root, asked for before it was told to stop does not begin any more: its
    # round comes first, and decides what is still wanted.
    select(_caller.c.id)
    .join(
        coroutines,
        and_(
            coroutines.c.execution_id == _caller.c.id,
            coroutines.c.run == _caller.c.current_run,
            coroutines.c.id == 0,
        ),
    )
    .where(
        or_(_caller.c.id == calls.c.execution_id, _caller.c.id == calls.c.root_id),
        _caller.c.cancelling,
        coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
        ~coroutines.c.cancelled,
    )
    .correlate(calls)
)


def claim(
    connection: Connection, worker: str, functions: Collection[str], limit: int, lease: float
) -> list[Claimed]:
    """Take up to `limit` due calls of these functions, the oldest first, for `lease` seconds.

    The CTE is materialized: without it a nested-loop plan claims more than the limit.
    """
    if not functions or limit < 1:
        return []
    due = (
        select(calls.c.id)
        .where(
            calls.c.due <= now(),
            calls.c.kind == Kind.FUNCTION.value,
            calls.c.function.in_(sorted(functions)),
            ~_caller_is_to_stop.exists(),
        )
        .order_by(calls.c.due, calls.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
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
            calls.c.execution_id.label("caller_id"),
            func.coalesce(calls.c.root_id, calls.c.id).label("root_id"),
            func.coalesce(seconds_since(calls.c.first_failed_at), 0.0).label("failing_for"),
            calls.c.started_at.label("began"),
            calls.c.deadline,
            calls.c.details,
            calls.c.options,
        )
    )
    claimed = [_claimed(dict(row)) for row in connection.execute(statement).mappings()]
    return sorted(claimed, key=lambda call: call.id)


def _claimed(row: dict[str, Any]) -> Claimed:
    row["options"] = options_from_text(row["options"])
    return Claimed(**row)


def fire_timers(connection: Connection, limit: int) -> int:
    """Answer the timers that are due, in the order in which they are, and end the promises and
    waits for signals whose time is up; how many there were."""
    due = (
        select(calls.c.id, calls.c.claim, calls.c.execution_id, calls.c.kind)
        .where(calls.c.due <= now(), calls.c.kind.in_(_CLOCKED))
        .order_by(calls.c.due, calls.c.id)
        .limit(limit)
    )
    fired = [
        Outcome(id, fence, execution_id, Settled() if kind == Kind.TIMER else _TIME_IS_UP)
        for id, fence, execution_id, kind in connection.execute(due)
    ]
    return sum(record_outcomes(connection, fired, phase=Phase.QUEUED))


_CLOCKED = [Kind.TIMER.value, Kind.PROMISE.value, Kind.SIGNAL.value]
"""What the clock answers, or ends: each is queued, and due at that moment."""

_TIME_IS_UP = Settled(Status.TIMEOUT, None, class_name(TimedOut), "nobody answered in time")


# ---------------------------------------------------------------------------------------- outcomes


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
    held = [standing.get(outcome.id) == (phase.value, outcome.claim) for outcome in outcomes]
    write_outcomes(connection, [o for o, holds in zip(outcomes, held, strict=True) if holds])
    return held


def write_outcomes(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes whose fences hold; their callers' states and they themselves are locked.

    An execution that was told to stop has no further run, whatever it came to, and its end is no
    arrival for a caller that told it to.
    """
    stopping = _told_to_stop(connection, [outcome.id for outcome in outcomes])
    outcomes = [_ended(outcome) if outcome.id in stopping else outcome for outcome in outcomes]
    awaited = [outcome for outcome in outcomes if outcome.done and not stopping.get(outcome.id)]
    arrivals = _number_arrivals(connection, awaited)
    done: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    tails: list[dict[str, Any]] = []
    for outcome in outcomes:
        row = {"id_": outcome.id, **outcome.settled.columns()}
        if outcome.tail is not None:
            tails.append(_tail_row(outcome.id, outcome.tail, outcome.tail_options))
        elif outcome.retry_in is not None:
            again.append({**row, "wait": outcome.retry_in})
        else:
            done.append({**row, "arrived": arrivals.get(outcome.id)})
    for statement, rows in ((_DONE, done), (_AGAIN, again), (_TAIL, tails)):
        if rows:
            connection.execute(statement, rows)


def _tail_row(id: str, tail: tuple[str, Payload], options: CallOptions) -> dict[str, Any]:
    function, input = tail
    said = options_to_text(options)
    return {"id_": id, "f": function, "i": input, "said": said, "wait": options.delay}


def _told_to_stop(connection: Connection, ids: Collection[str]) -> dict[str, bool]:
    """Those of these calls that were told to stop, and whether their callers wait no more."""
    if not ids:
        return {}
    statement = select(calls.c.id, calls.c.delivered_round.is_not(None).label("withdrawn")).where(
        calls.c.id.in_(ids), calls.c.cancelling
    )
    return {row.id: row.withdrawn for row in connection.execute(statement)}


def _ended(outcome: Outcome) -> Outcome:
    """The outcome as the end of its call, where another attempt or a tail call would follow."""
    if outcome.tail is not None:
        told = Settled(Status.CANCELLED, None, class_name(Cancelled), "")
        return replace(outcome, tail=None, settled=told)
    return replace(outcome, retry_in=None)


def _number_arrivals(connection: Connection, outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Give each outcome its place in its caller's order of arrival, and wake callers that have
    enough. The callers' states are locked."""
    callers = {o.execution_id for o in outcomes if o.execution_id is not None}
    if not callers:
        return {}
    rows = connection.execute(select(states.c.id, states.c.arrived).where(states.c.id.in_(callers)))
    counters = {row.id: row.arrived for row in rows}
    before = dict(counters)
    ordinals: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.execution_id in counters:
            counters[outcome.execution_id] += 1
            ordinals[outcome.id] = counters[outcome.execution_id]
    moved = [{"id_": id, "now_arrived": n} for id, n in counters.items() if n > before[id]]
    if moved:
        connection.execute(_ARRIVE, moved)
    return ordinals


_FREE = {"worker": null(), "lease_expires": null()}

_SETTLED = {
    name: bindparam(name, type_=calls.c[name].type)
    for name in ("status", "output", "error_type", "error_message", "error_traceback")
}


_MINE = calls.c.id == bindparam("id_", type_=calls.c.id.type)

_DONE = (
    update(calls)
    .where(_MINE)
    .values(
        **_FREE,
        **_SETTLED,
        phase=Phase.DONE.value,
        due=null(),
        finished_at=now(),
        arrived=bindparam("arrived", type_=calls.c.arrived.type),
    )
)

_AGAIN = (
    update(calls)
    .where(_MINE)
    .values(
        **_FREE,
        **_SETTLED,
        phase=Phase.QUEUED.value,
        due=after(bindparam("wait")),
        first_failed_at=func.coalesce(calls.c.first_failed_at, now()),
        current_run=calls.c.current_run + 1,
    )
)

_TAIL = (
    update(calls)
    .where(_MINE)
    .values(
        **_FREE,
        phase=Phase.QUEUED.value,
        due=after(bindparam("wait")),
        details=null(),
        status=null(),
        output=null(),
        error_type=null(),
        error_message=null(),
        error_traceback=null(),
        first_failed_at=null(),
        attempt=0,
        current_run=calls.c.current_run + 1,
        asked_function=func.coalesce(calls.c.asked_function, calls.c.function),
        asked_input=func.coalesce(calls.c.asked_input, calls.c.input),
        function=bindparam("f"),
        input=bindparam("i", type_=calls.c.input.type),
        options=bindparam("said", type_=calls.c.options.type),
    )
)

_least = case(
    (states.c.poll_min_results < states.c.outstanding_calls, states.c.poll_min_results),
    else_=states.c.outstanding_calls,
)

_ARRIVE = (
    update(states)
    .where(states.c.id == bindparam("id_", type_=states.c.id.type))
    .values(
        arrived=bindparam("now_arrived"),
        # While a worker runs a round, its commit decides when the next one is due.
        wake_at=case(
            (
                and_(
                    states.c.worker.is_(None),
                    bindparam("now_arrived") - states.c.delivered >= _least,
                ),
                now(),
            ),
            else_=states.c.wake_at,
        ),
    )
)


# ---------------------------------------------------------------------------------------- reading


def anything_due(
    connection: Connection,
    functions: Collection[str],
    *,
    calls_too: bool = True,
    rounds_too: bool = True,
) -> bool:
    """Whether a claim would find something: a read, so that an idle worker writes nothing.

    Timers and lost leases always count, calls and rounds if there is room for them.
    """
    mine = calls.c.function.in_(sorted(functions))
    timers = calls.c.kind.in_(_CLOCKED)
    due = select(calls.c.id).where(calls.c.due <= now(), or_(timers, mine) if calls_too else timers)
    lapsed = select(calls.c.id).where(calls.c.worker.is_not(None), calls.c.lease_expires < now())
    woken = (
        select(states.c.id)
        .join(calls, calls.c.id == states.c.id)
        .where(states.c.wake_at <= now(), mine)
    )
    late = select(calls.c.id).where(calls.c.deadline <= now(), calls.c.finished_at.is_(None))
    wanted = [
        due.exists(),
        lapsed.exists(),
        late.exists(),
        *([woken.exists()] if rounds_too else []),
    ]
    return bool(connection.scalar(select(or_(*wanted))))


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


# ------------------------------------------------------------------------------------------- locks


def lock_states(connection: Connection, ids: Collection[str]) -> dict[str, Row[Any]]:
    """Lock the states of these executions, by id; the rows that there are."""
    if not ids:
        return {}
    statement = (
        select(states)
        .where(states.c.id.in_(sorted(ids)))
        .order_by(states.c.id)
        .with_for_update(key_share=True)
    )
    return {row.id: row for row in connection.execute(statement)}


def lock_calls(connection: Connection, ids: Collection[str]) -> dict[str, tuple[str, int]]:
    """Lock these calls, by id; the phase and claim of each."""
    if not ids:
        return {}
    statement = (
        select(calls.c.id, calls.c.phase, calls.c.claim)
        .where(calls.c.id.in_(sorted(ids)))
        .order_by(calls.c.id)
        .with_for_update(key_share=True)
    )
    return {id: (phase, fence) for id, phase, fence in connection.execute(statement)}


# ------------------------------------------------------------------------------------------ leases


def renew(connection: Connection, held: Sequence[tuple[str, int]], lease: float) -> set[str]:
    """Renew the leases of these (id, claim); the ids that are still held."""
    if not held:
        return set()
    fences = dict(held)
    statement = (
        select(calls.c.id, calls.c.claim)
        .where(calls.c.id.in_(sorted(fences)), calls.c.phase == Phase.RUNNING.value)
        .order_by(calls.c.id)
        .with_for_update(key_share=True)
    )
    mine = {id for id, fence in connection.execute(statement) if fences[id] == fence}
    if mine:
        connection.execute(
            update(calls)
            .where(calls.c.id.in_(sorted(mine)))
            .values(lease_expires=after(literal(lease)))
        )
    return mine


def give_back(
    connection: Connection, held: Sequence[tuple[str, int]], spent: Collection[str] = ()
) -> int:
    """Queue calls again that this worker will not finish; the attempt is not counted, but for
    those of `spent`."""
    standing = lock_calls(connection, [id for id, _ in held])
    mine = [id for id, fence in held if standing.get(id) == (Phase.RUNNING.value, fence)]
    if mine:
        counted = calls.c.id.in_(sorted(spent))
        connection.execute(
            update(calls)
            .where(calls.c.id.in_(sorted(mine)))
            .values(
                **_FREE,
                phase=Phase.QUEUED.value,
                due=now(),
                attempt=case((counted, calls.c.attempt), else_=calls.c.attempt - 1),
            )
        )
    return len(mine)


def give_back_unknown(connection: Connection, worker: str, known: Mapping[str, int]) -> int:
    """Queue calls again that this worker holds and does not know of: the reply to the COMMIT of
    its claim was lost. They have not begun, so the attempt is not counted."""
    held = connection.execute(
        select(calls.c.id, calls.c.claim)
        .where(calls.c.worker == worker, calls.c.phase == Phase.RUNNING.value)
        .order_by(calls.c.id)
    )
    return give_back(connection, [(id, claim) for id, claim in held if known.get(id) != claim])


def heartbeat(
    connection: Connection,
    held: tuple[str, int],
    worker: str,
    lease: float,
    details: str | None,
) -> bool:
    """Renew the lease of a call, or of the round of its execution, and write what it says of
    itself (None: nothing new). False if this worker holds it no more, or it is to stop."""
    id, fence = held
    lock_states(connection, [id])
    row = connection.execute(
        select(calls.c.phase, calls.c.claim, calls.c.worker, calls.c.cancelling)
        .where(calls.c.id == id)
        .with_for_update(key_share=True)
    ).first()
    if row is None or row.claim != fence or row.cancelling:
        return False
    values: dict[str, Any] = {} if details is None else {"details": details}
    if row.phase == Phase.RUNNING.value:
        values["lease_expires"] = after(literal(lease))
    else:
        renewed = connection.execute(
            update(states)
            .where(states.c.id == id, states.c.worker == worker)
            .values(wake_at=after(literal(lease)))
        )
        if row.phase != Phase.SUSPENDED.value or renewed.rowcount == 0:
            return False
    if values:
        connection.execute(update(calls).where(calls.c.id == id).values(**values))
    return True


def recover(connection: Connection, limit: int) -> list[str]:
    """Queue calls again whose lease has ended: their worker is dead, or was away too long.

    The attempt counts. SKIP LOCKED: a frozen worker's row locks must not hold up the sweep.
    """
    lost = (
        select(calls.c.id)
        .where(calls.c.worker.is_not(None), calls.c.lease_expires < now())
        .order_by(calls.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("lost")
        .prefix_with("MATERIALIZED")
    )
    statement = (
        update(calls)
        .where(calls.c.id.in_(select(lost.c.id)))
        .values(**_FREE, phase=Phase.QUEUED.value, due=now())
        .returning(calls.c.id)
    )
    return sorted(connection.scalars(statement))
