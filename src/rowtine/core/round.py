"""One round: deliver results, resume every ready coroutine until all are suspended or the main
one is done, hand back an Output. Values in, values out; load and commit are the store's.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rowtine.core.coroutine import (
    Continuation,
    Entry,
    Frame,
    Raised,
    Returned,
    Slot,
    Step,
    Suspended,
    Wait,
    Where,
    drive,
)
from rowtine.core.directives import Body, Call
from rowtine.core.futures import (
    AllFuture,
    AnyFuture,
    CallFuture,
    JoinFuture,
    RaceFuture,
    join_future,
)
from rowtine.core.payload import Arguments, Codec, Identity, Payload
from rowtine.core.phases import CALL_KINDS, Kind, Resolution
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.state import SEMANTICS, Coroutine, Loader, State
from rowtine.core.status import Status, status_for_error, status_for_output
from rowtine.errors import AnyException, IncompatibleState, Reset, UsageError

__all__ = [
    "CallRequest",
    "Changes",
    "Exit",
    "Incompatible",
    "Input",
    "JoinChange",
    "OneShotScheduler",
    "Output",
    "Poll",
]


# ------------------------------------------------------------------------------- input and output


@dataclass(slots=True)
class Input:
    """What a round is given: the arguments of the first one, or a state and what has arrived."""

    arguments: Payload = None
    state: State | None = None
    results: Sequence[CallResult] = ()
    error: Exception | None = None
    """A poll error: the calls of the last round could not be accepted."""
    cancel: bool = False
    """Whether the main coroutine is to be told to stop."""

    @classmethod
    def first(cls, *args: Any, **kwargs: Any) -> Input:
        """The first round of a scheduler used directly, without a codec."""
        return cls(arguments=Arguments(args, kwargs))

    @classmethod
    def resume(
        cls, state: State, results: Sequence[CallResult] = (), error: Exception | None = None
    ) -> Input:
        """A later round."""
        return cls(state=state, results=results, error=error)


@dataclass(slots=True)
class CallRequest:
    """A call as a round hands it out. `call_id` is unique in the run of the execution."""

    function: str
    input: Payload
    kind: Kind
    coroutine_id: int
    seq: int
    parent_id: int | None = None
    serves: int | None = None
    where: Where | None = None
    call_id: int = -1
    cancelled: bool = False
    """Cancelled in the round that made it: recorded, because it is replayed, but never run."""


@dataclass(slots=True)
class JoinChange:
    """What a round did to one all / any / race."""

    coroutine_id: int
    seq: int
    kind: Kind
    function: str
    first_child: int
    children: int
    pending: int
    opened: bool = False
    cancel_losers: bool = True
    where: Where | None = None
    resolution: Resolution | None = None
    decided_by: int | None = None


def _no_finished() -> dict[int, CoroutineResult]:
    return {}


def _no_joins() -> dict[tuple[int, int], JoinChange]:
    return {}


def _no_delivered() -> dict[int, Resolution]:
    return {}


@dataclass(slots=True)
class Changes:
    """Everything that a round changed: what the store writes, in one transaction."""

    delivered: dict[int, Resolution] = field(default_factory=_no_delivered)
    """call id -> how its wait ended; includes the calls that were cancelled."""
    calls: list[CallRequest] = field(default_factory=list[CallRequest])
    spawned: list[Coroutine] = field(default_factory=list[Coroutine])
    finished: dict[int, CoroutineResult] = field(default_factory=_no_finished)
    cancelled: set[int] = field(default_factory=set[int])
    """Coroutines that were told to stop and are still cleaning up."""
    joins: dict[tuple[int, int], JoinChange] = field(default_factory=_no_joins)


@dataclass(slots=True)
class Poll:
    """The execution waits: run `calls`, come back with results."""

    state: State
    calls: list[CallRequest]
    min_results: int
    max_results: int
    max_wait_seconds: float | None
    changes: Changes
    status: Status = Status.OK
    native: list[Where] = field(default_factory=list[Where])
    """Where coroutines that suspend in this round have awaited natively in it: these awaits run
    again at a rebuild."""


@dataclass(slots=True)
class Exit:
    """The execution is over: a value, an error with its Status, or a tail call."""

    result: CoroutineResult
    changes: Changes | None = None
    """None when the run was ended from outside: the store ends whatever it finds open."""

    @property
    def value(self) -> Payload:
        return self.result.value

    @property
    def error(self) -> Exception | None:
        return self.result.error

    @property
    def tail_call(self) -> Call[Any] | None:
        return self.result.call

    @property
    def status(self) -> Status:
        return self.result.status


@dataclass(slots=True)
class Incompatible:
    """The state does not fit; nothing has happened, and the message says why."""

    message: str
    status: Status = Status.INCOMPATIBLE_STATE


Output = Poll | Exit | Incompatible


# ---------------------------------------------------------------------------------- the scheduler


class OneShotScheduler:
    """Runs one execution, one round at a time.

    `entry_point` is an async ``@app.function`` or ``@app.coroutine``. `version` gates the state:
    one that was saved under another version comes to `Incompatible` (None, here or there: the
    journal decides alone). `poll_min_results`, `poll_max_results` and `poll_max_wait_seconds`
    say when the next round is due: at that many results, or after that time.
    """

    def __init__(
        self,
        entry_point: Any,
        version: str | None = sys.version,
        poll_min_results: int = 1,
        poll_max_results: int = 10,
        poll_max_wait_seconds: float | None = None,
        *,
        codec: Codec | None = None,
    ) -> None:
        self.entry_point = entry_point
        body = entry_point if isinstance(entry_point, Body) else getattr(entry_point, "body", None)
        self.body: Body | None = body if isinstance(body, Body) else None
        self.version = version
        self.poll_min_results = poll_min_results
        self.poll_max_results = poll_max_results
        self.poll_max_wait_seconds = poll_max_wait_seconds
        self.codec: Codec = codec or Identity()

    def with_codec(self, codec: Codec) -> OneShotScheduler:
        """The same scheduler with another codec."""
        other = copy(self)
        other.codec = codec
        return other

    async def run(self, input: Input, loader: Loader | None = None) -> Output:
        """Run one round.

        `loader` answers for what a partial state left out; a state of this scheduler's own is
        whole and needs none. If this task is cancelled, running bodies are cancelled with it and
        suspended ones are dropped without running any of their code.
        """
        try:
            state = self._state(input)
        except IncompatibleState as error:
            return Incompatible(str(error))
        round = _Round(self, state, loader)
        try:
            return await round.run(input)
        except IncompatibleState as error:
            await round.abandon()
            return Incompatible(str(error))
        except BaseException:
            await round.abandon()
            raise

    def _state(self, input: Input) -> State:
        state: Any = input.state
        if state is None:
            return State(version=self.version)
        if not isinstance(state, State):
            raise IncompatibleState(f"the state is a {type(state).__name__}, not a State")
        if None not in (state.version, self.version) and state.version != self.version:
            raise IncompatibleState(
                f"the state was saved under version {state.version!r}, this is {self.version!r}"
            )
        if state.semantics != SEMANTICS:
            raise IncompatibleState(
                f"the state has engine semantics {state.semantics}, this is {SEMANTICS}"
            )
        return replace(
            state,
            suspended=dict(state.suspended),
            ready=list(state.ready),
            prev_callers=list(state.prev_callers),
        )


# --------------------------------------------------------------------------------------- a round

_Place = tuple[int, ...]
"""Where a coroutine stands in the order of this round: the order of delivery (poll errors, the
cancellation of main, results), then depth first in order of declaration. Calls leave in this
order, however long native awaits took."""


class _Running(NamedTuple):
    """A body that is not suspended: one step of it is a task."""

    coroutine: Coroutine
    frame: Frame
    task: asyncio.Task[Step]


class _Round:
    """The working copy of one round."""

    def __init__(self, scheduler: OneShotScheduler, state: State, loader: Loader | None) -> None:
        self.scheduler = scheduler
        self.codec = scheduler.codec
        self.state = state
        self.loader = loader
        self.root = contextvars.copy_context()
        self.changes = Changes()
        self.native: dict[Where, None] = {}
        self.running: dict[int, _Running] = {}
        self.requests: dict[tuple[int, int], tuple[_Place, CallRequest]] = {}
        """The calls made in this round, by coroutine and seq."""
        self.places: dict[int, _Place] = {}
        self.owned: dict[int, Coroutine] = {}
        """This round's own copies, which it may change."""
        self.gone: set[int] = set()
        """Coroutines that ended in this round: the rows still show them as suspended."""
        self.callers = {
            coroutine.result.call_id: coroutine.id
            for coroutine in state.suspended.values()
            if isinstance(coroutine.result, CallFuture) and coroutine.result.call_id is not None
        }

    # -- the flow

    async def run(self, input: Input) -> Output:
        if input.state is None:
            if self.scheduler.body is None:
                error = UsageError(
                    "the entry point is not an async @app.function or @app.coroutine"
                )
                return Exit(self._failure(0, error), self.changes)
            self._begin(self.scheduler.body, input.arguments)
        else:
            self._resume_ready()
            if input.error is not None:
                await self._deliver_poll_error(input.error)
            if input.cancel:
                await self._cancel_main()
            for order, result in enumerate(input.results):
                await self._deliver(result, (3, order))
        await self._settle()
        return self._output()

    async def _settle(self) -> None:
        """Let bodies run until none is left that can."""
        while self.running:
            tasks = [running.task for running in self.running.values()]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # All that are done, in the order in which they began: a set has no order.
            for coroutine, frame, task in list(self.running.values()):
                if task.done():
                    del self.running[coroutine.id]
                    # A body that cancels its own task takes the step that runs it along.
                    cancelled = task.cancelled()
                    step = Raised(asyncio.CancelledError()) if cancelled else task.result()
                    await self._stepped(coroutine, frame, step)

    def _output(self) -> Output:
        state, changes = self.state, self.changes
        changes.spawned.sort(key=lambda coroutine: coroutine.id)
        for _, request in sorted(self.requests.values(), key=lambda placed: placed[0]):
            self._issue(request)
        if state.exit is not None and state.outstanding_calls == 0:
            return Exit(state.exit, changes)
        calls = [call for call in changes.calls if not call.cancelled]
        state.prev_callers = [call.coroutine_id for call in calls]
        outstanding = state.outstanding_calls
        return Poll(
            state=state,
            calls=calls,
            min_results=max(1, min(outstanding, self.scheduler.poll_min_results)),
            max_results=max(1, min(outstanding, self.scheduler.poll_max_results)),
            max_wait_seconds=self.scheduler.poll_max_wait_seconds,
            changes=changes,
            native=list(self.native),
        )

    def _issue(self, request: CallRequest) -> None:
        request.call_id = self.state.next_call_id
        self.state.next_call_id += 1
        self.changes.calls.append(request)
        if request.cancelled:
            self.changes.delivered[request.call_id] = Resolution.CANCELLED
            return
        self.state.outstanding_calls += 1
        self.state.suspended[request.coroutine_id].result = CallFuture(call_id=request.call_id)

    async def abandon(self) -> None:
        """The round failed: cancel what is running, drop every frame it took."""
        running = list(self.running.values())
        self.running.clear()
        for _, _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, _, task in running), return_exceptions=True)
        for _, frame, _ in running:
            frame.drop()
        for coroutine in self.owned.values():
            if coroutine.coroutine is not None:
                coroutine.coroutine.slot.drop()

    # -- beginning and resuming bodies

    def _begin(self, body: Body, arguments: Payload) -> None:
        self.state.next_coroutine_id = 1
        main = self.owned[0] = Coroutine(0, None, Continuation(body, arguments))
        self.changes.spawned.append(main)
        self._step(main, None, ())

    def _resume_ready(self) -> None:
        ready, self.state.ready = self.state.ready, []
        for order, coroutine in enumerate(ready):
            self._step(coroutine, None, (0, order))

    def _step(self, coroutine: Coroutine, resolved: Entry | None, place: _Place) -> None:
        """Start or resume a body, as a task: it may await natively, and so may its siblings."""
        continuation = _body_of(coroutine)
        frame = continuation.slot.take() or Frame(self.root)
        coroutine = self._own(coroutine)
        if resolved is not None:
            journal = continuation.journal
            coroutine.coroutine = replace(
                continuation,
                journal=None if journal is None else (*journal, resolved),
                slot=Slot(),
            )
            coroutine.seq += 1
        coroutine.result = coroutine.wait = None
        self.state.suspended.pop(coroutine.id, None)
        self.places[coroutine.id] = place
        # Not loop.create_task, which may be set to start a task before this round knows it.
        task = asyncio.Task(
            _as_coroutine(frame, continuation, self.codec, resolved), context=frame.context
        )
        frame.running.task = task
        self.running[coroutine.id] = _Running(coroutine, frame, task)

    async def _stepped(self, coroutine: Coroutine, frame: Frame, step: Step) -> None:
        match step:
            case Suspended():
                await self._suspend(coroutine, frame, step)
            case Returned():
                await self._finish(coroutine, self._success(coroutine.id, step.value))
            case Raised(error=Reset() as reset):
                await self._finish(coroutine, self._tail_call(coroutine.id, reset))
            case Raised():
                await self._finish(coroutine, self._failure(coroutine.id, step.error))

    async def _suspend(self, coroutine: Coroutine, frame: Frame, step: Suspended) -> None:
        coroutine.coroutine = replace(_body_of(coroutine), slot=Slot(frame))
        coroutine.wait = step.wait
        self.native |= dict.fromkeys(step.native)
        self.state.suspended[coroutine.id] = coroutine
        if step.wait.kind in CALL_KINDS:
            self._request(coroutine, step.wait, step.where)
        else:
            # Not before all members are there: one of them may decide for those beside it.
            for ready in self._open(coroutine, step.wait, step.where):
                await self._resolve(ready, None)
        if frame.running.cancelling:  # told to stop, and suspended before it heard
            frame.running.cancelling = coroutine.cancelled = False
            await self._cancel(coroutine, self.places[coroutine.id])

    def _success(self, id: int, value: Any) -> CoroutineResult:
        try:
            payload = self.codec.encode(value, "the returned value")
        except Exception as error:
            return self._failure(id, error)
        return CoroutineResult(id, value=payload, status=status_for_output(value))

    def _failure(self, id: int, error: BaseException) -> CoroutineResult:
        status = status_for_error(error)
        return CoroutineResult(id, error=self.codec.encode_error(error), status=status)

    def _tail_call(self, id: int, reset: Reset) -> CoroutineResult:
        call: Any = reset.call
        if not isinstance(call, Call) or call.kind is not Kind.FUNCTION:
            return self._failure(id, TypeError(f"Reset needs a call of a function, not {call!r}"))
        if self.state.exit is not None:
            return self._failure(id, UsageError("Reset in a clean-up: the outcome is fixed"))
        try:
            self.codec.encode_arguments(call.arguments)
        except Exception as error:
            return self._failure(id, error)
        return CoroutineResult(id, call=reset.call)

    # -- waits

    def _request(self, coroutine: Coroutine, wait: Wait, where: Where | None) -> None:
        request = CallRequest(
            function=wait.function,
            input=wait.input,
            kind=wait.kind,
            coroutine_id=coroutine.id,
            seq=coroutine.seq,
            parent_id=coroutine.parent_id if coroutine.coroutine is None else None,
            serves=coroutine.serves if coroutine.coroutine is None else None,
            where=where,
        )
        coroutine.result = CallFuture()  # its id comes when the order of the round is known
        self.requests[coroutine.id, coroutine.seq] = self.places[coroutine.id], request

    def _open(self, coroutine: Coroutine, wait: Wait, where: Where | None) -> list[Coroutine]:
        """Spawn the members of a join, in order of declaration. The joins of nothing among them,
        innermost first: they are ready."""
        first = self.state.next_coroutine_id
        ids = range(first, first + len(wait.members))
        self.state.next_coroutine_id += len(ids)
        coroutine.members = ids
        coroutine.result = join_future(wait.kind, ids, set(ids))
        self.changes.joins[coroutine.id, coroutine.seq] = JoinChange(
            coroutine_id=coroutine.id,
            seq=coroutine.seq,
            kind=wait.kind,
            function=wait.function,
            first_child=first,
            children=len(ids),
            pending=len(ids),
            opened=True,
            cancel_losers=wait.cancel_losers,
            where=where,
        )
        ready: list[Coroutine] = [] if ids else [coroutine]
        for i, (id, member) in enumerate(zip(ids, wait.members, strict=True)):
            place = (*self.places[coroutine.id], 0, i)
            ready += self._spawn(coroutine, id, member, place, where)
        return ready

    def _spawn(
        self, parent: Coroutine, id: int, member: Wait, place: _Place, where: Where | None
    ) -> list[Coroutine]:
        child = Coroutine(id, parent.id, None, kind=member.kind, serves=parent.seq, wait=member)
        self.owned[id] = child
        self.places[id] = place
        if member.body is not None:
            child.coroutine = Continuation(member.body, member.input)
            self.changes.spawned.append(child)
            self._step(child, None, place)
            return []
        self.state.suspended[id] = child
        if member.kind in CALL_KINDS:
            self._request(child, member, where)
            return []
        self.changes.spawned.append(child)
        return self._open(child, member, where)

    # -- results

    async def _deliver(self, result: CallResult, place: _Place) -> None:
        id = self.callers.get(result.call_id)
        coroutine = None if id is None else self.state.suspended.get(id)
        if coroutine is None:
            return  # nobody waits for it, or no longer
        resolution = Resolution.RESULT if result.error is None else Resolution.ERROR
        await self._answer(coroutine, result, resolution, place)

    async def _deliver_poll_error(self, error: Exception) -> None:
        encoded = self.codec.encode_error(error)
        for order, id in enumerate(self.state.prev_callers):
            match await self._loaded(id):
                case Coroutine(result=CallFuture(call_id=int(call_id))) as coroutine:
                    result = CallResult(call_id, error=encoded)
                    await self._answer(coroutine, result, Resolution.POLL_ERROR, (1, order))
                case _:
                    pass

    async def _answer(
        self, coroutine: Coroutine, result: CallResult, resolution: Resolution, place: _Place
    ) -> None:
        """The call that `coroutine` waits for has come to something."""
        self.places[coroutine.id] = place
        self.changes.delivered[result.call_id] = resolution
        self.state.outstanding_calls -= 1
        await self._wake(coroutine, resolution, result.value, result.error)

    async def _wake(
        self, coroutine: Coroutine, resolution: Resolution, value: Payload, error: Exception | None
    ) -> None:
        """What `coroutine` waits for has ended: resume its body, or end what has none."""
        if coroutine.kind is Kind.COROUTINE:
            entry = Entry(_wait_of(coroutine), resolution, value, error)
            self._step(coroutine, entry, (*self.places[coroutine.id], 1))
        else:
            await self._finish(coroutine, self._came_to(coroutine, value, error))

    def _came_to(
        self, member: Coroutine, value: Payload, error: Exception | None
    ) -> CoroutineResult:
        """The result of a member without a body: what it waits for came to this."""
        if isinstance(error, AnyException):  # made here, of errors that are encoded already
            error = self.codec.decode_error(error)
        if error is not None:
            return self._failure(member.id, error)
        if member.kind is not Kind.ALL:
            return CoroutineResult(member.id, value=value)
        try:
            values = [self.codec.decode(part) for part in value]
        except Exception as unreadable:
            return self._failure(member.id, unreadable)
        return self._success(member.id, values)

    async def _finish(self, coroutine: Coroutine, result: CoroutineResult) -> None:
        self.state.suspended.pop(coroutine.id, None)
        self.gone.add(coroutine.id)
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
        """Give a child's result to the one future that it serves."""
        parent = await self._parent(child)
        if parent is None:
            return
        parent = self._own(parent)
        future = parent.result
        if future is None or isinstance(future, CallFuture):
            return
        if future.ready() or child.id not in future.waiting:
            return
        future.add_result(result)
        self._join_change(parent).pending = len(future.waiting)
        if future.ready():
            self.places.setdefault(parent.id, self.places[child.id])
            await self._resolve(parent, child.id)

    def _join_change(self, parent: Coroutine) -> JoinChange:
        if (change := self.changes.joins.get((parent.id, parent.seq))) is not None:
            return change
        wait = _wait_of(parent)
        change = JoinChange(
            coroutine_id=parent.id,
            seq=parent.seq,
            kind=wait.kind,
            function=wait.function,
            first_child=parent.members.start,
            children=len(parent.members),
            pending=0,
            cancel_losers=wait.cancel_losers,
        )
        self.changes.joins[parent.id, parent.seq] = change
        return change

    async def _resolve(self, parent: Coroutine, decided_by: int | None) -> None:
        """A join is ready: load what it needs, stop the losers, wake its owner."""
        parent = self._own(await self._loaded(parent.id) or parent)
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
            await self._cancel_all(await self._members(parent), self.places[parent.id])
        await self._wake(parent, change.resolution, value, error)

    async def _complete(self, parent: Coroutine, future: JoinFuture) -> None:
        """Bring in the results of earlier rounds, where the outcome is made of all of them."""
        match future:
            case AllFuture(first_error=None) if len(future.results) < len(future.order):
                for result in await self._earlier(parent):
                    future.results.setdefault(result.coroutine_id, result)
            case AnyFuture(first_result=None, generic_error=None) if len(future.errors) < len(
                future.order
            ):
                for result in await self._earlier(parent):
                    if result.error is not None:
                        future.errors.setdefault(result.coroutine_id, result.error)
            case _:
                pass

    # -- cancelling

    async def _cancel_all(self, coroutines: Sequence[Coroutine], place: _Place) -> None:
        """Their clean-up comes before what happens at `place`."""
        for i, coroutine in enumerate(coroutines):
            await self._cancel(coroutine, (*place, 0, i))

    async def _cancel(self, coroutine: Coroutine, place: _Place) -> None:
        """Tell a coroutine to stop: CancelledError at its await, once. Its clean-up may await."""
        if coroutine.id in self.gone:
            return
        coroutine = self._own(coroutine)
        if coroutine.cancelled:
            return
        coroutine.cancelled = True
        if coroutine.kind is Kind.COROUTINE:
            self.changes.cancelled.add(coroutine.id)
        if (running := self.running.get(coroutine.id)) is not None:
            running.frame.running.cancelling = True
            if running.frame.running.native:
                running.task.cancel()
            return
        self.places[coroutine.id] = place
        await self._withdraw(coroutine)
        if coroutine.kind is Kind.COROUTINE:
            entry = Entry(_wait_of(coroutine), Resolution.CANCELLED)
            self._step(coroutine, entry, (*place, 1))
        else:
            await self._finish(coroutine, self._failure(coroutine.id, asyncio.CancelledError()))

    async def _withdraw(self, coroutine: Coroutine) -> None:
        """Give up what a cancelled coroutine waits for."""
        match coroutine.result:
            case CallFuture(call_id=None):  # made in this round
                self.requests[coroutine.id, coroutine.seq][1].cancelled = True
            case CallFuture(call_id=int(call_id)):
                self.changes.delivered[call_id] = Resolution.CANCELLED
                self.state.outstanding_calls -= 1
            case AllFuture() | AnyFuture() | RaceFuture() as future:
                change = self._join_change(coroutine)
                change.pending = len(future.waiting)
                change.resolution = Resolution.CANCELLED
                members = await self._members(coroutine)
                coroutine.result = None  # so that the members' ends are nobody's business
                await self._cancel_all(members, self.places[coroutine.id])
            case _:
                pass

    async def _cancel_main(self) -> None:
        main = await self._loaded(0)
        if main is not None and self.state.exit is None:
            await self._cancel(main, (2,))

    async def _exit(self, result: CoroutineResult) -> None:
        """The execution's outcome is fixed; everything else is told to stop and may clean up."""
        if self.state.exit is not None:
            return
        self.state.exit = result
        if self.running or self.state.outstanding_calls > 0 or result.coroutine_id != 0:
            await self._load_all()  # otherwise nobody is left
        others = [each for each in self._open_coroutines() if not self._cleans_up(each)]
        await self._cancel_all(others, self.places[result.coroutine_id])

    def _cleans_up(self, coroutine: Coroutine) -> bool:
        """Whether somebody who has been told to stop waits for it: it is part of a clean-up."""
        while coroutine.parent_id is not None:
            parent = self._open_coroutine(coroutine.parent_id)
            if parent is None:
                return False
            if parent.cancelled and parent.seq == coroutine.serves:
                return True
            coroutine = parent
        return False

    # -- what may not be in memory

    def _own(self, coroutine: Coroutine) -> Coroutine:
        """This round's own copy of a coroutine and its future; the given state stays as it is."""
        if (mine := self.owned.get(coroutine.id)) is not None:
            return mine
        mine = self.owned[coroutine.id] = copy(coroutine)
        mine.result = _copied(coroutine.result)
        if coroutine.id in self.state.suspended:
            self.state.suspended[coroutine.id] = mine
        return mine

    async def _loaded(self, id: int) -> Coroutine | None:
        """A suspended coroutine, whole."""
        here = self.state.suspended.get(id)
        whole = here is not None and (here.coroutine is not None or here.kind is not Kind.COROUTINE)
        if whole or id in self.gone or self.loader is None:
            return here
        for coroutine in await self.loader.coroutines([id]):
            self._admit(coroutine)
        return self.state.suspended.get(id)

    def _admit(self, coroutine: Coroutine) -> None:
        """Take a loaded coroutine in; what this round already knows of it is newer."""
        if coroutine.id in self.gone or coroutine.id in self.running:
            return
        here = self.state.suspended.get(coroutine.id)
        if here is None:
            self.state.suspended[coroutine.id] = coroutine
        elif here.coroutine is None and coroutine.coroutine is not None:
            mine = self._own(here)
            mine.coroutine, mine.wait = coroutine.coroutine, coroutine.wait

    async def _parent(self, child: Coroutine) -> Coroutine | None:
        """The parent of a child, if it is suspended: at least the counter of its join."""
        if child.parent_id is None:
            return None
        here = self.state.suspended.get(child.parent_id)
        if here is None and self.loader is not None and child.parent_id not in self.gone:
            for coroutine in await self.loader.counters([child.parent_id]):
                self._admit(coroutine)
        return self.state.suspended.get(child.parent_id)

    async def _earlier(self, parent: Coroutine) -> Sequence[CoroutineResult]:
        return () if self.loader is None else await self.loader.results(parent)

    async def _members(self, parent: Coroutine) -> list[Coroutine]:
        """The members of a join that have not ended, whole, in order of declaration."""
        if self.loader is not None and not self._join_change(parent).opened:
            for coroutine in await self.loader.coroutines(parent.members):
                self._admit(coroutine)
        return [each for id in parent.members if (each := self._open_coroutine(id)) is not None]

    async def _load_all(self) -> None:
        if self.loader is not None:
            for coroutine in await self.loader.coroutines(None):
                self._admit(coroutine)

    def _open_coroutines(self) -> list[Coroutine]:
        """All that have not ended, parents before their children."""
        running = [running.coroutine for running in self.running.values()]
        return sorted((*self.state.suspended.values(), *running), key=lambda each: each.id)

    def _open_coroutine(self, id: int) -> Coroutine | None:
        running = self.running.get(id)
        return self.state.suspended.get(id) if running is None else running.coroutine


def _body_of(coroutine: Coroutine) -> Continuation:
    if coroutine.coroutine is None:
        raise IncompatibleState(f"the state of coroutine {coroutine.id} lacks its body")
    return coroutine.coroutine


def _wait_of(coroutine: Coroutine) -> Wait:
    if coroutine.wait is None:
        raise IncompatibleState(f"the state of coroutine {coroutine.id} lacks what it waits for")
    return coroutine.wait


def _decided_together(future: JoinFuture) -> bool:
    """Whether no single member decided it: all have a value, or all have failed."""
    match future:
        case AllFuture():
            return future.first_error is None
        case AnyFuture():
            return future.first_result is None
        case RaceFuture():
            return False


def _copied(future: Any) -> Any:
    if future is None:
        return None
    mine = copy(future)
    for name in ("waiting", "results", "errors"):
        if (part := getattr(mine, name, None)) is not None:
            setattr(mine, name, copy(part))
    return mine


async def _as_coroutine(
    frame: Frame, continuation: Continuation, codec: Codec, resolved: Entry | None
) -> Step:
    return await drive(frame, continuation, codec, resolved)


def frames(state: State) -> Mapping[int, Slot]:
    """The warm frames of a state, by coroutine."""
    return {
        id: coroutine.coroutine.slot
        for id, coroutine in state.suspended.items()
        if coroutine.coroutine is not None and coroutine.coroutine.slot.warm
    }
