"""What a round is given, and what it hands back: values, which the store reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from rowtine.core.directives import Call
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Arguments, Payload
from rowtine.core.phases import WITHDRAWN, Kind, Resolution
from rowtine.core.places import Where
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.state import Coroutine, State
from rowtine.core.status import Status
from rowtine.core.values import value

__all__ = [
    "CallRequest",
    "Changes",
    "Exit",
    "Incompatible",
    "Input",
    "JoinChange",
    "Output",
    "Poll",
    "Polling",
]


class Input(Struct):
    """What a round is given: the arguments of the first one, or a state and what has arrived."""

    arguments: Payload = None
    state: State | None = None
    results: Sequence[CallResult] = ()
    error: Exception | None = None
    """A poll error: the calls of the last round could not be accepted."""
    cancel: bool = False
    """Whether the main coroutine is to be told to stop."""
    reason: str | None = None
    """Why: the message of the CancelledError that it sees."""
    now: datetime | None = None
    """The time of this round: what `rowtine.now` says in all that it resumes."""
    seed: str = ""
    """Of a first round: what promises' tokens and `rowtine.random` are drawn from."""

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


class CallRequest(Struct):
    """A call as a round hands it out. `call_id` is unique in the run of the execution."""

    function: str
    input: Payload
    kind: Kind
    coroutine_id: int
    seq: int
    parent_id: int | None = None
    serves: int | None = None
    where: Where | None = None
    options: CallOptions = DEFAULT
    token: str | None = None
    """Of a promise: whoever holds it may resolve it."""
    parked: bool | None = None
    """Of a member of a join that limits how many run at once: whether there was no room yet."""
    call_id: int = -1
    cancelled: bool = False
    """Cancelled in the round that made it: recorded, because it is replayed, but never run."""
    timer: int | None = None
    """... because the time limit with this timer was over."""


class JoinChange(Struct):
    """What a round did to one all / any / race."""

    coroutine_id: int
    seq: int
    kind: Kind
    function: str
    first_child: int
    children: int
    pending: int
    failed: int = 0
    opened: bool = False
    cancel_losers: bool = True
    max_failures: int = 0
    max_concurrency: int | None = None
    where: Where | None = None
    resolution: Resolution | None = None
    decided_by: int | None = None


class Changes(Struct):
    """Everything that a round changed: what the store writes, in one transaction."""

    delivered: dict[int, Resolution] = {}
    """call id -> how its wait ended; includes the calls that were cancelled."""
    calls: list[CallRequest] = []
    spawned: list[Coroutine] = []
    finished: dict[int, CoroutineResult] = {}
    cancelled: set[int] = set()
    """Coroutines that were told to stop and are still cleaning up."""
    joins: dict[tuple[int, int], JoinChange] = {}
    timers: dict[int, int] = {}
    """call id -> the timer of the time limit that ended its wait."""
    released: dict[tuple[int, int], int] = {}
    """Coroutine and seq of a join -> how many of its parked members may begin."""

    @property
    def gives_up(self) -> bool:
        """Whether some calls are no longer waited for."""
        return not WITHDRAWN.isdisjoint(self.delivered.values())


class Poll(Struct):
    """The execution waits: run `calls`, come back with results."""

    state: State
    calls: list[CallRequest]
    min_results: int
    max_results: int
    max_wait_seconds: float | None
    changes: Changes
    status: Status = Status.OK
    native: list[Where] = []
    """Where coroutines that suspend in this round have awaited natively in it: these awaits run
    again at a rebuild."""


@value
class Polling:
    """When an execution is to have its next round: at how many results, or after how long."""

    min_results: int = 1
    max_results: int = 10
    max_wait_seconds: float | None = None

    def poll(self, state: State, changes: Changes, native: list[Where]) -> Poll:
        """The end of a round after which calls are outstanding."""
        outstanding = state.outstanding_calls or 1
        return Poll(
            state,
            [call for call in changes.calls if not call.cancelled],
            min(outstanding, self.min_results),
            min(outstanding, self.max_results),
            self.max_wait_seconds,
            changes,
            native=native,
        )


class Exit(Struct):
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


class Incompatible(Struct):
    """The state does not fit; nothing has happened, and the message says why."""

    message: str
    status: Status = Status.INCOMPATIBLE_STATE


Output = Poll | Exit | Incompatible
