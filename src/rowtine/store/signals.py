"""Signals: sent to an execution, queued by name, each taken by one wait.

Sending and committing a round both lock the execution's rows first, and both match what is queued
with who waits afterwards. So a signal that is sent at the very moment of a wait finds it, or is
found by it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection

from sqlalchemy import Connection, bindparam, func, insert, select, update

from rowtine.core.payload import Payload
from rowtine.core.phases import Kind, Phase
from rowtine.errors import Conflict, NotFound
from rowtine.store.locks import lock_calls, lock_states
from rowtine.store.outcomes import Outcome, Settled
from rowtine.store.recording import write_outcomes
from rowtine.store.tables import calls, signals
from rowtine.store.types import now

__all__ = ["forget_run", "match", "put_back", "send"]


def send(connection: Connection, execution_id: str, name: str, value: Payload) -> None:
    """Queue a signal, and give it to a wait for it if there is one.

    NotFound if there is no such call, Conflict if it is over.
    """
    lock_states(connection, [execution_id])
    standing = lock_calls(connection, [execution_id]).get(execution_id)
    if standing is None:
        raise NotFound(f"there is no call {execution_id}")
    if standing.phase == Phase.DONE:
        raise Conflict(f"call {execution_id} is done, and hears no signal")
    last = select(func.coalesce(func.max(signals.c.number), 0)).where(
        signals.c.execution_id == execution_id
    )
    connection.execute(
        insert(signals).values(
            execution_id=execution_id,
            number=(connection.scalar(last) or 0) + 1,
            name=name,
            value=value,
            created_at=now(),
        )
    )
    match(connection, [execution_id])


def match(connection: Connection, executions: Collection[str]) -> bool:
    """Give queued signals to the waits for them, the oldest to the oldest; whether there were any,
    which makes rounds due. The executions are locked."""
    if not executions:
        return False
    waiting: dict[tuple[str, str], deque[tuple[str, int]]] = defaultdict(deque)
    waits = (
        select(calls.c.id, calls.c.execution_id, calls.c.function, calls.c.claim)
        .where(
            calls.c.execution_id.in_(sorted(executions)),
            calls.c.kind == Kind.SIGNAL.value,
            calls.c.phase == Phase.QUEUED.value,
        )
        .order_by(calls.c.execution_id, calls.c.call_id)
    )
    for wait in connection.execute(waits):
        waiting[wait.execution_id, wait.function].append((wait.id, wait.claim))
    matched: list[tuple[str, int, Outcome]] = []
    for (execution_id, name), takers in waiting.items():
        oldest = {"e": execution_id, "called": name, "most": len(takers)}
        for signal in connection.execute(_OLDEST, oldest).all():
            id, claim = takers.popleft()
            outcome = Outcome(id, claim, execution_id, Settled(output=signal.value))
            matched.append((execution_id, signal.number, outcome))
    if matched:
        # Of several names that arrive together, that comes first which was sent first.
        matched.sort(key=lambda each: each[:2])
        taken = [{"e": e, "n": number, "taker": outcome.id} for e, number, outcome in matched]
        connection.execute(_TAKE, taken)
        write_outcomes(connection, [outcome for _, _, outcome in matched])
    return bool(matched)


_OLDEST = (
    select(signals.c.number, signals.c.value)
    .where(
        signals.c.execution_id == bindparam("e", type_=signals.c.execution_id.type),
        signals.c.name == bindparam("called"),
        signals.c.call_id.is_(None),
    )
    .order_by(signals.c.number)
    .limit(bindparam("most"))
)

_TAKE = (
    update(signals)
    .where(
        signals.c.execution_id == bindparam("e", type_=signals.c.execution_id.type),
        signals.c.number == bindparam("n"),
    )
    .values(call_id=bindparam("taker", type_=signals.c.call_id.type))
)


def put_back(connection: Connection, withdrawn: Collection[str]) -> None:
    """Queue again, at their old places, the signals that these waits took and nobody heard."""
    if withdrawn:
        connection.execute(
            update(signals).where(signals.c.call_id.in_(sorted(withdrawn))).values(call_id=None)
        )


def forget_run(connection: Connection, executions: Collection[str]) -> None:
    """Queue all signals of these executions again: they begin anew, and will ask for them."""
    if executions:
        connection.execute(
            update(signals)
            .where(signals.c.execution_id.in_(sorted(executions)), signals.c.call_id.is_not(None))
            .values(call_id=None)
        )
