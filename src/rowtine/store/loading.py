"""Rows -> Input. Only what a round touches is read: what has arrived, the coroutines that waited
for it, and the counters of the joins that those serve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection

from rowtine.clock import new_seed
from rowtine.core.coroutine import Continuation, Slot
from rowtine.core.directives import Call
from rowtine.core.exchange import Input
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind, Phase
from rowtine.core.results import CoroutineResult
from rowtine.core.state import Coroutine, State
from rowtine.core.status import Status
from rowtine.errors import NotFound, RemoteError
from rowtine.store import reading
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
from rowtine.store.reading import RESOLUTION, AnyRow, CallRow, JoinRow, Seen, join_of
from rowtine.store.types import moment_read

__all__ = ["Execution", "Loaded", "Rows", "load"]


@dataclass(slots=True)
class Execution:
    """One execution as a round finds it, and, warm, as the next one does.

    `seen_round` is the fence of a later round, and None before the first, whose fence is `claim`.
    """

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
    arrived: Mapping[int, str] = field(default_factory=dict[int, str])
    """The ids of the calls that had come to something when it was loaded, by call id."""

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
    seen = reading.look(connection, execution_id, warm or ())
    row = seen.head
    if row is None:
        raise NotFound(f"there is no call {execution_id}")
    execution = _execution(row)
    if execution.seen_round is None:
        rows = Rows(connection, bodies, execution, row.input)
        input = Input(arguments=row.input, now=execution.now, seed=new_seed())
        return Loaded(execution, input, rows, lost=row.phase == Phase.DONE)
    if warm and execution.stand != warm_stand:
        return load(connection, bodies, codec, execution_id)
    execution.arrived = {row.call_id: row.id for row in seen.arrived}
    rows = Rows(connection, bodies, execution, None, warm or {})
    return Loaded(execution, _input(rows, codec, seen), rows, worker=row.worker)


def _execution(row: AnyRow) -> Execution:
    suspended = row.round is not None
    return Execution(
        id=row.id,
        function=row.function,
        run=row.current_run,
        seen_round=row.round,
        claim=row.claim,
        attempt=row.attempt,
        root_id=row.root_id or row.id,
        caller_id=row.execution_id,
        failing_for=row.failing_for,
        running_seconds=row.running_seconds if suspended else 0.0,
        cancelling=bool(row.cancelling),
        cancel_reason=row.cancel_reason,
        began=None if row.started_at is None else moment_read(row.started_at),
        now=moment_read(row.now),
        held=suspended and row.status == Status.INCOMPATIBLE_STATE,
        options=options_from_text(row.options),
        deadline=None if row.deadline is None else moment_read(row.deadline),
        details=row.details,
        seat=None if row.execution_id is None else seat_of(*_SEAT(row)),
    )


_SEAT = attrgetter(*(column.name for column in SEAT))


def _input(rows: Rows, codec: Codec, seen: Seen) -> Input:
    execution, state = rows.execution, seen.head
    return Input(
        state=State(
            version=state.version,
            suspended={coroutine.id: coroutine for coroutine in rows.concerned(seen)},
            next_coroutine_id=state.next_coroutine_id,
            next_call_id=state.next_call_id,
            outstanding_calls=state.outstanding_calls,
            seed=state.seed,
            exit=exit_from_text(state.exit, codec),
            semantics=state.semantics,
        ),
        results=[call_result(row) for row in seen.arrived],
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
    """Of the execution, where it is known already."""
    warm: Mapping[int, Slot] = field(default_factory=dict[int, Slot])
    arrived: Mapping[int, AnyRow] = field(default_factory=dict[int, AnyRow])
    """The calls that have come to something, by the coroutine that waits for each."""
    watched: Collection[int] = ()
    """Coroutines of which it is known who waits for them as a task: `watching`, among others."""
    watching: Sequence[AnyRow] = ()

    def concerned(self, seen: Seen) -> list[Coroutine]:
        """Who waits for what has arrived, and the counters of the joins that those serve."""
        arrived = seen.arrived
        self.arrived = {row.coroutine_id: row for row in arrived if row.parent_id is None}
        self.watched = {row.coroutine_id for row in arrived}
        self.watching = [row for row in seen.concerned if row.waits_for is not None]
        parents = {row.next_of_kin for row in arrived} - self.arrived.keys() - {None}
        return [
            *self._bodies([row for row in seen.concerned if row.id in self.arrived]),
            *_counters(row for row in self.watching if row.id in parents),
            *(call_member(row) for row in arrived if row.parent_id is not None),
        ]

    def coroutines(self, ids: Sequence[int] | None) -> list[Coroutine]:
        """The suspended coroutines among `ids` (None: all), whole."""
        wanted = reading.EVERYBODY if ids is None else ids
        rows = self._suspended(wanted)
        members: Sequence[AnyRow] = ()
        if len(rows) < len(wanted):
            members = reading.OPEN_MEMBERS.rows(self.connection, wanted, self._run())
        return [
            *self._bodies([row for row in rows if row.kind == Kind.COROUTINE]),
            *_counters(row for row in rows if row.kind != Kind.COROUTINE),
            *(call_member(row) for row in members),
        ]

    def counters(self, ids: Sequence[int]) -> list[Coroutine]:
        """Those of `ids` that wait for a join, with its counter only."""
        return _counters(self._suspended(ids, ids))

    def results(self, coroutine: Coroutine) -> list[CoroutineResult]:
        """What the members of a coroutine's join came to in earlier rounds."""
        return [member_result(row) for row in self._ended(coroutine.members)]

    def waiters(self, ids: Sequence[int]) -> list[Coroutine]:
        """Those that wait for one of the coroutines `ids` as a task, with its counter only; perhaps
        others too."""
        if (known := self.known_waiters(ids)) is not None:
            return known
        between = {"first": min(ids), "last": max(ids)}
        found = reading.WAITERS.execute(self.connection, {**self._run(), **between})
        return self.counters([id for (id,) in found])

    def known_waiters(self, ids: Sequence[int]) -> list[Coroutine] | None:
        """The same, if they have been read; else None."""
        return _counters(self.watching) if set(ids) <= set(self.watched) else None

    def ended_among(self, ids: Sequence[int]) -> list[CoroutineResult]:
        """Those of `ids` that ended in earlier rounds, in the order in which they did."""
        rows = sorted(self._ended(ids), key=attrgetter("told_at", "member"))
        return [member_result(row) for row in rows]

    def current(self) -> bool:
        """Whether the execution still stands at the round that was loaded."""
        values = {"id": self.execution.id}
        found = reading.ROUND.execute(self.connection, values).scalar_one_or_none()
        return bool(found == self.execution.seen_round)

    # -- parts

    def _run(self) -> dict[str, Any]:
        return {"id": self.execution.id, "run": self.execution.run}

    def _suspended(self, ids: Sequence[int], counters: Collection[int] = ()) -> Sequence[AnyRow]:
        """Their rows. `counters` are not rebuilt, nor is what is warm."""
        if not ids:
            return []
        wanted = ids if isinstance(ids, range) else set(ids)
        without = {*counters, *(id for id in self.warm if id in wanted)}
        values = {**self._run(), "without": without}
        return reading.SUSPENDED.rows(self.connection, ids, values)

    def _ended(self, ids: Sequence[int]) -> Sequence[AnyRow]:
        return reading.ENDED.rows(self.connection, ids, self._run()) if ids else ()

    def _bodies(self, rows: Sequence[AnyRow]) -> list[Coroutine]:
        journals = self._journals(rows)
        return [self._body(row, journals[row.id]) for row in rows]

    def _body(self, row: AnyRow, journal: Journal) -> Coroutine:
        slot, main = self.warm.get(row.id), row.id == 0
        continuation = Continuation(
            body=body_of(self.bodies, row.function),
            input=self.input if main and self.input is not None else row.input,
            journal=None if slot is not None else journal.in_order(),
            slot=slot or Slot(),
            began=self.execution.began if main else moment_read(row.created_at),
        )
        return suspended_body(row, continuation, journal)

    def _journals(self, rows: Sequence[AnyRow]) -> dict[int, Journal]:
        """What these coroutines have waited for, and wait for; of a warm one only the latter.

        What is known is not read: of one whose first call has arrived, that call is all there is.
        Nor is it looked for joins where calls fill all places.
        """
        reason = self.execution.cancel_reason
        journals = {
            row.id: Journal(
                row.id,
                reason if row.id == 0 else None,
                call=self.arrived.get(row.id),
                join=join_of(row),
            )
            for row in rows
        }
        cold = {id for id in journals if id not in self.warm}
        self._read_calls(journals, cold)
        lacking = {id for id in cold if journals[id].lacks}
        self._read_joins(journals, lacking, {id for id in cold if journals[id].join is not None})
        return journals

    def _read_calls(self, journals: Mapping[int, Journal], cold: Collection[int]) -> None:
        wanted = [
            id
            for id, journal in journals.items()
            if journal.seq is None or (id in cold and journal.lacks)
        ]
        if not wanted:
            return
        values = {**self._run(), "numbers": wanted, "cold": cold}
        for row in reading.calls_of(self.connection, values):
            journal = journals[row[0]]
            if row[RESOLUTION] is None:
                journal.call = CallRow._make(row)
            else:
                journal.add_call(row)

    def _read_joins(
        self, journals: Mapping[int, Journal], lacking: Collection[int], waiting: Collection[int]
    ) -> None:
        """The joins that are over of those whose journal is `lacking`, and the members of these
        and of the joins that are waited for."""
        if not lacking and not waiting:
            return
        members: dict[tuple[int, int], list[AnyRow]] = defaultdict(list)
        values = {**self._run(), "numbers": {*lacking, *waiting}}
        for row in reading.MEMBERS.execute(self.connection, values):
            members[row.owner, row.owner_seq].append(row)
        for those in members.values():
            those.sort(key=attrgetter("member"))
        for id in waiting:
            journals[id].members = members[id, journals[id].seq or 0]
        if lacking:
            values = {**self._run(), "numbers": lacking}
            for join in map(JoinRow._make, reading.JOINS.execute(self.connection, values)):
                over = members[join.coroutine_id, join.seq]
                journals[join.coroutine_id].add_join(join, over)


def _counters(rows: Iterable[AnyRow]) -> list[Coroutine]:
    return [counter(row, join) for row in rows if (join := join_of(row)) is not None]


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
