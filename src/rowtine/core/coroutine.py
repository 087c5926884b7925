"""A continuation is a journal: a coroutine is rebuilt by calling its body with its recorded input
and feeding it, in order, what its waits came to. No frame is ever stored.

A frame may also be kept *warm* between two rounds. That only saves the rebuild: values reach a
body through the codec either way, so warm and cold cannot be told apart.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Coroutine as NativeCoroutine
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowtine.core.directives import Body, Call, Directive, Inline, Join, Running, running
from rowtine.core.discard import discard
from rowtine.core.payload import Codec, Payload
from rowtine.core.phases import JOIN_KINDS, Kind, Resolution
from rowtine.errors import IncompatibleState

__all__ = [
    "Continuation",
    "Entry",
    "Frame",
    "Raised",
    "Returned",
    "Slot",
    "Step",
    "Suspended",
    "Wait",
    "Where",
    "drive",
]

_PACKAGE = str(Path(__file__).resolve().parent.parent)


# ------------------------------------------------------------------------------- what is recorded


@dataclass(frozen=True, slots=True)
class Wait:
    """What a coroutine asked for, as it is recorded and compared.

    `function` is the name of the function or body; for a join it describes the members, so that
    a nested join can be compared by its row alone.
    """

    kind: Kind
    function: str
    input: Payload = None
    members: tuple[Wait, ...] = ()
    body: Body | None = field(default=None, compare=False)
    cancel_losers: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A wait and what it came to: one line of a journal."""

    wait: Wait
    resolution: Resolution = Resolution.RESULT
    value: Payload = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """The user's line at which a coroutine is suspended, and the await stack down to it."""

    file: str
    line: int
    stack: tuple[str, ...] = ()


def record(directive: Directive[Any], codec: Codec) -> Wait:
    """What `directive` asks for, encoded; raises what the codec raises, at the await."""
    match directive:
        case Call():
            return Wait(
                directive.kind, directive.function, codec.encode_arguments(directive.arguments)
            )
        case Inline():
            return Wait(
                Kind.COROUTINE,
                directive.body.name,
                codec.encode_arguments(directive.arguments),
                body=directive.body,
            )
        case Join():
            members = tuple(_record_member(member, codec) for member in directive.members)
            return Wait(
                directive.kind,
                _signature(directive.kind, members),
                members=members,
                cancel_losers=directive.cancel_losers,
            )
        case _:
            raise TypeError(f"cannot await {directive!r} here")


def _record_member(member: object, codec: Codec) -> Wait:
    if isinstance(member, Directive):
        return record(member, codec)  # pyright: ignore[reportUnknownArgumentType]
    if asyncio.iscoroutine(member):
        name = getattr(member, "__qualname__", repr(member))
        member.close()  # never started, so there is nothing of the user's to run
        raise TypeError(
            f"{name} is a plain coroutine: mark it with @app.coroutine to pass it to "
            "gather, any or race (or await it directly)"
        )
    raise TypeError(
        f"{member!r} is not awaitable durably: gather, any and race take calls of an "
        "@app.function or @app.coroutine, rowtine.call, rowtine.sleep, and each other"
    )


_LONGEST_SIGNATURE = 200


def _signature(kind: Kind, members: Sequence[Wait]) -> str:
    names = ", ".join(member.function for member in members)
    if len(names) > _LONGEST_SIGNATURE:
        names = f"{len(members)} members: {names[: _LONGEST_SIGNATURE - 40]}..."
    return f"{kind}({names})"


def mismatch(recorded: Wait, came: Wait, codec: Codec) -> str | None:
    """Say how `came` differs from what was recorded, or None if the journal fits.

    Kind and function gate. Inputs are compared after the recorded one has gone through today's
    types, so that a new optional field of a class is no difference.
    """
    if (recorded.kind, recorded.function) != (came.kind, came.function):
        return f"recorded {_describe(recorded)}, the code now asks for {_describe(came)}"
    if recorded.kind in JOIN_KINDS and not recorded.members:
        return None  # a nested join is recorded by its signature alone
    if len(recorded.members) != len(came.members):
        return f"recorded {len(recorded.members)} members, the code now has {len(came.members)}"
    for i, (old, new) in enumerate(zip(recorded.members, came.members, strict=True)):
        if difference := mismatch(old, new, codec):
            return f"member {i}: {difference}"
    if recorded.input == came.input:
        return None
    try:
        renewed = codec.encode_arguments(codec.decode_arguments(recorded.input))
    except Exception as error:
        return f"the recorded input of {_describe(recorded)} cannot be read: {error}"
    if renewed == came.input:
        return None
    return f"{_describe(recorded)} was recorded with input {_short(renewed)}, now it is {_short(came.input)}"


def _describe(wait: Wait) -> str:
    return wait.function if wait.kind in JOIN_KINDS else f"{wait.kind} {wait.function}"


def _short(payload: Payload) -> str:
    text = str(payload)
    return text if len(text) <= 200 else text[:200] + "..."


# ------------------------------------------------------------------------------ what is suspended


class Frame:
    """A started body: the native coroutine and the one context it lives in."""

    __slots__ = ("context", "coroutine", "running")

    def __init__(self, root: contextvars.Context) -> None:
        self.context = root.copy()
        self.running = Running()
        self.context.run(running.set, self.running)
        self.coroutine: NativeCoroutine[Any, Any, Any] | None = None

    def drop(self) -> None:
        """Let go of the body without running any of its code."""
        coroutine, self.coroutine = self.coroutine, None
        if coroutine is not None:
            discard(coroutine)

    # A State that the user simply forgets must not run `finally` blocks either.
    __del__ = drop


class Slot:
    """Where a warm frame lies between two rounds. Whoever takes it has it alone; a State that is
    run twice finds the slot empty the second time, and rebuilds."""

    __slots__ = ("_frame",)

    def __init__(self, frame: Frame | None = None) -> None:
        self._frame = frame

    @property
    def warm(self) -> bool:
        return self._frame is not None

    def take(self) -> Frame | None:
        frame, self._frame = self._frame, None
        return frame

    def drop(self) -> None:
        if (frame := self.take()) is not None:
            frame.drop()


@dataclass(slots=True)
class Continuation:
    """All that is needed to go on: the body, its input, its resolved waits, perhaps its frame.

    `journal` is None when it was not loaded because the frame is warm.
    """

    body: Body
    input: Payload = None
    journal: tuple[Entry, ...] | None = ()
    slot: Slot = field(default_factory=Slot, compare=False, repr=False)


# ------------------------------------------------------------------------------------ one step


@dataclass(frozen=True, slots=True)
class Suspended:
    """The body waits."""

    wait: Wait
    where: Where | None


@dataclass(frozen=True, slots=True)
class Returned:
    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    error: BaseException


Step = Suspended | Returned | Raised


@types.coroutine
def drive(
    frame: Frame, continuation: Continuation, codec: Codec, resolved: Entry | None
) -> Generator[Any, Any, Step]:
    """Resume `continuation` with what its wait came to (None: start it) up to its next wait.

    A frame without a body is rebuilt first: the journal is fed to a new one, each wait compared
    with the recorded one. Native awaits pass through to the event loop, also at a rebuild.
    """
    feed: Sequence[Entry] = () if resolved is None else (resolved,)
    at = 0
    value: Any = None
    error: BaseException | None = None
    if frame.coroutine is None:
        if continuation.journal is None:
            raise IncompatibleState(f"{continuation.body.name} has neither frame nor journal")
        feed = (*continuation.journal, *feed)
        try:
            arguments = codec.decode_arguments(continuation.input)
            frame.coroutine = continuation.body.func(*arguments.args, **arguments.kwargs)
        except Exception as exc:
            return Raised(exc)
    else:
        value, error = _outcome(feed[0], codec)
        at = 1
    coroutine = frame.coroutine
    while True:
        try:
            yielded = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            frame.coroutine = None
            return Returned(stop.value)
        except BaseException as exc:
            frame.coroutine = None
            return Raised(exc)
        value = error = None
        if not isinstance(yielded, Directive):
            if frame.running.cancelling:
                frame.running.cancelling = False
                error = asyncio.CancelledError()
                continue
            try:
                frame.running.native = True
                value = yield yielded
            except GeneratorExit:
                frame.drop()
                raise
            except BaseException as exc:
                frame.running.cancelling = False
                error = exc
            finally:
                frame.running.native = False
            continue
        try:
            wait = record(yielded, codec)  # pyright: ignore[reportUnknownArgumentType]
        except Exception as exc:
            # Refused at the door: nothing is recorded, and a rebuild is refused here again.
            error = exc
            continue
        if at == len(feed):
            return Suspended(wait, where(coroutine))
        if difference := mismatch(feed[at].wait, wait, codec):
            raise IncompatibleState(f"{continuation.body.name}, wait {at}: {difference}")
        value, error = _outcome(feed[at], codec)
        at += 1


def _outcome(entry: Entry, codec: Codec) -> tuple[Any, BaseException | None]:
    if entry.resolution is Resolution.CANCELLED:
        return None, asyncio.CancelledError()
    if entry.error is not None:
        return None, codec.decode_error(entry.error)
    try:
        if entry.wait.kind is Kind.ALL:
            return [codec.decode(value) for value in entry.value], None
        return codec.decode(entry.value), None
    except Exception as error:
        return None, error


def where(coroutine: NativeCoroutine[Any, Any, Any]) -> Where | None:
    """The innermost line of the user's code in the await chain of a suspended coroutine."""
    lines: list[tuple[str, int, str]] = []
    awaited: Any = coroutine
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
            lines.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    if not lines:
        return None
    return Where(
        lines[-1][0], lines[-1][1], tuple(f"{file}:{line} in {name}" for file, line, name in lines)
    )
