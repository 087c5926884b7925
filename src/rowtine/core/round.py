"""One round: deliver results, resume every ready coroutine until all are suspended or the main
one is done, hand back an Output. Values in, values out; load and commit are the store's.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any

from rowtine.core.coroutine import Continuation, Frame, Slot, Step, Suspended
from rowtine.core.ends import failure, result_of, success
from rowtine.core.exchange import CallRequest, Changes, Exit, Input, JoinChange, Output, Polling
from rowtine.core.futures import (
    AllFuture,
    AnyFuture,
    CallFuture,
    JoinFuture,
    RaceFuture,
    join_future,
)
from rowtine.core.journal import Entry, Wait, placed
from rowtine.core.payload import Codec, Payload
from rowtine.core.phases import CALL_KINDS, JOIN_KINDS, Kind, Resolution
from rowtine.core.places import Where
from rowtine.core.present import Present
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.state import Coroutine, Loader, State
from rowtine.core.steps import (
    Running,
    body_of,
    request_of,
    resolution_of,
    resumed,
    start,
    step_of,
    task_of,
    wait_of,
)
from rowtine.core.tasks import TIMEOUT, Group
from rowtine.errors import AnyException, UsageError

__all__ = ["Round"]


_Place = tuple[int, ...]
"""Where a coroutine stands in the order of this round: the order of delivery (poll errors, the
cancellation of main, results), then depth first in order of declaration. Calls leave in this
order, however long native awaits took."""


_TURNS = 100
"""So many times bodies may go on, one after what another came to, before the event loop has its
turn: a round that never ends must not keep whoever would stop it from running."""


class Round:
    """The working copy of one round."""

    def __init__(
        self,
        codec: Codec,
        polling: Polling,
        state: State,
        loader: Loader | None,
        now: datetime | None,
    ) -> None:
        self.codec = codec
        self.polling = polling
        self.now = now
        self.state = state
        self.here = Present(state, loader)
        self.root = contextvars.copy_context()
        self.changes = Changes()
        self.native: dict[Where, None] = {}
        self.requests: dict[tuple[int, int], tuple[_Place, CallRequest]] = {}
        """The calls made in this round, by coroutine and seq."""
        self.places: dict[int, _Place] = {}
        self.expired: dict[int, list[int]] = {}
        """Coroutines with the timers of their time limits that fired while they ran."""

    # -- the flow

    async def run(self, input: Input, first: Running | None) -> Output:
        """Run it. `first` is a body that the scheduler has begun or resumed for it."""
        if first is not None and input.state is None:
            self._begin(first)
        elif first is not None:
            self._go_on(first, input.results[0])
        elif input.state is None:
            error = UsageError("the entry point is not an async @app.function or @app.coroutine")
            return Exit(self._failure(0, error), self.changes)
        else:
            self._resume_ready()
            if input.error is not None:
                await self._deliver_poll_error(input.error)
            if input.cancel:
                await self._cancel_main(input.reason)
            for order, result in enumerate(input.results):
                await self._deliver(result, (3, order))
        await self._settle()
        return self._output()

    async def _settle(self) -> None:
        """Let bodies run until none is left that can."""
        turns = 0
        while running := list(self.here.running.values()):
            if (turns := turns + 1) % _TURNS == 0:
                await asyncio.sleep(0)
            # A body begins here and no earlier: never amid the bookkeeping for another one, and
            # after those before it.
            for each in running:
                if each.step is None:
                    start(each, self.codec)
            idle = True
            # All that are over, in the order in which they began: a set has no order.
            for each in running:
                if (step := step_of(each)) is not None:
                    idle = False
                    del self.here.running[each.coroutine.id]
                    self.here.stepping.add(each.coroutine.id)
                    await self._stepped(each.coroutine, each.frame, step)
            if idle:
                tasks = [task for each in running if (task := task_of(each)) is not None]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    def _output(self) -> Output:
        state, changes = self.state, self.changes
        changes.spawned.sort(key=attrgetter("id"))
        for _, request in sorted(self.requests.values(), key=itemgetter(0)):
            self._issue(request)
        if state.exit is not None and state.outstanding_calls == 0:
            return Exit(state.exit, changes)
        state.prev_callers = [call.coroutine_id for call in changes.calls if not call.cancelled]
        return self.polling.poll(state, changes, list(self.native))

    def _issue(self, request: CallRequest) -> None:
        request.call_id = self.state.next_call_id
        self.state.next_call_id += 1
        self.changes.calls.append(request)
        if request.cancelled:
            self._given_up(request.call_id, request.timer)
            return
        self.state.outstanding_calls += 1
        self.state.suspended[request.coroutine_id].result = CallFuture(call_id=request.call_id)
        self.state.callers[request.call_id] = request.coroutine_id

    async def abandon(self) -> None:
        """The round failed: cancel what is running, drop every frame it took."""
        running = list(self.here.running.values())
        self.here.running.clear()
        tasks = [task for each in running if (task := task_of(each)) is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in running:
            each.frame.drop()
        for coroutine in self.here.owned.values():
            if coroutine.coroutine is not None:
                coroutine.coroutine.slot.drop()

    # -- beginning and resuming bodies

    def _begin(self, first: Running) -> None:
        self.state.next_coroutine_id = 1
        self.here.owned[0] = first.coroutine
        self.changes.spawned.append(first.coroutine)
        self.places[0] = ()
        self.here.running[0] = first

    def _go_on(self, main: Running, result: CallResult) -> None:
        """Main has been resumed with what its call came to."""
        self._answered(main.coroutine, result.call_id, resolution_of(result), (3, 0))
        self.here.owned[0] = main.coroutine
        self._run_on(main, (3, 0, 1))

    def _resume_ready(self) -> None:
        ready, self.state.ready = self.state.ready, []
        for order, coroutine in enumerate(ready):
            self._step(coroutine, None, (0, order))

    def _step(self, coroutine: Coroutine, resolved: Entry | None, place: _Place) -> None:
        """Have a body started or resumed, as a task: it may await natively, and so may its
        siblings."""
        frame = body_of(coroutine).slot.take()
        if frame is None:
            frame = Frame(self.root.copy(), self.codec, coroutine.id, self.state.seed)
        self._run_on(resumed(self.here.own(coroutine), frame, resolved), place)

    def _run_on(self, running: Running, place: _Place) -> None:
        id = running.coroutine.id
        self.state.suspended.pop(id, None)
        self.places[id] = place
        self.here.running[id] = running

    async def _stepped(self, coroutine: Coroutine, frame: Frame, step: Step) -> None:
        if isinstance(step, Suspended):
            if frame.running.asked:
                await self._do_asked(coroutine, frame)
            await self._suspend(coroutine, frame, step, placed(step.wait))
        else:
            result = result_of(coroutine.id, step, self.codec, fixed=self.state.exit is not None)
            if frame.running.groups:
                await self._stop_spawned(coroutine, frame)
            await self._finish(coroutine, result)

    async def _suspend(
        self, coroutine: Coroutine, frame: Frame, step: Suspended, wait: Wait
    ) -> None:
        body_of(coroutine).slot = Slot(frame)
        coroutine.wait = wait
        self.native |= dict.fromkeys(step.native)
        self.state.suspended[coroutine.id] = coroutine
        self.here.stepping.discard(coroutine.id)
        if wait.kind in CALL_KINDS:
            self._request(coroutine, wait, step.where)
        elif wait.kind is Kind.TASK:
            await self._watch(coroutine, wait, step.where)
        else:
            await self._resolve_empty(self._open(coroutine, wait, step.where))
        if frame.running.cancelling:  # told to stop, and suspended before it heard
            frame.running.cancelling = coroutine.cancelled = False
            await self._cancel(coroutine, self.places[coroutine.id], frame.running.reason)
        for timer in self.expired.pop(coroutine.id, ()):
            if any(scope.guards(timer) for scope in frame.running.scopes):
                await self._expire(coroutine.id, timer)

    # -- what a body asks for without waiting

    async def _do_asked(self, coroutine: Coroutine, frame: Frame) -> None:
        """Begin and stop members as the body has asked since its last wait, in that order."""
        asked, frame.running.asked = frame.running.asked, []
        place = self.places[coroutine.id]
        spawned: list[Entry] = []
        for order, each in enumerate(asked, 1):
            if isinstance(each, Group):
                ready, entry = self._spawn_group(coroutine, each)
                spawned.append(entry)
                await self._resolve_empty(ready)
            else:
                ids = each.group.ids()[each.member : each.member + 1]
                await self._cancel_all(await self.here.among(ids), self.places[coroutine.id])
            self.places[coroutine.id] = (*place, order)
        continuation = body_of(coroutine)
        if spawned and continuation.journal is not None:
            # Once for all: there may be a hundred thousand.
            continuation.journal = (*continuation.journal, *spawned)

    def _spawn_group(self, coroutine: Coroutine, group: Group) -> tuple[list[Coroutine], Entry]:
        """Begin the members of a group. Those of them that are ready, and its entry of the journal,
        which is resolved at once."""
        wait: Wait = placed(group.wait)
        ids = self._allot(len(wait.members))
        group.first = ids.start
        change = self._opened(coroutine, wait, ids, None)
        change.pending, change.resolution = 0, Resolution.RESULT
        ready = self._begin_members(coroutine, wait, ids, None)
        coroutine.seq += 1
        return ready, Entry(wait, Resolution.RESULT, ids.start)

    async def _stop_spawned(self, coroutine: Coroutine, frame: Frame) -> None:
        """A body has ended: what it has begun and not waited for is told to stop."""
        frame.running.asked.clear()  # never begun
        place = self.places[coroutine.id]
        for group in frame.running.groups:
            if group.open > 0 and group.wait.cancel_losers:
                await self._cancel_all(await self.here.among(group.ids()), place)

    def _failure(self, id: int, error: BaseException) -> CoroutineResult:
        return failure(id, error, self.codec)

    # -- waits

    def _request(
        self, coroutine: Coroutine, wait: Wait, where: Where | None, parked: bool | None = None
    ) -> None:
        request = request_of(coroutine, wait, where, parked)
        coroutine.limited = parked is not None
        coroutine.result = CallFuture()  # its id comes when the order of the round is known
        self.requests[coroutine.id, coroutine.seq] = self.places[coroutine.id], request

    def _open(self, coroutine: Coroutine, wait: Wait, where: Where | None) -> list[Coroutine]:
        """Spawn the members of a join, in order of declaration. The joins of nothing among them,
        innermost first: they are ready."""
        ids = coroutine.members = self._allot(len(wait.members))
        coroutine.result = join_future(wait.kind, ids, set(ids), wait.max_failures)
        self._opened(coroutine, wait, ids, where)
        ready: list[Coroutine] = [] if ids else [coroutine]
        return ready + self._begin_members(coroutine, wait, ids, where)

    def _allot(self, count: int) -> range:
        """The ids of so many new coroutines."""
        first = self.state.next_coroutine_id
        self.state.next_coroutine_id += count
        return range(first, first + count)

    def _opened(
        self, coroutine: Coroutine, wait: Wait, ids: range, where: Where | None
    ) -> JoinChange:
        change = self._changed(coroutine, wait, ids)
        change.opened, change.pending, change.where = True, len(ids), where
        return change

    def _changed(self, coroutine: Coroutine, wait: Wait, ids: range) -> JoinChange:
        """What this round does to a join, of which nothing is said yet."""
        change = self.changes.joins[coroutine.id, coroutine.seq] = JoinChange(
            coroutine_id=coroutine.id,
            seq=coroutine.seq,
            kind=wait.kind,
            function=wait.function,
            first_child=ids.start,
            children=len(ids),
            pending=0,
            cancel_losers=wait.cancel_losers,
            max_failures=wait.max_failures,
            max_concurrency=wait.max_concurrency,
        )
        return change

    def _begin_members(
        self, coroutine: Coroutine, wait: Wait, ids: range, where: Where | None
    ) -> list[Coroutine]:
        ready: list[Coroutine] = []
        place, limit = self.places[coroutine.id], wait.max_concurrency
        shielded = wait.kind is Kind.SPAWN and not wait.cancel_losers
        for i, (id, member) in enumerate(zip(ids, wait.members, strict=True)):
            self.places[id] = (*place, 0, i)
            child = Coroutine(
                id,
                coroutine.id,
                None,
                kind=member.kind,
                serves=coroutine.seq,
                wait=member,
                shielded=shielded,
            )
            self.here.owned[id] = child
            ready += self._begin_member(child, member, where, None if limit is None else i >= limit)
        return ready

    def _begin_member(
        self, child: Coroutine, member: Wait, where: Where | None, parked: bool | None
    ) -> list[Coroutine]:
        if member.body is not None:
            child.coroutine = Continuation(member.body, member.input, began=self.now)
            self.changes.spawned.append(child)
            self._step(child, None, self.places[child.id])
            return []
        self.state.suspended[child.id] = child
        if member.kind in CALL_KINDS:
            self._request(child, member, where, parked)
            return []
        self.changes.spawned.append(child)
        if member.kind is Kind.TASK:
            self._open_watch(child, member, where)
            return [child]
        return self._open(child, member, where)

    async def _resolve_empty(self, ready: Iterable[Coroutine]) -> None:
        """End the waits that need no waiting: joins of nothing, tasks that have ended. Not before
        all members are there: one of them may decide for those beside it."""
        for coroutine in ready:
            if coroutine.kind is Kind.TASK:
                await self._seek(coroutine)
            else:
                await self._resolve(coroutine, None)

    # -- tasks

    async def _watch(self, coroutine: Coroutine, wait: Wait, where: Where | None) -> None:
        self._open_watch(coroutine, wait, where)
        await self._seek(coroutine)

    def _open_watch(self, coroutine: Coroutine, wait: Wait, where: Where | None) -> None:
        """Wait for the next of some tasks: a race between coroutines that are there already."""
        ids = coroutine.members = wait.children or range(0)
        coroutine.result = join_future(wait.kind, ids, set(ids) - wait.taken)
        self.here.watch(coroutine)
        change = self._opened(coroutine, wait, ids, where)
        change.pending = len(ids) - len(wait.taken)

    async def _seek(self, coroutine: Coroutine) -> None:
        """Whether one of the tasks that a coroutine begins to wait for has ended before."""
        if coroutine.id in self.here.gone or coroutine.result is None:
            return
        taken = wait_of(coroutine).taken
        ended = await self.here.ended([id for id in coroutine.members if id not in taken])
        if ended is not None:
            await self._give(coroutine, ended)

    async def _end_task(self, child: Coroutine, result: CoroutineResult) -> None:
        """A coroutine that serves no open join has ended: it may be somebody's task."""
        self.state.ended[child.id] = result
        if child.kind is Kind.TIMER and child.wait is not None and child.wait.function == TIMEOUT:
            if child.parent_id is not None and result.error is None:
                await self._expire(child.parent_id, child.id)
            return
        for waiter in await self.here.waiters(child.id):
            self.places.setdefault(waiter.id, self.places[child.id])
            await self._give(waiter, result)

    async def _give(self, waiter: Coroutine, result: CoroutineResult) -> None:
        """A task that a coroutine waits for has ended."""
        waiter = self.here.own(waiter)
        future = waiter.result
        if not isinstance(future, RaceFuture) or future.ready():
            return
        future.add_result(result)
        if future.ready():
            self._join_change(waiter).pending = len(future.waiting)
            await self._resolve(waiter, result.coroutine_id)

    async def _expire(self, id: int, timer: int) -> None:
        """The time limit that a coroutine is in is over: its await is cancelled, and the block
        that has the limit is the one that knows why."""
        if id in self.here.running or id in self.here.stepping:
            self.expired.setdefault(id, []).append(timer)
            return
        coroutine = await self.here.whole(id)
        if coroutine is None or coroutine.result is None:
            return
        coroutine = self.here.own(coroutine)
        self.places[id] = self.places[timer]
        await self._withdraw(coroutine, timer)
        entry = Entry(wait_of(coroutine), Resolution.TIMEOUT, at=self.now, decided_by=timer)
        self._step(coroutine, entry, (*self.places[id], 1))

    # -- results

    async def _deliver(self, result: CallResult, place: _Place) -> None:
        coroutine = self.here.caller(result.call_id)
        if coroutine is None:
            return  # nobody waits for it, or no longer
        resolution = resolution_of(result)
        self._answered(coroutine, result.call_id, resolution, place)
        await self._wake(coroutine, resolution, result.value, result.error)

    async def _deliver_poll_error(self, error: Exception) -> None:
        encoded = self.codec.encode_error(error)
        for order, id in enumerate(self.state.prev_callers):
            match await self.here.whole(id):
                case Coroutine(result=CallFuture(call_id=int(call_id))) as coroutine:
                    self._answered(coroutine, call_id, Resolution.POLL_ERROR, (1, order))
                    await self._wake(coroutine, Resolution.POLL_ERROR, None, encoded)
                case _:
                    pass

    def _answered(
        self, coroutine: Coroutine, call_id: int, resolution: Resolution, place: _Place
    ) -> None:
        """The call that `coroutine` waits for has come to something."""
        self.places[coroutine.id] = place
        self.state.callers.pop(call_id, None)
        self.changes.delivered[call_id] = resolution
        self.state.outstanding_calls -= 1

    async def _wake(
        self, coroutine: Coroutine, resolution: Resolution, value: Payload, error: Exception | None
    ) -> None:
        """What `coroutine` waits for has ended: resume its body, or end what has none."""
        if coroutine.kind is Kind.COROUTINE:
            wait = wait_of(coroutine)
            decided_by = None
            if wait.kind is Kind.TASK:
                decided_by = self._join_change(coroutine).decided_by
            entry = Entry(wait, resolution, value, error, at=self.now, decided_by=decided_by)
            self._step(coroutine, entry, (*self.places[coroutine.id], 1))
        else:
            await self._finish(coroutine, self._came_to(coroutine, value, error))

    def _came_to(
        self, member: Coroutine, value: Payload, error: Exception | None
    ) -> CoroutineResult:
        """The result of a member without a body: what it waits for came to this."""
        if error is not None:
            if isinstance(error, AnyException):  # made here, of errors that are encoded already
                error = self.codec.decode_error(error)
            return self._failure(member.id, error)
        if member.kind is not Kind.ALL:
            return CoroutineResult(member.id, value=value)
        try:
            values = [self._part(part) for part in value]
        except Exception as unreadable:
            return self._failure(member.id, unreadable)
        return success(member.id, values, self.codec)

    def _part(self, value: Payload) -> Any:
        if isinstance(value, Exception):
            raise self.codec.decode_error(value)
        return self.codec.decode(value)

    async def _finish(self, coroutine: Coroutine, result: CoroutineResult) -> None:
        self.state.suspended.pop(coroutine.id, None)
        self.here.stepping.discard(coroutine.id)
        self.here.gone.add(coroutine.id)
        if coroutine.limited and coroutine.parent_id is not None and coroutine.serves is not None:
            join = coroutine.parent_id, coroutine.serves
            self.changes.released[join] = self.changes.released.get(join, 0) + 1
        self.changes.cancelled.discard(coroutine.id)
        if coroutine.id == 0 or result.call is not None:
            await self._exit(result)
        if coroutine.id != 0 and result.call is not None:
            # Only somebody who had been told to stop before can still wait for it.
            result = self._failure(coroutine.id, asyncio.CancelledError())
        if coroutine.kind not in CALL_KINDS:
            self.changes.finished[coroutine.id] = result
        await self._fold(coroutine, result)

    async def _fold(self, child: Coroutine, result: CoroutineResult) -> None:
        """Give a child's result to the join that it serves, or to who waits for it as a task."""
        parent = self.here.suspended.get(-1 if child.parent_id is None else child.parent_id)
        parent = parent or await self.here.parent(child)
        wait = None if parent is None else parent.wait
        joined = wait is not None and wait.kind in JOIN_KINDS
        if parent is None or not joined or parent.seq != child.serves:
            if child.parent_id is not None:
                await self._end_task(child, result)
            return
        parent = self.here.own(parent)
        future = parent.result
        if future is None or isinstance(future, CallFuture):
            return
        waiting = len(future.waiting)
        future.add_result(result)
        if len(future.waiting) == waiting:
            return  # it was decided before
        change = self._join_change(parent)
        change.pending = len(future.waiting)
        change.failed = future.failed if isinstance(future, AllFuture) else 0
        if future.ready():
            self.places.setdefault(parent.id, self.places[child.id])
            await self._resolve(parent, child.id)

    def _join_change(self, parent: Coroutine) -> JoinChange:
        if (change := self.changes.joins.get((parent.id, parent.seq))) is not None:
            return change
        return self._changed(parent, wait_of(parent), parent.members)

    async def _resolve(self, parent: Coroutine, decided_by: int | None) -> None:
        """A join is ready: load what it needs, stop the losers, wake its owner."""
        parent = self.here.own(await self.here.whole(parent.id) or parent)
        future = parent.result
        if future is None or isinstance(future, CallFuture):
            return  # it was cancelled meanwhile
        change = self._join_change(parent)
        await self._complete(parent, future)
        error = future.error()
        value = None if error is not None else future.value()
        change.resolution = Resolution.RESULT if error is None else Resolution.ERROR
        change.decided_by = None if _decided_together(future) else decided_by
        if future.waiting and change.cancel_losers:
            members = await self.here.members(parent, self._join_change(parent).opened)
            losers = [each for each in members if _is_cancelled_when_lost(each)]
            await self._cancel_all(losers, self.places[parent.id])
        await self._wake(parent, change.resolution, value, error)

    async def _complete(self, parent: Coroutine, future: JoinFuture) -> None:
        """Bring in the results of earlier rounds, where the outcome is made of all of them."""
        match future:
            case AllFuture(first_error=None) if len(future.results) < len(future.order):
                for result in await self.here.results(parent):
                    future.results.setdefault(result.coroutine_id, result)
            case AnyFuture(first_result=None, generic_error=None) if len(future.errors) < len(
                future.order
            ):
                for result in await self.here.results(parent):
                    if result.error is not None:
                        future.errors.setdefault(result.coroutine_id, result.error)
            case _:
                pass

    # -- cancelling

    async def _cancel_all(self, coroutines: Sequence[Coroutine], place: _Place) -> None:
        """Their clean-up comes before what happens at `place`."""
        for i, coroutine in enumerate(coroutines):
            await self._cancel(coroutine, (*place, 0, i))

    async def _cancel(self, coroutine: Coroutine, place: _Place, reason: str | None = None) -> None:
        """Tell a coroutine to stop: CancelledError at its await, once. Its clean-up may await."""
        if coroutine.id in self.here.gone:
            return
        coroutine = self.here.own(coroutine)
        if coroutine.cancelled:
            return
        coroutine.cancelled = True
        if coroutine.kind is Kind.COROUTINE:
            self.changes.cancelled.add(coroutine.id)
        if (running := self.here.running.get(coroutine.id)) is not None:
            running.frame.running.cancelling = True
            running.frame.running.reason = reason
            if running.frame.running.native and (task := task_of(running)) is not None:
                task.cancel()
            return
        self.places[coroutine.id] = place
        await self._withdraw(coroutine)
        if coroutine.kind is Kind.COROUTINE:
            entry = Entry(wait_of(coroutine), Resolution.CANCELLED, at=self.now, reason=reason)
            self._step(coroutine, entry, (*place, 1))
        else:
            await self._finish(coroutine, self._failure(coroutine.id, asyncio.CancelledError()))

    async def _withdraw(self, coroutine: Coroutine, timer: int | None = None) -> None:
        """Give up what a coroutine waits for, because it was told to stop, or its time is up."""
        match coroutine.result:
            case CallFuture(call_id=None):  # made in this round
                request = self.requests[coroutine.id, coroutine.seq][1]
                request.cancelled, request.timer = True, timer
            case CallFuture(call_id=int(call_id)):
                self._given_up(call_id, timer)
                self.state.outstanding_calls -= 1
            case AllFuture() | AnyFuture() | RaceFuture() as future:
                change = self._join_change(coroutine)
                change.pending = len(future.waiting)
                change.resolution, change.decided_by = _given_up_how(timer), timer
                tasks = change.kind is Kind.TASK
                members = [] if tasks else await self.here.members(coroutine, change.opened)
                coroutine.result = None  # so that the members' ends are nobody's business
                await self._cancel_all(members, self.places[coroutine.id])
            case _:
                pass

    def _given_up(self, call_id: int, timer: int | None) -> None:
        """Nobody waits for a call any more: whoever did was told to stop, or its time is up."""
        self.state.callers.pop(call_id, None)
        self.changes.delivered[call_id] = _given_up_how(timer)
        if timer is not None:
            self.changes.timers[call_id] = timer

    async def _cancel_main(self, reason: str | None) -> None:
        main = await self.here.whole(0)
        if main is not None and self.state.exit is None:
            await self._cancel(main, (2,), reason)

    async def _exit(self, result: CoroutineResult) -> None:
        """The execution's outcome is fixed; everything else is told to stop and may clean up."""
        if self.state.exit is not None:
            return
        self.state.exit = result
        if self.here.running or self.state.outstanding_calls > 0 or result.coroutine_id != 0:
            await self.here.load_all()  # otherwise nobody is left
        others = [each for each in self.here.open() if not self._goes_on(each)]
        await self._cancel_all(others, self.places[result.coroutine_id])

    def _goes_on(self, coroutine: Coroutine) -> bool:
        """Whether it is not told to stop at the end of main: because it is shielded, or because
        somebody who has been told to stop waits for it, so that it is part of a clean-up."""
        while not coroutine.shielded and coroutine.parent_id is not None:
            parent = self.here.find(coroutine.parent_id)
            if parent is None:
                return False
            if parent.cancelled and (
                parent.seq == coroutine.serves or coroutine.id in parent.members
            ):
                return True
            coroutine = parent
        return coroutine.shielded


def _given_up_how(timer: int | None) -> Resolution:
    return Resolution.CANCELLED if timer is None else Resolution.TIMEOUT


def _is_cancelled_when_lost(member: Coroutine) -> bool:
    return member.wait is None or member.wait.options.cancel_losers


def _decided_together(future: JoinFuture) -> bool:
    """Whether no single member decided it: all have a value, or all have failed."""
    match future:
        case AllFuture():
            return future.first_error is None
        case AnyFuture():
            return future.first_result is None
        case RaceFuture():
            return False
