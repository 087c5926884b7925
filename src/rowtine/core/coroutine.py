"""A continuation is a journal: a coroutine is rebuilt by calling its body with its recorded input
and feeding it, in order, what its waits came to. No frame is ever stored.

A frame may also be kept *warm* between two rounds. That only saves the rebuild: values reach a
body through the codec either way, so warm and cold cannot be told apart.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from collections.abc import Coroutine as NativeCoroutine
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from msgspec import Struct

from rowtine.core import eager
from rowtine.core.directives import Body, Call, Directive, Running, running
from rowtine.core.discard import discard
from rowtine.core.journal import Entry, Wait, describe, mismatch, placed, record, record_spawn
from rowtine.core.payload import Codec, Payload
from rowtine.core.phases import WITHDRAWN, Kind, Resolution
from rowtine.core.places import (
    Chain,
    Where,
    await_chain,
    may_be_in_a_block,
    note,
    refuse_after_interruption,
    refuse_open_block,
    where,
)
from rowtine.core.tasks import Ended, Group
from rowtine.errors import IncompatibleState

__all__ = [
    "Continuation",
    "Drive",
    "Frame",
    "Raised",
    "Returned",
    "Slot",
    "Step",
    "Suspended",
]


# ------------------------------------------------------------------------------ what is suspended


class Frame:
    """A started body: the native coroutine and the one context it lives in, which is its own."""

    __slots__ = ("context", "coroutine", "running")

    def __init__(
        self, context: contextvars.Context, codec: Codec, coroutine_id: int = 0, seed: str = ""
    ) -> None:
        self.context = context
        self.running = Running(coroutine_id, seed, lambda asked: record_spawn(asked, codec))
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

    `journal` is None when it was not loaded because the frame is warm. `began` is the time of the
    round in which it began.
    """

    body: Body
    input: Payload = None
    journal: tuple[Entry, ...] | None = ()
    began: datetime | None = None
    slot: Slot = field(default_factory=Slot, compare=False, repr=False)


# ------------------------------------------------------------------------------------ one step


class Suspended(Struct, frozen=True):
    """The body waits."""

    wait: Wait
    where: Where | None
    native: tuple[Where, ...] = ()
    """Where it has awaited natively since its last wait, each place once."""


class Returned(Struct, frozen=True):
    value: Any


class Raised(Struct, frozen=True):
    error: BaseException


Step = Suspended | Returned | Raised

_ENDS = (Returned, Raised)


class _Replay:
    """What a rebuilt body is fed: its journal, each wait compared with the recorded one."""

    def __init__(self, name: str, feed: Sequence[Entry], codec: Codec, running: Running) -> None:
        self.name = name
        self.feed = feed
        self.codec = codec
        self.running = running
        self.at = 0

    @property
    def over(self) -> bool:
        return self.at == len(self.feed)

    def next(self, wait: Wait) -> _Outcome:
        """What the next wait came to. `wait` is what the body asked for."""
        return told(self._entry(wait), self.running, self.codec, self.name)

    def advance(self, coroutine: NativeCoroutine[Any, Any, Any], outcome: _Outcome) -> Any:
        """Let a rebuilt body run, over all calls that it asks for just as they are recorded: to an
        await that takes a closer look, to what comes after its journal, or to its end.

        A journal is nearly all of such calls, and what a step of `Drive` asks at each of them has
        one answer here. Where it has not, nothing has happened yet, and `Drive` goes on.
        """
        while True:
            self.running.replaying = not self.over
            awaited = _advance(coroutine, outcome)
            if (entry := self._as_recorded(coroutine, awaited)) is None:
                return awaited
            _tell_time(entry, self.running)
            outcome = _value(entry, self.codec)

    def _as_recorded(self, coroutine: NativeCoroutine[Any, Any, Any], awaited: Any) -> Entry | None:
        """The next entry, if it is plain that it is of the call that is awaited: then it is used
        up. Equal inputs are equal, whatever they are decoded to."""
        if self.at == len(self.feed) or not isinstance(awaited, Call):
            return None
        call: Call[Any] = awaited  # pyright: ignore[reportUnknownVariableType]
        entry, running = self.feed[self.at], self.running
        wait = entry.wait
        if (
            call.function != wait.function
            or call.kind is not wait.kind
            or call.options.key is not None
            or entry.resolution in WITHDRAWN
            or running.asked
            or running.interrupted
            or may_be_in_a_block(coroutine)
        ):
            return None
        try:
            input = self.codec.encode_arguments(call.arguments)
        except Exception:
            return None  # refused at the door
        if input != wait.input:
            return None
        self.at += 1
        return entry

    def asked(self) -> None:
        """What a rebuilt body asked for since its last wait without waiting: all is recorded, and
        what it told to stop was told to."""
        asked, self.running.asked = self.running.asked, []
        for each in asked:
            if isinstance(each, Group):
                each.first = self._entry(placed(each.wait)).value

    def _entry(self, wait: Wait) -> Entry:
        entry = self.feed[self.at]
        if difference := mismatch(entry.wait, wait, self.codec):
            raise IncompatibleState(f"{self.name}, wait {self.at}: {difference}")
        self.at += 1
        return entry

    def ended(self, end: Returned | Raised) -> Returned | Raised:
        """A body may end only after all that is recorded."""
        if self.over:
            return end
        how = "returns" if isinstance(end, Returned) else f"raises {end.error!r}"
        raise IncompatibleState(
            f"{self.name}, wait {self.at}: recorded {describe(self.feed[self.at].wait)}, "
            f"the code now {how} before it"
        )


def told(entry: Entry, running: Running, codec: Codec, name: str) -> _Outcome:
    """What a body is told of what its wait came to."""
    _tell_time(entry, running)
    if entry.resolution is Resolution.TIMEOUT:
        return _expired(entry, running, name)
    if entry.resolution is Resolution.CANCELLED:
        running.told = None
        return None, _told_to_stop(entry.reason)
    value, error = _value(entry, codec)
    if entry.wait.kind is Kind.TASK and entry.wait.children and entry.decided_by is not None:
        return Ended(entry.decided_by - entry.wait.children.start, value, error), None
    return value, error


def _tell_time(entry: Entry, running: Running) -> None:
    if entry.at is not None and (running.now is None or entry.at > running.now):
        running.now = entry.at


def _expired(entry: Entry, running: Running, name: str) -> _Outcome:
    """The time of a limit was up: its block is told by a CancelledError, and knows."""
    for scope in running.scopes:
        if entry.decided_by is not None and scope.guards(entry.decided_by):
            scope.expired, running.told = True, scope
            return None, asyncio.CancelledError("the time is up")
    raise IncompatibleState(
        f"{name}: recorded the end of a time limit, in which the code no longer is"
    )


class Drive:
    """One step of a body: from what its wait came to (None: from its start) to its next wait, or to
    its end.

    A frame without a body is rebuilt first: the journal is fed to a new one. What the body awaits
    natively is the event loop's, also at a rebuild.
    """

    __slots__ = ("_awaited", "_codec", "_continuation", "_frame", "_replay", "_resolved")

    def __init__(
        self, frame: Frame, continuation: Continuation, codec: Codec, resolved: Entry | None
    ) -> None:
        self._frame = frame
        self._continuation = continuation
        self._codec = codec
        self._resolved = resolved
        self._replay: _Replay | None = None
        """None once the body is past all that is recorded."""
        self._awaited: Any = None

    def begin(self, task: asyncio.Task[Any]) -> Step | eager.Begun[Step]:
        """Make the step, in the context of the frame and as this task: what it came to; or, if the
        body awaits natively, the rest of the step."""
        frame, resolved = self._frame, self._resolved
        running = frame.running
        running.task = task
        if frame.coroutine is None:
            step = self._rebuild(resolved)
        elif resolved is None:
            step = self._go(_NOTHING)
        else:
            step = self._go(told(resolved, running, self._codec, self._continuation.body.name))
        if step is None:
            rest: Any = self._rest()
            begun: eager.Begun[Step] = eager.Begun(rest)
            begun.step(task)
            if not begun.over:
                return begun
            ended: Step = begun.value if begun.error is None else Raised(begun.error)
            step = ended
        # Its context holds the frame: what is not a cycle needs no garbage collector.
        running.task = None
        # Who cancels its own task takes the step along.
        return Raised(asyncio.CancelledError()) if task.cancelling() else step

    def _rebuild(self, entry: Entry | None) -> Step | None:
        frame, continuation = self._frame, self._continuation
        if continuation.journal is None:
            raise IncompatibleState(f"{continuation.body.name} has neither frame nor journal")
        frame.running.now = continuation.began
        feed = continuation.journal if entry is None else (*continuation.journal, entry)
        if feed:
            self._replay = _Replay(continuation.body.name, feed, self._codec, frame.running)
            frame.running.replaying = True
        try:
            arguments = self._codec.decode_arguments(continuation.input)
            frame.coroutine = continuation.body.func(*arguments.args, **arguments.kwargs)
        except Exception as error:
            return self._ended(Raised(error))
        return self._go(_NOTHING)

    def _go(self, outcome: _Outcome) -> Step | None:
        """Let the body run, up to its next wait that is not recorded, or to its end; None where it
        awaits natively."""
        # A loop that ends closes the async generators that began on it. One in a suspended frame
        # (the `async with` of a contextlib.asynccontextmanager) outlives the loop.
        began = sys.get_asyncgen_hooks().firstiter
        sys.set_asyncgen_hooks(firstiter=None)
        try:
            return self._run(outcome)
        finally:
            sys.set_asyncgen_hooks(firstiter=began)

    def _run(self, outcome: _Outcome) -> Step | None:
        frame, codec = self._frame, self._codec
        running = frame.running
        coroutine: Any = frame.coroutine
        while True:
            if (replay := self._replay) is None:
                awaited = _advance(coroutine, outcome)
            else:
                awaited = replay.advance(coroutine, outcome)
                if replay.over:
                    replay = self._replay = None
            if isinstance(awaited, _ENDS):
                return self._ended(awaited)
            if not isinstance(awaited, Directive):
                self._awaited = awaited
                return None
            chain = await_chain(coroutine)
            if replay is not None:
                replay.asked()
            try:
                refuse_open_block(chain)
                if running.interrupted:
                    refuse_after_interruption()
                wait = record(awaited, codec)  # pyright: ignore[reportUnknownArgumentType]
            except Exception as error:
                # Refused at the door: nothing is recorded, and a rebuild is refused here again.
                outcome = None, error
                continue
            if replay is None:
                return self._suspended(wait, chain)
            outcome = replay.next(wait)

    def _suspended(self, wait: Wait, chain: Chain) -> Suspended:
        running = self._frame.running
        if not running.natives:
            return Suspended(wait, where(chain))
        natives, running.natives = running.natives, {}
        return Suspended(wait, where(chain), tuple(natives))

    def _ended(self, end: Returned | Raised) -> Step:
        self._frame.coroutine = None
        return end if self._replay is None else self._replay.ended(end)

    @types.coroutine
    def _rest(self) -> Generator[Any, Any, Step]:
        """The rest of a step that awaits natively."""
        try:
            step: Step | None = None
            while step is None:
                at_the_end = self._replay is None
                outcome = yield from _await_natively(self._frame, self._awaited, at_the_end)
                step = self._go(outcome)
            return step
        finally:
            self._frame.running.task = None


_Outcome = tuple[Any, BaseException | None]
"""What an await returns, or what it raises."""

_NOTHING: _Outcome = (None, None)


def _advance(coroutine: NativeCoroutine[Any, Any, Any], outcome: _Outcome) -> Any:
    """Let a body run: to what it awaits next, or to its end."""
    value, error = outcome
    try:
        return coroutine.send(value) if error is None else coroutine.throw(error)
    except StopIteration as stop:
        return Returned(stop.value)
    except BaseException as raised:
        return Raised(raised)


def _await_natively(
    frame: Frame, awaited: Any, interruptible: bool
) -> Generator[Any, Any, _Outcome]:
    """Hand what a body awaits to the event loop.

    A body that is told to stop hears it here, but not before its journal is used up: what is
    recorded comes after, so this await did end.
    """
    running = frame.running
    if interruptible and frame.coroutine is not None:
        note(running, await_chain(frame.coroutine))
    if running.cancelling and interruptible:
        running.cancelling, running.interrupted, running.told = False, True, None
        return None, _told_to_stop(running.reason)
    running.native = interruptible
    try:
        return (yield awaited), None
    except GeneratorExit:
        frame.drop()
        raise
    except BaseException as error:
        if running.cancelling and interruptible:
            running.cancelling, running.interrupted, running.told = False, True, None
            if isinstance(error, asyncio.CancelledError):
                error = _told_to_stop(running.reason)
        return None, error
    finally:
        running.native = False


def _value(entry: Entry, codec: Codec) -> tuple[Any, Exception | None]:
    if entry.error is not None:
        return None, codec.decode_error(entry.error)
    try:
        if entry.wait.kind is Kind.ALL:
            return [_part(value, codec) for value in entry.value], None
        return codec.decode(entry.value), None
    except Exception as error:
        return None, error


def _part(value: Payload, codec: Codec) -> Any:
    """A member's value, or the error of one whose failure was borne."""
    return codec.decode_error(value) if isinstance(value, Exception) else codec.decode(value)


def _told_to_stop(reason: str | None) -> asyncio.CancelledError:
    return asyncio.CancelledError() if reason is None else asyncio.CancelledError(reason)
