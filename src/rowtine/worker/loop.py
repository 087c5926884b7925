"""The worker: claim what is due, run it, commit it; recover what the dead have left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Self

import msgspec

from rowtine import clock, quiet
from rowtine.config import Settings
from rowtine.core import eager
from rowtine.core.payload import Codec
from rowtine.errors import DatabaseError
from rowtine.probes import SILENT, Probe
from rowtine.registry import Registry
from rowtine.store import (
    Connection,
    Database,
    calls,
    leases,
    recording,
    rounds,
    schema,
    stopping,
    workers,
)
from rowtine.store.calls import Claimed
from rowtine.store.committing import Committed
from rowtine.store.notices import Listener, News
from rowtine.worker.committer import Commits
from rowtine.worker.execute import Executor, Setup
from rowtine.worker.gateway import Gateway
from rowtine.worker.heartbeat import Heartbeat
from rowtine.worker.held import Held, lost_of
from rowtine.worker.policy import backoff, heartbeat_interval, poll_wait, retry_of
from rowtine.worker.watchdog import Watchdog
from rowtine.worker.writing import sees_connections

__all__ = ["Worker"]

log = logging.getLogger("rowtine")

_TIMERS_AT_ONCE = 500
_RECOVERED_AT_ONCE = 100
_EXPIRED_AT_ONCE = 20
_BLOCKED = 0.5
"""Seconds until the next look after one at which everything that was due was locked by others."""


class Worker:
    """One worker in this process. `run` it on an event loop of its own, or `start` it in a thread.

    Bodies of async functions run on its loop, sync functions in threads. A function that is not
    registered here is left for a worker that has it.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        codec: Codec,
        *,
        version: str | None = None,
        settings: Settings | None = None,
        probe: Probe = SILENT,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.id = clock.new_id()
        self.database = database
        self.registry = registry
        self.codec = codec
        self.version = version
        self.settings = settings or Settings()
        self.probe = probe
        self.notify = notify
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._at_once = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held = Held(self.settings.concurrency)
        self._listener = Listener(database, lambda failures: backoff(failures, clock.jitter()))
        self._more_calls = self._more_rounds = True
        """Whether there may be some to claim: the last claim took as many as it wanted, say."""
        self._told = True
        """Whether somebody said that there is something to claim; who begins is taken to be."""
        self._before_looking = False
        """Whether the last claim was made without a look."""
        self._look_at = 0.0
        """When to look for what the clock has made due, by the clock of this process."""
        self._fired = 0
        """How much the last look has found that the clock had made due, and could be seen to."""
        self._late: list[str] = []
        """Calls whose deadline has passed."""
        self._commits: Callable[[], Commits] = lambda: Commits(0, 0, 0.0, 0.0)

    # -- its life

    async def run(self) -> None:
        """Work until `stop` is called, then let running calls finish within the grace time and
        give the rest back. SchemaError if the tables are at another revision."""
        schema.check(self.database)
        await self._run()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        quiet.install()
        gateway = Gateway(self.database, self.codec, self.id, self._heard, self._cannot_take)
        self._commits = gateway.commits
        setup = Setup(self.id, self.registry, self.codec, self.settings, self.version, self.probe)

        executor = Executor(setup, gateway, self._held, self._spawn, self._broken, self.notify)
        lease = self.settings.lease
        watchdog = Watchdog(self._loop, heartbeat_interval(lease), self.settings.stall)
        heartbeat = Heartbeat(
            self.database, self._row(), lease, self._held.snapshot, self._lost, watchdog.alive
        )
        await gateway.write_at_once(lambda connection: workers.introduce(connection, self._row()))
        heartbeat.start()
        if sees_connections(self._loop):
            self._listener.start(self._wake_up, self._loop)
        else:
            self._listener.start(self.wake)
        try:
            while not self._stopping:
                self._begin(executor, *await self._claim(gateway))
                await self._end_late(gateway)
                await self._wait()
            await self._finish_running(gateway)
        finally:
            await self._end(gateway, executor, heartbeat)

    def stop(self) -> None:
        """Stop claiming; the second time, stop at once. From any thread, or a signal handler."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._stopping = True
            return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._stopping and not self._at_once:
            self._at_once = True
            for task in self._tasks.values():
                task.cancel()
        self._stopping = True
        self._held.concurrency = 0  # what is made from now on is left to others
        self._wake.set()

    def commits(self) -> Commits:
        """What it has committed so far: how many batches, how large, and how long they waited.
        From any thread."""
        return self._commits()

    def wake(self, news: News = News.ANYTHING) -> None:
        """Look for what may be due. From any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake_up, news)

    def _wake_up(self, news: News) -> None:
        self._told = True
        self._note(news)
        if News.LATER in news:
            self._look_at = 0.0
        self._wake.set()

    def _note(self, news: News) -> None:
        """Note what there is to claim."""
        self._more_calls |= News.CALLS in news
        self._more_rounds |= News.ROUNDS in news

    def run_until_signalled(self) -> None:
        """`run` in the main thread; SIGTERM and SIGINT stop it, a second one stops it at once."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                with suppress(NotImplementedError):  # Windows has no signal handlers on loops
                    loop.add_signal_handler(number, self._stop)
            await self.run()

        asyncio.run(main())

    def start(self) -> BackgroundWorker:
        """`run` in a thread of its own. SchemaError if the tables are at another revision."""
        schema.check(self.database)
        return BackgroundWorker(self, self._run)

    # -- claiming

    async def _look(self, gateway: Gateway) -> bool:
        """Look for what the clock has made due, if it is time to; whether there is something to
        see to. A read, so that an idle worker writes nothing."""
        if clock.monotonic() < self._look_at:
            return False
        self._look_at = inf  # what is said meanwhile may be too late for this look
        due = await gateway.read(lambda connection: calls.due(connection, self._functions()))
        interval = poll_wait(
            self.settings.poll_interval, clock.jitter(), told=self._listener.listening
        )
        left = interval if due.next_in is None else min(interval, due.next_in)
        self._look_at = min(self._look_at, clock.monotonic() + left)
        see_to = due.clocked or due.late or due.lost
        self._more_calls |= due.calls or see_to
        self._more_rounds |= due.rounds or see_to
        return see_to

    async def _claim(self, gateway: Gateway) -> tuple[list[str], list[Claimed]]:
        """Take what fits, if there may be something."""
        # Who was told that there is something takes it first, and looks what the clock has then:
        # the next time at the latest, however often it is told.
        self._before_looking = self._told and not self._before_looking
        self._told = False
        see_to = False if self._before_looking else await self._look(gateway)
        lease, version, functions = self.settings.lease, self.version, self._functions()
        for_calls = self._held.room() if self._more_calls else 0
        for_rounds = self._held.room_for_rounds() if self._more_rounds else 0
        if not (see_to or for_calls or for_rounds):
            return [], []
        if for_calls:
            self._more_calls = False
        if for_rounds:
            self._more_rounds = False
        tries = 0

        def claim(connection: Connection) -> tuple[list[str], list[Claimed]]:
            nonlocal tries
            tries += 1
            if tries > 1:  # what the try before has claimed, if only its reply was lost
                leases.give_back_unknown(connection, self.id, self._held.snapshot().calls)
            woken = rounds.claim_rounds(connection, self.id, functions, version, for_rounds, lease)
            claimed = calls.claim(connection, self.id, functions, for_calls, lease)
            limited = [call.id for call in claimed if self._attempts_are_limited(call)]
            leases.put_on_disk(connection, limited, lease)
            self.probe("claiming")
            return woken, claimed

        # Two transactions: PostgreSQL looks anew for what a row refers to, and waits for whoever
        # has locked that, where the transaction itself has changed the row before.
        woken, claimed = await gateway.write_at_once(claim, self._see_to if see_to else None)
        # As many as were wanted: there may be more.
        self._more_calls |= 0 < for_calls <= len(claimed)
        self._more_rounds |= 0 < for_rounds <= len(woken)
        if see_to:
            self._seen_to(self._fired)
        self.probe("claimed")
        return woken, claimed

    def _attempts_are_limited(self, call: Claimed) -> bool:
        return retry_of(call, self.registry.function(call.function)).max_attempts is not None

    def _see_to(self, connection: Connection) -> None:
        """Answer due timers, recover what was lost, note what is late. What somebody else has
        locked waits for a later look."""
        recovered = leases.recover(connection, _RECOVERED_AT_ONCE)
        for id in recovered:
            log.warning("%s: its worker was lost, it is queued again", id)
        self._fired = recording.fire_timers(connection, _TIMERS_AT_ONCE) + len(recovered)
        self._late = stopping.late(connection, _EXPIRED_AT_ONCE)

    async def _end_late(self, gateway: Gateway) -> None:
        """End what is late, each by itself: below any of them somebody may have locked a row."""
        late, self._late = self._late, []
        for id in late:
            expire = partial(stopping.expire, codec=self.codec, id=id)
            if await gateway.write_unless_blocked(expire):
                log.warning("%s: its deadline has passed", id)
                self._seen_to(1)

    def _seen_to(self, count: int) -> None:
        """So many were due and could be seen to."""
        if count > 0:  # that makes rounds and calls due, and may not have been all
            self._more_calls = self._more_rounds = True
            self._look_at = 0.0
        else:
            self._look_at = min(self._look_at, clock.monotonic() + _BLOCKED)

    def _functions(self) -> list[str]:
        return self.registry.functions()

    def _begin(self, executor: Executor, woken: list[str], claimed: list[Claimed]) -> None:
        for id in woken:
            self._held.rounds.add(id)
            if not executor.handoff.postpone(id, lambda id: self._round(executor, id)):
                self._round(executor, id)
        for call in claimed:
            self._held.calls[call.id] = call.claim
            self._held.committing.discard(call.id)
            executor.start(call)
            self._over(call.id)

    def _broken(self, id: str, error: BaseException) -> None:
        log.error("%s could not be run", id, exc_info=error)
        self._held.release(id)

    def _round(self, executor: Executor, id: str) -> None:
        self._held.release(id)  # it has suspended, whether its task has heard or not
        self._spawn(id, executor.round(id))

    def _spawn(self, id: str, work: Coroutine[Any, Any, None]) -> None:
        if (earlier := self._tasks.get(id)) is not None:
            # Its commit is through and it was about to end, or it is a zombie: whichever, what
            # was claimed anew is not to wait for it.
            earlier.cancel()
        task = eager.begin(work, name=f"rowtine-{id}")
        if task is None:
            self._over(id)
            return
        self._tasks[id] = task

        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(id) is not task:
                return  # claimed anew while this attempt was still on its way
            del self._tasks[id]
            if task.cancelled():
                return  # still held: given back at the end
            if (error := task.exception()) is not None:
                self._broken(id, error)
            self._over(id)

        task.add_done_callback(done)

    def _over(self, id: str) -> None:
        self._held.rounds.discard(id)
        if self._more_calls or self._more_rounds:
            self._wake.set()

    def _heard(self, committed: Committed) -> None:
        """A batch was committed: is there more to do?"""
        self._note(committed.news)
        if self._more_calls or self._more_rounds:
            self._wake.set()  # also for what there was no room for: what has ended has left some
        if committed.due_in is None:
            return
        if (at := clock.monotonic() + committed.due_in) < self._look_at:
            self._look_at = at
            self._wake.set()

    def _cannot_take(self, queued: Collection[str]) -> bool:
        """Whether calls of these functions, which are due, have to be told to others."""
        known = all(map(self.registry.runs, queued))
        return bool(queued) and (not known or self._held.room() == 0)

    async def _wait(self) -> None:
        """Until something may be due: a commit of ours, a free place, or the next look."""
        calls = self._more_calls and self._held.room() > 0
        if calls or (self._more_rounds and self._held.room_for_rounds() > 0):
            await asyncio.sleep(0)
            return  # what there is no room for is claimed when a place is free
        left = self._look_at - clock.monotonic()
        if left > 0:
            timer = asyncio.get_running_loop().call_later(left, self._wake.set)
            await self._wake.wait()
            timer.cancel()
        self._wake.clear()

    def _lost(self, ids: set[str]) -> None:
        """The heartbeat found these calls taken by others: what we run of them counts no more."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._drop, ids)

    def _drop(self, ids: set[str]) -> None:
        for id in ids:
            log.warning("%s: the lease was lost", id)
            self._held.release(id)
            if (task := self._tasks.get(id)) is not None:
                task.cancel()

    # -- ending

    async def _finish_running(self, gateway: Gateway) -> None:
        if self._tasks and not self._at_once:
            # Calls that were cancelled meanwhile, the losers of a race say, are not waited for.
            held, lease = self._held.snapshot(), self.settings.lease
            mine = await gateway.write(
                lambda connection: leases.renew(connection, list(held.calls.items()), lease)
            )
            self._drop(lost_of(held, mine, self._held.snapshot()))
        if not self._at_once:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.grace):
                    await self._idle(gateway)
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=1)

    async def _idle(self, gateway: Gateway) -> None:
        """Wait until nothing runs and nothing is on its way to a commit, either of which may lead
        to the other."""
        await gateway.drained()
        while self._tasks:
            await asyncio.wait(self._tasks.values())
            await gateway.drained()

    async def _end(self, gateway: Gateway, executor: Executor, heartbeat: Heartbeat) -> None:
        heartbeat.stop()
        self._listener.stop()
        await gateway.drained()
        executor.warm.clear()
        held, woken = list(self._held.calls.items()), set(self._held.rounds)

        def leave(connection: Connection) -> None:
            rounds.release_rounds(connection, self.id, woken)
            leases.give_back(connection, held, executor.spent)
            workers.forget(connection, self.id)

        try:
            await asyncio.wait_for(gateway.write(leave), timeout=5)
        except (TimeoutError, DatabaseError) as error:
            log.warning("could not give back %d calls: %s", len(held), error)
        executor.threads.close()
        gateway.close()
        heartbeat.join(1)

    def _row(self) -> workers.WorkerRow:
        return workers.WorkerRow(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=_boot_id(),
            version=self.version,
            functions=msgspec.json.encode(self.registry.functions()).decode(),
        )


class BackgroundWorker:
    """A worker in a thread; a context manager that stops it at the end."""

    def __init__(self, worker: Worker, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.worker = worker
        self._work = run
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rowtine-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:
            self._error = error
            log.exception("the worker has ended")

    @property
    def error(self) -> BaseException | None:
        """What ended the worker, if it was not `stop`."""
        return self._error

    def stop(self) -> None:
        """Stop, and wait until it has; an interrupt meanwhile stops it at once."""
        self.worker.stop()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.worker.stop()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _boot_id() -> str:
    """Tells one boot of a host from the next, so that an old pid is not taken for a new one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
