"""Leases: what a worker holds, keeps, gives back, or has lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Float, bindparam, case, or_, select, update

from rowtine.core.phases import Phase
from rowtine.store.dialect import in_one_statement
from rowtine.store.locks import LockedCall, lock, lock_calls
from rowtine.store.prepared import Prepared
from rowtine.store.statements import FREE
from rowtine.store.tables import calls, states
from rowtine.store.types import Id, after, among, as_text, now

__all__ = ["give_back", "give_back_unknown", "heartbeat", "put_on_disk", "recover", "renew"]


def renew(connection: Connection, held: Sequence[tuple[str, int]], lease: float) -> set[str]:
    """Renew the leases of these (id, claim); the ids that are still held.

    What somebody else has locked is not waited for: the leases of all others would end meanwhile.
    """
    if not held:
        return set()
    free = lock(connection, (), [id for id, _ in held], free=True).calls
    mine = {id for id, fence in held if id in free and _is_held(free[id], fence)}
    if mine:
        _RENEW.execute(connection, {"ids": mine, "lease": lease})
    if locked := [id for id, _ in held if id not in free]:
        found = _LOCKED.execute(connection, {"ids": locked})
        claims = {id: claim for id, phase, claim in found if phase == Phase.RUNNING}
        mine |= {id for id, fence in held if claims.get(id) == fence}
    return mine


_LOCKED = Prepared(
    select(as_text(calls.c.id), calls.c.phase, calls.c.claim).where(among(calls.c.id))
)


def _is_held(call: LockedCall | None, fence: int) -> bool:
    return call is not None and (call.phase, call.claim) == (Phase.RUNNING.value, fence)


_UNTIL = after(bindparam("lease", type_=Float()))

_RENEW = Prepared(update(calls).where(among(calls.c.id)).values(lease_expires=_UNTIL))


def put_on_disk(connection: Connection, ids: Collection[str], lease: float) -> None:
    """Have it on disk that these calls are held, in what attempt, before that begins."""
    if ids and in_one_statement(connection):  # elsewhere a claim is on disk as any write
        _RENEW.execute(connection, {"ids": ids, "lease": lease})


def give_back(
    connection: Connection, held: Sequence[tuple[str, int]], spent: Collection[str] = ()
) -> int:
    """Queue calls again that this worker will not finish; the attempt is not counted, but for
    those of `spent`."""
    standing = lock_calls(connection, [id for id, _ in held])
    mine = [id for id, fence in held if _is_held(standing.get(id), fence)]
    if mine:
        _GIVE_BACK.execute(connection, {"ids": mine, "spent": spent})
    return len(mine)


_GIVE_BACK = Prepared(
    update(calls)
    .where(among(calls.c.id))
    .values(
        **FREE,
        phase=Phase.QUEUED.value,
        due=now(),
        attempt=case((among(calls.c.id, "spent"), calls.c.attempt), else_=calls.c.attempt - 1),
    )
)


def give_back_unknown(connection: Connection, worker: str, known: Mapping[str, int]) -> int:
    """Queue calls again that this worker holds and does not know of: the reply to the COMMIT of
    its claim was lost. They have not begun, so the attempt is not counted."""
    held = _HELD.execute(connection, {"by": worker})
    return give_back(connection, [(id, claim) for id, claim in held if known.get(id) != claim])


_BY = bindparam("by", type_=Id())
"""The worker."""

_HELD = Prepared(
    select(as_text(calls.c.id), calls.c.claim)
    .where(calls.c.worker == _BY, calls.c.phase == Phase.RUNNING.value)
    .order_by(calls.c.id)
)


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
    call = lock(connection, [id], [id]).calls.get(id)
    if call is None or call.claim != fence or call.cancelling:
        return False
    if call.phase == Phase.RUNNING.value:
        _RENEW.execute(connection, {"ids": [id], "lease": lease})
    else:
        run, round = stand or (-1, -1)
        values = {"e": id, "at_run": run, "at_round": round, "by": worker, "lease": lease}
        renewed = _RENEW_ROUND.execute(connection, values)
        if call.phase != Phase.SUSPENDED.value or renewed.rowcount == 0:
            return False
    if details is not None:
        _SAY.execute(connection, {"e": id, "said": details})
    return True


_THIS = bindparam("e", type_=Id())

_RENEW_ROUND = Prepared(
    update(states)
    .where(
        states.c.id == _THIS,
        or_(states.c.worker == _BY, states.c.worker.is_(None)),
        states.c.run == bindparam("at_run"),
        states.c.round == bindparam("at_round"),
    )
    .values(worker=_BY, wake_at=_UNTIL)
)

_SAY = Prepared(
    update(calls)
    .where(calls.c.id == _THIS)
    .values(details=bindparam("said", type_=calls.c.details.type))
)


def recover(connection: Connection, limit: int) -> list[str]:
    """Queue calls again whose lease has ended: their worker is dead, or was away too long.

    The attempt counts. SKIP LOCKED: a frozen worker's row locks must not hold up the sweep.
    """
    return sorted(id for (id,) in _RECOVER.execute(connection, {"most": limit}))


_lost = (
    select(calls.c.id)
    .where(calls.c.worker.is_not(None), calls.c.lease_expires < now())
    .order_by(calls.c.worker)  # in the order of the index that has what runs, and no more
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, key_share=True)
    .cte("lost")
    .prefix_with("MATERIALIZED")
)

_RECOVER = Prepared(
    update(calls)
    .where(calls.c.id.in_(select(_lost.c.id)))
    .values(**FREE, phase=Phase.QUEUED.value, due=now())
    .returning(as_text(calls.c.id))
)
