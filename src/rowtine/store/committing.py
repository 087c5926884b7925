"""Output -> rows: what rounds and calls came to, in one transaction, each behind its fence.

A round is a compare-and-swap on `states.round` (the first one on `calls.claim`). One that finds
its fence moved writes nothing: somebody else was faster, and nothing is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
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
from rowtine.core.phases import WITHDRAWN, Kind, Phase, Resolution
from rowtine.core.state import Coroutine
from rowtine.core.status import Status
from rowtine.errors import Cancelled
from rowtine.functions import fingerprint
from rowtine.store import signals
from rowtine.store import statements as sql
from rowtine.store.each import Each, write
from rowtine.store.loading import Execution, exit_to_text
from rowtine.store.locks import Locked, lock
from rowtine.store.notices import News
from rowtine.store.options import options_to_text
from rowtine.store.outcomes import Outcome, settled
from rowtine.store.recording import holds, outcome_rows
from rowtine.store.tables import calls, states
from rowtine.store.types import moment_values, now
from rowtine.store.workers import Mark

__all__ = ["Begins", "Committed", "Round", "Writes", "commit"]


class Begins(Struct, frozen=True):
    """The new calls that the worker of a round begins at once: they are inserted claimed."""

    worker: str
    lease: float
    ids: Mapping[int, str]
    """call_id -> the id that the call gets."""


class Round(Struct):
    """A round that has run. `outcome` is what an exit means for the call (done, retry, tail call);
    None for a poll.

    `taken` are ends that this round was given before they were written, by call id: outcomes of
    calls, and last rounds of executions. All of it is written together, or nothing.
    """

    execution: Execution
    output: Poll | Exit
    outcome: Outcome | None = None
    running_seconds: float = 0.0
    taken: Mapping[int, Outcome | Round] = {}
    begins: Begins | None = None

    def family(self) -> list[Round]:
        """This round and the last rounds that it was given, those first."""
        family: list[Round] = []
        for end in self.taken.values():
            if isinstance(end, Round):
                family += end.family()
        family.append(self)
        return family

    def outcomes(self) -> list[Outcome]:
        """The outcomes of calls that this round was given."""
        return [end for end in self.taken.values() if isinstance(end, Outcome)]

    def resolution(self, call_id: int) -> Resolution | None:
        """How the round took the end of a call; None if it did not, because it had given it up."""
        changes = self.output.changes
        how = None if changes is None else changes.delivered.get(call_id)
        return None if how in WITHDRAWN else how


class Committed(NamedTuple):
    """What became of a batch."""

    held: list[bool]
    """Of each round, whether its fence held."""
    recorded: list[bool]
    """Of each outcome, likewise."""
    at: datetime
    """When it was written, by the database's clock."""
    begun: set[str]
    """Calls that begin at once: `Begins`, but for those whose execution was told to stop."""
    due_in: float | None
    """Seconds until the clock makes the first thing due of what was written."""
    news: News
    """What of it is due at once, and nobody has taken."""
    queued: set[str]
    """The functions of the calls that are due at once."""


def commit(
    connection: Connection,
    codec: Codec,
    rounds: Sequence[Round],
    outcomes: Sequence[Outcome] = (),
    mark: Mark | None = None,
    already: Locked | None = None,
) -> Committed:
    """Write rounds and outcomes, each behind its fence; one whose fence has moved writes nothing.

    All locks are taken first, in the one order; if this transaction has `already` taken them, not
    again. `mark` is written with them.
    """
    families = [(round, round.family()) for round in rounds]
    every = [each for _, family in families for each in family]
    ends = [outcome for each in every for outcome in each.outcomes()]
    withdrawn = _withdrawn(connection, every)
    cancelled = {id for ids in withdrawn.values() for id in ids}
    exits = [each.outcome for each in every if each.outcome is not None]
    callers = {o.execution_id for o in (*exits, *outcomes) if o.execution_id is not None}
    of_states = {each.execution.id for each in every} | callers | cancelled
    of_calls = {each.execution.id for each in every if _needs_its_call(each)} | cancelled
    of_calls |= {outcome.id for outcome in (*outcomes, *ends)}
    roots = {each.execution.root_id for each in every if each.begins}
    if already is None or roots or not already.covers(of_states, of_calls):
        already = lock(connection, of_states, of_calls, roots)
    locked = already
    fences = _Fences(locked)
    held = [fences.hold(family) for _, family in families]
    won = [
        each for (_, family), holds in zip(families, held, strict=True) if holds for each in family
    ]
    lost = {id for each in won for id in withdrawn.get(each.execution.id, ())}
    arrived = _arrived(connection, lost)
    writes = Writes(codec, locked)
    for each in won:
        writes.add(each, arrived.get(each.execution.id, 0))
    recorded = [outcome.id not in lost and holds(outcome, locked.calls) for outcome in outcomes]
    plain = [outcome for outcome, holds in zip(outcomes, recorded, strict=True) if holds]
    plain += writes.exits.values()
    counters = {id: state.arrived for id, state in locked.states.items()}
    stopped = {id: call.withdrawn for id, call in locked.calls.items() if call.cancelling}
    writes.merge(outcome_rows(plain, counters, stopped | dict.fromkeys(lost, True)))
    if mark is not None:
        writes.put(sql.MARK, {"w": mark.worker, "batch": mark.batch})
    at = writes.execute(connection)
    cancel_calls(connection, sorted(lost))
    news = writes.news()
    if lost:
        news |= News.CALLS | News.ROUNDS
    if _signals(connection, won, withdrawn, plain):
        news |= News.ROUNDS
    return Committed(held, recorded, at, writes.begun, writes.due_in(), news, writes.queued)


def _needs_its_call(round: Round) -> bool:
    """Whether the call of a round's execution is locked too: its own fence is there before the
    first round, what it comes to, and whether it was told to stop. The last a hand-off sees from
    its state, which somebody has woken, or has claimed since."""
    return round.outcome is not None or round.execution.seen_round is None or not round.taken


class _Fences:
    """Whether what was locked is still what a round or an outcome was made for."""

    def __init__(self, locked: Locked) -> None:
        self.locked = locked
        self.taken: set[str] = set()

    def hold(self, family: Sequence[Round]) -> bool:
        ids = {each.execution.id for each in family}
        held = (
            self.taken.isdisjoint(ids)
            and all(self._holds(each.execution) for each in family)
            and all(holds(each, self.locked.calls) for round in family for each in round.outcomes())
        )
        if held:
            self.taken |= ids
        return held

    def _holds(self, execution: Execution) -> bool:
        if execution.seen_round is None:
            call = self.locked.calls.get(execution.id)
            fence = (Phase.RUNNING.value, execution.claim)
            return call is not None and (call.phase, call.claim) == fence
        state = self.locked.states.get(execution.id)
        return state is not None and (state.run, state.round) == execution.stand


def _signals(
    connection: Connection,
    won: Sequence[Round],
    withdrawn: Mapping[str, Collection[str]],
    outcomes: Sequence[Outcome],
) -> bool:
    """Queue again what was not heard, and give what is queued to who waits now; whether there was
    anything to give."""
    lost = [id for each in won for id in withdrawn.get(each.execution.id, ())]
    signals.put_back(connection, lost)
    signals.forget_run(connection, [o.id for o in outcomes if o.retry_in is not None])
    waiting = [
        round.execution.id
        for round in won
        if isinstance(round.output, Poll)
        and (
            round.execution.id in withdrawn
            or any(call.kind is Kind.SIGNAL for call in round.output.calls)
        )
    ]
    return signals.match(connection, waiting)


def _withdrawn(connection: Connection, rounds: Sequence[Round]) -> dict[str, list[str]]:
    """The ids of the calls that these rounds cancel, by execution."""
    wanted = [
        which
        for round in rounds
        if _gives_up(round) and (which := _cancelled_by(round)) is not None
    ]
    found: dict[str, list[str]] = defaultdict(list)
    if wanted:
        statement = select(calls.c.id, calls.c.execution_id).where(or_(*wanted))
        for row in connection.execute(statement):
            found[row.execution_id].append(row.id)
    return found


def _gives_up(round: Round) -> bool:
    changes = round.output.changes
    return changes is None or changes.gives_up


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


_CALLS_AGAIN = (sql.AGAIN, sql.TAIL)

_ROUNDS = (sql.STATE_INSERT, sql.STATE_UPDATE)


class Writes:
    """The rows of several rounds, gathered into one list a write."""

    def __init__(self, codec: Codec, locked: Locked | None) -> None:
        self.codec = codec
        self.locked = locked
        """None where all is taken to be as expected."""
        self.rows: dict[Each, list[dict[str, Any]]] = {}
        self.released: list[dict[str, Any]] = []
        self.exits: dict[str, Outcome] = {}
        """What exits mean for their calls, but for those that the caller's round has taken."""
        self.begun: set[str] = set()
        self.queued: set[str] = set()
        self.waits: list[float] = []
        """Seconds until the clock makes calls due that are written."""

    def put(self, statement: Each, row: dict[str, Any]) -> None:
        self.rows.setdefault(statement, []).append(row)

    def merge(self, more: Mapping[Each, list[dict[str, Any]]]) -> None:
        for statement, rows in more.items():
            self.rows.setdefault(statement, []).extend(rows)

    def add(self, round: Round, arrived: int) -> None:
        """Add a round; `arrived` outcomes of calls that it cancels had come in."""
        output, execution = round.output, round.execution
        if round.outcome is not None:
            self.exits[round.execution.id] = round.outcome
        if isinstance(output, Exit) and execution.seen_round is None:
            return  # over in its first round: the outcome is all there is
        number = 1 if execution.seen_round is None else execution.seen_round + 1
        key = {"e": execution.id, "n": execution.run, "at": execution.now}
        if isinstance(output, Poll):
            self._state(round, output, number, arrived)
        else:
            self.put(sql.STATE_DELETE, {"e": execution.id})
        self._taken(round, number)
        if output.changes is None:
            self.put(sql.END_CALLS, {**key, "r": number})
            self.put(sql.END_COROUTINES, key)
            self.put(sql.END_FUTURES, key)
        else:
            self._changes(round, key, output.changes, number)

    def _taken(self, round: Round, number: int) -> None:
        """What the round was given is written as done and delivered at once."""
        for call_id, end in round.taken.items():
            outcome = end if isinstance(end, Outcome) else end.outcome
            how = round.resolution(call_id)
            if outcome is None or how is None:
                continue
            self.exits.pop(outcome.id, None)
            row = outcome.settled.columns()
            row |= {"id_": outcome.id, "at": round.execution.now, "r": number, "how": how.value}
            self.put(sql.HANDED, row)

    def _changes(self, round: Round, key: dict[str, Any], changes: Changes, number: int) -> None:
        for coroutine in changes.spawned:
            self._coroutine(key, coroutine)
        for id, result in changes.finished.items():
            columns = settled(result, self.codec).columns()
            self.put(sql.COROUTINE_DONE, {**key, "c": id, **columns})
        for id in changes.cancelled:
            self.put(sql.COROUTINE_CANCELLED, {**_without_time(key), "c": id})
        for change in changes.joins.values():
            self._join(key, change, number)
        for call in changes.calls:
            self._call(round, call, number)
        for call_id, resolution in changes.delivered.items():
            if call_id in round.taken and resolution not in WITHDRAWN:
                continue
            known = round.execution.arrived.get(call_id)
            if known is not None and resolution not in WITHDRAWN:
                row = {"id_": known, "at": key["at"], "r": number, "how": resolution.value}
                self.put(sql.TAKEN, row)
                continue
            how, timer = resolution.value, changes.timers.get(call_id)
            row = {**key, "call": call_id, "r": number, "how": how, "timer": timer}
            self.put(sql.DELIVERED, row)
        for (coroutine_id, seq), room in changes.released.items():
            row = {**_without_time(key), "c": coroutine_id, "s": seq, "room": room}
            self.released.append(row)

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
        }
        if execution.seen_round is None:
            values["wait"] = output.max_wait_seconds
            values["version"] = state.version
            values["seed"] = state.seed
            values["semantics"] = state.semantics
            values["run"] = execution.run
            self.put(sql.STATE_INSERT, values)
            self.put(sql.SUSPEND, {"e": execution.id})
        else:
            if execution.held:
                self.put(sql.UNHOLD, {"e": execution.id})
            taken = arrived + sum(
                how not in WITHDRAWN and call_id not in round.taken
                for call_id, how in output.changes.delivered.items()
            )
            values["r"] = number
            values["taken"] = taken
            values["wait"] = self._wait(execution, output, taken)
            self.put(sql.STATE_UPDATE, values)

    def _wait(self, execution: Execution, output: Poll, taken: int) -> float | None:
        """Seconds until the next round is due: at once if enough has arrived meanwhile, or if the
        execution was told to stop while this one ran, which did not know it."""
        enough = self._enough(execution, output, taken)
        return 0.0 if enough or self._told(execution) else output.max_wait_seconds

    def _enough(self, execution: Execution, output: Poll, taken: int) -> bool:
        if self.locked is None:
            return False
        state = self.locked.states[execution.id]
        return state.arrived - state.delivered - taken >= output.min_results

    def _told(self, execution: Execution) -> bool:
        """Whether an execution was told to stop while its round ran, which did not know it; or
        woken, by somebody who may have told it."""
        if self.locked is None:
            return False
        if (call := self.locked.calls.get(execution.id)) is not None:
            return call.cancelling != execution.cancelling
        return self.locked.states[execution.id].woken

    def _coroutine(self, key: dict[str, Any], coroutine: Coroutine) -> None:
        continuation = coroutine.coroutine
        wait = coroutine.wait
        function = "" if wait is None else wait.function  # a nested join is spawned from its wait
        input = code = None
        if continuation is not None:
            function, input = continuation.body.name, continuation.input
            code = fingerprint(continuation.body.func)
        row = {
            **key,
            "c": coroutine.id,
            "parent_id": coroutine.parent_id,
            "serves": coroutine.serves,
            "kind": coroutine.kind.value,
            "function": function,
            "input": None if coroutine.id == 0 else input,
            "shielded": coroutine.shielded,
            "fingerprint": code,
        }
        self.put(sql.COROUTINE_INSERT, row)

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
            self.put(sql.FUTURE_UPDATE, row)
            return
        row |= {
            "kind": change.kind.value,
            "function": change.function,
            "first_child": change.first_child,
            "children": change.children,
            "max_failures": change.max_failures,
            "max_concurrency": change.max_concurrency,
            "cancel_losers": change.cancel_losers,
            "r": number,
            **_source(change),
        }
        self.put(sql.FUTURE_INSERT, row)

    def _call(self, round: Round, call: CallRequest, number: int) -> None:
        execution, id = round.execution, self._begins(round, call)
        row = {
            "id": id or new_id(),
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
            self.put(sql.CALL_CANCELLED, row)
            return
        row |= {"parked": call.parked, **moment_values("deadline", call.options.deadline)}
        self._by_the_clock(execution, call.options.deadline)
        if round.begins is not None and id is not None:
            self.begun.add(id)
            row["worker"] = round.begins.worker
            row["lease"] = round.begins.lease
            self.put(sql.CALL_BEGIN, row)
        else:
            until, wait = self._due(call)
            if call.kind is Kind.FUNCTION and wait is not None and wait <= 0:
                self.queued.add(call.function)
            else:
                self._by_the_clock(execution, until or wait)
            row["until"] = until
            row["wait"] = wait
            self.put(sql.CALL_INSERT, row)

    def _by_the_clock(self, execution: Execution, at: datetime | float | None) -> None:
        """At this moment, or in so many seconds, the clock has something to do."""
        if isinstance(at, datetime):
            at = None if execution.now is None else (at - execution.now).total_seconds()
        if at is not None:
            self.waits.append(at)

    def _begins(self, round: Round, call: CallRequest) -> str | None:
        """The id of a call that begins at once; None if it has to wait for its turn, or for what
        its caller does who was told to stop."""
        execution = round.execution
        if round.begins is None or self._told(execution):
            return None
        if self.locked is not None and execution.root_id in self.locked.told:
            return None
        return round.begins.ids.get(call.call_id)

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

    def due_in(self) -> float | None:
        """Seconds until the clock makes the first of it due."""
        waits = [wait for wait in self._waits(*_CALLS_AGAIN, *_ROUNDS) if wait > 0]
        return min([*waits, *self.waits], default=None)

    def news(self) -> News:
        """What of it is due at once."""
        calls = self.queued or self.released or any(w <= 0 for w in self._waits(*_CALLS_AGAIN))
        rounds = sql.ARRIVE in self.rows or any(wait <= 0 for wait in self._waits(*_ROUNDS))
        return (News.CALLS if calls else News(0)) | (News.ROUNDS if rounds else News(0))

    def _waits(self, *writes: Each) -> list[float]:
        rows = [row["wait"] for each in writes for row in self.rows.get(each, ())]
        return [wait for wait in rows if wait is not None]

    def execute(self, connection: Connection) -> datetime:
        at = write(connection, *sql.in_order(self.rows))
        if self.released:
            connection.execute(sql.RELEASED, self.released)
        return at


def _without_time(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "at"}


def _source(at: CallRequest | JoinChange) -> dict[str, Any]:
    where = at.where
    return {
        "source_file": where and where.file,
        "source_line": where and where.line,
        "await_stack": where and "\n".join(where.stack),
    }
