"""Row locks. The one order: states by id, then calls by id, then coroutines and futures."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Connection,
    Select,
    false,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from rowtine.store.prepared import Prepared
from rowtine.store.tables import calls, states
from rowtine.store.types import among, as_text, now

__all__ = [
    "Locked",
    "LockedCall",
    "LockedState",
    "lock",
    "lock_calls",
    "lock_states",
]


class LockedState(NamedTuple):
    """What a commit wants to know of a suspended execution."""

    round: int
    run: int
    arrived: int
    delivered: int
    woken: bool
    """Whether somebody else has seen to its next round: it is due, or claimed."""


class LockedCall(NamedTuple):
    """What a commit wants to know of a call."""

    phase: str
    claim: int
    cancelling: bool
    withdrawn: bool
    """Of one that is not done: whether its caller waits for it no more."""


class Locked(NamedTuple):
    """The rows that a commit has locked, by id."""

    states: dict[str, LockedState]
    calls: dict[str, LockedCall]
    told: set[str]
    """Those of the roots that were told to stop. They are not locked."""

    def covers(self, states: Collection[str], calls: Collection[str]) -> bool:
        """Whether all of these are there, and locked."""
        return all(id in self.states for id in states) and all(id in self.calls for id in calls)


_STATES = (
    select(
        literal("state").label("what"),
        as_text(states.c.id).label("id"),
        states.c.round,
        states.c.run,
        states.c.arrived,
        states.c.delivered,
        null().label("phase"),
        or_(states.c.worker.is_not(None), func.coalesce(states.c.wake_at <= now(), false())).label(
            "one"
        ),
        false().label("other"),
    )
    .where(among(states.c.id, "states"))
    .order_by(states.c.id)
)

_CALLS = (
    select(
        literal("call").label("what"),
        as_text(calls.c.id).label("id"),
        calls.c.claim.label("round"),
        literal(0).label("run"),
        literal(0).label("arrived"),
        literal(0).label("delivered"),
        calls.c.phase,
        calls.c.cancelling.label("one"),
        calls.c.delivered_round.is_not(None).label("other"),
    )
    .where(among(calls.c.id, "calls"))
    .order_by(calls.c.id)
)


_ROOTS = select(
    literal("root").label("what"),
    as_text(calls.c.id).label("id"),
    *(literal(0).label(name) for name in ("round", "run", "arrived", "delivered")),
    null().label("phase"),
    false().label("one"),
    false().label("other"),
).where(among(calls.c.id, "roots"), calls.c.cancelling)


def _lock(*, skip: bool) -> Prepared:
    def locked(rows: Select[*tuple[Any, ...]], name: str) -> CTE:
        locking = rows.with_for_update(key_share=True, skip_locked=skip)
        return locking.cte(name).prefix_with("MATERIALIZED")

    states, calls = locked(_STATES, "locked_states"), locked(_CALLS, "locked_calls")
    # An Append runs its parts one after the other: the states are locked before the calls.
    return Prepared(union_all(select(states), select(calls), _ROOTS))


_LOCK, _LOCK_FREE = _lock(skip=False), _lock(skip=True)


def lock(
    connection: Connection,
    states: Collection[str],
    calls: Collection[str],
    roots: Collection[str] = (),
    *,
    free: bool = False,
) -> Locked:
    """Lock states, then calls, in one statement; and look which of the roots were told to stop.

    With `free`, only those that nobody else has locked: what is missing is to be left for later.
    """
    locked = Locked({}, {}, set())
    statement = _LOCK_FREE if free else _LOCK
    rows = statement.execute(connection, {"states": states, "calls": calls, "roots": roots})
    for row in rows:
        what, id, round, run, arrived, delivered, phase, one, other = tuple(row)
        if what == "state":
            locked.states[id] = LockedState(round, run, arrived, delivered, bool(one))
        elif what == "call":
            locked.calls[id] = LockedCall(phase, round, bool(one), bool(other))
        else:
            locked.told.add(id)
    return locked


def lock_states(connection: Connection, ids: Collection[str]) -> dict[str, LockedState]:
    """Lock the states of these executions; those that there are."""
    return lock(connection, ids, ()).states if ids else {}


def lock_calls(connection: Connection, ids: Collection[str]) -> dict[str, LockedCall]:
    """Lock these calls."""
    return lock(connection, (), ids).calls if ids else {}
