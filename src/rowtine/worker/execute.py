"""Running what was claimed: one attempt of a call, or one round of an execution."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rowtine import clock, quiet
from rowtine.config import Settings
from rowtine.context import here
from rowtine.core.coroutine import Slot
from rowtine.core.payload import Codec
from rowtine.core.results import CoroutineResult
from rowtine.core.round import Exit, Incompatible, Input, OneShotScheduler, Output, Poll, frames
from rowtine.core.state import Coroutine
from rowtine.core.status import status_for_output
from rowtine.errors import DecodeError, IncompatibleState, NotFound, Reset
from rowtine.functions import Function
from rowtine.probes import Probe
from rowtine.registry import Registry
from rowtine.store import Connection, RejectedError, loading, rounds
from rowtine.store.calls import Claimed
from rowtine.store.committing import Round
from rowtine.store.details import told
from rowtine.store.loading import Execution, Loaded, Rows
from rowtine.store.outcomes import Outcome, settled
from rowtine.worker import native
from rowtine.worker.gateway import Gateway
from rowtine.worker.heartbeat import beat
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
from rowtine.worker.warm import Warm, drop

__all__ = ["Executor"]

T = TypeVar("T")

_NONE: Mapping[int, Slot] = {}

log = logging.getLogger("rowtine")


class _Lost(Exception):
    """Another worker committed a round of this execution while ours was reading."""


class Executor:
    """Turns claims into commits. Its methods end normally whatever the user's code does; a
    CancelledError means that this worker must give the claim back."""

    def __init__(
        self,
        registry: Registry,
        codec: Codec,
        gateway: Gateway,
        settings: Settings,
        version: str | None,
        probe: Probe,
        worker: str,
    ) -> None:
        self.worker = worker
        self.registry = registry
        self.codec = codec
        self.gateway = gateway
        self.settings = settings
        self.version = version
        self.probe = probe
        self.threads = Threads()
        self.warm = Warm(settings.warm)
        self.abandoned = 0
        """Threads whose call has timed out and that have not ended yet."""
        self.spent: set[str] = set()
        """Calls whose body has begun and must not begin again, should we have to give them back."""

    # -- a claimed call

    async def call(self, claimed: Claimed) -> None:
        """Run one attempt of a call up to its outcome, or up to its first suspension."""
        function = self.registry.function(claimed.function)
        retry = retry_of(claimed, function)
        error = interrupted(claimed.attempt, retry)
        if error is not None:
            await self._record(claimed, function, failure(error, self.codec))
            return
        self._enter(claimed)
        if runs_at_most_once(retry):
            self.spent.add(claimed.id)
        if function.is_async:
            await self._first_round(claimed, function)
        else:
            await self._record(claimed, function, await self._run_sync(claimed, function))
        self.spent.discard(claimed.id)

    def _enter(self, attempted: Claimed | Execution) -> None:
        """Tell what runs in this task which call it runs for."""
        held, lease = (attempted.id, attempted.claim), self.settings.lease

        def renew(details: str | None) -> bool:
            return beat(self.gateway.database, held, self.worker, lease, details)

        here.set(told(attempted, self.codec, renew))

    async def _run_sync(self, claimed: Claimed, function: Function[..., Any]) -> CoroutineResult:
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
            async with asyncio.timeout(timeout):
                # A thread cannot be stopped; shielded, it can at least be told apart from one
                # that has ended.
                return await asyncio.shield(future)
        except TimeoutError:
            self._abandon(future)
            return failure(_timed_out(function, timeout), self.codec)
        except asyncio.CancelledError:
            self._abandon(future)
            raise

    def _abandon(self, future: asyncio.Future[Any]) -> None:
        self.abandoned += 1

        def ended(_: asyncio.Future[Any]) -> None:
            self.abandoned -= 1

        future.add_done_callback(ended)

    async def _first_round(self, claimed: Claimed, function: Function[..., Any]) -> None:
        self.probe("running", claimed.id)
        execution = Execution(
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
        )
        input = Input(arguments=claimed.input, now=claimed.began, seed=clock.new_seed())
        output, seconds = await self._run(function, execution, input, None)
        self.probe("round", execution.id)
        match output:
            case Poll():
                await self._suspend(execution, output, seconds, _NONE)
            case Exit():
                await self._record(claimed, function, output.result)
            case Incompatible():
                error = DecodeError(output.message)
                await self._record(claimed, function, failure(error, self.codec))

    async def _record(
        self, claimed: Claimed, function: Function[..., Any], result: CoroutineResult
    ) -> None:
        self.probe("ran", claimed.id)
        outcome = self._conclude(claimed, claimed.claim, function, result)
        if await self._commit(outcome):
            self.probe("recorded", claimed.id)
        else:
            log.warning("%s: the outcome came too late, the call is no longer ours", claimed.id)

    # -- a claimed execution

    async def round(self, execution_id: str) -> None:
        """Run the next round of a suspended execution."""
        stand, slots = self.warm.take(execution_id)
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
        if (execution.run, execution.seen_round) != stand:
            drop(slots)
            slots = _NONE
        try:
            await self._later_round(loaded, slots)
        except _Lost:
            drop(slots)

    async def _later_round(self, loaded: Loaded, slots: Mapping[int, Slot]) -> None:
        execution = loaded.execution
        function = self.registry.function(execution.function)
        self._enter(execution)
        output, seconds = await self._run(
            function, execution, loaded.input, _Loader(self.gateway, loaded.rows)
        )
        self.probe("round", execution.id)
        match output:
            case Incompatible():
                drop(slots)
                await self._hold(execution.id, output.message)
            case Poll():
                await self._suspend(execution, output, seconds, slots)
            case Exit():
                outcome = self._conclude(execution, None, function, output.result)
                drop(slots)
                if await self._commit(Round(execution, output, outcome)):
                    self.probe("committed", execution.id)

    async def _suspend(
        self, execution: Execution, output: Poll, seconds: float, slots: Mapping[int, Slot]
    ) -> None:
        """Commit a round that ended in a poll, and keep its frames if it was ours to commit."""
        suspended = {**slots, **frames(output.state)}
        try:
            held = await self._commit(Round(execution, output, None, seconds))
        except BaseException:
            drop(suspended)
            raise
        if held:
            self.probe("committed", execution.id)
            number = 1 if execution.seen_round is None else execution.seen_round + 1
            self.warm.keep(execution.id, (execution.run, number), suspended)
        else:
            log.info("%s: another worker's round was faster", execution.id)
            drop(suspended)

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
            jitter=clock.jitter(),
            codec=self.codec,
        )

    async def _hold(self, execution_id: str, message: str) -> None:
        log.error("%s does not fit this code and is left as it is: %s", execution_id, message)
        await self.gateway.write(
            lambda connection: rounds.hold(
                connection, self.worker, execution_id, message, self.settings.hold
            )
        )

    async def _commit(self, item: Round | Outcome) -> bool:
        """Commit; what the database will not take becomes the error of its call."""
        try:
            return await self.gateway.commit(item)
        except RejectedError as error:
            log.exception("the database refused what a call came to")
            refused = settled(failure(error, self.codec), self.codec)
            if isinstance(item, Outcome):
                return await self.gateway.commit(replace(item, settled=refused))
            execution = item.execution
            outcome = Outcome(execution.id, None, execution.caller_id, refused)
            over = Exit(failure(error, self.codec))
            return await self.gateway.commit(Round(execution, over, outcome))

    async def _run(
        self,
        function: Function[..., Any],
        execution: Execution,
        input: Input,
        loader: _Loader | None,
    ) -> tuple[Output, float]:
        """Run one round, within what is left of the attempt's running time; with the seconds that
        the attempt has been running."""
        scheduler = OneShotScheduler(
            function,
            version=self.version,
            poll_min_results=self.settings.poll_min_results,
            poll_max_results=self.settings.poll_max_results,
            poll_max_wait_seconds=self.settings.poll_max_wait_seconds,
            codec=self.codec,
        )
        quiet.install()
        began = clock.monotonic()
        timeout = timeout_of(execution, function)
        left = None if timeout is None else max(0.0, timeout - execution.running_seconds)
        limit = asyncio.timeout(left)
        try:
            async with limit:
                output = await scheduler.run(input, loader)
        except TimeoutError:
            if not limit.expired():
                raise
            output = Exit(failure(_timed_out(function, timeout), self.codec))
        if isinstance(output, Poll):
            native.report(function.name, output.native)
        return output, execution.running_seconds + clock.monotonic() - began


class _Loader:
    """Reads what a round turns out to need, if the execution still stands where it did."""

    def __init__(self, gateway: Gateway, rows: Rows) -> None:
        self.gateway = gateway
        self.rows = rows

    async def _read(self, read: Callable[[Rows], T]) -> T:
        def transaction(connection: Connection) -> T:
            rows = replace(self.rows, connection=connection)
            if not rows.current():
                raise _Lost
            return read(rows)

        return await self.gateway.read(transaction)

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        return await self._read(lambda rows: rows.coroutines(ids))

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return await self._read(lambda rows: rows.counters(ids))

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        return await self._read(lambda rows: rows.results(coroutine))

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return await self._read(lambda rows: rows.waiters(ids))

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        return await self._read(lambda rows: rows.ended_among(ids))


def _timed_out(function: Function[..., Any], timeout: float | None) -> TimeoutError:
    return TimeoutError(f"{function.name} ran for longer than its timeout of {timeout} s")
