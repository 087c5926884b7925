"""Leases: what a worker holds, keeps, gives back, or has lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, literal, or_, select, update

from rowtine.core.phases import Phase
from rowtine.store.locks import lock_calls, lock_states
from rowtine.store.statements import FREE
from rowtine.store.tables import calls, states
from rowtine.store.types import after, now

__all__ = ["give_back", "give_back_unknown", "heartbeat", "recover", "renew"]


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
    mine = [
        id
        for id, fence in held
        if (call := standing.get(id)) is not None
        and (call.phase, call.claim) == (Phase.RUNNING.value, fence)
    ]
    if mine:
        counted = calls.c.id.in_(sorted(spent))
        connection.execute(
            update(calls)
            .where(calls.c.id.in_(sorted(mine)))
            .values(
                **FREE,
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
    stand: tuple[int, int] | None,
    worker: str,
    lease: float,
    details: str | None,
) -> bool:
    """Renew the lease of a call, or of the round of its execution, and write what it says of
    itself (None: nothing new). False if this worker holds it no more, or it is to stop.

    A round that was handed what it runs with has claimed nothing yet. Now it has: if the execution
    stands where it did (its run and round), and nobody else was faster.
    """
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
        run, round = stand or (-1, -1)
        renewed = connection.execute(
            update(states)
            .where(
                states.c.id == id,
                or_(states.c.worker == worker, states.c.worker.is_(None)),
                states.c.run == run,
                states.c.round == round,
            )
            .values(worker=worker, wake_at=after(literal(lease)))
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
        .order_by(calls.c.worker)  # in the order of the index that has what runs, and no more
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("lost")
        .prefix_with("MATERIALIZED")
    )
    statement = (
        update(calls)
        .where(calls.c.id.in_(select(lost.c.id)))
        .values(**FREE, phase=Phase.QUEUED.value, due=now())
        .returning(calls.c.id)
    )
    return sorted(connection.scalars(statement))
