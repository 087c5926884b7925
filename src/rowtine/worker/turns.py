"""Turns: the rounds of executions that are warm here, each with what has just ended here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rowtine.core import eager
from rowtine.core.exchange import Input, Output
from rowtine.core.steps import Running
from rowtine.functions import Function
from rowtine.store import rounds as claims
from rowtine.store.committing import Round
from rowtine.store.loading import Execution, Rows
from rowtine.store.outcomes import Outcome
from rowtine.worker.ends import Spawn
from rowtine.worker.gateway import Gateway
from rowtine.worker.handoff import End, Handoff, Turn, round_input, taken
from rowtine.worker.held import Held
from rowtine.worker.reader import Lost, Reader
from rowtine.worker.rounds import Rounds, Setup
from rowtine.worker.warm import Kept, drop

__all__ = ["Turns"]


class Turns:
    """Runs the turns that a hand-off makes."""

    def __init__(
        self,
        setup: Setup,
        gateway: Gateway,
        held: Held,
        handoff: Handoff,
        rounds: Rounds,
        spawn: Spawn,
    ) -> None:
        self._setup = setup
        self._gateway = gateway
        self._held = held
        self._handoff = handoff
        self._rounds = rounds
        self._spawn = spawn

    def begin(self, turn: Turn) -> None:
        self._spawn(turn.kept.execution.id, self._take(turn))

    async def _take(self, turn: Turn | None) -> None:
        """Take a turn, and those that follow: as long as the calls that a round makes end at once,
        a task is made once."""
        entered: Execution | None = None
        while turn is not None:
            execution = turn.kept.execution
            if execution is not entered:
                entered = execution
                self._rounds.enter(execution)
            try:
                with suppress(Lost):
                    await self._take_one(turn.kept, turn.ends)
            except asyncio.CancelledError:
                # For ever: what it has claimed is given back.
                self._over(turn, self._handoff.takes_long)
                raise
            except BaseException:
                if (turn := self._over(turn, self._handoff.over)) is not None:
                    self.begin(turn)
                raise
            turn = self._over(turn, self._handoff.over)

    def _over(self, turn: Turn, after: Callable[[str], Turn | None]) -> Turn | None:
        for end in turn.ends:
            end.written(None)
        return after(turn.kept.execution.id)

    async def _take_one(self, kept: Kept, ends: Sequence[End]) -> None:
        execution = kept.execution
        execution.now = self._gateway.now(execution.now)
        function = self._setup.registry.function(execution.function)
        input = round_input(kept, ends, execution.now)
        first = self._rounds.resume(function, execution, input)
        given: Mapping[int, Outcome | Round] = taken(ends)
        if isinstance(first, tuple):
            output, seconds = first
        else:
            output, seconds, given = await self._run(kept, ends, function, input, first)
        if await self._rounds.end(execution, function, output, seconds, kept, given):
            for end in ends:
                end.written(True)

    async def _run(
        self,
        kept: Kept,
        ends: Sequence[End],
        function: Function[..., Any],
        input: Input,
        first: Running | None,
    ) -> tuple[Output, float, Mapping[int, Outcome | Round]]:
        """Run a round that takes more than the step of one body, of which `first` may be the
        first; with what of its ends is to be written with it."""
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
