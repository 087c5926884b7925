"""The statements with which a worker takes, keeps and leaves executions whose round is due."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, literal, null, or_, select, true, update

from rowtine.core.status import Status
from rowtine.store.locks import lock_states
from rowtine.store.tables import calls, states
from rowtine.store.types import after, now

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

    The claim saves others the trouble; what protects the state is the round's fence.
    """
    if not functions or limit < 1:
        return []
    gate = (
        true() if version is None else or_(states.c.version.is_(None), states.c.version == version)
    )
    # Not a join, which may begin at the calls.
    function = select(calls.c.function).where(calls.c.id == states.c.id).scalar_subquery()
    due = (
        select(states.c.id)
        .where(states.c.wake_at <= now(), function.in_(sorted(functions)), gate)
        .order_by(states.c.wake_at, states.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True, of=states)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    statement = (
        update(states)
        .where(states.c.id.in_(select(due.c.id)))
        .values(worker=worker, wake_at=after(literal(lease)))
        .returning(states.c.id)
    )
    return sorted(connection.scalars(statement))


def adopt(
    connection: Connection, worker: str, id: str, stand: tuple[int, int], lease: float
) -> bool:
    """Say that this worker runs the round of an execution that stands there and that nobody else
    has claimed; whether that is so."""
    run, round = stand
    return bool(
        connection.execute(
            update(states)
            .where(
                states.c.id == id,
                states.c.run == run,
                states.c.round == round,
                states.c.worker.is_(None),
            )
            .values(worker=worker, wake_at=after(literal(lease)))
        ).rowcount
    )


def renew_rounds(connection: Connection, worker: str, ids: Collection[str], lease: float) -> None:
    """Keep executions whose round is still running."""
    if ids:
        lock_states(connection, ids)
        connection.execute(
            update(states)
            .where(states.c.id.in_(sorted(ids)), states.c.worker == worker)
            .values(wake_at=after(literal(lease)))
        )


def release_rounds(connection: Connection, worker: str, ids: Collection[str]) -> None:
    """Give executions back whose round this worker will not finish: they are due at once."""
    if ids:
        lock_states(connection, ids)
        connection.execute(
            update(states)
            .where(states.c.id.in_(sorted(ids)), states.c.worker == worker)
            .values(worker=null(), wake_at=now())
        )


def hold(
    connection: Connection, worker: str, execution_id: str, message: str, seconds: float
) -> None:
    """A state that does not fit is left as it is; its call says why, and it is looked at again
    after `seconds`, perhaps by a worker whose code fits."""
    held = connection.execute(
        update(states)
        .where(states.c.id == execution_id, states.c.worker == worker)
        .values(worker=null(), wake_at=after(literal(seconds)))
    )
    if held.rowcount:
        connection.execute(
            update(calls)
            .where(calls.c.id == execution_id)
            .values(
                status=Status.INCOMPATIBLE_STATE.value,
                output=null(),
                error_type=null(),
                error_message=message,
                error_traceback=null(),
            )
        )
