"""The reads of a round, each with a name. Each takes values, and holds no session.

Their rows are the driver's: truth values may be numbers, and moments are for `moment_read`. A read
by number has few of them, as one parameter, or a whole range: 100,000 members are two numbers.

What any round begins with is one statement (`look`), of which each row is one JSON array: each
statement costs some 200 µs of Python, and each column of a result 3, however few rows it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)

from rowtine.core.phases import CoroutinePhase, Kind
from rowtine.store.calls import SEAT
from rowtine.store.prepared import Prepared
from rowtine.store.tables import calls, coroutines, futures, states
from rowtine.store.types import Id, among, among_those, as_array, as_text, now, seconds_since

__all__ = [
    "ENDED",
    "EVERYBODY",
    "JOINS",
    "MEMBERS",
    "OPEN_MEMBERS",
    "RESOLUTION",
    "ROUND",
    "SUSPENDED",
    "WAITERS",
    "AnyRow",
    "ByNumber",
    "CallRow",
    "JoinRow",
    "Seen",
    "calls_of",
    "join_of",
    "look",
]

AnyRow = Any
"""A row, which has its columns by name: the driver's, or what a JSON array was read as."""

EVERYBODY = range(2**31 - 1)
"""The numbers of all coroutines that an execution can have."""


class ByNumber:
    """A read of what has one of some numbers."""

    def __init__(
        self, build: Callable[[Callable[[Column[Any]], ColumnElement[bool]]], Any]
    ) -> None:
        first = bindparam("first", type_=Integer())
        last = bindparam("last", type_=Integer())
        self._few = Prepared(build(lambda number: among(number, "numbers")))
        self._range = Prepared(build(lambda number: number.between(first, last)))

    def rows(
        self, connection: Connection, numbers: Sequence[int], values: dict[str, Any]
    ) -> Sequence[AnyRow]:
        if isinstance(numbers, range):
            between = {"first": numbers.start, "last": numbers.stop - 1}
            return self._range.execute(connection, {**values, **between}).all()
        return self._few.execute(connection, {**values, "numbers": numbers}).all()


_EXECUTION = bindparam("id", type_=Id())


def _mine(table: Any) -> ColumnElement[bool]:
    return and_(table.c.execution_id == _EXECUTION, table.c.run == bindparam("run"))


def _same_run(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(one.c.execution_id == other.c.execution_id, one.c.run == other.c.run)


ROUND = Prepared(select(states.c.round).where(states.c.id == _EXECUTION))
"""Where a suspended execution stands."""

# A tail call goes on as another function: the journal has the one that was asked for.
_ASKED = (
    calls.c.kind,
    func.coalesce(calls.c.asked_function, calls.c.function).label("function"),
    func.coalesce(calls.c.asked_input, calls.c.input).label("input"),
)

_PLACE = (
    calls.c.coroutine_id,
    calls.c.seq,
    calls.c.call_id,
    calls.c.parent_id,
    calls.c.serves,
    calls.c.parked,
    calls.c.options,
)

_RESULT = ("output", "error_type", "error_message", "error_traceback")

# ------------------------------------------------------------------------------- who is suspended


class JoinRow(NamedTuple):
    """A wait for several."""

    coroutine_id: int
    seq: int
    kind: str
    function: str
    first_child: int
    children: int
    pending: int
    failed: int
    max_failures: int
    max_concurrency: int | None
    cancel_losers: bool
    resolution: str | None
    resolved_at: Any
    decided_by: int | None


_JOIN = tuple(futures.c[name] for name in JoinRow._fields)

_PENDING = tuple(futures.c[name] for name in JoinRow._fields[1:-3])

_last_join = (
    # What it waits for comes after all that it has waited for. Not a join of tables, for which the
    # planner might read all joins of the execution, or of the coroutine: this is one row of the
    # index, however many there are.
    select(case((futures.c.resolution.is_(None), as_array(*_PENDING))))
    .where(_same_run(futures, coroutines), futures.c.coroutine_id == coroutines.c.id)
    .order_by(futures.c.seq.desc())
    .limit(literal_column("1"))
    .correlate(coroutines)
    .scalar_subquery()
)


def join_of(row: AnyRow) -> JoinRow | None:
    """The join that a coroutine waits for; None if it waits for a call."""
    found = row.waits_for
    if found is None:
        return None
    # An array in an array is text in PostgreSQL, in SQLite it is part of the one around it.
    pending = msgspec.json.decode(found) if isinstance(found, str) else found
    return JoinRow._make((row.id, *pending, None, None, None))


_COROUTINE = (
    coroutines.c.id,
    coroutines.c.parent_id,
    coroutines.c.serves,
    coroutines.c.kind,
    coroutines.c.function,
    coroutines.c.cancelled,
    coroutines.c.shielded,
    coroutines.c.created_at,
)

_input_of_main = [
    (
        coroutines.c.id == 0,
        select(cast(calls.c.input, Text()))
        .where(calls.c.id == coroutines.c.execution_id)
        .scalar_subquery(),
    )
]

_input = case(
    (among(coroutines.c.id, "without"), null()),
    *_input_of_main,
    else_=cast(coroutines.c.input, Text()),
).label("input")
"""What it was begun with; not of those in `without`, which are not rebuilt."""

SUSPENDED = ByNumber(
    lambda chosen: select(*_COROUTINE, _input, _last_join.label("waits_for")).where(
        _mine(coroutines),
        coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
        chosen(coroutines.c.id),
    )
)
"""Suspended coroutines, each with the join that it waits for if it does: see `join_of`."""

_first, _last = bindparam("first", type_=Integer()), bindparam("last", type_=Integer())

_waiting = select(futures.c.coroutine_id).where(
    _mine(futures),
    # No parameters, with which no database would know that the index has them.
    futures.c.kind == literal_column(f"'{Kind.TASK.value}'"),
    futures.c.resolution.is_(None),
)

WAITERS = Prepared(
    union_all(
        _waiting.where(futures.c.children == 1, futures.c.first_child.between(_first, _last)),
        _waiting.where(
            futures.c.children > 1,
            futures.c.first_child <= _last,
            futures.c.first_child + futures.c.children > _first,
        ),
    )
)
"""The coroutines that wait for a task among some: for one, or for the next of several."""

OPEN_MEMBERS = ByNumber(
    lambda chosen: select(*_PLACE, *_ASKED).where(
        _mine(calls),
        chosen(calls.c.coroutine_id),
        calls.c.parent_id.is_not(None),
        calls.c.delivered_round.is_(None),
    )
)
"""Calls that are members of joins themselves, and that a round still waits for."""


# ------------------------------------------------------------------------- what a round begins with

_KNOWN = {
    "id": as_text(calls.c.id),
    "execution_id": as_text(calls.c.execution_id),
    "root_id": as_text(calls.c.root_id),
    "function": calls.c.function,
    # In a later round only coroutine 0 wants it, and that only where it is rebuilt.
    "input": case((states.c.id.is_(None), cast(calls.c.input, Text()))),
    "phase": calls.c.phase,
    "status": calls.c.status,
    "attempt": calls.c.attempt,
    "claim": calls.c.claim,
    "current_run": calls.c.current_run,
    "cancelling": calls.c.cancelling,
    "cancel_reason": calls.c.cancel_reason,
    "started_at": calls.c.started_at,
    "now": now(),
    "options": cast(calls.c.options, Text()),
    "deadline": calls.c.deadline,
    "details": cast(calls.c.details, Text()),
    "failing_for": func.coalesce(seconds_since(calls.c.first_failed_at), 0.0),
    **{column.name: column for column in SEAT},
    "version": states.c.version,
    "seed": states.c.seed,
    "semantics": states.c.semantics,
    "round": states.c.round,
    "next_coroutine_id": states.c.next_coroutine_id,
    "next_call_id": states.c.next_call_id,
    "outstanding_calls": states.c.outstanding_calls,
    "worker": as_text(states.c.worker),
    "poll_max_results": states.c.poll_max_results,
    "running_seconds": states.c.running_seconds,
    "exit": cast(states.c.exit, Text()),
}

_Moment = datetime | int
"""As JSON has it: see `moment_read`."""


def _row_of(name: str, columns: Iterable[str], **types: Any) -> Any:
    """How a JSON array of these columns is read."""
    fields = [(str(column), types.get(column, Any)) for column in columns]
    return msgspec.json.Decoder(msgspec.defstruct(name, fields, array_like=True)).decode


def _part(number: int, columns: Iterable[Any]) -> Any:
    part = literal_column(str(number), Integer())
    return select(part.label("part"), as_array(*columns).label("row"))


_head = (
    select(*(column.label(name) for name, column in _KNOWN.items()))
    .select_from(calls.outerjoin(states, states.c.id == calls.c.id))
    .where(calls.c.id == _EXECUTION)
    .cte("head")
)


def _of_head(name: str) -> Any:
    return select(_head.c[name]).scalar_subquery()


def _in_its_run(table: Any) -> ColumnElement[bool]:
    return and_(table.c.execution_id == _EXECUTION, table.c.run == _of_head("current_run"))


_owner = coroutines.alias()

_ARRIVED = {
    **{column.name: column for column in (*_PLACE, *_ASKED, *(calls.c[name] for name in _RESULT))},
    "arrived": calls.c.arrived,
    "id": as_text(calls.c.id),
    "next_of_kin": func.coalesce(
        calls.c.parent_id,
        # Not a join: for that the planner has to guess how many have arrived, and one that
        # guesses high reads all coroutines of the execution.
        select(_owner.c.parent_id)
        .where(_same_run(_owner, calls), _owner.c.id == calls.c.coroutine_id)
        .scalar_subquery(),
    ),
}

_PAYLOADS = ("input", "output", "options")

_arrived = (
    select(
        *(
            (cast(column, Text()) if name in _PAYLOADS else column).label(name)
            for name, column in _ARRIVED.items()
        )
    )
    .where(_in_its_run(calls), calls.c.arrived.is_not(None))
    .order_by(calls.c.arrived)
    .limit(func.coalesce(_of_head("poll_max_results"), 0))
    .cte("arrived")
)

_watched = select(futures.c.coroutine_id).where(
    _in_its_run(futures),
    # No parameters, with which no database would know that the index has them.
    futures.c.kind == literal_column(f"'{Kind.TASK.value}'"),
    futures.c.resolution.is_(None),
)

_waiting_for_arrived = (
    _watched.where(
        futures.c.children == 1,
        among_those(futures.c.first_child, select(_arrived.c.coroutine_id)),
    ),
    _watched.where(
        futures.c.children > 1,
        futures.c.first_child <= select(func.max(_arrived.c.coroutine_id)).scalar_subquery(),
        futures.c.first_child + futures.c.children
        > select(func.min(_arrived.c.coroutine_id)).scalar_subquery(),
    ),
)

_resumed = select(_arrived.c.coroutine_id).where(_arrived.c.parent_id.is_(None))

_CONCERNED = {
    **{column.name: column for column in _COROUTINE},
    "input": case(
        (~among_those(coroutines.c.id, _resumed), null()),
        (among(coroutines.c.id, "warm"), null()),
        *_input_of_main,
        else_=cast(coroutines.c.input, Text()),
    ),
    "waits_for": _last_join,
}

_concerned = _part(2, _CONCERNED.values()).where(
    _in_its_run(coroutines),
    coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
    among_those(
        coroutines.c.id,
        union_all(
            select(_arrived.c.coroutine_id),
            select(_arrived.c.next_of_kin),
            *_waiting_for_arrived,
        ),
    ),
)

_LOOK = Prepared(
    union_all(
        _part(0, _head.c),
        _part(1, _arrived.c),
        _concerned,
    )
)

_READ = (
    _row_of("Head", _KNOWN, started_at=_Moment | None, now=_Moment, deadline=_Moment | None),
    _row_of("Arrived", _ARRIVED),
    _row_of("Concerned", _CONCERNED, created_at=_Moment),
)


class Seen(NamedTuple):
    """What a round begins with."""

    head: AnyRow
    """The call, and its state if it has suspended (else `round` is null); None if there is none."""
    arrived: list[AnyRow]
    """The calls that have come to something and that no round has taken, in the order in which they
    did; `next_of_kin` is the coroutine that is told when the one that waits for it ends."""
    concerned: list[AnyRow]
    """The suspended coroutines that are resumed with these, that are told, and that wait for one of
    the coroutines that these serve as a task; each with the join that it waits for, if it does
    (`join_of`). The input only of those that are resumed, and are not warm."""


def look(connection: Connection, execution_id: str, warm: Collection[int]) -> Seen:
    """Read it. `warm` are coroutines that are not rebuilt."""
    parts: list[list[AnyRow]] = [[], [], []]
    for part, row in _LOOK.execute(connection, {"id": execution_id, "warm": warm}):
        parts[part].append(_READ[part](row))
    heads, arrived, concerned = parts
    arrived.sort(key=attrgetter("arrived"))
    return Seen(heads[0] if heads else None, arrived, concerned)


# --------------------------------------------------------------------------------------- journals


class CallRow(NamedTuple):
    """A call that a coroutine has waited for, or waits for."""

    coroutine_id: int
    seq: int
    kind: str
    function: str
    input: Any
    resolution: str | None
    resolved_at: Any
    decided_by: int | None
    output: Any
    error_type: str | None
    error_message: str | None
    error_traceback: str | None
    call_id: int
    options: Any


RESOLUTION = CallRow._fields.index("resolution")

_CALLS = Prepared(
    select(
        calls.c.coroutine_id,
        calls.c.seq,
        *_ASKED,
        calls.c.resolution,
        calls.c.resolved_at,
        calls.c.decided_by,
        *(calls.c[name] for name in _RESULT),
        calls.c.call_id,
        case((calls.c.resolution.is_(None), calls.c.options)).label("options"),
    ).where(
        _mine(calls),
        among(calls.c.coroutine_id, "numbers"),
        calls.c.parent_id.is_(None),
        or_(calls.c.resolution.is_(None), among(calls.c.coroutine_id, "cold")),
    )
)


def calls_of(connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The calls that coroutines have waited for, and wait for; of those that are not cold the last.

    A journal may have thousands of them: they come as the driver makes them, each to be a `CallRow`
    if that is worth it.
    """
    result = _CALLS.execute(connection, values)
    cursor: Any = result.cursor
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    result.close()
    return rows


JOINS = Prepared(
    select(*_JOIN).where(
        _mine(futures),
        among(futures.c.coroutine_id, "numbers"),
        futures.c.resolution.is_not(None),
    )
)
"""The joins that coroutines have waited for."""


def _members(table: Any, member: Column[Any], asked: Sequence[Any]) -> Any:
    function, input = asked
    inside = and_(
        _same_run(table, futures),
        member >= futures.c.first_child,
        member < futures.c.first_child + futures.c.children,
        or_(futures.c.kind != Kind.TASK.value, member == futures.c.decided_by),
    )
    if table is calls:
        inside = and_(inside, calls.c.parent_id.is_not(None))
    # What members of a pending join have come to is read when it is ready.
    over = futures.c.resolution.is_not(None)
    return (
        select(
            futures.c.coroutine_id.label("owner"),
            futures.c.seq.label("owner_seq"),
            member.label("member"),
            table.c.kind,
            function.label("function"),
            cast(input, Text()).label("input"),
            *_came_to(table, lambda column: case((over, column))),
        )
        .select_from(futures.join(table, inside))
        .where(_mine(futures), among(futures.c.coroutine_id, "numbers"))
    )


def _came_to(table: Any, read: Callable[[Any], Any]) -> list[Any]:
    """What members came to, whichever table they are in."""
    given_up = calls.c.resolution if table is calls else null()
    return [
        read(cast(table.c.output, Text())).label("output"),
        *(read(table.c[name]).label(name) for name in _RESULT if name != "output"),
        given_up.label("resolution"),
    ]


MEMBERS = Prepared(
    union_all(
        _members(coroutines, coroutines.c.id, (coroutines.c.function, coroutines.c.input)),
        _members(calls, calls.c.coroutine_id, _ASKED[1:]),
    )
)
"""The members of all joins of coroutines: of a wait for tasks, the one that decided it."""


def _ended(chosen: Callable[[Column[Any]], ColumnElement[bool]]) -> Any:
    return union_all(
        select(
            coroutines.c.id.label("member"),
            coroutines.c.status,
            *_came_to(coroutines, lambda column: column),
            coroutines.c.finished_at.label("told_at"),
        ).where(
            _mine(coroutines),
            chosen(coroutines.c.id),
            coroutines.c.phase == CoroutinePhase.DONE.value,
        ),
        select(
            calls.c.coroutine_id.label("member"),
            calls.c.status,
            *_came_to(calls, lambda column: column),
            calls.c.resolved_at.label("told_at"),
        ).where(
            _mine(calls),
            chosen(calls.c.coroutine_id),
            calls.c.parent_id.is_not(None),
            calls.c.delivered_round.is_not(None),
        ),
    )


ENDED = ByNumber(_ended)
"""What members came to in earlier rounds."""
