"""Output -> rows: what rounds and calls came to, in one transaction, each behind its fence.

A round is a compare-and-swap on `states.round` (the first one on `calls.claim`). One that finds
its fence moved writes nothing: somebody else was faster, and nothing is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    false,
    func,
    null,
    or_,
    select,
    update,
)

from rowtine.clock import new_id
from rowtine.codec import class_name
from rowtine.core.exchange import CallRequest, Changes, Exit, JoinChange, Poll
from rowtine.core.payload import Codec
from rowtine.core.phases import WITHDRAWN, Kind, Phase
from rowtine.core.state import Coroutine
from rowtine.core.status import Status
from rowtine.errors import Cancelled
from rowtine.functions import fingerprint
from rowtine.store import signals
from rowtine.store import statements as sql
from rowtine.store.calls import lock_calls, lock_states, write_outcomes
from rowtine.store.loading import Execution, exit_to_text
from rowtine.store.options import options_to_text
from rowtine.store.outcomes import Outcome, settled
from rowtine.store.tables import calls, states
from rowtine.store.types import moment_values, now

__all__ = ["Round", "commit"]


@dataclass(frozen=True, slots=True)
class Round:
    """A round that has run. `outcome` is what an exit means for the call (done, retry, tail call);
    None for a poll."""

    execution: Execution
    output: Poll | Exit
    outcome: Outcome | None = None
    running_seconds: float = 0.0


def commit(
    connection: Connection,
    codec: Codec,
    rounds: Sequence[Round],
    outcomes: Sequence[Outcome] = (),
) -> tuple[list[bool], list[bool]]:
    """Write rounds and outcomes; for each of both, whether its fence held.

    One whose fence has moved writes nothing. All locks are taken first, in the one order.
    """
    withdrawn = _withdrawn(connection, rounds)
    cancelled = {id for ids in withdrawn.values() for id in ids}
    exits = [round.outcome for round in rounds if round.outcome is not None]
    executions = {round.execution.id for round in rounds}
    callers = {o.execution_id for o in (*exits, *outcomes) if o.execution_id is not None}
    locked = lock_states(connection, executions | callers | cancelled)
    standing = lock_calls(connection, executions | cancelled | {o.id for o in outcomes})
    held = [_fence_holds(round.execution, locked, standing) for round in rounds]
    won = [round for round, holds in zip(rounds, held, strict=True) if holds]
    lost = {id for round in won for id in withdrawn.get(round.execution.id, ())}
    arrived = _arrived(connection, lost)
    writes = _Writes(codec)
    for round in won:
        writes.add(round, arrived.get(round.execution.id, 0))
    writes.execute(connection)
    cancel_calls(connection, sorted(lost))
    recorded = [
        outcome.id not in lost and standing.get(outcome.id) == (Phase.RUNNING.value, outcome.claim)
        for outcome in outcomes
    ]
    accepted = [outcome for outcome, holds in zip(outcomes, recorded, strict=True) if holds]
    ended = [round.outcome for round in won if round.outcome is not None]
    write_outcomes(connection, [*accepted, *ended])
    _signals(connection, won, lost, [*accepted, *ended])
    return held, recorded


def _signals(
    connection: Connection,
    won: Sequence[Round],
    withdrawn: Collection[str],
    outcomes: Sequence[Outcome],
) -> None:
    """Queue again what was not heard, and give what is queued to who waits now."""
    signals.put_back(connection, withdrawn)
    signals.forget_run(connection, [o.id for o in outcomes if o.retry_in is not None])
    waiting = [
        round.execution.id
        for round in won
        if isinstance(round.output, Poll)
        and (withdrawn or any(call.kind is Kind.SIGNAL for call in round.output.calls))
    ]
    signals.match(connection, waiting)


def _fence_holds(
    execution: Execution,
    locked: Mapping[str, Row[Any]],
    standing: Mapping[str, tuple[str, int]],
) -> bool:
    if execution.seen_round is None:
        return standing.get(execution.id) == (Phase.RUNNING.value, execution.claim)
    state = locked.get(execution.id)
    seen = (execution.seen_round, execution.run)
    return state is not None and bool((state.round, state.run) == seen)


def _withdrawn(connection: Connection, rounds: Sequence[Round]) -> dict[str, list[str]]:
    """The ids of the calls that these rounds cancel, by execution."""
    wanted = [which for round in rounds if (which := _cancelled_by(round)) is not None]
    found: dict[str, list[str]] = defaultdict(list)
    if wanted:
        statement = select(calls.c.id, calls.c.execution_id).where(or_(*wanted))
        for row in connection.execute(statement):
            found[row.execution_id].append(row.id)
    return found


def _cancelled_by(round: Round) -> ColumnElement[bool] | None:
    """Which calls a round cancels; None for none."""
    run = and_(calls.c.execution_id == round.execution.id, calls.c.run == round.execution.run)
    changes = round.output.changes
    if changes is None:
        return and_(run, calls.c.delivered_round.is_(None))
    made = {call.call_id for call in changes.calls}
    numbers = [
        call_id
        for call_id, resolution in changes.delivered.items()
        if resolution in WITHDRAWN and call_id not in made
    ]
    return and_(run, calls.c.call_id.in_(numbers)) if numbers else None


def _arrived(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    """How many of these calls have an outcome that no round has taken, by execution."""
    if not ids:
        return {}
    statement = (
        select(calls.c.execution_id, func.count().label("arrived"))
        .where(calls.c.id.in_(sorted(ids)), calls.c.arrived.is_not(None))
        .group_by(calls.c.execution_id)
    )
    return {row.execution_id: row.arrived for row in connection.execute(statement)}


def cancel_calls(connection: Connection, ids: Sequence[str]) -> None:
    """Cancel calls: what has not suspended ends now, a suspended execution is told to stop."""
    if not ids:
        return
    theirs = calls.c.id.in_(ids)
    open_ = calls.c.phase.in_([Phase.QUEUED.value, Phase.RUNNING.value])
    connection.execute(
        update(calls)
        .where(theirs, open_)
        .values(
            phase=Phase.DONE.value,
            status=Status.CANCELLED.value,
            due=null(),
            parked=case((calls.c.parked.is_not(None), false())),
            worker=null(),
            lease_expires=null(),
            finished_at=now(),
            output=null(),
            error_type=class_name(Cancelled),
            error_message="",
            error_traceback=null(),
        )
    )
    connection.execute(
        update(calls).where(theirs, calls.c.phase == Phase.SUSPENDED.value).values(cancelling=True)
    )
    connection.execute(
        update(states).where(states.c.id.in_(ids), states.c.worker.is_(None)).values(wake_at=now())
    )


class _Writes:
    """The rows of several rounds, gathered into one list a statement."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.rows: dict[Any, list[dict[str, Any]]] = {}

    def put(self, statement: Any, **row: Any) -> None:
        self.rows.setdefault(statement, []).append(row)

    def add(self, round: Round, arrived: int) -> None:
        """Add a round; `arrived` outcomes of calls that it cancels had come in."""
        output, execution = round.output, round.execution
        if isinstance(output, Exit) and execution.seen_round is None:
            return  # over in its first round: the outcome is all there is
        number = 1 if execution.seen_round is None else execution.seen_round + 1
        key = {"e": execution.id, "n": execution.run, "at": execution.now}
        if isinstance(output, Poll):
            self._state(round, output, number, arrived)
        else:
            self.put(sql.STATE_DELETE, e=execution.id)
        if output.changes is None:
            self.put(sql.END_CALLS, **key, r=number)
            self.put(sql.END_COROUTINES, **key)
            self.put(sql.END_FUTURES, **key)
        else:
            self._changes(execution, key, output.changes, number)

    def _changes(
        self, execution: Execution, key: dict[str, Any], changes: Changes, number: int
    ) -> None:
        for coroutine in changes.spawned:
            self._coroutine(key, coroutine)
        for id, result in changes.finished.items():
            columns = settled(result, self.codec).columns()
            self.put(sql.COROUTINE_DONE, **key, c=id, **columns)
        for id in changes.cancelled:
            self.put(sql.COROUTINE_CANCELLED, **_without_time(key), c=id)
        for change in changes.joins.values():
            self._join(key, change, number)
        for call in changes.calls:
            self._call(execution, call, number)
        for call_id, resolution in changes.delivered.items():
            self.put(
                sql.DELIVERED,
                **key,
                call=call_id,
                r=number,
                how=resolution.value,
                timer=changes.timers.get(call_id),
            )
        for (coroutine_id, seq), room in changes.released.items():
            self.put(sql.RELEASED, **_without_time(key), c=coroutine_id, s=seq, room=room)

    def _state(self, round: Round, output: Poll, number: int, arrived: int) -> None:
        execution, state = round.execution, output.state
        values = {
            "e": execution.id,
            "next_coroutine_id": state.next_coroutine_id,
            "next_call_id": state.next_call_id,
            "outstanding_calls": state.outstanding_calls,
            "poll_min_results": output.min_results,
            "poll_max_results": output.max_results,
            "poll_max_wait_seconds": output.max_wait_seconds,
            "running_seconds": round.running_seconds,
            "exit": exit_to_text(state.exit, self.codec),
            "wait": output.max_wait_seconds,
        }
        if execution.seen_round is None:
            self.put(
                sql.STATE_INSERT,
                **values,
                version=state.version,
                seed=state.seed,
                semantics=state.semantics,
                run=execution.run,
            )
            self.put(sql.SUSPEND, e=execution.id)
        else:
            if execution.held:
                self.put(sql.UNHOLD, e=execution.id)
            delivered = output.changes.delivered.values()
            self.put(
                sql.STATE_UPDATE,
                **values,
                seen=execution.seen_round,
                r=number,
                taken=arrived + sum(how not in WITHDRAWN for how in delivered),
                cancelling=execution.cancelling,
            )

    def _coroutine(self, key: dict[str, Any], coroutine: Coroutine) -> None:
        continuation = coroutine.coroutine
        wait = coroutine.wait
        function = "" if wait is None else wait.function  # a nested join is spawned from its wait
        input = code = None
        if continuation is not None:
            function, input = continuation.body.name, continuation.input
            code = fingerprint(continuation.body.func)
        self.put(
            sql.COROUTINE_INSERT,
            **key,
            c=coroutine.id,
            parent_id=coroutine.parent_id,
            serves=coroutine.serves,
            kind=coroutine.kind.value,
            function=function,
            input=None if coroutine.id == 0 else input,
            shielded=coroutine.shielded,
            fingerprint=code,
        )

    def _join(self, key: dict[str, Any], change: JoinChange, number: int) -> None:
        row = {
            **key,
            "c": change.coroutine_id,
            "s": change.seq,
            "pending": change.pending,
            "failed": change.failed,
            "how": change.resolution and change.resolution.value,
            "decided_by": change.decided_by,
        }
        if not change.opened:
            self.put(sql.FUTURE_UPDATE, **row)
            return
        self.put(
            sql.FUTURE_INSERT,
            **row,
            kind=change.kind.value,
            function=change.function,
            first_child=change.first_child,
            children=change.children,
            max_failures=change.max_failures,
            max_concurrency=change.max_concurrency,
            cancel_losers=change.cancel_losers,
            r=number,
            **_source(change),
        )

    def _call(self, execution: Execution, call: CallRequest, number: int) -> None:
        row = {
            "id": new_id(),
            "execution_id": execution.id,
            "run": execution.run,
            "coroutine_id": call.coroutine_id,
            "seq": call.seq,
            "call_id": call.call_id,
            "root_id": execution.root_id,
            "parent_id": call.parent_id,
            "serves": call.serves,
            "kind": call.kind.value,
            "function": call.function,
            "input": call.input,
            "options": options_to_text(call.options),
            "token": call.token,
            "created_round": number,
            **_source(call),
        }
        if call.cancelled:
            self.put(sql.CALL_CANCELLED, **row)
        else:
            until, wait = self._due(call)
            deadline = moment_values("deadline", call.options.deadline)
            self.put(sql.CALL_INSERT, **row, **deadline, until=until, wait=wait, parked=call.parked)

    def _due(self, call: CallRequest) -> tuple[datetime | None, float | None]:
        """The moment at which a call may begin, or the clock ends it; or the seconds until then."""
        match call.kind:
            case Kind.FUNCTION:
                return None, None if call.parked else call.options.delay
            case Kind.TIMER:
                (limit,) = self.codec.decode_arguments(call.input).args
            case _:  # a promise or a signal: its time limit, if it has one
                limit = self.codec.decode_arguments(call.input).kwargs.get("timeout")
        return (limit, None) if isinstance(limit, datetime) else (None, limit)

    def execute(self, connection: Connection) -> None:
        for statement in sql.ORDER:
            if rows := self.rows.get(statement):
                connection.execute(statement, rows)


def _without_time(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "at"}


def _source(at: CallRequest | JoinChange) -> dict[str, Any]:
    where = at.where
    return {
        "source_file": where and where.file,
        "source_line": where and where.line,
        "await_stack": where and "\n".join(where.stack),
    }
