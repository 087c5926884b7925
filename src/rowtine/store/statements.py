"""The statements of a committed round, each with a name, each run once for a list of rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    null,
    select,
    update,
)

from rowtine.core.phases import CoroutinePhase, Phase, Resolution
from rowtine.core.status import Status
from rowtine.store.tables import calls, coroutines, futures, states
from rowtine.store.types import Timestamp, after, moment, now


def _bind(column: Any, name: str | None = None) -> Any:
    return bindparam(name or column.name, type_=column.type)


EXECUTION = _bind(calls.c.id, "e")
RUN = _bind(calls.c.run, "n")
NOW = bindparam("at", type_=Timestamp())
"""The time of the round: the one that its coroutines see, and see again when they are rebuilt."""

SUSPEND = (
    update(calls)
    .where(calls.c.id == EXECUTION)
    .values(phase=Phase.SUSPENDED.value, worker=null(), lease_expires=null())
)

POLLED = {
    name: _bind(states.c[name])
    for name in (
        "next_coroutine_id",
        "next_call_id",
        "outstanding_calls",
        "poll_min_results",
        "poll_max_results",
        "poll_max_wait_seconds",
        "running_seconds",
        "exit",
    )
}

UNHOLD = update(calls).where(calls.c.id == EXECUTION).values(status=null(), error_message=null())

STATE_INSERT = insert(states).values(
    **POLLED,
    id=EXECUTION,
    version=_bind(states.c.version),
    seed=_bind(states.c.seed),
    semantics=bindparam("semantics"),
    run=bindparam("run"),
    round=1,
    arrived=0,
    delivered=0,
    wake_at=after(bindparam("wait", type_=Float())),
)

TAKEN = states.c.delivered + bindparam("taken", type_=BigInteger())

STATE_UPDATE = (
    update(states)
    .where(states.c.id == EXECUTION, states.c.round == bindparam("seen"))
    .values(
        **POLLED,
        round=bindparam("r"),
        delivered=TAKEN,
        worker=null(),
        wake_at=case(
            (states.c.arrived - TAKEN >= bindparam("poll_min_results"), now()),
            # Told to stop while the round ran, which did not know it.
            (
                select(calls.c.cancelling).where(calls.c.id == states.c.id).scalar_subquery()
                != bindparam("cancelling", type_=Boolean()),
                now(),
            ),
            else_=after(bindparam("wait", type_=Float())),
        ),
    )
)

STATE_DELETE = delete(states).where(states.c.id == EXECUTION)

THIS_COROUTINE = and_(
    coroutines.c.execution_id == EXECUTION,
    coroutines.c.run == RUN,
    coroutines.c.id == bindparam("c"),
)

COROUTINE_INSERT = insert(coroutines).values(
    execution_id=EXECUTION,
    run=RUN,
    id=bindparam("c"),
    parent_id=_bind(coroutines.c.parent_id),
    serves=_bind(coroutines.c.serves),
    kind=_bind(coroutines.c.kind),
    function=_bind(coroutines.c.function),
    input=_bind(coroutines.c.input),
    fingerprint=_bind(coroutines.c.fingerprint),
    shielded=bindparam("shielded", type_=Boolean()),
    phase=CoroutinePhase.SUSPENDED.value,
    created_at=NOW,
)

COROUTINE_DONE = (
    update(coroutines)
    .where(THIS_COROUTINE)
    .values(
        phase=CoroutinePhase.DONE.value,
        finished_at=NOW,
        **{
            name: _bind(coroutines.c[name])
            for name in ("status", "output", "error_type", "error_message", "error_traceback")
        },
    )
)

COROUTINE_CANCELLED = update(coroutines).where(THIS_COROUTINE).values(cancelled=True)

RESOLUTION: dict[str, Any] = {
    "pending": bindparam("pending"),
    "failed": bindparam("failed"),
    "resolution": _bind(futures.c.resolution, "how"),
    "decided_by": _bind(futures.c.decided_by),
    "resolved_at": case((_bind(futures.c.resolution, "how").is_(None), null()), else_=NOW),
}

SOURCE = ("source_file", "source_line", "await_stack")

FUTURE_INSERT = insert(futures).values(
    **RESOLUTION,
    execution_id=EXECUTION,
    run=RUN,
    coroutine_id=bindparam("c"),
    seq=bindparam("s"),
    created_round=bindparam("r"),
    created_at=now(),
    **{
        name: _bind(futures.c[name])
        for name in (
            "kind",
            "function",
            "first_child",
            "children",
            "max_failures",
            "max_concurrency",
            "cancel_losers",
            *SOURCE,
        )
    },
)

FUTURE_UPDATE = (
    update(futures)
    .where(
        futures.c.execution_id == EXECUTION,
        futures.c.run == RUN,
        futures.c.coroutine_id == bindparam("c"),
        futures.c.seq == bindparam("s"),
    )
    .values(**RESOLUTION)
)

REQUESTED = {
    name: _bind(calls.c[name])
    for name in (
        "id",
        "execution_id",
        "run",
        "coroutine_id",
        "seq",
        "call_id",
        "root_id",
        "parent_id",
        "serves",
        "kind",
        "function",
        "input",
        "options",
        "token",
        "created_round",
        *SOURCE,
    )
}

CALL_INSERT = insert(calls).values(
    **REQUESTED,
    phase=Phase.QUEUED.value,
    # Without a moment and without a time to wait, it is not the clock that begins or ends it.
    due=func.coalesce(
        bindparam("until", type_=Timestamp()), after(bindparam("wait", type_=Float()))
    ),
    parked=bindparam("parked", type_=Boolean()),
    deadline=moment("deadline"),
    created_at=now(),
)

CALL_CANCELLED = insert(calls).values(
    **REQUESTED,
    phase=Phase.DONE.value,
    status=Status.CANCELLED.value,
    created_at=now(),
    finished_at=now(),
)

DELIVERED = (
    update(calls)
    .where(
        calls.c.execution_id == EXECUTION,
        calls.c.run == RUN,
        calls.c.call_id == bindparam("call"),
    )
    .values(
        delivered_round=bindparam("r"),
        resolution=_bind(calls.c.resolution, "how"),
        resolved_at=NOW,
        decided_by=_bind(calls.c.decided_by, "timer"),
        arrived=null(),
    )
)

_parked = calls.alias()

RELEASED = (
    update(calls)
    .where(
        calls.c.id.in_(
            select(_parked.c.id)
            .where(
                _parked.c.execution_id == EXECUTION,
                _parked.c.run == RUN,
                _parked.c.parent_id == bindparam("c"),
                _parked.c.serves == bindparam("s"),
                _parked.c.parked,
                _parked.c.delivered_round.is_(None),
            )
            .order_by(_parked.c.call_id)
            .limit(bindparam("room"))
        )
    )
    .values(parked=False, due=now())
)

END_CALLS = (
    update(calls)
    .where(calls.c.execution_id == EXECUTION, calls.c.run == RUN, calls.c.delivered_round.is_(None))
    .values(
        delivered_round=bindparam("r"),
        resolution=Resolution.CANCELLED.value,
        resolved_at=NOW,
        arrived=null(),
    )
)

END_COROUTINES = (
    update(coroutines)
    .where(
        coroutines.c.execution_id == EXECUTION,
        coroutines.c.run == RUN,
        coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
    )
    .values(phase=CoroutinePhase.DONE.value, status=Status.CANCELLED.value, finished_at=NOW)
)

END_FUTURES = (
    update(futures)
    .where(
        futures.c.execution_id == EXECUTION, futures.c.run == RUN, futures.c.resolution.is_(None)
    )
    .values(resolution=Resolution.CANCELLED.value, resolved_at=NOW)
)

# Lock order: states, then calls, then coroutines and futures.
ORDER = (
    STATE_INSERT,
    STATE_UPDATE,
    STATE_DELETE,
    SUSPEND,
    UNHOLD,
    CALL_INSERT,
    CALL_CANCELLED,
    DELIVERED,
    RELEASED,
    END_CALLS,
    COROUTINE_INSERT,
    COROUTINE_DONE,
    END_COROUTINES,
    END_FUTURES,
    COROUTINE_CANCELLED,
    FUTURE_INSERT,
    FUTURE_UPDATE,
)
