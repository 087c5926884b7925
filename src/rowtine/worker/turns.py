"""Turns: the rounds of executions that are warm here, each with what has just ended here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rowtine.core import eager
from rowtine.core.exchange import Exit, Input, Output
from rowtine.core.steps import Running
from rowtine.functions import Function
from rowtine.store import rounds as claims
from rowtine.store.committing import Round
from rowtine.store.loading import Execution, Rows
from rowtine.store.outcomes import Outcome
from rowtine.worker.ends import Broken, Spawn
from rowtine.worker.gateway import Gateway
from rowtine.worker.handoff import End, Handoff, Turn, round_input, taken
from rowtine.worker.held import Held
from rowtine.worker.reader import Lost, Reader
from rowtine.worker.rounds import Rounds, Setup
from rowtine.worker.warm import Kept, drop

__all__ = ["Turns"]


class Turns:
    """Runs the turns that a hand-off makes: in place, if they are one step of a main body, as most
    are, and else as tasks."""

    def __init__(
        self,
        setup: Setup,
        gateway: Gateway,
        held: Held,
        handoff: Handoff,
        rounds: Rounds,
        spawn: Spawn,
        broken: Broken,
    ) -> None:
        self._setup = setup
        self._gateway = gateway
        self._held = held
        self._handoff = handoff
        self._rounds = rounds
        self._spawn = spawn
        self._broken = broken

    def begin(self, turn: Turn) -> None:
        """Take a turn; the next one of its execution follows when it is over."""
        try:
            self._take(turn)
        except Exception as error:
            drop(turn.kept.slots)
            self._over(turn, error)

    def _take(self, turn: Turn) -> None:
        kept, ends = turn.kept, turn.ends
        execution = kept.execution
        execution.now = self._gateway.now(execution.now)
        function = self._setup.registry.function(execution.function)
        input = round_input(kept, ends, execution.now)
        first = self._rounds.resume(function, execution, input)
        if isinstance(first, tuple):
            output, seconds = first
            # A state that has been resumed has everybody in it that was kept.
            left = kept if isinstance(output, Exit) else None
            then = partial(self._over, turn)
            self._rounds.end(execution, function, output, seconds, left, taken(ends), then)
        else:
            self._spawn(execution.id, self._run(turn, function, input, first))

    def _over(self, turn: Turn, held: bool | Exception) -> None:
        id = turn.kept.execution.id
        for end in turn.ends:
            end.written(True if held is True else None)
        if isinstance(held, Exception):
            self._broken(id, held)
        if (following := self._handoff.over(id)) is not None:
            self.begin(following)

    async def _run(
        self, turn: Turn, function: Function[..., Any], input: Input, first: Running | None
    ) -> None:
        """Take a turn that is more than the step of one body, of which `first` may be the first."""
        kept, ends = turn.kept, turn.ends
        execution = kept.execution
        self._rounds.enter(execution)
        held: bool | Exception = False
        try:
            output, seconds, given = await self._round(kept, ends, function, input, first)
            held = await self._rounds.ended(execution, function, output, seconds, kept, given)
        except Lost:
            pass
        except asyncio.CancelledError:
            for end in ends:
                end.written(None)
            self._handoff.takes_long(execution.id)  # for ever: what it has claimed is given back
            raise
        except Exception as error:
            held = error
        self._over(turn, held)

    async def _round(
        self,
        kept: Kept,
        ends: Sequence[End],
        function: Function[..., Any],
        input: Input,
        first: Running | None,
    ) -> tuple[Output, float, Mapping[int, Outcome | Round]]:
        """What the round came to, and what of its ends is to be written with it."""
        execution, body = kept.execution, self._setup.registry.body
        reader = Reader(self._gateway, lambda c: Rows(c, body, execution, None, kept.slots))
        running = eager.Begun(self._rounds.run(function, execution, input, reader, first))
        running.step()
        given = taken(ends)
        try:
            if not running.over:
                given = {}
                await self._take_longer(execution, ends)
            output, seconds = await running
        except BaseException:
            await _ended(running)
            drop(kept.slots)
            raise
        return output, seconds, given

    async def _take_longer(self, execution: Execution, ends: Sequence[End]) -> None:
        """The round reads, or awaits natively. What it was given does not wait for that, and nobody
        else is to run this round meanwhile; Lost if somebody does, or an end was refused."""
        worker, stand, lease = self._setup.worker, execution.stand, self._setup.settings.lease
        mine = await self._gateway.write(
            lambda connection: claims.adopt(connection, worker, execution.id, stand, lease)
        )
        if mine:
            self._held.rounds.add(execution.id)
        self._handoff.takes_long(execution.id)
        recorded = [end.refuse() for end in ends]
        if not (all([await held for held in recorded]) and mine):
            raise Lost


async def _ended(running: eager.Begun[Any]) -> None:
    """Stop a round that is no longer wanted, and wait until it has stopped."""
    if not running.over:
        task = asyncio.Task(running)
        task.cancel()
        await asyncio.wait([task])
