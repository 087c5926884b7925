"""Rows -> Input. Only what a round touches is read: what has arrived, the coroutines that waited
for it, and the counters of the joins that those serve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    func,
    null,
    or_,
    select,
    true,
)

from rowtine.clock import new_seed
from rowtine.core.coroutine import Slot
from rowtine.core.directives import Call
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Codec
from rowtine.core.phases import CoroutinePhase, Kind, Phase
from rowtine.core.results import CoroutineResult
from rowtine.core.round import Input
from rowtine.core.state import Coroutine, State
from rowtine.core.status import Status
from rowtine.errors import NotFound, RemoteError
from rowtine.store.calls import SEAT, Seat, seat_of
from rowtine.store.mapping import (
    Bodies,
    Journal,
    body_of,
    call_member,
    call_result,
    counter,
    member_result,
    suspended_body,
)
from rowtine.store.options import options_from_text, options_to_text
from rowtine.store.tables import calls, coroutines, futures, states
from rowtine.store.types import now, seconds_since

__all__ = ["Execution", "Loaded", "Rows", "load"]


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as a round finds it; `seen_round` is the fence of a later round, and None
    before the first, whose fence is `claim`."""

    id: str
    function: str
    run: int
    seen_round: int | None
    claim: int
    attempt: int
    root_id: str
    caller_id: str | None
    failing_for: float
    running_seconds: float = 0.0
    cancelling: bool = False
    cancel_reason: str | None = None
    began: datetime | None = None
    """When the run began: the time of its first round."""
    now: datetime | None = None
    """The time of this round, by the database's clock."""
    held: bool = False
    """Whether its call says INCOMPATIBLE_STATE, which a round that runs takes back."""
    options: CallOptions = DEFAULT
    deadline: datetime | None = None
    details: str | None = None
    seat: Seat | None = None

    @property
    def stand(self) -> tuple[int, int]:
        """The run and the round after which it is suspended: rounds begin anew with each run."""
        return self.run, self.seen_round or 0


@dataclass(slots=True)
class Loaded:
    """What one round needs. `lost` says that there is nothing to run: another was faster."""

    execution: Execution
    input: Input
    rows: Rows
    lost: bool = False
    worker: str | None = None
    """Who has claimed this round."""


def load(
    connection: Connection,
    bodies: Bodies,
    codec: Codec,
    execution_id: str,
    warm: Mapping[int, Slot] | None = None,
    warm_stand: tuple[int, int] | None = None,
) -> Loaded:
    """Read what the next round of an execution needs; NotFound if there is no such call.

    `warm` are the frames that this worker kept after the run and round `warm_stand`; they are used
    only if that is where the execution stands.
    """
    call = connection.execute(_CALL, {"id": execution_id}).first()
    if call is None:
        raise NotFound(f"there is no call {execution_id}")
    state = connection.execute(_STATE, {"id": execution_id}).first()
    execution = Execution(
        id=call.id,
        function=call.function,
        run=call.current_run,
        seen_round=None if state is None else state.round,
        claim=call.claim,
        attempt=call.attempt,
        root_id=call.root_id or call.id,
        caller_id=call.execution_id,
        failing_for=call.failing_for,
        running_seconds=0.0 if state is None else state.running_seconds,
        cancelling=call.cancelling,
        cancel_reason=call.cancel_reason,
        began=call.started_at,
        now=call.now,
        held=state is not None and call.status == Status.INCOMPATIBLE_STATE,
        options=options_from_text(call.options),
        deadline=call.deadline,
        details=call.details,
        seat=None if call.execution_id is None else seat_of(*call[-8:-1]),
    )
    if state is None or (state.run, state.round) != warm_stand:
        warm = None
    rows = Rows(connection, bodies, execution, call.input, warm or {})
    if state is None:
        input = Input(arguments=call.input, now=call.now, seed=new_seed())
        return Loaded(execution, input, rows, lost=call.phase == Phase.DONE)
    return Loaded(execution, _input(connection, rows, codec, state), rows, worker=state.worker)


# The statements of every round are built once: building one costs more than the database does.

_THIS_CALL = bindparam("id", type_=calls.c.id.type)

_CALL = select(
    calls.c.id,
    calls.c.execution_id,
    calls.c.root_id,
    calls.c.function,
    calls.c.input,
    calls.c.phase,
    calls.c.status,
    calls.c.attempt,
    calls.c.claim,
    calls.c.current_run,
    calls.c.cancelling,
    calls.c.cancel_reason,
    calls.c.started_at,
    now().label("now"),
    calls.c.options,
    calls.c.deadline,
    calls.c.details,
    *SEAT,
    func.coalesce(seconds_since(calls.c.first_failed_at), 0.0).label("failing_for"),
).where(calls.c.id == _THIS_CALL)

_STATE = select(states).where(states.c.id == _THIS_CALL)

_WAIT = (
    calls.c.coroutine_id,
    calls.c.seq,
    calls.c.call_id,
    calls.c.parent_id,
    calls.c.serves,
    calls.c.kind,
    calls.c.function,
    calls.c.input,
    calls.c.asked_function,
    calls.c.asked_input,
    calls.c.resolution,
    calls.c.resolved_at,
    calls.c.decided_by,
    calls.c.parked,
    calls.c.options,
    calls.c.status,
    calls.c.output,
    calls.c.error_type,
    calls.c.error_message,
    calls.c.error_traceback,
)
"""What a round wants to know of a call that somebody in its execution waits for."""

_ARRIVED = (
    select(*_WAIT)
    .where(
        calls.c.execution_id == _THIS_CALL,
        calls.c.run == bindparam("run"),
        calls.c.arrived.is_not(None),
    )
    .order_by(calls.c.arrived)
    .limit(bindparam("most"))
)

_COROUTINE = tuple(column for column in coroutines.c if column.name != "fingerprint")


def _input(connection: Connection, rows: Rows, codec: Codec, state: Row[Any]) -> Input:
    execution = rows.execution
    values = {"id": state.id, "run": state.run, "most": state.poll_max_results}
    arrived: Sequence[Any] = connection.execute(_ARRIVED, values).all()
    rows.arrived = {row.coroutine_id: row for row in arrived if row.parent_id is None}
    owners = rows.coroutines([row.coroutine_id for row in arrived])
    suspended = {coroutine.id: coroutine for coroutine in owners}
    parents = {c.parent_id for c in owners if c.parent_id is not None} - suspended.keys()
    suspended |= {coroutine.id: coroutine for coroutine in rows.counters(sorted(parents))}
    return Input(
        state=State(
            version=state.version,
            suspended=suspended,
            next_coroutine_id=state.next_coroutine_id,
            next_call_id=state.next_call_id,
            outstanding_calls=state.outstanding_calls,
            seed=state.seed,
            exit=exit_from_text(state.exit, codec),
            semantics=state.semantics,
        ),
        results=[call_result(row) for row in arrived],
        cancel=execution.cancelling,
        reason=execution.cancel_reason,
        now=execution.now,
    )


@dataclass(slots=True)
class Rows:
    """The rows of one execution, read by need. Synchronous: a shell makes it a `core.Loader`."""

    connection: Connection
    bodies: Bodies
    execution: Execution
    input: Any
    """Of the execution; None if it has not been read."""
    warm: Mapping[int, Slot] = field(default_factory=dict[int, Slot])
    arrived: Mapping[int, Row[Any]] = field(default_factory=dict[int, Row[Any]])
    """The calls that have come to something, by the coroutine that waits for each."""

    def coroutines(self, ids: Sequence[int] | None) -> list[Coroutine]:
        """The suspended coroutines among `ids` (None: all), whole."""
        rows = self._select(
            coroutines,
            coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
            _among(coroutines.c.id, ids),
        )
        bodies = [row for row in rows if row.kind == Kind.COROUTINE]
        joins = [row for row in rows if row.kind != Kind.COROUTINE]
        members: Sequence[Row[Any]] = ()
        if ids is None or len(rows) < len(set(ids)):
            members = self._select(
                calls,
                _among(calls.c.coroutine_id, ids),
                calls.c.parent_id.is_not(None),
                calls.c.delivered_round.is_(None),
            )
        return [
            *self._bodies(bodies),
            *self._with_counters(joins),
            *(call_member(row) for row in members),
        ]

    def counters(self, ids: Sequence[int]) -> list[Coroutine]:
        """Those of `ids` that wait for a join, with its counter only."""
        if not ids:
            return []
        rows = self._select(
            coroutines,
            coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
            _among(coroutines.c.id, ids),
        )
        return self._with_counters(rows)

    def results(self, coroutine: Coroutine) -> list[CoroutineResult]:
        """What the members of a coroutine's join came to in earlier rounds."""
        done = self._select(
            coroutines,
            _among(coroutines.c.id, coroutine.members),
            coroutines.c.phase == CoroutinePhase.DONE.value,
            also=(coroutines.c.id.label("member"),),
        )
        called = self._select(
            calls,
            _among(calls.c.coroutine_id, coroutine.members),
            calls.c.parent_id.is_not(None),
            calls.c.delivered_round.is_not(None),
            also=(calls.c.coroutine_id.label("member"),),
        )
        return [member_result(row) for row in (*done, *called)]

    def waiters(self, ids: Sequence[int]) -> list[Coroutine]:
        """Those that wait for one of the coroutines `ids` as a task, with its counter only."""
        if not ids:
            return []
        rows = self._select(
            futures,
            futures.c.kind == Kind.TASK.value,
            futures.c.resolution.is_(None),
            futures.c.first_child <= max(ids),
            futures.c.first_child + futures.c.children > min(ids),
        )
        return self.counters([row.coroutine_id for row in rows])

    def ended_among(self, ids: Sequence[int]) -> list[CoroutineResult]:
        """Those of `ids` that ended in earlier rounds, in the order in which they did."""
        done = self._select(
            coroutines,
            _among(coroutines.c.id, ids),
            coroutines.c.phase == CoroutinePhase.DONE.value,
            also=(coroutines.c.id.label("member"), coroutines.c.finished_at.label("told_at")),
        )
        called = self._select(
            calls,
            _among(calls.c.coroutine_id, ids),
            calls.c.parent_id.is_not(None),
            calls.c.delivered_round.is_not(None),
            also=(calls.c.coroutine_id.label("member"), calls.c.resolved_at.label("told_at")),
        )
        rows = sorted((*done, *called), key=lambda row: (row.told_at, row.member))
        return [member_result(row) for row in rows]

    def current(self) -> bool:
        """Whether the execution still stands at the round that was loaded."""
        found = self.connection.scalar(
            select(states.c.round).where(states.c.id == self.execution.id)
        )
        return found == self.execution.seen_round

    # -- parts

    def _own_input(self) -> Any:
        if self.input is None:
            statement = select(calls.c.input).where(calls.c.id == _THIS_CALL)
            self.input = self.connection.scalar(statement, {"id": self.execution.id})
        return self.input

    def _bodies(self, rows: Sequence[Row[Any]]) -> list[Coroutine]:
        journals = self._journals([row.id for row in rows])
        return [
            suspended_body(
                row,
                body_of(self.bodies, row.function),
                self._own_input() if row.id == 0 else row.input,
                journals[row.id],
                self.warm.get(row.id),
                self.execution.began if row.id == 0 else row.created_at,
            )
            for row in rows
        ]

    def _with_counters(self, rows: Sequence[Row[Any]]) -> list[Coroutine]:
        if not rows:
            return []
        pending = {
            row.coroutine_id: row
            for row in self._select(
                futures,
                _among(futures.c.coroutine_id, [row.id for row in rows]),
                futures.c.resolution.is_(None),
            )
        }
        return [counter(row, pending[row.id]) for row in rows if row.id in pending]

    def _journals(self, ids: Sequence[int]) -> dict[int, Journal]:
        """The journals of these coroutines; of a warm one only the wait that is pending."""
        known = {
            id: Journal([self.arrived[id]], (), {})
            for id in ids
            if id in self.warm and id in self.arrived
        }
        return known | self._read_journals([id for id in ids if id not in known])

    def _read_journals(self, ids: Sequence[int]) -> dict[int, Journal]:
        if not ids:
            return {}
        cold = [id for id in ids if id not in self.warm]
        warm = [id for id in ids if id in self.warm]

        def wanted(owner: Column[Any], pending: ColumnElement[bool]) -> ColumnElement[bool]:
            return or_(owner.in_(cold), and_(owner.in_(warm), pending))

        called = self._select(
            calls,
            calls.c.parent_id.is_(None),
            wanted(calls.c.coroutine_id, calls.c.resolution.is_(None)),
        )
        joined = self._select(
            futures, wanted(futures.c.coroutine_id, futures.c.resolution.is_(None))
        )
        members = self._members(cold) if any(row.coroutine_id in cold for row in joined) else {}
        by_owner = _grouped(called), _grouped(joined)
        return {
            id: Journal(
                by_owner[0].get(id, []),
                by_owner[1].get(id, []),
                {row.seq: members.get((id, row.seq), []) for row in by_owner[1].get(id, [])},
                self.execution.cancel_reason if id == 0 else None,
            )
            for id in ids
        }

    def _members(self, owners: Sequence[int]) -> dict[tuple[int, int], list[Row[Any]]]:
        """The members of every join of these coroutines, in order of declaration."""
        found: list[Any] = []
        for table, member in ((coroutines, coroutines.c.id), (calls, calls.c.coroutine_id)):
            inside = and_(
                table.c.execution_id == futures.c.execution_id,
                table.c.run == futures.c.run,
                member >= futures.c.first_child,
                member < futures.c.first_child + futures.c.children,
                or_(futures.c.kind != Kind.TASK.value, member == futures.c.decided_by),
            )
            if table is calls:
                inside = and_(inside, calls.c.parent_id.is_not(None))
            statement = (
                select(
                    futures.c.coroutine_id.label("owner"),
                    futures.c.seq.label("owner_seq"),
                    member.label("member"),
                    table.c.kind,
                    table.c.function,
                    table.c.input,
                    *_asked(table),
                    table.c.output,
                    table.c.status,
                    table.c.error_type,
                    table.c.error_message,
                    table.c.error_traceback,
                )
                .select_from(futures.join(table, inside))
                .where(
                    futures.c.execution_id == self.execution.id,
                    futures.c.run == self.execution.run,
                    futures.c.coroutine_id.in_(owners),
                )
            )
            found.extend(self.connection.execute(statement).all())
        grouped: dict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
        for row in sorted(found, key=lambda row: row.member):
            grouped[row.owner, row.owner_seq].append(row)
        return grouped

    def _select(
        self, table: Any, *conditions: ColumnElement[bool], also: tuple[Any, ...] = ()
    ) -> Sequence[Row[Any]]:
        columns = {calls: _WAIT, coroutines: _COROUTINE}.get(table, tuple(table.c))
        statement = select(*columns, *also)
        found: Sequence[Any] = self.connection.execute(
            statement.where(
                table.c.execution_id == self.execution.id,
                table.c.run == self.execution.run,
                *conditions,
            )
        ).all()
        return found


def _asked(table: Any) -> list[Any]:
    names = ("asked_function", "asked_input", "options", "resolution")
    return [calls.c[name] if table is calls else null().label(name) for name in names]


def _among(column: Column[Any], ids: Collection[int] | None) -> ColumnElement[bool]:
    if ids is None:
        return true()
    if isinstance(ids, range):
        return and_(column >= ids.start, column < ids.stop)
    return column.in_(sorted(set(ids)))


def _grouped(rows: Iterable[Row[Any]]) -> dict[int, list[Row[Any]]]:
    grouped: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        grouped[row.coroutine_id].append(row)
    return grouped


# ---------------------------------------------------------------- the exit that waits for clean-up


def exit_to_text(result: CoroutineResult | None, codec: Codec) -> str | None:
    """The fixed outcome of an execution whose last clean-up still runs, as `states.exit`."""
    if result is None:
        return None
    error = result.error
    document: dict[str, Any] = {"status": result.status.value, "output": result.value}
    if isinstance(error, RemoteError):
        document["output"] = error.details
        document["error"] = [error.type, error.message, error.traceback]
    if result.call is not None:
        payload = codec.encode_arguments(result.call.arguments)
        document["tail"] = [result.call.function, payload, options_to_text(result.call.options)]
    return msgspec.json.encode(document).decode()


def exit_from_text(text: str | None, codec: Codec) -> CoroutineResult | None:
    """Read it back."""
    if text is None:
        return None
    document = msgspec.json.decode(text)
    error = None
    if "error" in document:
        type, message, traceback = document["error"]
        error = RemoteError(type, message, traceback, document["output"])
    call: Call[Any] | None = None
    if "tail" in document:
        function, payload, options = document["tail"]
        arguments = codec.decode_arguments(payload)
        call = Call(function, arguments, options=options_from_text(options))
    return CoroutineResult(
        0,
        value=None if error else document["output"],
        error=error,
        call=call,
        status=Status(document["status"]),
    )
