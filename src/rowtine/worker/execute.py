"""Running what was claimed: one attempt of a call, or one round of an execution."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from rowtine import clock, quiet
from rowtine.config import Settings
from rowtine.context import here
from rowtine.core import eager
from rowtine.core.coroutine import Slot
from rowtine.core.directives import Body
from rowtine.core.exchange import CallRequest, Exit, Incompatible, Input, Output, Poll
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind
from rowtine.core.present import Running
from rowtine.core.results import CoroutineResult
from rowtine.core.round import OneShotScheduler, frames
from rowtine.core.state import Coroutine as StateCoroutine
from rowtine.core.status import status_for_output
from rowtine.errors import DecodeError, IncompatibleState, NotFound, Reset
from rowtine.functions import Function
from rowtine.probes import Probe
from rowtine.registry import Registry
from rowtine.store import Connection, RejectedError, loading, rounds
from rowtine.store.calls import Claimed, Seat
from rowtine.store.committing import Begins, Round
from rowtine.store.details import told
from rowtine.store.loading import Execution, Loaded, Rows
from rowtine.store.outcomes import Outcome, settled
from rowtine.worker import native
from rowtine.worker.committer import NOT_WRITTEN, Written
from rowtine.worker.gateway import Gateway
from rowtine.worker.handoff import End, Handoff, Turn, round_input, taken
from rowtine.worker.heartbeat import beat
from rowtine.worker.held import Held
from rowtine.worker.policy import (
    Attempted,
    conclude,
    failure,
    interrupted,
    retry_of,
    runs_at_most_once,
    tail_call,
    timeout_of,
)
from rowtine.worker.threads import Threads
from rowtine.worker.warm import Kept, Warm, drop, merged

__all__ = ["Executor", "Setup"]

T = TypeVar("T")

_NONE: Mapping[int, Slot] = {}
_NOTHING: Mapping[int, Outcome | Round] = {}

log = logging.getLogger("rowtine")


class _Lost(Exception):
    """Another worker committed a round of this execution while ours was reading."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker runs, and as whom."""

    worker: str
    registry: Registry
    codec: Codec
    settings: Settings
    version: str | None
    probe: Probe


class Executor:
    """Turns claims into commits. Its methods end normally whatever the user's code does; a
    CancelledError means that this worker must give the claim back.

    `begin` is given the calls that a round has made and this worker has claimed with it; `ended`
    the ids of calls whose outcome is in the database.
    """

    def __init__(
        self,
        setup: Setup,
        gateway: Gateway,
        held: Held,
        begin: Callable[[Claimed], None],
        spawn: Callable[[str, Coroutine[Any, Any, None]], None],
        ended: Callable[[str], None],
    ) -> None:
        self.worker = setup.worker
        self.registry = setup.registry
        self.codec = setup.codec
        self.settings = setup.settings
        self.version = setup.version
        self.probe = setup.probe
        self.gateway = gateway
        self.held = held
        self.begin = begin
        self.spawn = spawn
        self.ended = ended
        self.threads = Threads()
        self.warm = Warm(self.settings.warm)
        self.handoff = Handoff(
            self.warm,
            self.settings.poll_max_results,
            lambda turn: spawn(turn.kept.execution.id, self._turns(turn)),
        )
        self._schedulers: dict[str, OneShotScheduler] = {}
        self.stands: dict[str, tuple[int, int]] = {}
        """Where the executions stand whose next round runs here."""
        self.spent: set[str] = set()
        """Calls whose body has begun and must not begin again, should we have to give them back."""

    # -- a claimed call

    def start(self, claimed: Claimed) -> None:
        """Run one attempt of a call up to its outcome, or up to its first suspension. What ends at
        its first step, as most calls do, needs no task."""
        function = self.registry.function(claimed.function)
        retry = retry_of(claimed, function)
        error = interrupted(claimed.attempt, retry)
        if error is not None:
            self._record(claimed, function, failure(error, self.codec))
            return
        if runs_at_most_once(retry):
            self.spent.add(claimed.id)
        context = contextvars.copy_context()
        context.run(self._enter, claimed)
        if function.body is None:
            context.run(self.spawn, claimed.id, self._run_sync(claimed, function))
        elif timeout_of(claimed, function) is None:
            self._begin(claimed, function, function.body, context)
        else:
            self.probe("running", claimed.id)
            first = self._first_round(claimed, function, _first_input(claimed))
            context.run(self.spawn, claimed.id, first)

    def _begin(
        self,
        claimed: Claimed,
        function: Function[..., Any],
        body: Body,
        context: contextvars.Context,
    ) -> None:
        self.probe("running", claimed.id)
        input = _first_input(claimed)
        begun = self._scheduler(function).begin(body, input, context.copy())
        if isinstance(begun, Running):
            rest = self._first_round(claimed, function, input, begun)
            context.run(self.spawn, claimed.id, rest)
        else:
            self._record(claimed, function, begun)

    def _enter(self, attempted: Claimed | Execution) -> None:
        """Tell what runs in this task which call it runs for."""
        held, lease = (attempted.id, attempted.claim), self.settings.lease

        def renew(details: str | None) -> bool:
            # A body keeps the context of its first round.
            stand = self.stands.get(attempted.id)
            return beat(self.gateway.database, held, stand, self.worker, lease, details)

        here.set(told(attempted, self.codec, renew))

    async def _run_sync(self, claimed: Claimed, function: Function[..., Any]) -> None:
        self._record(claimed, function, await self._in_a_thread(claimed, function))

    async def _in_a_thread(self, claimed: Claimed, function: Function[..., Any]) -> CoroutineResult:
        def body() -> CoroutineResult:
            # Everything that user code can raise ends here, sys.exit included.
            try:
                self.probe("running", claimed.id)
                arguments = self.codec.decode_arguments(claimed.input)
                value = function.func(*arguments.args, **arguments.kwargs)
                payload = self.codec.encode(value, "the returned value")
            except Reset as reset:
                return tail_call(reset, self.codec)
            except BaseException as error:
                return failure(error, self.codec)
            return CoroutineResult(0, value=payload, status=status_for_output(value))

        timeout = timeout_of(claimed, function)
        future = self.threads.run(body)
        try:
            # A thread cannot be stopped, but told apart from one that has ended.
            done, _ = await asyncio.wait([future], timeout=timeout)
        except asyncio.CancelledError:
            self._abandon(future)
            raise
        if not done:
            self._abandon(future)
            return failure(_timed_out(function, timeout), self.codec)
        result: CoroutineResult = future.result()
        return result

    def _abandon(self, future: asyncio.Future[Any]) -> None:
        self.held.abandoned += 1

        def ended(_: asyncio.Future[Any]) -> None:
            self.held.abandoned -= 1

        future.add_done_callback(ended)

    async def _first_round(
        self,
        claimed: Claimed,
        function: Function[..., Any],
        input: Input,
        begun: Running | None = None,
    ) -> None:
        execution = _execution(claimed)
        output, seconds = await self._run(function, execution, input, None, begun)
        self.probe("round", execution.id)
        match output:
            case Poll():
                self.held.committing.add(claimed.id)
                await self._suspend(Round(execution, output, None, seconds), output)
                self.spent.discard(claimed.id)
            case Exit():
                self._record(claimed, function, output.result)
            case Incompatible():
                error = DecodeError(output.message)
                self._record(claimed, function, failure(error, self.codec))

    def _record(
        self, claimed: Claimed, function: Function[..., Any], result: CoroutineResult
    ) -> None:
        self.probe("ran", claimed.id)
        self.held.committing.add(claimed.id)
        outcome = self._conclude(claimed, claimed.claim, function, result)
        if self.handoff.offer(outcome, outcome, claimed.seat, self._told) is None:
            written = self.gateway.commit(outcome)
            written.add_done_callback(lambda written: self._answered(outcome, written))

    def _answered(self, outcome: Outcome, written: asyncio.Future[Written]) -> None:
        if written.cancelled():
            return  # the loop ends
        if isinstance(error := written.exception(), Exception):
            self.spawn(outcome.id, self._record_refused(outcome, error))
        else:
            self._recorded(outcome.id, written.result().held)

    async def _record_refused(self, outcome: Outcome, error: Exception) -> None:
        self._recorded(outcome.id, (await self._refused(outcome, error)).held)

    def _told(self, end: End, written: bool | None) -> None:
        """An outcome was written with the round of its caller; or it was not, and is alone."""
        if written is None:
            self.spawn(end.outcome.id, self._record_alone(end))
        else:
            self._recorded(end.outcome.id, written)

    async def _record_alone(self, end: End) -> None:
        held = False
        try:
            held = (await self._commit(end.outcome)).held
        finally:
            end.recorded(held)
        self._recorded(end.outcome.id, held)

    def _recorded(self, id: str, held: bool) -> None:
        if held:
            self.probe("recorded", id)
        else:
            log.warning("%s: the outcome came too late, the call is no longer ours", id)
        self.held.release([id])
        self.spent.discard(id)
        self.ended(id)

    async def _end(self, round: Round, outcome: Outcome) -> bool:
        """Write the last round of an execution, with the next one of its caller if that is warm
        here; whether its fence held."""
        told: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()

        def tell(_: End, written: bool | None) -> None:
            if not told.done():
                told.set_result(written)

        end = self.handoff.offer(round, outcome, round.execution.seat, tell)
        if end is None:
            return (await self._commit(round)).held
        held = False
        try:
            written = await told
            held = (await self._commit(round)).held if written is None else written
        finally:
            end.recorded(held)
        return held

    # -- a warm execution

    async def _turns(self, turn: Turn | None) -> None:
        """Run the next round of a warm execution with what has ended here, and so on, as long as
        the calls that a round makes end at once."""
        entered: Execution | None = None
        while turn is not None:
            execution = turn.kept.execution
            if execution is not entered:
                entered = execution
                self._enter(execution)
            try:
                await self._take_turn(turn.kept, turn.ends)
            except asyncio.CancelledError:
                # For ever: what it has claimed is given back.
                self._over(turn, self.handoff.takes_long)
                raise
            except BaseException:
                if (turn := self._over(turn, self.handoff.over)) is not None:
                    self.spawn(execution.id, self._turns(turn))
                raise
            turn = self._over(turn, self.handoff.over)

    def _over(self, turn: Turn, after: Callable[[str], Turn | None]) -> Turn | None:
        for end in turn.ends:
            end.written(None)
        return after(turn.kept.execution.id)

    async def _take_turn(self, kept: Kept, ends: Sequence[End]) -> None:
        execution = kept.execution
        execution.now = self.gateway.now(execution.now)
        function = self.registry.function(execution.function)
        self.stands[execution.id] = execution.stand
        body = self.registry.body
        loader = _Loader(self.gateway, lambda c: Rows(c, body, execution, None, kept.slots))
        input = round_input(kept, ends, execution.now)
        running = eager.Begun(self._run(function, execution, input, loader))
        running.step()
        given = taken(ends)
        try:
            if not running.over:
                given = {}
                await self._take_longer(execution, ends)
            output, seconds = await running
        except BaseException as error:
            await _ended(running)
            drop(kept.slots)
            if isinstance(error, _Lost):
                return
            raise
        if await self._end_round(execution, function, output, seconds, kept, given):
            for end in ends:
                end.written(True)

    async def _take_longer(self, execution: Execution, ends: Sequence[End]) -> None:
        """The round reads, or awaits natively. What it was given does not wait for that, and nobody
        else is to run this round meanwhile; _Lost if somebody does, or an end was refused."""
        stand, lease = execution.stand, self.settings.lease
        mine = await self.gateway.write(
            lambda connection: rounds.adopt(connection, self.worker, execution.id, stand, lease)
        )
        if mine:
            self.held.rounds.add(execution.id)
        self.handoff.takes_long(execution.id)
        recorded = [end.refuse() for end in ends]
        if not (all([await held for held in recorded]) and mine):
            raise _Lost

    # -- a claimed execution

    async def round(self, execution_id: str) -> None:
        """Run the next round of a suspended execution."""
        kept = self.warm.take(execution_id)
        slots = _NONE if kept is None else kept.slots
        stand = None if kept is None else kept.execution.stand
        try:
            loaded = await self.gateway.read(
                lambda connection: loading.load(
                    connection, self.registry.body, self.codec, execution_id, slots, stand
                )
            )
        except NotFound:
            drop(slots)
            return
        except IncompatibleState as error:
            drop(slots)
            await self._hold(execution_id, str(error))
            return
        execution = loaded.execution
        if execution.seen_round is None:
            drop(slots)
            return  # it has ended since it was claimed
        if execution.stand != stand:
            drop(slots)
            slots = _NONE
            kept = None
        if loaded.worker != self.worker:
            if kept is not None:
                self.warm.keep(kept.execution, kept.state)
            return  # a turn that was on its way when it was claimed has done it
        try:
            await self._later_round(loaded, kept)
        except _Lost:
            drop(slots)

    async def _later_round(self, loaded: Loaded, kept: Kept | None) -> None:
        execution = loaded.execution
        function = self.registry.function(execution.function)
        self.stands[execution.id] = execution.stand
        self._enter(execution)
        loader = _Loader(self.gateway, lambda c: replace(loaded.rows, connection=c))
        output, seconds = await self._run(function, execution, loaded.input, loader)
        await self._end_round(execution, function, output, seconds, kept)

    async def _end_round(
        self,
        execution: Execution,
        function: Function[..., Any],
        output: Output,
        seconds: float,
        kept: Kept | None,
        given: Mapping[int, Outcome | Round] = _NOTHING,
    ) -> bool:
        """Write a round that has run, and what it was `given`; whether its fence held. `kept` is
        what was warm of its execution."""
        self.stands.pop(execution.id, None)
        self.probe("round", execution.id)
        if isinstance(output, Poll):
            return await self._suspend(Round(execution, output, None, seconds, given), output, kept)
        if kept is not None:
            drop(kept.slots)
        if isinstance(output, Incompatible):
            await self._hold(execution.id, output.message)
            return False
        outcome = self._conclude(execution, None, function, output.result)
        held = await self._end(Round(execution, output, outcome, seconds, given), outcome)
        if held:
            self.probe("committed", execution.id)
            self.ended(execution.id)
        return held

    async def _suspend(self, round: Round, output: Poll, kept: Kept | None = None) -> bool:
        """Commit a round that ended in a poll, keep its frames if it was ours to commit, and begin
        the calls that it made, as far as there is room."""
        execution = round.execution
        begins = round.begins = self._begins(output)
        try:
            written = await self._commit(round)
        except BaseException:
            _let_go(kept, output)
            self.held.release(begins.ids.values())
            raise
        self.held.release([execution.id])
        self.held.release(set(begins.ids.values()) - written.begun)
        if not written.held:
            log.info("%s: another worker's round was faster", execution.id)
            _let_go(kept, output)
            return False
        self.probe("committed", execution.id)
        self._keep(round, output, kept)
        self.held.coming -= written.begun
        for call in output.calls:
            if (id := begins.ids.get(call.call_id)) is not None and id in written.begun:
                self.begin(_begun(id, call, execution, written.at))
        return True

    def _keep(self, round: Round, output: Poll, kept: Kept | None) -> None:
        execution = round.execution
        execution.seen_round = (execution.seen_round or 0) + 1
        execution.held = False
        execution.running_seconds = round.running_seconds
        self.warm.keep(execution, merged(kept, output.state))

    def _begins(self, output: Poll) -> Begins:
        """The calls of a round that begin at once: those that can, as far as there is room."""
        room = self.held.room()
        ready = (call.call_id for call in output.calls if self._can_begin(call))
        ids = {call_id: clock.new_id() for call_id in itertools.islice(ready, room)}
        self.held.take(ids.values())
        return Begins(self.worker, self.settings.lease, ids)

    def _can_begin(self, call: CallRequest) -> bool:
        return (
            call.kind is Kind.FUNCTION
            and not call.parked
            and not call.options.delay
            and self.registry.runs(call.function)
        )

    # -- parts

    def _conclude(
        self,
        attempted: Attempted,
        claim: int | None,
        function: Function[..., Any],
        result: CoroutineResult,
    ) -> Outcome:
        return conclude(
            attempted,
            claim,
            result,
            retry=retry_of(attempted, function),
            jitter=clock.jitter,
            codec=self.codec,
        )

    async def _hold(self, execution_id: str, message: str) -> None:
        log.error("%s does not fit this code and is left as it is: %s", execution_id, message)
        await self.gateway.write(
            lambda connection: rounds.hold(
                connection, self.worker, execution_id, message, self.settings.hold
            )
        )

    async def _commit(self, item: Round | Outcome) -> Written:
        """Commit; what the database will not take becomes the error of its call."""
        try:
            return await self.gateway.commit(item)
        except RejectedError as error:
            return await self._refused(item, error)

    async def _refused(self, item: Round | Outcome, error: Exception) -> Written:
        if not isinstance(error, RejectedError):
            raise error
        if isinstance(item, Round) and item.taken:
            return NOT_WRITTEN  # each part by itself: then it shows which one it is
        log.error("the database refused what a call came to", exc_info=error)
        refused = settled(failure(error, self.codec), self.codec)
        if isinstance(item, Outcome):
            return await self.gateway.commit(replace(item, settled=refused))
        execution = item.execution
        outcome = Outcome(execution.id, None, execution.caller_id, refused)
        over = Exit(failure(error, self.codec))
        return await self.gateway.commit(Round(execution, over, outcome))

    def _scheduler(self, function: Function[..., Any]) -> OneShotScheduler:
        made = self._schedulers.get(function.name)
        if made is None or made.entry_point is not function:
            made = self._schedulers[function.name] = OneShotScheduler(
                function,
                version=self.version,
                poll_min_results=self.settings.poll_min_results,
                poll_max_results=self.settings.poll_max_results,
                poll_max_wait_seconds=self.settings.poll_max_wait_seconds,
                codec=self.codec,
            )
        return made

    async def _run(
        self,
        function: Function[..., Any],
        execution: Execution,
        input: Input,
        loader: _Loader | None,
        begun: Running | None = None,
    ) -> tuple[Output, float]:
        """Run one round, within what is left of the attempt's running time; with the seconds that
        the attempt has been running."""
        scheduler = self._scheduler(function)
        quiet.install()
        began = clock.monotonic()
        timeout = timeout_of(execution, function)
        output: Output | None
        if timeout is None:
            output = await scheduler.run(input, loader, begun)
        else:
            left = max(0.0, timeout - execution.running_seconds)
            output = await _within(left, scheduler.run(input, loader))
            if output is None:
                output = Exit(failure(_timed_out(function, timeout), self.codec))
        if isinstance(output, Poll):
            native.report(function.name, output.native)
        return output, execution.running_seconds + clock.monotonic() - began


async def _within(seconds: float, run: Coroutine[Any, Any, T]) -> T | None:
    """What it comes to within that time; None if it takes longer, and then it is stopped."""
    task = eager.start(run)
    try:
        await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait([task])
    return None


async def _ended(running: eager.Begun[Any]) -> None:
    """Stop a round that is no longer wanted, and wait until it has stopped."""
    if not running.over:
        task = asyncio.Task(running)
        task.cancel()
        await asyncio.wait([task])


class _Loader:
    """Reads what a round turns out to need, if the execution still stands where it did."""

    def __init__(self, gateway: Gateway, rows: Callable[[Connection], Rows]) -> None:
        self.gateway = gateway
        self.rows = rows

    async def _read(self, read: Callable[[Rows], T]) -> T:
        def transaction(connection: Connection) -> T:
            rows = self.rows(connection)
            if not rows.current():
                raise _Lost
            return read(rows)

        return await self.gateway.read(transaction)

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[StateCoroutine]:
        return await self._read(lambda rows: rows.coroutines(ids))

    async def counters(self, ids: Sequence[int]) -> Sequence[StateCoroutine]:
        return await self._read(lambda rows: rows.counters(ids))

    async def results(self, coroutine: StateCoroutine) -> Sequence[CoroutineResult]:
        return await self._read(lambda rows: rows.results(coroutine))

    async def waiters(self, ids: Sequence[int]) -> Sequence[StateCoroutine]:
        return await self._read(lambda rows: rows.waiters(ids))

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        return await self._read(lambda rows: rows.ended_among(ids))


def _first_input(claimed: Claimed) -> Input:
    return Input(arguments=claimed.input, now=claimed.began, seed=clock.new_seed())


def _execution(claimed: Claimed) -> Execution:
    """What a claimed call is in its first round."""
    return Execution(
        id=claimed.id,
        function=claimed.function,
        run=claimed.run,
        seen_round=None,
        claim=claimed.claim,
        attempt=claimed.attempt,
        root_id=claimed.root_id,
        caller_id=claimed.caller_id,
        failing_for=claimed.failing_for,
        began=claimed.began,
        now=claimed.began,
        options=claimed.options,
        deadline=claimed.deadline,
        details=claimed.details,
        seat=claimed.seat,
    )


def _let_go(kept: Kept | None, output: Poll) -> None:
    """Drop the frames of a round that was not written, and those that it did not touch."""
    if kept is not None:
        drop(kept.slots)
    drop(frames(output.state))


def _begun(id: str, call: CallRequest, caller: Execution, at: datetime) -> Claimed:
    """A call that was inserted as claimed, as a claim would have found it."""
    deadline = call.options.deadline
    if deadline is not None and not isinstance(deadline, datetime):
        deadline = at + timedelta(seconds=deadline)
    return Claimed(
        id=id,
        claim=1,
        function=call.function,
        input=call.input,
        attempt=1,
        run=0,
        caller_id=caller.id,
        root_id=caller.root_id,
        failing_for=0.0,
        began=at,
        deadline=deadline,
        options=call.options,
        seat=Seat(
            caller.run,
            call.coroutine_id,
            call.seq,
            call.call_id,
            call.parent_id,
            call.serves,
            limited=call.parked is not None,
        ),
    )


def _timed_out(function: Function[..., Any], timeout: float | None) -> TimeoutError:
    return TimeoutError(f"{function.name} ran for longer than its timeout of {timeout} s")
