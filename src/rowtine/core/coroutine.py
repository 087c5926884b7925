"""A continuation is a journal: a coroutine is rebuilt by calling its body with its recorded input
and feeding it, in order, what its waits came to. No frame is ever stored.

A frame may also be kept *warm* between two rounds. That only saves the rebuild: values reach a
body through the codec either way, so warm and cold cannot be told apart.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import opcode
import sys
import sysconfig
import types
from collections.abc import Callable, Generator, Sequence
from collections.abc import Coroutine as NativeCoroutine
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from types import MethodType
from typing import Any

from msgspec import Struct

from rowtine.core import eager
from rowtine.core.directives import Body, Call, Directive, Inline, Join, Running, running
from rowtine.core.discard import discard
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.core.payload import Codec, Payload
from rowtine.core.phases import JOIN_KINDS, WITHDRAWN, Kind, Resolution
from rowtine.core.tasks import Ended, Group, Next, Spawn, Task
from rowtine.core.values import value
from rowtine.errors import IncompatibleState, UsageError

__all__ = [
    "Continuation",
    "Drive",
    "Entry",
    "Frame",
    "Raised",
    "Returned",
    "Slot",
    "Step",
    "Suspended",
    "Wait",
    "Where",
    "placed",
]

_PACKAGE = Path(__file__).parent.parent
_OURS = tuple(str(_PACKAGE / name) for name in ("core", "awaitables.py", "fanout.py"))
"""Frames of these files are not the user's. Those of the demo, which is in the package too, are."""


# ------------------------------------------------------------------------------- what is recorded


@value
class Wait:
    """What a coroutine asked for, as it is recorded and compared.

    `function` is the name of the function or body; for a join it describes the members, so that
    a nested join can be compared by its row alone.
    """

    kind: Kind
    function: str
    input: Payload = None
    members: tuple[Wait, ...] = ()
    children: range | None = None
    """Of a wait for tasks: the ids of those that it is for."""
    taken: frozenset[int] = field(default=frozenset(), compare=False)
    """... and those of them that were waited for before."""
    next: Next | None = field(default=None, compare=False)
    """... and how the body names them, before they have ids."""
    body: Body | None = field(default=None, compare=False)
    cancel_losers: bool = field(default=True, compare=False)
    max_failures: int = field(default=0, compare=False)
    max_concurrency: int | None = field(default=None, compare=False)
    options: CallOptions = field(default=DEFAULT, compare=False)
    token: str | None = field(default=None, compare=False)


class Entry(Struct, frozen=True):
    """A wait and what it came to: one line of a journal.

    `at` is the time of the round that it was told in. `decided_by` is the coroutine that decided
    it, where somebody did: the task that ended, the timer of the time limit. Of a group that was
    spawned, the value is the id of its first member. `reason` is why it was cancelled.
    """

    wait: Wait
    resolution: Resolution = Resolution.RESULT
    value: Payload = None
    error: Exception | None = None
    at: datetime | None = None
    decided_by: int | None = None
    reason: str | None = None


@value
class Where:
    """The user's line at which a coroutine is suspended, and the await stack down to it."""

    file: str
    line: int
    stack: tuple[str, ...] = ()


def record(directive: Directive[Any], codec: Codec) -> Wait:
    """What `directive` asks for, encoded; raises what the codec raises, at the await."""
    match directive:
        case Call():
            if directive.options.key is not None:
                raise UsageError(
                    f"{directive!r} has a key: keys are for calls that are started from outside"
                )
            return Wait(
                directive.kind,
                directive.function,
                codec.encode_arguments(directive.arguments),
                options=directive.options,
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
                max_failures=directive.max_failures,
                max_concurrency=directive.max_concurrency,
            )
        case Task():
            return record(directive.next(), codec)
        case Next():
            return _record_next(directive)
        case _:
            raise TypeError(f"cannot await {directive!r} here")


def record_spawn(asked: Spawn, codec: Codec) -> Wait:
    """What is begun now and waited for later, encoded; raises as `record` does."""
    members = tuple(_record_member(member, codec) for member in asked.members)
    if asked.token is not None:
        members = tuple(replace(member, token=asked.token) for member in members)
    return Wait(
        Kind.SPAWN,
        _signature(Kind.SPAWN, members),
        members=members,
        cancel_losers=not asked.shielded,
        max_concurrency=asked.max_concurrency,
    )


def _record_next(directive: Next) -> Wait:
    group, within = directive.group, directive.within
    one = len(within) == 1
    function = group.wait.members[within.start].function if one else group.wait.function
    return placed(Wait(Kind.TASK, function, cancel_losers=False, next=directive))


def placed(wait: Wait) -> Wait:
    """The wait with the ids of the tasks that it is for, where they have them by now."""
    if wait.next is not None and (first := wait.next.group.first) is not None:
        within = wait.next.within
        return replace(
            wait,
            children=range(first + within.start, first + within.stop),
            taken=frozenset(first + member for member in wait.next.taken),
        )
    if any(member.next is not None or member.members for member in wait.members):
        return replace(wait, members=tuple(placed(member) for member in wait.members))
    return wait


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
    if recorded.children is not None and recorded.children != came.children:
        return f"recorded a wait for {_tasks(recorded)}, the code now waits for {_tasks(came)}"
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
    what = _describe(recorded)
    return f"{what} was recorded with input {_short(renewed)}, now it is {_short(came.input)}"


def _describe(wait: Wait) -> str:
    plain = wait.kind in JOIN_KINDS or wait.kind is Kind.SPAWN
    return wait.function if plain else f"{wait.kind} {wait.function}"


def _tasks(wait: Wait) -> str:
    ids = wait.children or range(0)
    return f"task {ids.start}" if len(ids) == 1 else f"tasks {ids.start} to {ids.stop - 1}"


def _short(payload: Payload) -> str:
    text = str(payload)
    return text if len(text) <= 200 else text[:200] + "..."


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
            f"{self.name}, wait {self.at}: recorded {_describe(self.feed[self.at].wait)}, "
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

    def _suspended(self, wait: Wait, chain: _Chain) -> Suspended:
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
        _note(running, await_chain(frame.coroutine))
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


# -------------------------------------------------------------------------- where it is suspended

_Chain = list[tuple[Any, types.FrameType]]

_PARTS: dict[type[Any], Callable[[Any], tuple[Any, Any]]] = {
    types.CoroutineType: attrgetter("cr_frame", "cr_await"),
    types.GeneratorType: attrgetter("gi_frame", "gi_yieldfrom"),
    types.AsyncGeneratorType: attrgetter("ag_frame", "ag_await"),
}


def await_chain(coroutine: NativeCoroutine[Any, Any, Any]) -> _Chain:
    """A suspended coroutine, what it awaits, what that awaits, and so on; with their frames."""
    chain: _Chain = []
    link: Any = coroutine
    while link is not None:
        if parts := _PARTS.get(link.__class__):
            frame, awaited = parts(link)
            chain.append((link, frame))
            link = awaited
        else:
            # What `__await__` of a coroutine or a step of an async generator gives, which does
            # not say whose it is.
            link = next((held for held in gc.get_referents(link) if type(held) in _PARTS), None)
    return chain


def where(chain: _Chain) -> Where | None:
    """The innermost line of the user's code in an await chain."""
    lines = tuple(
        [
            (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            for _, frame in chain
            if not frame.f_code.co_filename.startswith(_OURS)
        ]
    )
    return _where(lines) if lines else None


@functools.lru_cache(maxsize=1_000)
def _where(lines: tuple[tuple[str, int, str], ...]) -> Where:
    """Kept, because bodies are seen at the same few places again and again."""
    file, line, _ = lines[-1]
    return Where(file, line, tuple(f"{file}:{line} in {name}" for file, line, name in lines))


_INSTALLED = tuple(
    str(path)
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def _note(running: Running, chain: _Chain) -> None:
    """Remember where a body awaits natively: the innermost line of its own code.

    Further in are asyncio and an HTTP client, say. A body that is itself installed cannot be told
    from these by its file; of that, its own line.
    """
    place = where([link for link in chain if not _is_installed(link[1])] or chain[:1])
    if place is not None:
        running.natives[place] = None


def _is_installed(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_INSTALLED)


_OPEN = {
    asyncio.Timeout: "use rowtine.timeout",
    asyncio.TaskGroup: "use rowtine.gather",
    asyncio.Lock: "leave the block first",
    asyncio.Semaphore: "leave the block first",
    asyncio.Condition: "leave the block first",
}
"""Blocks that belong to one task of one event loop, and what to do instead of awaiting in them."""


def refuse_after_interruption() -> None:
    """Raise UsageError: a body was told to stop in a native await and now awaits durably.

    It may end here, but it cannot suspend: at which point of which native await it was stopped is
    not recorded (and would not come again), so a rebuild would take it past that point.
    """
    raise UsageError(
        "a durable await in the clean-up of a coroutine that was told to stop in a native "
        "await, which a rebuild could not repeat: do the native part in an @app.function"
    )


_ENTERS = opcode.opmap.get("BEFORE_ASYNC_WITH", opcode.opmap.get("LOAD_SPECIAL"))
"""What ``async with`` is compiled to: the latter from Python 3.14 on."""

_LOOKED_THROUGH: dict[int, tuple[types.CodeType, bool]] = {}
"""By the id of a code object, which it keeps from being given to another: a hash of its own would
be one of all its instructions."""


def _opens_blocks(code: types.CodeType) -> bool:
    """Whether a frame of this code may hold an ``__aexit__``: there is an ``async with`` in it, or
    the name."""
    if (found := _LOOKED_THROUGH.get(id(code))) is None:
        opens = _ENTERS is None or _ENTERS in code.co_code[::2] or "__aexit__" in code.co_names
        if len(_LOOKED_THROUGH) >= 10_000:  # of code that is made again and again
            _LOOKED_THROUGH.clear()
        found = _LOOKED_THROUGH[id(code)] = code, opens
    return found[1]


def may_be_in_a_block(coroutine: NativeCoroutine[Any, Any, Any]) -> bool:
    """Whether it takes an await chain, and `refuse_open_block`, to say."""
    link: Any = coroutine
    while link is not None:
        kind = link.__class__
        if kind is types.CoroutineType:
            code, link = link.cr_code, link.cr_await
        elif kind is types.GeneratorType:
            code, link = link.gi_code, link.gi_yieldfrom
        else:
            return True
        if _opens_blocks(code):
            return True
    return False


def refuse_open_block(chain: _Chain) -> None:
    """Raise UsageError if a body awaits inside a block that cannot outlive this process.

    Of an open ``async with`` the frame holds the bound ``__aexit__``.
    """
    links = [link for link, frame in chain if _opens_blocks(frame.f_code)]
    for held in gc.get_referents(*links):
        if type(held) is MethodType and held.__name__ == "__aexit__":
            for block, instead in _OPEN.items():
                if isinstance(held.__self__, block):
                    raise UsageError(
                        f"a durable await inside an open asyncio.{block.__name__}, "
                        f"which a rebuild could not restore: {instead}"
                    )
