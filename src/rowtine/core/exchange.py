"""What a round is given, and what it hands back: values, which the store reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rowtine.core.coroutine import Where
from rowtine.core.directives import Call
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Arguments, Payload
from rowtine.core.phases import WITHDRAWN, Kind, Resolution
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
    failed: int = 0
    opened: bool = False
    cancel_losers: bool = True
    max_failures: int = 0
    max_concurrency: int | None = None
    where: Where | None = None
    resolution: Resolution | None = None
    decided_by: int | None = None


# Functions of this sort, because `list[CallRequest]()` takes five times as long as `[]`.


def _no_calls() -> list[CallRequest]:
    return []


def _no_coroutines() -> list[Coroutine]:
    return []


def _no_ids() -> set[int]:
    return set()


def _no_numbers() -> dict[int, int]:
    return {}


def _no_finished() -> dict[int, CoroutineResult]:
    return {}


def _no_joins() -> dict[tuple[int, int], JoinChange]:
    return {}


def _no_delivered() -> dict[int, Resolution]:
    return {}


def _no_released() -> dict[tuple[int, int], int]:
    return {}


def _no_places() -> list[Where]:
    return []


@dataclass(slots=True)
class Changes:
    """Everything that a round changed: what the store writes, in one transaction."""

    delivered: dict[int, Resolution] = field(default_factory=_no_delivered)
    """call id -> how its wait ended; includes the calls that were cancelled."""
    calls: list[CallRequest] = field(default_factory=_no_calls)
    spawned: list[Coroutine] = field(default_factory=_no_coroutines)
    finished: dict[int, CoroutineResult] = field(default_factory=_no_finished)
    cancelled: set[int] = field(default_factory=_no_ids)
    """Coroutines that were told to stop and are still cleaning up."""
    joins: dict[tuple[int, int], JoinChange] = field(default_factory=_no_joins)
    timers: dict[int, int] = field(default_factory=_no_numbers)
    """call id -> the timer of the time limit that ended its wait."""
    released: dict[tuple[int, int], int] = field(default_factory=_no_released)
    """Coroutine and seq of a join -> how many of its parked members may begin."""

    @property
    def gives_up(self) -> bool:
        """Whether some calls are no longer waited for."""
        return not WITHDRAWN.isdisjoint(self.delivered.values())


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
    native: list[Where] = field(default_factory=_no_places)
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
        outstanding = state.outstanding_calls
        return Poll(
            state,
            [call for call in changes.calls if not call.cancelled],
            max(1, min(outstanding, self.min_results)),
            max(1, min(outstanding, self.max_results)),
            self.max_wait_seconds,
            changes,
            native=native,
        )


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
