"""What tests of the scheduler share: an execution that a test drives by hand, round by round.

A `Mode` says how its state lives between two rounds. No test may be able to tell the modes apart,
except those that are about them. After every round the laws of `laws_broken_by` are checked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from msgspec import structs

from rowtine.codec import JsonCodec
from rowtine.core.coroutine import Slot
from rowtine.core.exchange import Exit, Incompatible, Input, Output, Poll
from rowtine.core.futures import CallFuture, Remaining, join_future
from rowtine.core.payload import Arguments, Codec, Identity
from rowtine.core.phases import CALL_KINDS, JOIN_KINDS, Kind
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.scheduler import OneShotScheduler
from rowtine.core.state import Coroutine, State
from rowtine.core.status import Status
from rowtine.functions import CoroutineFunction

durable = CoroutineFunction
"""Marks a body, as @app.coroutine does."""


@dataclass(frozen=True)
class Mode:
    """How the state of an execution lives between two rounds."""

    name: str
    cold: bool = True
    """Every warm frame is dropped before each round, so that every resume is a rebuild."""
    json: bool = False
    """Payloads are JSON text; otherwise they are the values themselves."""
    rows: bool = False
    """A round is given only the owners of what has arrived, and asks for the rest."""
    twice: bool = False
    """Each round is run twice from the same state, and must come to the same both times."""

    def codec(self) -> Codec:
        return JsonCodec() if self.json else Identity()


WARM = Mode("warm", cold=False)
COLD = Mode("cold")
JSON = Mode("json", json=True)
ROWS = Mode("rows", json=True, rows=True)
TWICE = Mode("twice", cold=False, twice=True)
MODES = (WARM, COLD, JSON, ROWS)


def recorder() -> Any:
    """Something with a list of `events` that a body may name: a class, since a body refers to no
    other local value of the test around it."""
    return type("Recorder", (), {"events": []})


# ------------------------------------------------------------------------------------ executions


class Execution:
    """One execution. `output` is what its last round came to."""

    def __init__(self, scheduler: OneShotScheduler, mode: Mode, input: Input) -> None:
        self.scheduler = scheduler
        self.codec = scheduler.codec
        self.mode = mode
        self.rows = Rows(mode.cold) if mode.rows else None
        self.issued: dict[str, int] = {}
        """The id of the latest call of each function."""
        self.functions: dict[int, str] = {}
        """The function of each call."""
        self.open: set[int] = set()
        """The ids of the calls that no round has consumed yet."""
        self.now = input.now
        self.output: Output = self._round(input)

    # -- going on

    def at(self, now: datetime) -> Execution:
        """The time of the rounds to come."""
        self.now = now
        return self

    def answer(self, **outcomes: Any) -> Execution:
        """One more round: the latest call of each function came to this value or error."""
        return self.resume(*(self.result(name, outcome) for name, outcome in outcomes.items()))

    def result(self, call: str | int, outcome: Any = None) -> CallResult:
        """What a call (by its id, or the latest of a function) came to."""
        call_id = call if isinstance(call, int) else self.issued[call]
        if isinstance(outcome, Exception):
            return CallResult(call_id, error=self.codec.encode_error(outcome))
        return CallResult(call_id, value=self.codec.encode(outcome))

    def resume(
        self, *results: CallResult, error: Exception | None = None, cancel: bool = False
    ) -> Execution:
        """One more round."""
        state = self.state
        if self.mode.cold:
            forget_frames(state)
        if self.rows is not None:
            state = self.rows.partial(state, results)
        self.output = self._round(
            Input(state=state, results=results, error=error, cancel=cancel, now=self.now),
            self.rows,
        )
        return self

    def _round(self, input: Input, rows: Rows | None = None) -> Output:
        output = asyncio.run(self.scheduler.run(input, rows))
        if self.mode.twice:
            again = asyncio.run(self.scheduler.run(input, rows))
            assert (type(output), repr(getattr(output, "changes", output))) == (
                type(again),
                repr(getattr(again, "changes", again)),
            )
        if isinstance(output, Incompatible):
            return output
        new = {request.call_id: request.function for request in output.changes.calls}
        assert not self.functions.keys() & new.keys(), "a call id was used twice"
        self.functions |= new
        self.issued |= {function: id for id, function in new.items()}
        self.open = (self.open | new.keys()) - output.changes.delivered.keys()
        if self.rows is not None:
            output = self.rows.written(output, input.results)
        assert laws_broken_by(output, self.open) == []
        return output

    def redeploy(self, changed: CoroutineFunction[..., Any]) -> Execution:
        """The main coroutine is suspended in this code from now on; its frame is gone."""
        suspended = (self.state if self.rows is None else self.rows).suspended
        main = suspended[0]
        assert main.coroutine is not None
        main.coroutine.slot.drop()
        suspended[0] = replace(
            main, coroutine=replace(main.coroutine, body=changed.body, slot=Slot())
        )
        return self

    # -- looking

    @property
    def state(self) -> State:
        assert isinstance(self.output, Poll), f"over: {self.output}"
        return self.output.state

    @property
    def suspended(self) -> bool:
        return isinstance(self.output, Poll)

    @property
    def calls(self) -> list[str]:
        """The functions that the last round calls, in order."""
        assert isinstance(self.output, Poll), f"over: {self.output}"
        return [request.function for request in self.output.calls]

    @property
    def exit(self) -> Exit:
        assert isinstance(self.output, Exit), f"not over: {self.output}"
        return self.output

    @property
    def value(self) -> Any:
        assert self.exit.error is None, f"failed: {self.error!r}"
        return self.codec.decode(self.exit.value)

    @property
    def error(self) -> Exception:
        assert self.exit.error is not None
        return self.codec.decode_error(self.exit.error)

    @property
    def status(self) -> Status:
        return self.output.status

    @property
    def refusal(self) -> str:
        """Why the state does not fit."""
        assert isinstance(self.output, Incompatible), f"accepted: {self.output}"
        assert self.output.status is Status.INCOMPATIBLE_STATE
        return self.output.message


class Begin:
    """Begins executions in one mode: ``begin(entry_point, *arguments)``."""

    def __init__(self, mode: Mode, options: Mapping[str, Any] | None = None) -> None:
        self.mode = mode
        self.options = options or {}
        self.now: datetime | None = None

    def at(self, now: datetime) -> Begin:
        """With the first round at this time."""
        begin = Begin(self.mode, self.options)
        begin.now = now
        return begin

    def using(self, **options: Any) -> Begin:
        """With these options of the scheduler."""
        return Begin(self.mode, {**self.options, **options})

    def __call__(self, entry_point: Any, *args: Any, **kwargs: Any) -> Execution:
        scheduler = OneShotScheduler(entry_point, **{"codec": self.mode.codec(), **self.options})
        arguments = scheduler.codec.encode_arguments(Arguments(args, kwargs))
        return Execution(scheduler, self.mode, Input(arguments=arguments, now=self.now, seed="s"))


def forget_frames(state: State) -> None:
    """Drop every warm frame: what is resumed next is rebuilt."""
    for coroutine in state.suspended.values():
        if coroutine.coroutine is not None:
            coroutine.coroutine.slot.drop()


# ------------------------------------------------------------------------------------------- laws


def laws_broken_by(output: Output, open_calls: set[int]) -> list[str]:
    """What must hold after every round and does not."""
    if isinstance(output, Incompatible):
        return []
    if isinstance(output, Exit):
        return [f"done, but calls {open_calls} are open"] if open_calls else []
    state, waiting = output.state, output.state.suspended
    awaited = [c.result.call_id for c in waiting.values() if isinstance(c.result, CallFuture)]
    broken = [
        f"{id} is suspended without a future that is open"
        for id, coroutine in waiting.items()
        if coroutine.result is None or coroutine.result.ready()
    ]
    if sorted(open_calls) != sorted(awaited, key=lambda id: -1 if id is None else id):
        broken.append(f"calls {open_calls} are open, awaited are {awaited}")
    if state.outstanding_calls != len(awaited):
        broken.append(f"{state.outstanding_calls} outstanding, {len(awaited)} awaited")
    if not awaited:
        broken.append("suspended, and nothing can ever wake it")
    if any(
        id != coroutine.id or id >= state.next_coroutine_id for id, coroutine in waiting.items()
    ):
        broken.append("a coroutine has an id that is not its own")
    return broken + _joins_broken(waiting)


def _joins_broken(waiting: Mapping[int, Coroutine]) -> list[str]:
    """The members that a join waits for are exactly those of its members that are suspended."""
    members = Counter((c.parent_id, c.serves) for c in waiting.values())
    return [
        f"join {id} waits for {len(coroutine.result.waiting)} members, "
        f"{members[id, coroutine.seq]} are suspended"
        for id, coroutine in waiting.items()
        if coroutine.result is not None
        and not isinstance(coroutine.result, CallFuture)
        and coroutine.wait is not None
        and coroutine.wait.kind is not Kind.TASK
        and len(coroutine.result.waiting) != members[id, coroutine.seq]
    ]


# ------------------------------------------------------------------------------------------- rows


class Rows:
    """Stands in for the store: keeps what its rows keep, and hands out only what is asked for."""

    def __init__(self, cold: bool) -> None:
        self.cold = cold
        self.suspended: dict[int, Coroutine] = {}
        self.ended: dict[int, CoroutineResult] = {}
        self._callers: dict[int, int] = {}

    def partial(self, state: State, results: Sequence[CallResult]) -> State:
        """The state as a round is given it: the owners of what has arrived, nobody else."""
        owners = {self._callers.get(result.call_id) for result in results}
        return replace(
            state, suspended={id: self._whole(id) for id in owners if id in self.suspended}
        )

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        return [self._whole(id) for id in self.suspended if ids is None or id in ids]

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return [
            replace(self._whole(id), coroutine=None)
            for id in ids
            if id in self.suspended and self.suspended[id].members
        ]

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        return [self.ended[id] for id in coroutine.members if id in self.ended]

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return [
            replace(self._whole(id), coroutine=None)
            for id, coroutine in self.suspended.items()
            if coroutine.wait is not None
            and coroutine.wait.kind is Kind.TASK
            and not set(ids).isdisjoint(coroutine.members)
        ]

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        return [result for id, result in self.ended.items() if id in ids]

    def _whole(self, id: int) -> Coroutine:
        coroutine = copy(self.suspended[id])
        if coroutine.wait is not None and coroutine.wait.kind in JOIN_KINDS:
            ended = [self.ended[id] for id in coroutine.members if id in self.ended]
            coroutine.result = join_future(
                coroutine.wait.kind,
                coroutine.members,
                Remaining(coroutine.members, len(coroutine.members) - len(ended)),
                coroutine.wait.max_failures,
                sum(result.error is not None for result in ended),
            )
        return coroutine

    def written(self, output: Poll | Exit, results: Sequence[CallResult]) -> Output:
        """Write what a round changed. The output with the whole state, for the test to look at."""
        arrived = {result.call_id: result for result in reversed(results)}
        self._callers |= {call.call_id: call.coroutine_id for call in output.changes.calls}
        for call_id in output.changes.delivered:
            self._end_member(self._callers[call_id], arrived.get(call_id))
        for id, result in output.changes.finished.items():
            self.suspended.pop(id, None)
            self.ended[id] = result
        if isinstance(output, Exit):
            return output
        for id, coroutine in output.state.suspended.items():
            if coroutine.coroutine is not None or coroutine.kind is not Kind.COROUTINE:
                self.suspended[id] = coroutine
        for change in output.changes.joins.values():
            if change.kind in JOIN_KINDS:
                self._check_counter(change.coroutine_id, change.seq, change.pending)
        whole = {id: self._whole(id) for id in self.suspended}
        return structs.replace(output, state=replace(output.state, suspended=whole))

    def _end_member(self, id: int, result: CallResult | None) -> None:
        """A call that is a member of a join has no row of its own: its end is the call's."""
        caller = self.suspended.get(id)
        if caller is not None and caller.kind in CALL_KINDS:
            del self.suspended[id]
            self.ended[id] = (
                CoroutineResult(id)
                if result is None
                else CoroutineResult(id, value=result.value, error=result.error)
            )

    def _check_counter(self, id: int, seq: int, pending: int) -> None:
        parent = self.suspended.get(id)
        if parent is not None and parent.seq == seq and parent.members:
            open_members = sum(member not in self.ended for member in parent.members)
            assert pending == open_members, f"join {id}: written {pending}, open {open_members}"
