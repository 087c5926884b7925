"""The scheduler: one round after the other of one execution, each a value in and a value out."""

from __future__ import annotations

import contextvars
import sys
from copy import copy
from typing import Any

from rowtine.core.coroutine import Continuation, Frame, Raised, Returned, Slot, Suspended
from rowtine.core.directives import Body
from rowtine.core.ends import result_of
from rowtine.core.exchange import (
    Changes,
    Exit,
    Incompatible,
    Input,
    Output,
    Poll,
    Polling,
)
from rowtine.core.futures import CallFuture
from rowtine.core.journal import Entry
from rowtine.core.payload import Codec, Identity
from rowtine.core.phases import CALL_KINDS
from rowtine.core.results import CoroutineResult
from rowtine.core.round import Round
from rowtine.core.state import SEMANTICS, Coroutine, Loader, State
from rowtine.core.steps import (
    Running,
    body_of,
    request_of,
    resolution_of,
    resumed,
    start,
    wait_of,
)
from rowtine.errors import IncompatibleState

__all__ = ["OneShotScheduler"]


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
        self.polling = Polling(
            max(1, poll_min_results), max(1, poll_max_results), poll_max_wait_seconds
        )
        self.codec: Codec = codec or Identity()

    def with_codec(self, codec: Codec) -> OneShotScheduler:
        """The same scheduler with another codec."""
        other = copy(self)
        other.codec = codec
        return other

    async def run(
        self, input: Input, loader: Loader | None = None, first: Running | None = None
    ) -> Output:
        """Run one round.

        `loader` answers for what a partial state left out; a state of this scheduler's own is
        whole and needs none. `first` is what `begin` has begun, or `resume` has resumed. If this
        task is cancelled, running bodies are cancelled with it and suspended ones are dropped
        without running any of their code.
        """
        try:
            state = self._state(input)
        except IncompatibleState as error:
            return Incompatible(str(error))
        if first is None:
            begun = self._first_step(input)
            if isinstance(begun, Poll | Exit):
                return begun
            first = begun
        round = Round(self.codec, self.polling, state, loader, input.now)
        try:
            return await round.run(input, first)
        except IncompatibleState as error:
            await round.abandon()
            return Incompatible(str(error))
        except BaseException:
            await round.abandon()
            raise

    def _first_step(self, input: Input) -> Poll | Exit | Running | None:
        if input.state is not None:
            return self.resume(input)
        if self.body is None:
            return None
        begun = self.begin(self.body, input, contextvars.copy_context())
        return Exit(begun, Changes()) if isinstance(begun, CoroutineResult) else begun

    # -- the rounds that are short, as most are

    def begin(
        self, body: Body, input: Input, context: contextvars.Context
    ) -> CoroutineResult | Poll | Running:
        """Let the main body make its first step, in `context`, which becomes its own. What it came
        to if it has ended in it, as most calls do: that takes no round. Its first round, if it
        waits for a call. Else that round has begun, and `run` goes on with it."""
        continuation = Continuation(body, input.arguments, began=input.now)
        frame = Frame(context, self.codec, 0, input.seed)
        main = Running(Coroutine(0, None, continuation), frame, continuation, None)
        start(main, self.codec)
        if _is_plain(main):
            if isinstance(main.step, Returned | Raised):
                return result_of(0, main.step, self.codec)
            if isinstance(main.step, Suspended) and main.step.wait.kind in CALL_KINDS:
                state = State(self.version, next_coroutine_id=1, seed=input.seed)
                return self._called(main, main.step, state, Changes(spawned=[main.coroutine]))
        return main

    def resume(self, input: Input) -> Poll | Exit | Running | None:
        """Let the main body make its next step, where it is warm and nobody else has a part in the
        round: it has waited for the only call that is outstanding.

        What the round came to, if that step brings it to its next call or to its end, as most do.
        Else its round has begun, and `run` goes on with it. None, and nothing has happened, if it
        is another sort of round. The state is one that this scheduler would not refuse.
        """
        state = input.state
        if state is None or (main := _alone(input, state)) is None:
            return None
        continuation = main.coroutine
        frame = None if continuation is None else continuation.slot.take()
        if frame is None:
            return None
        (result,) = input.results
        how = resolution_of(result)
        entry = Entry(wait_of(main), how, result.value, result.error, input.now)
        running = resumed(main.copied(), frame, entry)
        start(running, self.codec)
        if _is_plain(running):
            changes = Changes({result.call_id: how})
            if isinstance(running.step, Suspended) and running.step.wait.kind in CALL_KINDS:
                after = state.copied()
                after.callers.pop(result.call_id, None)
                return self._called(running, running.step, after, changes)
            if isinstance(running.step, Returned | Raised):
                changes.finished[0] = ended = result_of(0, running.step, self.codec)
                return Exit(ended, changes)
        return running

    def _called(self, main: Running, step: Suspended, state: State, changes: Changes) -> Poll:
        """The main body waits for a call, and that is all."""
        coroutine = main.coroutine
        request = request_of(coroutine, step.wait, step.where)
        request.call_id = number = state.next_call_id
        coroutine.wait, coroutine.result = step.wait, CallFuture(call_id=number)
        body_of(coroutine).slot = Slot(main.frame)
        state.suspended[0] = coroutine
        state.next_call_id = number + 1
        state.callers[number] = 0
        state.prev_callers = [0]
        state.outstanding_calls = 1
        changes.calls.append(request)
        return self.polling.poll(state, changes, list(step.native))

    # -- the state

    def _state(self, input: Input) -> State:
        """A state that the round may change."""
        state: Any = input.state
        if state is None:
            return State(version=self.version, seed=input.seed)
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
        return state.copied()


def _is_plain(main: Running) -> bool:
    """Whether a body has asked for nothing beside what its step came to."""
    here = main.frame.running
    return not (here.asked or here.groups)


def _alone(input: Input, state: State) -> Coroutine | None:
    """The main coroutine, if a round is about it alone."""
    if input.error is not None or input.cancel or state.ready or state.exit is not None:
        return None
    if state.outstanding_calls != 1 or len(input.results) != 1:
        return None
    main = state.suspended.get(0)
    match main:
        case Coroutine(result=CallFuture(call_id=call_id), cancelled=False):
            return main if call_id == input.results[0].call_id else None
        case _:
            return None
