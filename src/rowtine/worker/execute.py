"""Running what was claimed: one attempt of a call, or one round of an execution."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rowtine import clock
from rowtine.core.coroutine import Slot
from rowtine.core.exchange import Exit, Incompatible, Input, Poll
from rowtine.core.results import CoroutineResult
from rowtine.core.status import status_for_output
from rowtine.core.steps import Running
from rowtine.errors import DecodeError, IncompatibleState, NotFound, Reset
from rowtine.functions import Function
from rowtine.store import loading
from rowtine.store.calls import Claimed
from rowtine.store.committing import Round
from rowtine.store.loading import Execution, Loaded
from rowtine.worker import native
from rowtine.worker.ends import Broken, Ends, Spawn
from rowtine.worker.gateway import Gateway
from rowtine.worker.handoff import Handoff, Turn
from rowtine.worker.held import Held
from rowtine.worker.policy import (
    conclude,
    failure,
    interrupted,
    retry_of,
    returned,
    runs_at_most_once,
    tail_call,
    timed_out,
    timeout_of,
)
from rowtine.worker.reader import Lost, Reader
from rowtine.worker.rounds import Rounds, Setup
from rowtine.worker.threads import Threads
from rowtine.worker.turns import Turns
from rowtine.worker.warm import Kept, Warm, drop

__all__ = ["Executor", "Setup"]

_NONE: Mapping[int, Slot] = {}


class Executor:
    """Turns claims into commits. What it spawns ends normally whatever the user's code does; a
    CancelledError means that this worker must give the claim back.

    `ended` is told the ids of calls whose outcome is in the database.
    """

    def __init__(
        self,
        setup: Setup,
        gateway: Gateway,
        held: Held,
        spawn: Spawn,
        broken: Broken,
        ended: Callable[[str], None],
    ) -> None:
        self.worker = setup.worker
        self.registry = setup.registry
        self.codec = setup.codec
        self.probe = setup.probe
        self.gateway = gateway
        self.held = held
        self.spawn = spawn
        self.broken = broken
        self.ended = ended
        self.threads = Threads()
        self.warm = Warm(setup.settings.warm)
        self.handoff = Handoff(self.warm, setup.settings.poll_max_results, self._take_turn)
        self.ends = Ends(
            gateway, self.handoff, held, self.codec, self.probe, broken, self._is_written
        )
        self.rounds = Rounds(setup, gateway, held, self.warm, self.ends, self.start)
        self.turns = Turns(setup, gateway, held, self.handoff, self.rounds, spawn, broken)
        self.spent: set[str] = set()
        """Calls whose body has begun and must not begin again, should we have to give them back."""

    # -- a claimed call

    def start(self, claimed: Claimed) -> None:
        """Run one attempt of a call up to its outcome, or up to its first suspension. What ends at
        its first step, as most calls do, needs no task."""
        try:
            self._start(claimed)
        except Exception as error:
            self.broken(claimed.id, error)

    def _start(self, claimed: Claimed) -> None:
        function = self.registry.function(claimed.function)
        retry = retry_of(claimed, function)
        if retry.max_attempts is not None:
            error = interrupted(claimed.attempt, retry)
            if error is not None:
                self._record(claimed, function, failure(error, self.codec))
                return
            if runs_at_most_once(retry):
                self.spent.add(claimed.id)
        context = contextvars.copy_context()
        context.run(self.rounds.enter, claimed)
        if function.body is None:
            context.run(self.spawn, claimed.id, self._run_sync(claimed, function))
            return
        self.probe("running", claimed.id)
        input = Input(arguments=claimed.input, now=claimed.began, seed=clock.new_seed())
        if timeout_of(claimed, function) is not None:
            context.run(self.spawn, claimed.id, self._first_round(claimed, function, input))
            return
        began = clock.monotonic()
        begun = self.rounds.scheduler(function).begin(function.body, input, context.copy())
        match begun:
            case CoroutineResult():
                self._record(claimed, function, begun)
            case Poll():
                native.report(function.name, begun.native)
                self.probe("round", claimed.id)
                self._suspend(_execution(claimed), begun, clock.monotonic() - began)
            case Running():
                rest = self._first_round(claimed, function, input, begun)
                context.run(self.spawn, claimed.id, rest)

    def _suspend(self, execution: Execution, output: Poll, seconds: float) -> None:
        """Write the first round of an execution."""
        self.held.committing.add(execution.id)

        def then(held: bool | Exception) -> None:
            if isinstance(held, Exception):
                self.broken(execution.id, held)
            else:
                self.spent.discard(execution.id)

        self.rounds.suspend(Round(execution, output, None, seconds), output, None, then)

    async def _first_round(
        self,
        claimed: Claimed,
        function: Function[..., Any],
        input: Input,
        begun: Running | None = None,
    ) -> None:
        execution = _execution(claimed)
        output, seconds = await self.rounds.run(function, execution, input, None, begun)
        self.probe("round", execution.id)
        match output:
            case Poll():
                self._suspend(execution, output, seconds)
            case Exit():
                self._record(claimed, function, output.result)
            case Incompatible():
                error = DecodeError(output.message)
                self._record(claimed, function, failure(error, self.codec))

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
            return failure(timed_out(function.name, timeout), self.codec)
        result: CoroutineResult = future.result()
        return result

    def _abandon(self, future: asyncio.Future[Any]) -> None:
        self.held.abandoned += 1

        def ended(_: asyncio.Future[Any]) -> None:
            self.held.abandoned -= 1

        future.add_done_callback(ended)

    def _record(
        self, claimed: Claimed, function: Function[..., Any], result: CoroutineResult
    ) -> None:
        self.probe("ran", claimed.id)
        self.held.committing.add(claimed.id)
        if result.error is None and result.call is None:  # as nearly always
            outcome = returned(claimed, claimed.claim, result)
        else:
            outcome = conclude(
                claimed,
                claimed.claim,
                result,
                retry=retry_of(claimed, function),
                jitter=clock.jitter,
                codec=self.codec,
            )
        self.ends.record(outcome, claimed.seat)

    def _is_written(self, id: str) -> None:
        self.spent.discard(id)
        self.ended(id)

    # -- an execution

    def _take_turn(self, turn: Turn) -> None:
        self.turns.begin(turn)

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
            await self.rounds.hold(execution_id, str(error))
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
                self.warm.put_back(kept)
            return  # a turn that was on its way when it was claimed has done it
        try:
            await self._later_round(loaded, kept)
        except Lost:
            drop(slots)

    async def _later_round(self, loaded: Loaded, kept: Kept | None) -> None:
        execution = loaded.execution
        function = self.registry.function(execution.function)
        self.rounds.enter(execution)
        rows = loaded.rows
        reader = Reader(self.gateway, lambda c: replace(rows, connection=c), rows.known_waiters)
        output, seconds = await self.rounds.run(function, execution, loaded.input, reader)
        await self.rounds.ended(execution, function, output, seconds, kept)


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
