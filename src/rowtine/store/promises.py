"""Promises: answered once, by whoever holds the token."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select

from rowtine.core.phases import WITHDRAWN, Phase
from rowtine.errors import Conflict, NotFound
from rowtine.store.locks import lock_calls, lock_states
from rowtine.store.outcomes import Outcome, Settled
from rowtine.store.recording import write_outcomes
from rowtine.store.tables import calls

__all__ = ["answer"]


def answer(connection: Connection, token: str, settled: Settled) -> None:
    """Resolve or reject a promise. The same answer again is fine.

    NotFound for a token that is none (nothing is created), Conflict if the promise has another
    answer, its time was up, or the execution no longer waits for it; it stays as it is.
    """
    found = connection.execute(_PROMISE, {"token": token}).first()
    if found is None:
        raise NotFound("no promise has this token")
    lock_states(connection, [found.execution_id])
    lock_calls(connection, [found.id])
    promise = connection.execute(_PROMISE, {"token": token}).one()
    if promise.phase == Phase.QUEUED:
        write_outcomes(
            connection, [Outcome(promise.id, promise.claim, promise.execution_id, settled)]
        )
    elif promise.resolution in WITHDRAWN:
        raise Conflict("nobody waits for this promise any more; the answer was not taken")
    elif not _the_same(settled, promise):
        raise Conflict("this promise has another answer, which stays as it is")


_PROMISE = select(
    calls.c.id,
    calls.c.execution_id,
    calls.c.claim,
    calls.c.phase,
    calls.c.resolution,
    calls.c.status,
    calls.c.output,
    calls.c.error_type,
    calls.c.error_message,
).where(calls.c.token == bindparam("token"))


def _the_same(settled: Settled, promise: Any) -> bool:
    """An error may have been raised at another line, and is the same."""
    if (settled.error_type, settled.error_message) != (promise.error_type, promise.error_message):
        return False
    return settled.error_type is not None or settled.output == promise.output
