"""One step of a body: from what its wait came to, to its next wait or its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from rowtine.core import eager
from rowtine.core.coroutine import Continuation, Drive, Frame, Raised, Slot, Step
from rowtine.core.exchange import CallRequest
from rowtine.core.journal import Entry, Wait
from rowtine.core.payload import Codec
from rowtine.core.phases import Resolution
from rowtine.core.places import Where
from rowtine.core.results import CallResult
from rowtine.core.state import Coroutine, State
from rowtine.errors import IncompatibleState

__all__ = [
    "Running",
    "body_of",
    "frames",
    "request_of",
    "resolution_of",
    "resumed",
    "start",
    "step_of",
    "task_of",
    "wait_of",
]


@dataclass(slots=True)
class Running:
    """A body that is not suspended: it makes one step, with what its wait came to. The step is a
    task while it awaits natively, and None until it is begun."""

    coroutine: Coroutine
    frame: Frame
    continuation: Continuation
    resolved: Entry | None
    step: Step | asyncio.Task[Step] | None = None


def resumed(coroutine: Coroutine, frame: Frame, resolved: Entry | None) -> Running:
    """A body that goes on with what its wait came to (None: it begins). The coroutine is a round's
    own, which changes; its continuation stays as it was."""
    continuation = body_of(coroutine)
    journal = continuation.journal
    if resolved is not None:
        journal = None if journal is None else (*journal, resolved)
        coroutine.seq += 1
    coroutine.coroutine = Continuation(
        continuation.body, continuation.input, journal, continuation.began
    )
    coroutine.result = coroutine.wait = None
    return Running(coroutine, frame, continuation, resolved)


def start(running: Running, codec: Codec) -> None:
    """Have a body make its step."""
    frame = running.frame
    drive = Drive(frame, running.continuation, codec, running.resolved)
    running.step = eager.first(frame.context, drive.begin)


def step_of(running: Running) -> Step | None:
    """What the step of a body came to; None while it awaits natively."""
    step = running.step
    if not isinstance(step, asyncio.Task):
        return step
    if not step.done():
        return None
    try:
        return step.result()
    except asyncio.CancelledError:
        # A body that cancels its own task takes the step that runs it along.
        return Raised(asyncio.CancelledError())


def task_of(running: Running) -> asyncio.Task[Step] | None:
    """The task of the step of a body that awaits natively."""
    return running.step if isinstance(running.step, asyncio.Task) else None


def resolution_of(result: CallResult) -> Resolution:
    """How the wait for a call ends."""
    return Resolution.RESULT if result.error is None else Resolution.ERROR


def request_of(
    coroutine: Coroutine, wait: Wait, where: Where | None, parked: bool | None = None
) -> CallRequest:
    """The call that a coroutine waits for, which has no number yet."""
    member = coroutine.coroutine is None
    return CallRequest(
        wait.function,
        wait.input,
        wait.kind,
        coroutine.id,
        coroutine.seq,
        coroutine.parent_id if member else None,
        coroutine.serves if member else None,
        where,
        wait.options,
        wait.token,
        parked,
    )


def body_of(coroutine: Coroutine) -> Continuation:
    if coroutine.coroutine is None:
        raise IncompatibleState(f"the state of coroutine {coroutine.id} lacks its body")
    return coroutine.coroutine


def wait_of(coroutine: Coroutine) -> Wait:
    if coroutine.wait is None:
        raise IncompatibleState(f"the state of coroutine {coroutine.id} lacks what it waits for")
    return coroutine.wait


def frames(state: State) -> Mapping[int, Slot]:
    """The warm frames of a state, by coroutine."""
    return {
        id: coroutine.coroutine.slot
        for id, coroutine in state.suspended.items()
        if coroutine.coroutine is not None and coroutine.coroutine.slot.warm
    }
