"""The writes of a batch of commits, each with a name, each made once for a list of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    Integer,
    Table,
    and_,
    bindparam,
    case,
    func,
    null,
    select,
    update,
)

from rowtine.core.phases import CoroutinePhase, Phase, Resolution
from rowtine.core.status import Status
from rowtine.store.each import Delete, Each, Field, Given, Insert, Rows, Update
from rowtine.store.tables import calls, coroutines, futures, states, workers
from rowtine.store.types import Id, Timestamp, after, now

THAT = {"e": Id}
"""The execution."""

RUN = {**THAT, "n": Integer}
"""... in this run."""

AT = {"at": Timestamp}
"""The time of the round: the one that its coroutines see, and see again when they are rebuilt."""


def _columns(table: Table, *names: str) -> dict[str, Field]:
    return {name: table.c[name] for name in names}


def _given(given: Given, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(given, name) for name in names}


def _in_run(table: Table, given: Given) -> ColumnElement[bool]:
    return and_(table.c.execution_id == given.e, table.c.run == given.n)


# ---------------------------------------------------------------------------------------- outcomes

FREE = {"worker": null(), "lease_expires": null()}

SETTLED = _columns(calls, "status", "output", "error_type", "error_message", "error_traceback")

_THIS = {"id_": Id}


def _this_call(given: Given) -> ColumnElement[bool]:
    found: ColumnElement[bool] = calls.c.id == given.id_
    return found


DONE = Update(
    "done",
    calls,
    {**_THIS, **SETTLED, "arrival": BigInteger},
    _this_call,
    lambda given: {
        **FREE,
        **_given(given, SETTLED),
        "phase": Phase.DONE.value,
        "due": null(),
        "finished_at": now(),
        "arrived": given.arrival,
    },
)

HANDED = Update(
    "handed",
    calls,
    {**_THIS, **SETTLED, **AT, "r": Integer, "how": calls.c.resolution},
    _this_call,
    lambda given: {
        **FREE,
        **_given(given, SETTLED),
        "phase": Phase.DONE.value,
        "finished_at": now(),
        "delivered_round": given.r,
        "resolution": given.how,
        "resolved_at": given.at,
    },
)
"""Done, and taken by a round of the caller in the same commit."""

AGAIN = Update(
    "again",
    calls,
    {**_THIS, **SETTLED, "wait": Float},
    _this_call,
    lambda given: {
        **FREE,
        **_given(given, SETTLED),
        "phase": Phase.QUEUED.value,
        "due": after(given.wait),
        "first_failed_at": func.coalesce(calls.c.first_failed_at, now()),
        "current_run": calls.c.current_run + 1,
    },
)

TAIL = Update(
    "tail",
    calls,
    {
        **_THIS,
        "f": calls.c.function,
        "i": calls.c.input,
        "said": calls.c.options,
        "wait": Float,
    },
    _this_call,
    lambda given: {
        **FREE,
        **dict.fromkeys((*SETTLED, "details", "first_failed_at"), null()),
        "phase": Phase.QUEUED.value,
        "due": after(given.wait),
        "attempt": 0,
        "current_run": calls.c.current_run + 1,
        "asked_function": func.coalesce(calls.c.asked_function, calls.c.function),
        "asked_input": func.coalesce(calls.c.asked_input, calls.c.input),
        "function": given.f,
        "input": given.i,
        "options": given.said,
    },
)

_least = case(
    (states.c.poll_min_results < states.c.outstanding_calls, states.c.poll_min_results),
    else_=states.c.outstanding_calls,
)

ARRIVE = Update(
    "arrive",
    states,
    {**_THIS, "now_arrived": BigInteger},
    lambda given: states.c.id == given.id_,
    lambda given: {
        "arrived": given.now_arrived,
        # While a worker runs a round, its commit decides when the next one is due.
        "wake_at": case(
            (
                and_(
                    states.c.worker.is_(None),
                    given.now_arrived - states.c.delivered >= _least,
                ),
                now(),
            ),
            else_=states.c.wake_at,
        ),
    },
)


# ------------------------------------------------------------------------------------------ states

SUSPEND = Update(
    "suspend",
    calls,
    THAT,
    lambda given: calls.c.id == given.e,
    lambda _: {**FREE, "phase": Phase.SUSPENDED.value},
)

UNHOLD = Update(
    "unhold",
    calls,
    THAT,
    lambda given: calls.c.id == given.e,
    lambda _: {"status": null(), "error_message": null()},
)

POLLED = _columns(
    states,
    "next_coroutine_id",
    "next_call_id",
    "outstanding_calls",
    "poll_min_results",
    "poll_max_results",
    "poll_max_wait_seconds",
    "running_seconds",
    "exit",
)

_BEGUN = _columns(states, "version", "seed", "semantics", "run")

STATE_INSERT = Insert(
    "state_insert",
    states,
    {**THAT, **POLLED, **_BEGUN, "wait": Float},
    lambda given: {
        **_given(given, {**POLLED, **_BEGUN}),
        "id": given.e,
        "round": 1,
        "arrived": 0,
        "delivered": 0,
        "wake_at": after(given.wait),
    },
)

STATE_UPDATE = Update(
    "state_update",
    states,
    {**THAT, **POLLED, "r": Integer, "taken": BigInteger, "wait": Float},
    lambda given: states.c.id == given.e,
    lambda given: {
        **_given(given, POLLED),
        "round": given.r,
        "delivered": states.c.delivered + given.taken,
        "worker": null(),
        "wake_at": after(given.wait),
    },
)

STATE_DELETE = Delete("state_delete", states, THAT, lambda given: states.c.id == given.e)


# -------------------------------------------------------------------------------------- coroutines

_COROUTINE = {**RUN, "c": Integer}


def _this_coroutine(given: Given) -> ColumnElement[bool]:
    return and_(_in_run(coroutines, given), coroutines.c.id == given.c)


_SPAWNED = _columns(
    coroutines, "parent_id", "serves", "kind", "function", "input", "fingerprint", "shielded"
)

COROUTINE_INSERT = Insert(
    "coroutine_insert",
    coroutines,
    {**_COROUTINE, **AT, **_SPAWNED},
    lambda given: {
        **_given(given, _SPAWNED),
        "execution_id": given.e,
        "run": given.n,
        "id": given.c,
        "phase": CoroutinePhase.SUSPENDED.value,
        "created_at": given.at,
    },
)

_ENDED = _columns(coroutines, "status", "output", "error_type", "error_message", "error_traceback")

COROUTINE_DONE = Update(
    "coroutine_done",
    coroutines,
    {**_COROUTINE, **AT, **_ENDED},
    _this_coroutine,
    lambda given: {
        **_given(given, _ENDED),
        "phase": CoroutinePhase.DONE.value,
        "finished_at": given.at,
    },
)

COROUTINE_CANCELLED = Update(
    "coroutine_cancelled", coroutines, _COROUTINE, _this_coroutine, lambda _: {"cancelled": True}
)


# ----------------------------------------------------------------------------------------- futures

SOURCE = ("source_file", "source_line", "await_stack")

_FUTURE = {**RUN, "c": Integer, "s": Integer}

_RESOLUTION = _columns(futures, "pending", "failed", "decided_by")


def _resolved(given: Given) -> dict[str, Any]:
    return {
        **_given(given, _RESOLUTION),
        "resolution": given.how,
        "resolved_at": case((given.how.is_(None), null()), else_=given.at),
    }


_OPENED = _columns(
    futures,
    "kind",
    "function",
    "first_child",
    "children",
    "max_failures",
    "max_concurrency",
    "cancel_losers",
    *SOURCE,
)

FUTURE_INSERT = Insert(
    "future_insert",
    futures,
    {**_FUTURE, **AT, **_RESOLUTION, **_OPENED, "how": futures.c.resolution, "r": Integer},
    lambda given: {
        **_resolved(given),
        **_given(given, _OPENED),
        "execution_id": given.e,
        "run": given.n,
        "coroutine_id": given.c,
        "seq": given.s,
        "created_round": given.r,
        "created_at": now(),
    },
)

FUTURE_UPDATE = Update(
    "future_update",
    futures,
    {**_FUTURE, **AT, **_RESOLUTION, "how": futures.c.resolution},
    lambda given: and_(
        _in_run(futures, given), futures.c.coroutine_id == given.c, futures.c.seq == given.s
    ),
    _resolved,
)


# ------------------------------------------------------------------------------------------- calls

_REQUESTED = _columns(
    calls,
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

_UNTIL = {
    # A moment, or seconds from now; neither: the clock does not begin or end it.
    "until": Timestamp,
    "wait": Float,
    "deadline_at": Timestamp,
    "deadline_in": Float,
}


def _deadline(given: Given) -> ColumnElement[Any]:
    return func.coalesce(given.deadline_at, after(given.deadline_in))


CALL_INSERT = Insert(
    "call_insert",
    calls,
    {**_REQUESTED, **_UNTIL, "parked": Boolean},
    lambda given: {
        **_given(given, _REQUESTED),
        "phase": Phase.QUEUED.value,
        "due": func.coalesce(given.until, after(given.wait)),
        "parked": given.parked,
        "deadline": _deadline(given),
        "created_at": now(),
    },
)

CALL_BEGIN = Insert(
    "call_begin",
    calls,
    {
        **_REQUESTED,
        "deadline_at": Timestamp,
        "deadline_in": Float,
        "parked": Boolean,
        "worker": Id,
        "lease": Float,
    },
    lambda given: {
        **_given(given, _REQUESTED),
        "phase": Phase.RUNNING.value,
        "claim": 1,
        "attempt": 1,
        "worker": given.worker,
        "lease_expires": after(given.lease),
        "parked": given.parked,
        "deadline": _deadline(given),
        "created_at": now(),
        "started_at": now(),
    },
)
"""A call that the worker which asks for it begins at once: it is claimed already."""

CALL_CANCELLED = Insert(
    "call_cancelled",
    calls,
    _REQUESTED,
    lambda given: {
        **_given(given, _REQUESTED),
        "phase": Phase.DONE.value,
        "status": Status.CANCELLED.value,
        "created_at": now(),
        "finished_at": now(),
    },
)

DELIVERED = Update(
    "delivered",
    calls,
    {
        **RUN,
        **AT,
        "call": Integer,
        "r": Integer,
        "how": calls.c.resolution,
        "timer": calls.c.decided_by,
    },
    lambda given: and_(_in_run(calls, given), calls.c.call_id == given.call),
    lambda given: {
        "delivered_round": given.r,
        "resolution": given.how,
        "resolved_at": given.at,
        "decided_by": given.timer,
        "arrived": null(),
    },
)

TAKEN = Update(
    "taken",
    calls,
    {"id_": Id, **AT, "r": Integer, "how": calls.c.resolution},
    lambda given: calls.c.id == given.id_,
    lambda given: {
        "delivered_round": given.r,
        "resolution": given.how,
        "resolved_at": given.at,
        "arrived": null(),
    },
)
"""The same of an outcome that a load has found: its row is known. By its place PostgreSQL may look
for it among all calls of the execution, while nobody has counted how many there are of each."""

_parked = calls.alias()

RELEASED = (
    update(calls)
    .where(
        calls.c.id.in_(
            select(_parked.c.id)
            .where(
                _parked.c.execution_id == bindparam("e", type_=Id()),
                _parked.c.run == bindparam("n"),
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
"""Not one of the others: the number of rows that it lets begin differs from row to row."""


# ------------------------------------------------------------------- the end of a run from outside

END_CALLS = Update(
    "end_calls",
    calls,
    {**RUN, **AT, "r": Integer},
    lambda given: and_(_in_run(calls, given), calls.c.delivered_round.is_(None)),
    lambda given: {
        "delivered_round": given.r,
        "resolution": Resolution.CANCELLED.value,
        "resolved_at": given.at,
        "arrived": null(),
    },
)

END_COROUTINES = Update(
    "end_coroutines",
    coroutines,
    {**RUN, **AT},
    lambda given: and_(
        _in_run(coroutines, given), coroutines.c.phase == CoroutinePhase.SUSPENDED.value
    ),
    lambda given: {
        "phase": CoroutinePhase.DONE.value,
        "status": Status.CANCELLED.value,
        "finished_at": given.at,
    },
)

END_FUTURES = Update(
    "end_futures",
    futures,
    {**RUN, **AT},
    lambda given: and_(_in_run(futures, given), futures.c.resolution.is_(None)),
    lambda given: {"resolution": Resolution.CANCELLED.value, "resolved_at": given.at},
)


MARK = Update(
    "mark",
    workers,
    {"w": Id, "batch": BigInteger},
    lambda given: workers.c.id == given.w,
    lambda given: {"batch": given.batch},
)
"""The number of the batch: what is asked for when nobody has heard whether its COMMIT was made."""


# ------------------------------------------------------------------------------------------- order

TOGETHER: tuple[Each, ...] = (
    STATE_INSERT,
    STATE_UPDATE,
    STATE_DELETE,
    SUSPEND,
    CALL_INSERT,
    CALL_BEGIN,
    CALL_CANCELLED,
    HANDED,
    TAKEN,
    DONE,
    COROUTINE_INSERT,
    FUTURE_INSERT,
    MARK,
)
"""What no two of them touch the same row with: one statement."""

AFTERWARDS: tuple[Each, ...] = (
    AGAIN,
    TAIL,
    ARRIVE,
    UNHOLD,
    DELIVERED,
    END_CALLS,
    COROUTINE_DONE,
    END_COROUTINES,
    END_FUTURES,
    COROUTINE_CANCELLED,
    FUTURE_UPDATE,
)
"""What may touch rows that those, or others of these, have written: one after the other."""


_UNLESS_TWICE: tuple[Each, ...] = (*TOGETHER, COROUTINE_DONE, FUTURE_UPDATE)
"""With what belongs there as well unless a coroutine begins and ends at once (see `twice`)."""


EXPECTED: tuple[Each, ...] = tuple([each for each in _UNLESS_TWICE if each is not TAKEN])
"""What a batch that goes as expected may do (`expected`): nothing in it has been loaded."""


USUAL: tuple[tuple[Each, ...], ...] = (
    (STATE_UPDATE, CALL_BEGIN, HANDED, MARK),
    (DONE, MARK),
)
"""What stands in most batches: steps of what is on its way, calls that end. A statement of their
own is worth it; one for each combination would mean to compile and to plan many."""


ALONE: tuple[tuple[Each, ...], ...] = (
    *USUAL,
    (STATE_INSERT, SUSPEND, COROUTINE_INSERT, CALL_BEGIN, MARK),
    (STATE_DELETE, HANDED, COROUTINE_DONE, DONE, MARK),
)
"""What stands in a batch of one: a step, a call that ends, an execution's first round and its
last."""


def in_order(rows: Mapping[Each, Rows]) -> list[dict[Each, Rows]]:
    """The batches in which these are written."""
    together = TOGETHER if twice(rows) else _UNLESS_TWICE
    first: dict[Each, Rows] = {each: rows[each] for each in together if each in rows}
    one_by_one: list[dict[Each, Rows]] = [
        {each: rows[each]} for each in AFTERWARDS if each in rows and each not in first
    ]
    return [first, *one_by_one]


def twice(rows: Mapping[Each, Rows]) -> bool:
    """Whether a coroutine would begin and end in the same statement."""
    begun = {(row["e"], row["n"], row["c"]) for row in rows.get(COROUTINE_INSERT, ())}
    ended = rows.get(COROUTINE_DONE, ())
    return any((row["e"], row["n"], row["c"]) in begun for row in ended)
