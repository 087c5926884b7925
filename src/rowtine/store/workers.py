"""The statements on live workers."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, literal, select, update

from rowtine.store.tables import workers
from rowtine.store.types import now, seconds_since

__all__ = ["WorkerRow", "beat", "forget", "forget_stale", "introduce"]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """Who a worker is; `functions` is a JSON list of the names it serves."""

    id: str
    host: str
    pid: int
    boot_id: str
    version: str | None
    functions: str


def introduce(connection: Connection, worker: WorkerRow) -> None:
    """Enter a worker, or enter it again after somebody thought it dead."""
    known = connection.scalar(select(workers.c.id).where(workers.c.id == worker.id))
    if known is not None:
        beat(connection, worker.id)
        return
    connection.execute(
        insert(workers).values(
            id=worker.id,
            host=worker.host,
            pid=worker.pid,
            boot_id=worker.boot_id,
            version=worker.version,
            functions=worker.functions,
            started_at=now(),
            heartbeat_at=now(),
        )
    )


def beat(connection: Connection, id: str) -> bool:
    """Say that a worker lives; False if it has been forgotten."""
    done = connection.execute(update(workers).where(workers.c.id == id).values(heartbeat_at=now()))
    return done.rowcount == 1


def forget(connection: Connection, id: str) -> None:
    """A worker has ended."""
    connection.execute(delete(workers).where(workers.c.id == id))


def forget_stale(connection: Connection, seconds: float) -> None:
    """Remove workers that have been silent for so long."""
    connection.execute(
        delete(workers).where(seconds_since(workers.c.heartbeat_at) > literal(seconds))
    )
