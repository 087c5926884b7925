"""Ending calls from outside: told to stop, ended at once, or because their deadline has passed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from rowtine.codec import class_name
from rowtine.core.exchange import Exit
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind, Phase
from rowtine.core.results import CoroutineResult
from rowtine.core.status import Status
from rowtine.errors import Cancelled, NotFound, TimedOut, UsageError
from rowtine.store.committing import Round, cancel_calls, commit
from rowtine.store.loading import Execution
from rowtine.store.locks import lock, lock_calls, lock_states
from rowtine.store.outcomes import Outcome, Settled
from rowtine.store.recording import write_outcomes
from rowtine.store.tables import calls, states
from rowtine.store.types import now

__all__ = ["cancel", "expire", "late", "terminate"]


def cancel(connection: Connection, id: str, reason: str) -> bool:
    """Tell a call to stop; False if it was done before.

    A suspended execution is told at its await, and cleans up; one that was told keeps the first
    reason. What has not suspended is over at once: nothing durable was done that could be undone.
    """
    call = _locked(connection, id)
    if call.phase == Phase.DONE:
        return False
    if call.phase == Phase.SUSPENDED:
        connection.execute(
            update(calls)
            .where(calls.c.id == id)
            .values(cancelling=True, cancel_reason=func.coalesce(calls.c.cancel_reason, reason))
        )
        cancel_calls(connection, [id])
        return True
    write_outcomes(connection, [_outcome(call, _cancelled(reason))])
    return True


def terminate(connection: Connection, codec: Codec, id: str, reason: str) -> bool:
    """End a call and all below it now, without clean-up; False if it was done before."""
    call = _locked(connection, id)
    if call.phase == Phase.DONE:
        return False
    _end_tree(connection, codec, call, _cancelled(reason), _cancelled(reason))
    return True


def late(connection: Connection, limit: int) -> list[str]:
    """The calls whose deadline has passed, those first that are late the longest."""
    passed = (
        select(calls.c.id)
        .where(calls.c.deadline <= now(), calls.c.finished_at.is_(None))
        .order_by(calls.c.deadline)
        .limit(limit)
    )
    return list(connection.scalars(passed))


def expire(connection: Connection, codec: Codec, id: str) -> bool:
    """End a call whose deadline has passed, with all below it; False if it has ended before, or
    somebody else has locked it."""
    found: Any = connection.execute(_CALL.where(calls.c.id == id)).first()
    if found is None:
        return False
    suspended = {id} if found.phase == Phase.SUSPENDED else set[str]()
    needed = suspended | _callers([found])
    locked = lock(connection, needed, [id], free=True)
    if id not in locked.calls or not needed <= locked.states.keys():
        return False
    call: Row[Any] = connection.execute(_CALL.where(calls.c.id == id)).one()
    if call.phase == Phase.DONE:
        return False
    _end_tree(connection, codec, call, _LATE, _cancelled("its caller's deadline passed"))
    return True


def _end_tree(
    connection: Connection, codec: Codec, top: Row[Any], settled: Settled, below: Settled
) -> None:
    """Each suspended execution of the tree ends in a round that nobody runs, all in one commit."""
    tree = _tree(connection, top.id)
    while True:
        lock_states(connection, {*tree, *_callers([top])})
        lock_calls(connection, tree)
        again = _tree(connection, top.id)
        if again <= tree:
            break
        tree = again  # a round was committed meanwhile
    rounds = [
        Round(_execution(row), _over(), _outcome(row, settled if row.id == top.id else below))
        for row in _open(connection, tree)
        if row.phase == Phase.SUSPENDED
    ]
    if rounds:
        commit(connection, codec, rounds)
    if top.phase != Phase.SUSPENDED:
        write_outcomes(connection, [_outcome(top, settled)])


def _tree(connection: Connection, id: str) -> set[str]:
    """The open calls below a call, and itself."""
    found, new = {id}, {id}
    while new:
        below = select(calls.c.id).where(
            calls.c.execution_id.in_(sorted(new)),
            calls.c.phase != Phase.DONE.value,
            calls.c.kind == Kind.FUNCTION.value,
        )
        new = set(connection.scalars(below)) - found
        found |= new
    return found


def _open(connection: Connection, ids: Collection[str]) -> Sequence[Row[Any]]:
    statement = _CALL.where(calls.c.id.in_(sorted(ids)), calls.c.phase != Phase.DONE.value)
    rows: Sequence[Any] = connection.execute(statement.order_by(calls.c.id)).all()
    return rows


def _locked(connection: Connection, id: str) -> Row[Any]:
    """A call, its caller's state and its own state locked. NotFound, or UsageError if it is none
    that can be stopped."""
    found: Any = connection.execute(_CALL.where(calls.c.id == id)).first()
    if found is None:
        raise NotFound(f"there is no call {id}")
    if found.kind != Kind.FUNCTION:
        raise UsageError(f"{id} is a {found.kind}: cancel the execution that waits for it")
    lock_states(connection, {id, *_callers([found])})
    lock_calls(connection, [id])
    call: Row[Any] = connection.execute(_CALL.where(calls.c.id == id)).one()
    return call


def _callers(rows: Sequence[Row[Any]]) -> set[str]:
    return {row.execution_id for row in rows if row.execution_id is not None}


_CALL: Any = select(
    calls.c.id,
    calls.c.execution_id,
    calls.c.root_id,
    calls.c.kind,
    calls.c.function,
    calls.c.phase,
    calls.c.claim,
    calls.c.attempt,
    states.c.run,
    states.c.round,
    now().label("now"),
).select_from(calls.outerjoin(states, states.c.id == calls.c.id))


def _execution(row: Row[Any]) -> Execution:
    return Execution(
        id=row.id,
        function=row.function,
        run=row.run,
        seen_round=row.round,
        claim=row.claim,
        attempt=row.attempt,
        root_id=row.root_id or row.id,
        caller_id=row.execution_id,
        failing_for=0.0,
        now=row.now,
    )


def _over() -> Exit:
    return Exit(CoroutineResult(0, status=Status.CANCELLED))


def _outcome(row: Row[Any], settled: Settled) -> Outcome:
    return Outcome(row.id, row.claim, row.execution_id, settled)


def _cancelled(reason: str) -> Settled:
    return Settled(Status.CANCELLED, None, class_name(Cancelled), reason)


_LATE = Settled(Status.TIMEOUT, None, class_name(TimedOut), "its deadline has passed")
