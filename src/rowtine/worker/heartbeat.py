"""Heartbeats: of a worker, in a thread that renews what it holds while the event loop is busy with
something else; and of a call, when its body says so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rowtine.errors import DatabaseError
from rowtine.store import Database, TransientError, leases, rounds, workers
from rowtine.store.workers import WorkerRow
from rowtine.worker.held import Snapshot, lost_of
from rowtine.worker.policy import heartbeat_interval

__all__ = ["Heartbeat", "beat"]

log = logging.getLogger("rowtine")


class Heartbeat:
    """Renews leases by explicit ids, a third of the lease apart; reports those that are lost."""

    def __init__(
        self,
        database: Database,
        worker: WorkerRow,
        lease: float,
        held: Callable[[], Snapshot],
        lost: Callable[[set[str]], None],
        alive: Callable[[], bool],
    ) -> None:
        self._database = database
        self._worker = worker
        self._lease = lease
        self._held = held
        self._lost = lost
        self._alive = alive
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rowtine-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def join(self, timeout: float) -> None:
        """Wait for the last beat: a connection that is given back after the engine has been closed
        would be nobody's to close."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._ended.wait(heartbeat_interval(self._lease)):
            try:
                if self._alive():
                    self.beat()
            except DatabaseError as error:
                log.warning("no heartbeat: %s", error)

    def beat(self) -> None:
        """Renew what is held, and say that this worker lives."""
        held = self._held()
        with self._database.writing() as connection:
            rounds.renew_rounds(connection, self._worker.id, held.rounds, self._lease)
            mine = leases.renew(connection, list(held.calls.items()), self._lease)
            if not workers.beat(connection, self._worker.id):
                workers.introduce(connection, self._worker)
            workers.forget_stale(connection, 10 * self._lease)
        if lost := lost_of(held, mine, self._held()):
            self._lost(lost)


def beat(
    database: Database,
    held: tuple[str, int],
    stand: tuple[int, int] | None,
    worker: str,
    lease: float,
    details: str | None,
) -> bool:
    """The heartbeat of a call that this worker runs, or of the round of an execution that stands
    there: whether it is still ours to run.

    A database that is away stops nobody: what was done meanwhile is fenced in any case.
    """
    try:
        with database.writing() as connection:
            return leases.heartbeat(connection, held, stand, worker, lease, details)
    except TransientError as error:
        log.warning("%s: no heartbeat: %s", held[0], error)
        return True
