"""Every exception and signal of rowtine, in three families and a fourth that is not an error.

- `UsageError`: the caller used the library wrongly; the message says what to do instead.
- What a user's function came to elsewhere: `RemoteError`, `AnyException`, `Interrupted`.
- `DatabaseError`: the database, or what stands in it, is not what rowtine needs.
- Control signals (`Reset`, `IncompatibleState`) derive from `BaseException`, so that a broad
  ``except Exception`` in user code cannot swallow a decision of the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AnyException",
    "Cancelled",
    "Conflict",
    "DatabaseError",
    "DecodeError",
    "IncompatibleState",
    "Interrupted",
    "NotFound",
    "PayloadError",
    "RegistrationError",
    "RemoteError",
    "RemoteTraceback",
    "Reset",
    "RowtineError",
    "SchemaError",
    "TimedOut",
    "UsageError",
]


class RowtineError(Exception):
    """The root of every error that rowtine itself raises."""


class UsageError(RowtineError):
    """The library was used wrongly; the message says what to do instead."""


class RegistrationError(UsageError, ValueError):
    """A function cannot be registered: refused at decoration, or at the first call."""


class PayloadError(UsageError, ValueError):
    """A value is too large or nested too deeply to be stored; the message names the limit."""


class Conflict(UsageError):
    """It is decided otherwise already, and stays so: a promise that has another answer, a key that
    stands for other arguments, an execution that is over."""


class NotFound(UsageError, LookupError):
    """No call has this id, or no function has this name."""


class DecodeError(RowtineError, ValueError):
    """A stored payload does not fit today's types; the message names the type and the field."""


class DatabaseError(RowtineError):
    """The database cannot be used as it is; the message is one line and says what to do."""


class SchemaError(DatabaseError):
    """The tables are missing, or stand at another revision than this rowtine needs."""


class RemoteTraceback(Exception):
    """The traceback text of an error that was raised in another process, shown as its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class RemoteError(RowtineError):
    """An error in the form in which it is stored.

    A body sees it as it is only when its class is not an imported `Exception` subclass in this
    process; otherwise the class itself is rebuilt.

    `type` is ``module.qualname`` (no module for builtins), `message` its `str`, `traceback` the
    text of the traceback, or None. `details` is the codec's text of what a rebuild needs
    (``args`` and attributes), or None when they could not be stored.
    """

    def __init__(
        self,
        type: str,
        message: str,
        traceback: str | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(type, message)
        self.type = type
        self.message = message
        self.traceback = traceback
        self.details = details

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class Interrupted(RowtineError):
    """The worker was lost, or stopped, during the last attempt that a call may have. Whether the
    body came to its end is unknown, and it is not run again."""


class AnyException(RowtineError):
    """Every member of an `any` failed; `exceptions` holds the errors in declaration order."""

    def __init__(self, exceptions: Sequence[Exception]) -> None:
        super().__init__(list(exceptions))
        self.exceptions: list[Exception] = list(exceptions)

    def __str__(self) -> str:
        return f"{len(self.exceptions)} coroutine(s) failed with an exception"


class Cancelled(RowtineError):
    """What a cancelled call came to, for whoever waits for it; the message is the reason.

    Inside the execution that is cancelled the await raises `asyncio.CancelledError`; a caller that
    goes on sees this, which is an ordinary error.
    """


class TimedOut(RowtineError, TimeoutError):
    """A durable limit was over: that of a block, a promise, a signal, or the deadline of a call.

    A TimeoutError, but one that is an outcome: a function that it leaves is not tried again, unless
    its `Retry` names it. To begin anew would be to wait once more for the same.
    """


class Reset(BaseException):
    """Raised by a body: end this run, and answer the call with another call (a tail call).

    ``raise Reset(f(x))`` or ``raise Reset(f, x)``. The execution keeps its id, so whoever waits
    for it gets the final result; its journal starts afresh. A signal, not an error.
    """

    def __init__(self, target: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__("tail call")
        self.call: Any = target(*args, **kwargs) if callable(target) else target


class IncompatibleState(BaseException):
    """The state does not fit this scheduler or this code. A signal: nothing has been changed.

    The message names the gate, the position, what was recorded and what came.
    """
