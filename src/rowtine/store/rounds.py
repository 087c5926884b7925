"""The statements with which a worker takes, keeps and leaves executions whose round is due."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Float, Text, bindparam, null, or_, select, update

from rowtine.core.status import Status
from rowtine.store.locks import lock
from rowtine.store.prepared import Prepared
from rowtine.store.tables import calls, states
from rowtine.store.types import Id, after, among, as_text, now, soon_on_disk

__all__ = ["adopt", "claim_rounds", "hold", "release_rounds", "renew_rounds"]


def claim_rounds(
    connection: Connection,
    worker: str,
    functions: Collection[str],
    version: str | None,
    limit: int,
    lease: float,
) -> list[str]:
    """Take up to `limit` executions whose next round is due and whose version this worker has.

    The claim saves others the trouble; what protects the state is the round's fence. So a server
    may forget it in a crash.
    """
    if not functions or limit < 1:
        return []
    values = {
        "functions": functions,
        "mine": version,
        "most": limit,
        "by": worker,
        "lease": lease,
    }
    return sorted(id for (id,) in _CLAIM.execute(connection, values))


_BY = bindparam("by", type_=Id())
"""The worker."""

_UNTIL = after(bindparam("lease", type_=Float()))

_version = bindparam("mine", type_=Text())

# Not a join, which may begin at the calls.
_function = select(calls.c.function).where(calls.c.id == states.c.id).scalar_subquery()

_due = (
    select(states.c.id)
    .where(
        states.c.wake_at <= now(),
        among(_function, "functions"),
        or_(_version.is_(None), states.c.version.is_(None), states.c.version == _version),
    )
    .order_by(states.c.wake_at, states.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, key_share=True, of=states)
    .cte("due")
    .prefix_with("MATERIALIZED")
)

_CLAIM = Prepared(
    update(states)
    .where(states.c.id.in_(select(_due.c.id)), soon_on_disk())
    .values(worker=_BY, wake_at=_UNTIL)
    .returning(as_text(states.c.id))
)


def adopt(
    connection: Connection, worker: str, id: str, stand: tuple[int, int], lease: float
) -> bool:
    """Say that this worker runs the round of an execution that stands there and that nobody else
    has claimed; whether that is so."""
    run, round = stand
    values = {"e": id, "at_run": run, "at_round": round, "by": worker, "lease": lease}
    return bool(_ADOPT.execute(connection, values).rowcount)


_THIS = bindparam("e", type_=Id())

_ADOPT = Prepared(
    update(states)
    .where(
        states.c.id == _THIS,
        states.c.run == bindparam("at_run"),
        states.c.round == bindparam("at_round"),
        states.c.worker.is_(None),
    )
    .values(worker=_BY, wake_at=_UNTIL)
)


def renew_rounds(connection: Connection, worker: str, ids: Collection[str], lease: float) -> None:
    """Keep executions whose round is still running; what somebody else has locked is not waited
    for."""
    if ids and (free := lock(connection, ids, (), free=True).states):
        _RENEW.execute(connection, {"ids": free.keys(), "by": worker, "lease": lease})


_held = (among(states.c.id), states.c.worker == _BY)

_RENEW = Prepared(update(states).where(*_held).values(wake_at=_UNTIL))


def release_rounds(connection: Connection, worker: str, ids: Collection[str]) -> None:
    """Give executions back whose round this worker will not finish: they are due at once."""
    if ids:
        lock(connection, ids, ())
        _RELEASE.execute(connection, {"ids": ids, "by": worker})


_RELEASE = Prepared(update(states).where(*_held).values(worker=null(), wake_at=now()))


def hold(
    connection: Connection, worker: str, execution_id: str, message: str, seconds: float
) -> None:
    """A state that does not fit is left as it is; its call says why, and it is looked at again
    after `seconds`, perhaps by a worker whose code fits."""
    values = {"e": execution_id, "by": worker, "lease": seconds}
    if _HOLD.execute(connection, values).rowcount:
        _SAY_WHY.execute(connection, {"e": execution_id, "why": message})


_HOLD = Prepared(
    update(states)
    .where(states.c.id == _THIS, states.c.worker == _BY)
    .values(worker=null(), wake_at=_UNTIL)
)

_SAY_WHY = Prepared(
    update(calls)
    .where(calls.c.id == _THIS)
    .values(
        status=Status.INCOMPATIBLE_STATE.value,
        output=null(),
        error_type=null(),
        error_message=bindparam("why"),
        error_traceback=null(),
    )
)
