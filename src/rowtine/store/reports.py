"""What people ask about executions: reading statements for the command line, and nothing else.

None of them takes a lock, and each has a limit: a wait for 100,000 members is one line and a count.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
)

from rowtine.core.phases import Kind, Phase
from rowtine.core.status import Status
from rowtine.errors import NotFound
from rowtine.store.dialect import read_whole_tables
from rowtine.store.tables import SCHEMA, calls, coroutines, futures, signals, states, workers
from rowtine.store.types import Id, seconds_since

__all__ = [
    "PARKED",
    "CallFacts",
    "CoroutineFacts",
    "Flight",
    "Held",
    "JoinFacts",
    "Members",
    "Progress",
    "Story",
    "claimed_again",
    "find",
    "flights",
    "held_by",
    "in_flight",
    "progress",
    "story",
]

# ------------------------------------------------------------------------------------ in flight


class Flight(NamedTuple):
    """A line of the view `in_flight`: a suspended coroutine, or a call that runs or is queued."""

    execution_id: str
    coroutine_id: int
    execution: str
    coroutine: str
    state: str
    file: str | None
    line: int | None
    seconds: float
    kind: str | None
    waits_for: str | None
    pending: int | None
    parked: int | None
    call_id: str | None
    seconds_left: float | None
    worker: str | None
    host: str | None
    pid: int | None
    cancelling: bool
    cancel_reason: str | None


_TYPES: Mapping[str, Any] = {
    "execution_id": Id,
    "coroutine_id": Integer,
    "line": Integer,
    "seconds": Float,
    "pending": Integer,
    "parked": Integer,
    "call_id": Id,
    "seconds_left": Float,
    "worker": Id,
    "pid": Integer,
    "cancelling": Boolean,
}

# In a catalog of its own: the model has tables only, and a test compares it with the database.
_in_flight = Table(
    "in_flight",
    MetaData(),
    *(Column(name, _TYPES.get(name, Text)) for name in Flight._fields),
    schema=SCHEMA,
)

_URGENCY = {Phase.RUNNING.value: 0, Phase.SUSPENDED.value: 1, Phase.QUEUED.value: 2}
"""What runs is shown before what waits, and that before what is queued; what is done comes last."""


def in_flight(connection: Connection, limit: int) -> list[Flight]:
    """What is under way: what runs first, then what waits, then the queue; the oldest first."""
    read_whole_tables(connection)
    statement = (
        select(_in_flight)
        .order_by(
            case(_URGENCY, value=_in_flight.c.state, else_=3),
            _in_flight.c.seconds.desc(),
            _in_flight.c.execution_id,
            _in_flight.c.coroutine_id,
        )
        .limit(limit)
    )
    return [Flight(*row) for row in connection.execute(statement)]


def flights(connection: Connection) -> dict[str, int]:
    """How many lines `in_flight` has, by state."""
    read_whole_tables(connection)
    statement = select(_in_flight.c.state, func.count()).group_by(_in_flight.c.state)
    return {row[0]: row[1] for row in connection.execute(statement)}


# --------------------------------------------------------------------------------- one execution


@dataclass(frozen=True, slots=True)
class CallFacts:
    """A call: how it stands, and its place in its caller's journal (None for a root)."""

    id: str
    execution_id: str | None
    coroutine_id: int | None
    seq: int | None
    parent_id: int | None
    serves: int | None
    kind: str
    function: str
    phase: str
    status: str | None
    attempt: int
    claim: int
    run: int
    due_in: float | None
    parked: bool | None
    deadline_in: float | None
    cancelling: bool
    cancel_reason: str | None
    key: str | None
    seconds: float
    resolution: str | None
    error_type: str | None
    error_message: str | None
    error_traceback: str | None
    file: str | None
    line: int | None
    host: str | None
    pid: int | None
    input: str | None
    output: str | None
    details: str | None
    version: str | None
    round: int | None


@dataclass(frozen=True, slots=True)
class CoroutineFacts:
    """A body or a nested join that is a member of a join; the main coroutine has no parent."""

    id: int
    parent_id: int | None
    serves: int | None
    kind: str
    function: str
    phase: str
    status: str | None
    cancelled: bool
    shielded: bool
    error_type: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class JoinFacts:
    """A wait for several, or the beginning of several that are waited for later."""

    coroutine_id: int
    seq: int
    kind: str
    function: str
    children: int
    pending: int
    failed: int
    max_concurrency: int | None
    resolution: str | None
    decided_by: int | None
    file: str | None
    line: int | None
    seconds: float


Members = tuple[int, int | None]
"""A coroutine and one of its joins, whose members they are; None for its journal itself."""


@dataclass(slots=True)
class Story:
    """One execution as far as it is shown. `counts` says how many there are in all, by how they
    stand (the phase, or the status of what has failed), where not all of them are here."""

    call: CallFacts
    coroutines: dict[Members, list[CoroutineFacts]] = field(
        default_factory=lambda: defaultdict[Members, list[CoroutineFacts]](list)
    )
    joins: dict[int, list[JoinFacts]] = field(
        default_factory=lambda: defaultdict[int, list[JoinFacts]](list)
    )
    calls: dict[Members, list[CallFacts]] = field(
        default_factory=lambda: defaultdict[Members, list[CallFacts]](list)
    )
    counts: dict[Members, dict[str, int]] = field(
        default_factory=lambda: defaultdict[Members, dict[str, int]](dict)
    )
    signals: dict[str, int] = field(default_factory=dict[str, int])
    """Those that are queued: how many, by name."""


def find(connection: Connection, prefix: str, limit: int = 5) -> list[str]:
    """Up to `limit` calls whose id begins like this. NotFound if no id can."""
    digits = prefix.strip().lower().replace("-", "")
    if not 0 < len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        raise NotFound(f"{prefix[:80]!r} is not the id of a call, nor the beginning of one")
    low, high = (str(uuid.UUID(hex=digits.ljust(32, digit))) for digit in "0f")
    statement = select(calls.c.id).where(calls.c.id.between(low, high)).order_by(calls.c.id)
    return list(connection.scalars(statement.limit(limit)))


def story(
    connection: Connection, id: str, *, width: int = 20, depth: int = 8, most: int = 200
) -> dict[str, Story]:
    """The execution of a call and those below it, by id, the asked one first.

    `width` limits the members shown of one join and the waits shown of one coroutine, `depth` how
    far down executions are followed, `most` their number. NotFound if there is no such call.
    """
    top = connection.execute(_call_facts().where(calls.c.id == id)).first()
    if top is None:
        raise NotFound(f"there is no call {id}")
    told: dict[str, Story] = {}
    level = [_call(top)]
    for _ in range(depth):
        below: list[CallFacts] = []
        for call in level:
            if len(told) < most:
                told[call.id] = _tell(connection, call, width)
                below += [c for made in told[call.id].calls.values() for c in made]
        level = [call for call in below if call.kind == Kind.FUNCTION]
        if not level:
            break
    return told


def _tell(connection: Connection, call: CallFacts, width: int) -> Story:
    told = Story(call)
    shown: list[int] = []
    mine = and_(coroutines.c.execution_id == call.id, coroutines.c.run == call.run)
    level = _coroutines(connection, and_(mine, coroutines.c.id == 0), width)
    while level:
        for coroutine in level:
            if coroutine.parent_id is not None and coroutine.serves is not None:
                told.coroutines[coroutine.parent_id, coroutine.serves].append(coroutine)
        ids = [coroutine.id for coroutine in level]
        shown += ids
        level = _coroutines(connection, and_(mine, coroutines.c.parent_id.in_(ids)), width)
    if shown:
        _tell_joins(connection, told, shown, width)
        _tell_calls(connection, told, shown, width)
        _count(connection, told, shown)
    if call.phase != Phase.DONE:
        _tell_signals(connection, told)
    return told


def _best(partition: Collection[Any], order: Collection[Any]) -> ColumnElement[int]:
    return func.row_number().over(partition_by=list(partition), order_by=list(order)).label("rank")


def _limited(
    statement: Select[*tuple[Any, ...]], rank: ColumnElement[int], width: int
) -> Select[*tuple[Any, ...]]:
    ranked = statement.add_columns(rank).subquery()
    return select(ranked).where(ranked.c.rank <= width)


def _coroutines(
    connection: Connection, which: ColumnElement[bool], width: int
) -> list[CoroutineFacts]:
    """Of each join, the members that are suspended before those that are done."""
    c = coroutines.c
    rank = _best((c.parent_id, c.serves), (_urgency(c.phase), _went_well(c.status), c.id))
    statement = _limited(
        select(
            c.id,
            c.parent_id,
            c.serves,
            c.kind,
            c.function,
            c.phase,
            c.status,
            c.cancelled,
            c.shielded,
            c.error_type,
            c.error_message,
        ).where(which),
        rank,
        width,
    )
    rows = connection.execute(statement)
    return sorted((CoroutineFacts(*row[:-1]) for row in rows), key=lambda found: found.id)


def _tell_joins(connection: Connection, told: Story, shown: list[int], width: int) -> None:
    f = futures.c
    statement = _limited(
        select(
            f.coroutine_id,
            f.seq,
            f.kind,
            f.function,
            f.children,
            f.pending,
            f.failed,
            f.max_concurrency,
            f.resolution,
            f.decided_by,
            f.source_file,
            f.source_line,
            seconds_since(f.created_at).label("seconds"),
        ).where(f.execution_id == told.call.id, f.run == told.call.run, f.coroutine_id.in_(shown)),
        _best((f.coroutine_id,), (f.seq.desc(),)),
        width,
    )
    for row in connection.execute(statement):
        join = JoinFacts(*row[:-1])
        told.joins[join.coroutine_id].append(join)


_OWNER = func.coalesce(calls.c.parent_id, calls.c.coroutine_id)
"""The coroutine that asked for a call, itself or through a join."""


def _tell_calls(connection: Connection, told: Story, shown: list[int], width: int) -> None:
    """Of each journal the last waits, of each join what is open before what is done."""
    c = calls.c
    in_journal = case((c.serves.is_(None), -c.seq), else_=0)
    rank = _best(
        (_OWNER, c.serves),
        (in_journal, _urgency(c.phase), _went_well(c.status), c.call_id),
    )
    statement = _limited(_call_facts().where(_of(told, shown)), rank, width)
    found = [_call(row) for row in connection.execute(statement)]
    for call in sorted(found, key=lambda call: (call.coroutine_id or 0, call.seq or 0)):
        owner = call.coroutine_id if call.parent_id is None else call.parent_id
        if owner is not None:
            told.calls[owner, call.serves].append(call)


def _of(told: Story, shown: list[int]) -> ColumnElement[bool]:
    return and_(
        calls.c.execution_id == told.call.id,
        calls.c.run == told.call.run,
        # Not `_OWNER IN`: the index is on coroutine_id, and an ordinary journal has no parents.
        or_(
            and_(calls.c.parent_id.is_(None), calls.c.coroutine_id.in_(shown)),
            calls.c.parent_id.in_(shown),
        ),
    )


def _count(connection: Connection, told: Story, shown: list[int]) -> None:
    how = case(
        (
            and_(calls.c.phase == Phase.DONE.value, calls.c.status != Status.OK.value),
            calls.c.status,
        ),
        (calls.c.parked, PARKED),
        else_=calls.c.phase,
    ).label("how")
    called = (
        select(_OWNER, calls.c.serves, how, func.count())
        .where(_of(told, shown))
        .group_by(_OWNER, calls.c.serves, how)
    )
    c = coroutines.c
    spawned = (
        select(c.parent_id, c.serves, c.phase, func.count())
        .where(c.execution_id == told.call.id, c.run == told.call.run, c.parent_id.in_(shown))
        .group_by(c.parent_id, c.serves, c.phase)
    )
    for owner, serves, state, count in (
        *connection.execute(called),
        *connection.execute(spawned),
    ):
        group = told.counts[owner, serves]
        group[state] = group.get(state, 0) + count


def _tell_signals(connection: Connection, told: Story) -> None:
    """The names of the signals that are queued, those first that were sent first."""
    s = signals.c
    statement = (
        select(s.name, func.count())
        .where(s.execution_id == told.call.id, s.call_id.is_(None))
        .group_by(s.name)
        .order_by(func.min(s.number))
    )
    told.signals = {row[0]: row[1] for row in connection.execute(statement)}


def _urgency(phase: ColumnElement[str]) -> ColumnElement[int]:
    return case(_URGENCY, value=phase, else_=3)


def _went_well(status: ColumnElement[str]) -> ColumnElement[int]:
    return case((status == Status.OK.value, 1), else_=0)


PARKED = "parked"
"""How a queued member stands for which there is no room yet."""

_PAYLOAD = 2000
"""Characters of a payload that a tree has room for."""


def _call_facts() -> Select[*tuple[Any, ...]]:
    c = calls.c
    due_in = case((c.due.is_not(None), -seconds_since(c.due)))
    return (
        select(
            c.id,
            c.execution_id,
            c.coroutine_id,
            c.seq,
            c.parent_id,
            c.serves,
            c.kind,
            func.coalesce(c.asked_function, c.function).label("function"),
            c.phase,
            c.status,
            c.attempt,
            c.claim,
            c.current_run,
            due_in.label("due_in"),
            c.parked,
            (-seconds_since(c.deadline)).label("deadline_in"),
            c.cancelling,
            c.cancel_reason,
            c.key,
            seconds_since(func.coalesce(c.finished_at, c.created_at)).label("seconds"),
            c.resolution,
            c.error_type,
            c.error_message,
            c.error_traceback,
            c.source_file,
            c.source_line,
            workers.c.host,
            workers.c.pid,
            func.substr(cast(c.input, Text), 1, _PAYLOAD).label("input"),
            func.substr(cast(c.output, Text), 1, _PAYLOAD).label("output"),
            func.substr(cast(c.details, Text), 1, _PAYLOAD).label("details"),
            states.c.version,
            states.c.round,
        )
        .outerjoin(workers, workers.c.id == c.worker)
        .outerjoin(states, states.c.id == c.id)
    )


def _call(row: Row[*tuple[Any, ...]]) -> CallFacts:
    return CallFacts(*row[: len(fields(CallFacts))])


# -------------------------------------------------------------------------------------- the demo


@dataclass(frozen=True, slots=True)
class Held:
    """Calls that are running, and the process that has them."""

    worker: str
    pid: int
    calls: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the calls of one function are, of those that one execution asked for."""

    total: int
    done: int
    again: int
    """Claimed more than once: their first worker did not finish them."""
    held: tuple[Held, ...]


def progress(connection: Connection, execution_id: str, function: str) -> Progress:
    """How far an execution's calls of one function are."""
    c = calls.c
    statement = (
        select(c.phase, c.worker, workers.c.pid, func.count(), _sum_of(c.claim > literal(1)))
        .outerjoin(workers, workers.c.id == c.worker)
        .where(c.execution_id == execution_id, c.function == function)
        .group_by(c.phase, c.worker, workers.c.pid)
    )
    rows = connection.execute(statement).all()
    return Progress(
        total=sum(row[3] for row in rows),
        done=sum(row[3] for row in rows if row[0] == Phase.DONE),
        again=sum(row[4] for row in rows),
        held=tuple(
            Held(worker, pid, count) for _, worker, pid, count, _ in rows if pid is not None
        ),
    )


def held_by(connection: Connection, worker: str) -> list[str]:
    """The calls that a worker has claimed and not finished."""
    return list(connection.scalars(select(calls.c.id).where(calls.c.worker == worker)))


def claimed_again(connection: Connection, ids: Collection[str]) -> int:
    """How many of these calls were claimed more than once."""
    again = select(func.count()).where(calls.c.id.in_(ids), calls.c.claim > 1)
    return connection.scalar(again) or 0


def _sum_of(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
