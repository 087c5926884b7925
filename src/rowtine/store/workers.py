"""The statements on live workers."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, literal, select, update

from rowtine.core.values import value
from rowtine.store.dialect import insert_unless_there
from rowtine.store.tables import workers
from rowtine.store.types import now, seconds_since

__all__ = ["Mark", "WorkerRow", "beat", "forget", "forget_stale", "introduce", "made"]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """Who a worker is; `functions` is a JSON list of the names it serves."""

    id: str
    host: str
    pid: int
    boot_id: str
    version: str | None
    functions: str


@value
class Mark:
    """A batch of commits: the worker that makes it, and its number."""

    worker: str
    batch: int


def made(connection: Connection, mark: Mark) -> bool:
    """Whether the COMMIT of a batch was made, of which nobody has heard."""
    return connection.scalar(_BATCH, {"worker": mark.worker}) == mark.batch


_BATCH = select(workers.c.batch).where(workers.c.id == bindparam("worker", type_=workers.c.id.type))


def introduce(connection: Connection, worker: WorkerRow) -> None:
    """Enter a worker, unless it is there: for the first time, or again after somebody thought it
    dead."""
    connection.execute(
        insert_unless_there(connection, workers).values(
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
