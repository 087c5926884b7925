"""Row locks. The one order: states by id, then calls by id, then coroutines and futures."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, select

from rowtine.store.tables import calls, states
from rowtine.store.types import among

__all__ = ["lock_calls", "lock_states"]

_STATES = (
    select(states).where(among(states.c.id)).order_by(states.c.id).with_for_update(key_share=True)
)

_CALLS = (
    select(
        calls.c.id,
        calls.c.phase,
        calls.c.claim,
        calls.c.cancelling,
        calls.c.delivered_round.is_not(None).label("withdrawn"),
    )
    .where(among(calls.c.id))
    .order_by(calls.c.id)
    .with_for_update(key_share=True)
)


def lock_states(connection: Connection, ids: Collection[str]) -> dict[str, Row[Any]]:
    """Lock the states of these executions; the rows that there are."""
    return _locked(connection, _STATES, ids)


def lock_calls(connection: Connection, ids: Collection[str]) -> dict[str, Row[Any]]:
    """Lock these calls; of each its phase, its claim, whether it was told to stop, and (of one
    that is not done) whether its caller waits for it no more."""
    return _locked(connection, _CALLS, ids)


def _locked(connection: Connection, statement: Any, ids: Collection[str]) -> dict[str, Row[Any]]:
    if not ids:
        return {}
    return {row.id: row for row in connection.execute(statement, {"ids": ids})}
