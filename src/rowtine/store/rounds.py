"""Output -> rows: everything that rounds produced, in one transaction, each round behind its fence.

A round is a compare-and-swap on `states.round` (the first one on `calls.claim`). One that finds
its fence moved writes nothing: somebody else was faster, and nothing is wrong.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Float,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from rowtine.clock import new_id
from rowtine.core.payload import Codec, Identity
from rowtine.core.phases import CoroutinePhase, Kind, Phase, Resolution
from rowtine.core.results import CoroutineResult
from rowtine.core.round import CallRequest, Changes, Exit, Incompatible, JoinChange, OneShotScheduler, Output, Poll
from rowtine.core.state import Coroutine
from rowtine.core.status import Status
from rowtine.errors import UsageError
from rowtine.functions import fingerprint
from rowtine.store.calls import lock_calls, lock_states, write_outcomes
from rowtine.store.dialect import translate_schema
from rowtine.store.loading import Execution, Loaded, Rows, exit_to_text, load
from rowtine.store.outcomes import Outcome, settled
from rowtine.store.tables import calls, coroutines, futures, states
from rowtine.store.types import after, now

__all__ = [
    "Round",
    "claim_rounds",
    "commit",
    "hold",
    "release_rounds",
    "renew_rounds",
    "run_round",
    "tail_of",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Round:
    """A round that has run. `outcome` is what an exit means for the call (done, retry, tail call);
    None for a poll."""

    execution: Execution
    output: Poll | Exit
    outcome: Outcome | None = None
    running_seconds: float = 0.0


# ---------------------------------------------------------------------------------------- claiming


def claim_rounds(
    connection: Connection,
    worker: str,
    functions: Collection[str],
    version: str | None,
    limit: int,
    lease: float,
) -> list[str]:
    """Take up to `limit` executions whose next round is due and whose version this worker has.

    The claim saves others the trouble; what protects the state is the round's fence.
    """
    if not functions or limit < 1:
        return []
    gate = true() if version is None else or_(states.c.version.is_(None), states.c.version == version)
    due = (
        select(states.c.id)
        .join(calls, calls.c.id == states.c.id)
        .where(states.c.wake_at <= now(), calls.c.function.in_(sorted(functions)), gate)
        .order_by(states.c.wake_at, states.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True, of=states)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    statement = (
        update(states)
        .where(states.c.id.in_(select(due.c.id)))
        .values(worker=worker, wake_at=after(literal(lease)))
        .returning(states.c.id)
    )
    return sorted(connection.scalars(statement))


def renew_rounds(connection: Connection, worker: str, ids: Collection[str], lease: float) -> None:
    """Keep executions whose round is still running."""
    if ids:
        connection.execute(
            update(states)
            .where(states.c.id.in_(sorted(ids)), states.c.worker == worker)
            .values(wake_at=after(literal(lease)))
        )


def release_rounds(connection: Connection, worker: str, ids: Collection[str]) -> None:
    """Give executions back whose round this worker will not finish: they are due at once."""
    if ids:
        connection.execute(
            update(states)
            .where(states.c.id.in_(sorted(ids)), states.c.worker == worker)
            .values(worker=null(), wake_at=now())
        )


def hold(
    connection: Connection, worker: str, execution_id: str, message: str, seconds: float
) -> None:
    """A state that does not fit is left as it is; its call says why, and it is looked at again
    after `seconds`, perhaps by a worker whose code fits."""
    held = connection.execute(
        update(states)
        .where(states.c.id == execution_id, states.c.worker == worker)
        .values(worker=null(), wake_at=after(literal(seconds)))
    )
    if held.rowcount:
        connection.execute(
            update(calls)
            .where(calls.c.id == execution_id)
            .values(status=Status.INCOMPATIBLE_STATE.value, error_message=message)
        )


# -------------------------------------------------------------------------------------- committing


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
        outcome.id not in lost
        and standing.get(outcome.id) == (Phase.RUNNING.value, outcome.claim)
        for outcome in outcomes
    ]
    accepted = [outcome for outcome, holds in zip(outcomes, recorded, strict=True) if holds]
    write_outcomes(connection, [*accepted, *(r.outcome for r in won if r.outcome is not None)])
    return held, recorded


def _fence_holds(execution: Execution, locked: Any, standing: Any) -> bool:
    if execution.seen_round is None:
        return standing.get(execution.id) == (Phase.RUNNING.value, execution.claim)
    state = locked.get(execution.id)
    return state is not None and (state.round, state.run) == (execution.seen_round, execution.run)


def _withdrawn(connection: Connection, rounds: Sequence[Round]) -> dict[str, list[str]]:
    """The ids of the calls that these rounds cancel, by execution."""
    wanted: dict[str, list[str]] = {}
    for round in rounds:
        statement = select(calls.c.id).where(
            calls.c.execution_id == round.execution.id, calls.c.run == round.execution.run
        )
        changes = round.output.changes
        if changes is None:
            statement = statement.where(calls.c.delivered_round.is_(None))
        else:
            made = {call.call_id for call in changes.calls}
            numbers = [
                call_id
                for call_id, resolution in changes.delivered.items()
                if resolution is Resolution.CANCELLED and call_id not in made
            ]
            if not numbers:
                continue
            statement = statement.where(calls.c.call_id.in_(numbers))
        wanted[round.execution.id] = list(connection.scalars(statement))
    return wanted


def _arrived(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    """How many of these calls have an outcome that no round has taken, by execution."""
    if not ids:
        return {}
    statement = (
        select(calls.c.execution_id, func.count())
        .where(calls.c.id.in_(sorted(ids)), calls.c.arrived.is_not(None))
        .group_by(calls.c.execution_id)
    )
    return {execution_id: count for execution_id, count in connection.execute(statement)}


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
            worker=null(),
            lease_expires=null(),
            finished_at=now(),
            output=null(),
            error_type="asyncio.exceptions.CancelledError",
            error_message="",
            error_traceback=null(),
        )
    )
    connection.execute(
        update(calls)
        .where(theirs, calls.c.phase == Phase.SUSPENDED.value)
        .values(cancelling=True)
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
        key = {"e": execution.id, "n": execution.run}
        if isinstance(output, Poll):
            self._state(round, output, number, arrived)
        else:
            self.put(_STATE_DELETE, e=execution.id)
        if output.changes is None:
            self.put(_END_CALLS, **key, r=number)
            self.put(_END_COROUTINES, **key)
            self.put(_END_FUTURES, **key)
        else:
            self._changes(execution, key, output.changes, number)

    def _changes(
        self, execution: Execution, key: dict[str, Any], changes: Changes, number: int
    ) -> None:
        for coroutine in changes.spawned:
            self._coroutine(key, coroutine)
        for id, result in changes.finished.items():
            columns = settled(result, self.codec).columns()
            self.put(_COROUTINE_DONE, **key, c=id, **columns)
        for id in changes.cancelled:
            self.put(_COROUTINE_CANCELLED, **key, c=id)
        for change in changes.joins.values():
            self._join(key, change, number)
        for call in changes.calls:
            self._call(execution, call, number)
        for call_id, resolution in changes.delivered.items():
            self.put(_DELIVERED, **key, call=call_id, r=number, how=resolution.value)

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
                _STATE_INSERT,
                **values,
                version=state.version,
                semantics=state.semantics,
                run=execution.run,
            )
            self.put(_SUSPEND, e=execution.id)
        else:
            delivered = output.changes.delivered.values()
            self.put(
                _STATE_UPDATE,
                **values,
                seen=execution.seen_round,
                r=number,
                taken=arrived + sum(how is not Resolution.CANCELLED for how in delivered),
                cancelling=execution.cancelling,
            )

    def _coroutine(self, key: dict[str, Any], coroutine: Coroutine) -> None:
        continuation = coroutine.coroutine
        wait = coroutine.wait
        if continuation is not None:
            function, input = continuation.body.name, continuation.input
            print_ = fingerprint(continuation.body.func)
        else:
            assert wait is not None  # a nested join was spawned from its wait
            function, input, print_ = wait.function, None, None
        self.put(
            _COROUTINE_INSERT,
            **key,
            c=coroutine.id,
            parent_id=coroutine.parent_id,
            serves=coroutine.serves,
            kind=coroutine.kind.value,
            function=function,
            input=None if coroutine.id == 0 else input,
            fingerprint=print_,
        )

    def _join(self, key: dict[str, Any], change: JoinChange, number: int) -> None:
        row = {
            **key,
            "c": change.coroutine_id,
            "s": change.seq,
            "pending": change.pending,
            "how": change.resolution and change.resolution.value,
            "decided_by": change.decided_by,
        }
        if not change.opened:
            self.put(_FUTURE_UPDATE, **row)
            return
        self.put(
            _FUTURE_INSERT,
            **row,
            kind=change.kind.value,
            function=change.function,
            first_child=change.first_child,
            children=change.children,
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
            "created_round": number,
            **_source(call),
        }
        if call.cancelled:
            self.put(_CALL_CANCELLED, **row)
        else:
            wait = 0.0
            if call.kind is Kind.TIMER:
                wait = float(self.codec.decode_arguments(call.input).args[0])
            self.put(_CALL_INSERT, **row, wait=wait)

    def execute(self, connection: Connection) -> None:
        for statement in _ORDER:
            if rows := self.rows.get(statement):
                connection.execute(statement, rows)


def _source(at: CallRequest | JoinChange) -> dict[str, Any]:
    where = at.where
    return {
        "source_file": where and where.file,
        "source_line": where and where.line,
        "await_stack": where and "\n".join(where.stack),
    }


# -------------------------------------------------------------------------------------- statements


def _bind(column: Any, name: str | None = None) -> Any:
    return bindparam(name or column.name, type_=column.type)


_EXECUTION = _bind(calls.c.id, "e")
_RUN = bindparam("n")

_SUSPEND = (
    update(calls)
    .where(calls.c.id == _EXECUTION)
    .values(phase=Phase.SUSPENDED.value, worker=null(), lease_expires=null())
)

_POLLED = {
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

_STATE_INSERT = insert(states).values(
    **_POLLED,
    id=_EXECUTION,
    version=_bind(states.c.version),
    semantics=bindparam("semantics"),
    run=bindparam("run"),
    round=1,
    arrived=0,
    delivered=0,
    wake_at=after(bindparam("wait", type_=Float())),
)

_TAKEN = states.c.delivered + bindparam("taken", type_=BigInteger())

_STATE_UPDATE = (
    update(states)
    .where(states.c.id == _EXECUTION, states.c.round == bindparam("seen"))
    .values(
        **_POLLED,
        round=bindparam("r"),
        delivered=_TAKEN,
        worker=null(),
        wake_at=case(
            (states.c.arrived - _TAKEN >= bindparam("poll_min_results"), now()),
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

_STATE_DELETE = delete(states).where(states.c.id == _EXECUTION)

_THIS_COROUTINE = and_(
    coroutines.c.execution_id == _EXECUTION,
    coroutines.c.run == _RUN,
    coroutines.c.id == bindparam("c"),
)

_COROUTINE_INSERT = insert(coroutines).values(
    execution_id=_EXECUTION,
    run=_RUN,
    id=bindparam("c"),
    parent_id=_bind(coroutines.c.parent_id),
    serves=_bind(coroutines.c.serves),
    kind=_bind(coroutines.c.kind),
    function=_bind(coroutines.c.function),
    input=_bind(coroutines.c.input),
    fingerprint=_bind(coroutines.c.fingerprint),
    phase=CoroutinePhase.SUSPENDED.value,
    created_at=now(),
)

_COROUTINE_DONE = (
    update(coroutines)
    .where(_THIS_COROUTINE)
    .values(
        phase=CoroutinePhase.DONE.value,
        finished_at=now(),
        **{
            name: _bind(coroutines.c[name])
            for name in ("status", "output", "error_type", "error_message", "error_traceback")
        },
    )
)

_COROUTINE_CANCELLED = update(coroutines).where(_THIS_COROUTINE).values(cancelled=True)

_RESOLUTION = {
    "pending": bindparam("pending"),
    "resolution": _bind(futures.c.resolution, "how"),
    "decided_by": _bind(futures.c.decided_by),
    "resolved_at": case((_bind(futures.c.resolution, "how").is_(None), null()), else_=now()),
}

_SOURCE = ("source_file", "source_line", "await_stack")

_FUTURE_INSERT = insert(futures).values(
    **_RESOLUTION,
    execution_id=_EXECUTION,
    run=_RUN,
    coroutine_id=bindparam("c"),
    seq=bindparam("s"),
    created_round=bindparam("r"),
    created_at=now(),
    **{
        name: _bind(futures.c[name])
        for name in ("kind", "function", "first_child", "children", "cancel_losers", *_SOURCE)
    },
)

_FUTURE_UPDATE = (
    update(futures)
    .where(
        futures.c.execution_id == _EXECUTION,
        futures.c.run == _RUN,
        futures.c.coroutine_id == bindparam("c"),
        futures.c.seq == bindparam("s"),
    )
    .values(**_RESOLUTION)
)

_REQUESTED = {
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
        "created_round",
        *_SOURCE,
    )
}

_CALL_INSERT = insert(calls).values(
    **_REQUESTED,
    phase=Phase.QUEUED.value,
    due=after(bindparam("wait", type_=Float())),
    created_at=now(),
)

_CALL_CANCELLED = insert(calls).values(
    **_REQUESTED,
    phase=Phase.DONE.value,
    status=Status.CANCELLED.value,
    created_at=now(),
    finished_at=now(),
)

_DELIVERED = (
    update(calls)
    .where(
        calls.c.execution_id == _EXECUTION,
        calls.c.run == _RUN,
        calls.c.call_id == bindparam("call"),
    )
    .values(
        delivered_round=bindparam("r"),
        resolution=_bind(calls.c.resolution, "how"),
        arrived=null(),
    )
)

_END_CALLS = (
    update(calls)
    .where(
        calls.c.execution_id == _EXECUTION, calls.c.run == _RUN, calls.c.delivered_round.is_(None)
    )
    .values(
        delivered_round=bindparam("r"), resolution=Resolution.CANCELLED.value, arrived=null()
    )
)

_END_COROUTINES = (
    update(coroutines)
    .where(
        coroutines.c.execution_id == _EXECUTION,
        coroutines.c.run == _RUN,
        coroutines.c.phase == CoroutinePhase.SUSPENDED.value,
    )
    .values(phase=CoroutinePhase.DONE.value, status=Status.CANCELLED.value, finished_at=now())
)

_END_FUTURES = (
    update(futures)
    .where(
        futures.c.execution_id == _EXECUTION, futures.c.run == _RUN, futures.c.resolution.is_(None)
    )
    .values(resolution=Resolution.CANCELLED.value, resolved_at=now())
)

# Lock order: states, then calls, then coroutines and futures.
_ORDER = (
    _STATE_INSERT,
    _STATE_UPDATE,
    _STATE_DELETE,
    _SUSPEND,
    _CALL_INSERT,
    _CALL_CANCELLED,
    _DELIVERED,
    _END_CALLS,
    _COROUTINE_INSERT,
    _COROUTINE_DONE,
    _END_COROUTINES,
    _END_FUTURES,
    _COROUTINE_CANCELLED,
    _FUTURE_INSERT,
    _FUTURE_UPDATE,
)


# ------------------------------------------------------------------------ in the user's transaction


def run_round(
    session: Session | Connection,
    scheduler: OneShotScheduler,
    execution_id: str,
) -> Output:
    """Load, run and commit one round inside the caller's own transaction.

    Nothing is committed here: a rollback of `session` leaves no trace of the round. The bodies run
    on an event loop of their own, in another thread, while this one waits (and reads what they
    turn out to need). An exit ends the call with what it came to: retries are a worker's business.

    `scheduler` is made for the execution's function, ``OneShotScheduler(f)``; codec, schema and
    the bodies of the children are those of the function's app.

    NotFound if there is no such call; `Incompatible` if the state does not fit, or if another
    transaction was faster.
    """
    home = getattr(scheduler.entry_point, "home", None)
    if home is None:
        raise UsageError("run_round needs a scheduler made for an @app.function")
    if isinstance(scheduler.codec, Identity):
        scheduler = scheduler.with_codec(home.codec)
    connection = session.connection() if isinstance(session, Session) else session
    known = connection.get_execution_options().get("schema_translate_map") or {}
    connection = connection.execution_options(
        schema_translate_map={**known, **translate_schema(connection, home.schema)}
    )
    lock_states(connection, [execution_id])
    lock_calls(connection, [execution_id])
    loaded = load(connection, home.body, scheduler.codec, execution_id)
    if loaded.lost:
        return Incompatible(f"call {execution_id} is done")
    execution = loaded.execution
    if execution.seen_round is None:
        execution = _claim_here(connection, execution)
    output = _run_beside(scheduler, loaded)
    if isinstance(output, Incompatible):
        return output
    outcome = None
    if isinstance(output, Exit):
        outcome = Outcome(
            id=execution.id,
            claim=None,
            execution_id=execution.caller_id,
            settled=settled(output.result, scheduler.codec),
            tail=tail_of(output.result, scheduler.codec),
        )
    (held,), _ = commit(connection, scheduler.codec, [Round(execution, output, outcome)])
    return output if held else Incompatible(f"another round of {execution_id} was faster")


def tail_of(result: CoroutineResult, codec: Codec) -> tuple[str, Any] | None:
    """The function and encoded input with which a call goes on, if it came to a tail call."""
    if result.call is None:
        return None
    return result.call.function, codec.encode_arguments(result.call.arguments)


def _claim_here(connection: Connection, execution: Execution) -> Execution:
    """Take a queued call for the time of this transaction."""
    connection.execute(
        update(calls)
        .where(calls.c.id == execution.id, calls.c.phase == Phase.QUEUED.value)
        .values(
            phase=Phase.RUNNING.value,
            claim=calls.c.claim + 1,
            attempt=calls.c.attempt + 1,
            due=null(),
            worker=execution.id,
            lease_expires=now(),
            started_at=now(),
        )
    )
    return replace(execution, claim=execution.claim + 1, attempt=execution.attempt + 1)


def _run_beside(scheduler: OneShotScheduler, loaded: Loaded) -> Output:
    """Run the scheduler on a loop in another thread; serve its loads here, in the transaction."""
    asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    answer: list[Output | BaseException] = []

    def run() -> None:
        try:
            answer.append(asyncio.run(scheduler.run(loaded.input, _Beside(loaded.rows, asked))))
        except BaseException as error:
            answer.append(error)
        finally:
            asked.put(None)

    thread = threading.Thread(target=run, name="rowtine-round")
    thread.start()
    while (load := asked.get()) is not None:
        load()
    thread.join()
    (result,) = answer
    if isinstance(result, BaseException):
        raise result
    return result


class _Beside:
    """A loader whose rows are read by the thread that has the transaction."""

    def __init__(self, rows: Rows, asked: SimpleQueue[Callable[[], None] | None]) -> None:
        self.rows = rows
        self.asked = asked

    async def _ask(self, read: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def serve() -> None:
            try:
                found = read()
            except BaseException as error:
                loop.call_soon_threadsafe(future.set_exception, error)
            else:
                loop.call_soon_threadsafe(future.set_result, found)

        self.asked.put(serve)
        return await future

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        return await self._ask(lambda: self.rows.coroutines(ids))

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return await self._ask(lambda: self.rows.counters(ids))

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        return await self._ask(lambda: self.rows.results(coroutine))
