"""Rounds as a worker runs them: what any round is run with, and what is written of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from rowtine import clock, quiet
from rowtine.config import Settings
from rowtine.context import here
from rowtine.core import eager
from rowtine.core.exchange import CallRequest, Exit, Incompatible, Input, Output, Poll
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind
from rowtine.core.scheduler import OneShotScheduler
from rowtine.core.state import Loader
from rowtine.core.steps import Running, frames
from rowtine.functions import Function
from rowtine.probes import Probe
from rowtine.registry import Registry
from rowtine.store import rounds as claims
from rowtine.store.calls import Claimed, Seat
from rowtine.store.committing import Begins, Committed, Round
from rowtine.store.details import Told
from rowtine.store.loading import Execution
from rowtine.store.outcomes import Outcome
from rowtine.worker import native
from rowtine.worker.ends import Ends, Then
from rowtine.worker.gateway import Gateway
from rowtine.worker.heartbeat import beat
from rowtine.worker.held import Held
from rowtine.worker.policy import conclude, failure, retry_of, timed_out, timeout_of
from rowtine.worker.warm import Kept, Warm, drop, merged

__all__ = ["Rounds", "Setup"]

T = TypeVar("T")

_NOTHING: Mapping[int, Outcome | Round] = {}

log = logging.getLogger("rowtine")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker runs, and as whom."""

    worker: str
    registry: Registry
    codec: Codec
    settings: Settings
    version: str | None
    probe: Probe


class Rounds:
    """Runs rounds and writes what they come to. `begin` is given the calls that a round has made
    and this worker has claimed with it."""

    def __init__(
        self,
        setup: Setup,
        gateway: Gateway,
        held: Held,
        warm: Warm,
        ends: Ends,
        begin: Callable[[Claimed], None],
    ) -> None:
        self._setup = setup
        self._gateway = gateway
        self._held = held
        self._warm = warm
        self._ends = ends
        self._begin = begin
        self._schedulers: dict[str, OneShotScheduler] = {}
        self._stands: dict[str, tuple[int, int]] = {}
        """Where the executions stand whose next round runs here."""

    # -- running

    def enter(self, attempted: Claimed | Execution) -> None:
        """Tell what runs in this context which call it runs for."""
        here.set(Told(attempted, self._setup.codec, self._renew))

    def _renew(self, attempted: Claimed | Execution, details: str | None) -> bool:
        held, lease = (attempted.id, attempted.claim), self._setup.settings.lease
        # A body keeps the context of its first round.
        stand = self._stands.get(attempted.id)
        return beat(self._gateway.database, held, stand, self._setup.worker, lease, details)

    def scheduler(self, function: Function[..., Any]) -> OneShotScheduler:
        made = self._schedulers.get(function.name)
        if made is None or made.entry_point is not function:
            settings = self._setup.settings
            made = self._schedulers[function.name] = OneShotScheduler(
                function,
                version=self._setup.version,
                poll_min_results=settings.poll_min_results,
                poll_max_results=settings.poll_max_results,
                poll_max_wait_seconds=settings.poll_max_wait_seconds,
                codec=self._setup.codec,
            )
        return made

    def resume(
        self, function: Function[..., Any], execution: Execution, input: Input
    ) -> tuple[Poll | Exit, float] | Running | None:
        """Run a round that is over with one step of the main body, as most are; or else what `run`
        has to go on with."""
        if timeout_of(execution, function) is not None:
            return None
        self._stands[execution.id] = execution.stand
        began = clock.monotonic()
        output = self.scheduler(function).resume(input)
        if not isinstance(output, Poll | Exit):
            return output
        return output, self._over(function, execution, output, began)

    async def run(
        self,
        function: Function[..., Any],
        execution: Execution,
        input: Input,
        loader: Loader | None = None,
        begun: Running | None = None,
    ) -> tuple[Output, float]:
        """Run one round, within what is left of the attempt's running time; with the seconds that
        the attempt has been running."""
        scheduler = self.scheduler(function)
        quiet.install()  # a body may be rebuilt
        if execution.seen_round is not None:
            self._stands[execution.id] = execution.stand
        began = clock.monotonic()
        timeout = timeout_of(execution, function)
        output: Output | None
        if timeout is None:
            output = await scheduler.run(input, loader, begun)
        else:
            left = max(0.0, timeout - execution.running_seconds)
            output = await _within(left, scheduler.run(input, loader, begun))
            if output is None:
                error = timed_out(function.name, timeout)
                output = Exit(failure(error, self._setup.codec))
        return output, self._over(function, execution, output, began)

    def _over(
        self, function: Function[..., Any], execution: Execution, output: Output, began: float
    ) -> float:
        """The seconds for which the attempt has been running, now that a round of it is over."""
        if isinstance(output, Poll) and output.native:
            native.report(function.name, output.native)
        return execution.running_seconds + clock.monotonic() - began

    # -- what it came to

    def end(
        self,
        execution: Execution,
        function: Function[..., Any],
        output: Poll | Exit,
        seconds: float,
        kept: Kept | None,
        given: Mapping[int, Outcome | Round],
        then: Then,
    ) -> None:
        """Write a round that has run, and what it was `given`; `then` hears of it. `kept` is what
        was warm of its execution."""
        self._stands.pop(execution.id, None)
        self._setup.probe("round", execution.id)
        if isinstance(output, Poll):
            round = Round(execution, output, None, seconds, given)
            self.suspend(round, output, kept, then)
            return
        if kept is not None:
            drop(kept.slots)
        outcome = conclude(
            execution,
            None,
            output.result,
            retry=retry_of(execution, function),
            jitter=clock.jitter,
            codec=self._setup.codec,
        )
        self._ends.record_last(Round(execution, output, outcome, seconds, given), outcome, then)

    async def ended(
        self,
        execution: Execution,
        function: Function[..., Any],
        output: Output,
        seconds: float,
        kept: Kept | None,
        given: Mapping[int, Outcome | Round] = _NOTHING,
    ) -> bool:
        """`end`, for a round that is a task; whether its fence held."""
        if not isinstance(output, Incompatible):
            return await _heard(
                lambda then: self.end(execution, function, output, seconds, kept, given, then)
            )
        self._stands.pop(execution.id, None)
        self._setup.probe("round", execution.id)
        if kept is not None:
            drop(kept.slots)
        await self.hold(execution.id, output.message)
        return False

    def suspend(self, round: Round, output: Poll, kept: Kept | None, then: Then) -> None:
        """Commit a round that ended in a poll, keep its frames if it was ours to commit, and begin
        the calls that it made, as far as there is room."""
        begins = round.begins = self._begins(output)

        def heard(held: bool, committed: Committed) -> None:
            self._held.release(round.execution.id)
            try:
                if held:
                    self._suspended(round, output, begins, kept, committed)
                else:
                    log.info("%s: another worker's round was faster", round.execution.id)
                    self._not_suspended(output, begins, kept)
            except Exception as error:
                then(error)
            else:
                then(held)

        def failed(error: Exception) -> None:
            self._not_suspended(output, begins, kept)
            then(error)

        self._ends.commit(round, heard, failed)

    def _suspended(
        self,
        round: Round,
        output: Poll,
        begins: Begins,
        kept: Kept | None,
        committed: Committed,
    ) -> None:
        execution, held = round.execution, self._held
        self._setup.probe("committed", execution.id)
        self._keep(round, output, kept)
        for call in output.calls:
            if (id := begins.ids.get(call.call_id)) is None:
                continue
            if id in committed.begun:
                held.coming.discard(id)
                self._begin(_begun(id, call, execution, committed.at))
            else:
                held.release(id)

    def _not_suspended(self, output: Poll, begins: Begins, kept: Kept | None) -> None:
        """Drop the frames of a round that was not written, and those that it did not touch."""
        if kept is not None:
            drop(kept.slots)
        drop(frames(output.state))
        self._held.release(*begins.ids.values())

    async def hold(self, execution_id: str, message: str) -> None:
        """Leave an execution as it is, which does not fit this code."""
        log.error("%s does not fit this code and is left as it is: %s", execution_id, message)
        worker, seconds = self._setup.worker, self._setup.settings.hold
        await self._gateway.write(
            lambda connection: claims.hold(connection, worker, execution_id, message, seconds)
        )

    def _keep(self, round: Round, output: Poll, kept: Kept | None) -> None:
        execution = round.execution
        execution.seen_round = (execution.seen_round or 0) + 1
        execution.held = False
        execution.running_seconds = round.running_seconds
        self._warm.keep(execution, merged(kept, output.state))

    def _begins(self, output: Poll) -> Begins:
        """The calls of a round that begin at once: those that can, as far as there is room."""
        ids: dict[int, str] = {}
        room = self._held.room()
        for call in output.calls:
            if len(ids) >= room:
                break
            if self._can_begin(call):
                ids[call.call_id] = clock.new_id()
        self._held.take(ids.values())
        return Begins(self._setup.worker, self._setup.settings.lease, ids)

    def _can_begin(self, call: CallRequest) -> bool:
        return (
            call.kind is Kind.FUNCTION
            and not call.parked
            and not call.options.delay
            and self._setup.registry.runs(call.function)
        )


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


async def _heard(write: Callable[[Then], None]) -> bool:
    """What somebody who writes a round is told, for whoever awaits it. The write is not cancelled
    with them: it is on its way."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def then(held: bool | Exception) -> None:
        if told.done():
            return
        if isinstance(held, Exception):
            told.set_exception(held)
        else:
            told.set_result(held)

    write(then)
    return await told


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
