"""Durable execution for Python whose state is rows.

Coroutines, futures and outstanding calls live in a relational database; kill any process at any
time, and the work goes on where the last commit left it.
"""

from rowtine.app import App, Handle
from rowtine.awaitables import (
    all,
    any,
    call,
    gather,
    promise,
    race,
    shield,
    signal,
    sleep,
    sleep_until,
    spawn,
    timeout,
)
from rowtine.config import Settings
from rowtine.context import Current, current, heartbeat
from rowtine.core.directives import Call, Directive
from rowtine.core.exchange import CallRequest, Exit, Incompatible, Input, Output, Poll
from rowtine.core.futures import AllFuture, AnyFuture, CallFuture, RaceFuture
from rowtine.core.payload import Arguments
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.retry import Retry
from rowtine.core.scheduler import OneShotScheduler
from rowtine.core.state import Coroutine, State
from rowtine.core.status import Status, register_error_type, register_output_type
from rowtine.core.tasks import Promise, Task, Timeout
from rowtine.determinism import now, random, uuid
from rowtine.errors import (
    AnyException,
    Cancelled,
    Conflict,
    DatabaseError,
    DecodeError,
    Interrupted,
    NotFound,
    PayloadError,
    RegistrationError,
    RemoteError,
    Reset,
    RowtineError,
    SchemaError,
    TimedOut,
    UsageError,
)
from rowtine.fanout import as_completed, map

__all__ = [
    "AllFuture",
    "AnyException",
    "AnyFuture",
    "App",
    "Arguments",
    "Call",
    "CallFuture",
    "CallRequest",
    "CallResult",
    "Cancelled",
    "Conflict",
    "Coroutine",
    "CoroutineResult",
    "Current",
    "DatabaseError",
    "DecodeError",
    "Directive",
    "Exit",
    "Handle",
    "Incompatible",
    "Input",
    "Interrupted",
    "NotFound",
    "OneShotScheduler",
    "Output",
    "PayloadError",
    "Poll",
    "Promise",
    "RaceFuture",
    "RegistrationError",
    "RemoteError",
    "Reset",
    "Retry",
    "RowtineError",
    "SchemaError",
    "Settings",
    "State",
    "Status",
    "Task",
    "TimedOut",
    "Timeout",
    "UsageError",
    "all",
    "any",
    "as_completed",
    "call",
    "current",
    "gather",
    "heartbeat",
    "map",
    "now",
    "promise",
    "race",
    "random",
    "register_error_type",
    "register_output_type",
    "shield",
    "signal",
    "sleep",
    "sleep_until",
    "spawn",
    "timeout",
    "uuid",
]

__version__ = "0.1.0"
