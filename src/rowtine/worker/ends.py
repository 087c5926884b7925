"""The ends of calls on their way to the database: handed to their callers, or written alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from rowtine.core.exchange import Exit
from rowtine.core.payload import Codec
from rowtine.probes import Probe
from rowtine.store import RejectedError
from rowtine.store.calls import Seat
from rowtine.store.committing import Round
from rowtine.store.outcomes import Outcome, settled
from rowtine.worker.committer import NOT_WRITTEN, Written
from rowtine.worker.gateway import Gateway
from rowtine.worker.handoff import End, Handoff
from rowtine.worker.held import Held
from rowtine.worker.policy import failure

__all__ = ["Ends", "Spawn"]

Spawn = Callable[[str, Coroutine[Any, Any, None]], None]
"""Runs what goes on with a call or an execution, as a task."""

log = logging.getLogger("rowtine")


class Ends:
    """Brings outcomes and last rounds into the database. `written` is told the ids of the calls
    whose outcome is there."""

    def __init__(
        self,
        gateway: Gateway,
        handoff: Handoff,
        held: Held,
        codec: Codec,
        probe: Probe,
        spawn: Spawn,
        written: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._handoff = handoff
        self._held = held
        self._codec = codec
        self._probe = probe
        self._spawn = spawn
        self._is_written = written

    def record(self, outcome: Outcome, seat: Seat | None) -> None:
        """Write an outcome, with the next round of its caller if that is warm here."""
        if self._handoff.offer(outcome, outcome, seat, self._told) is None:
            written = self._gateway.commit(outcome)
            written.add_done_callback(lambda written: self._answered(outcome, written))

    async def record_last(self, round: Round, outcome: Outcome) -> bool:
        """Write the last round of an execution, likewise; whether its fence held."""
        told: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()

        def tell(_: End, written: bool | None) -> None:
            if not told.done():
                told.set_result(written)

        end = self._handoff.offer(round, outcome, round.execution.seat, tell)
        if end is None:
            held = (await self.commit(round)).held
        else:
            held = False
            try:
                written = await told
                held = (await self.commit(round)).held if written is None else written
            finally:
                end.recorded(held)
        if held:
            self._probe("committed", outcome.id)
            self._is_written(outcome.id)
        return held

    async def commit(self, item: Round | Outcome) -> Written:
        """Commit; what the database will not take becomes the error of its call."""
        try:
            return await self._gateway.commit(item)
        except RejectedError as error:
            return await self._refused(item, error)

    # -- outcomes

    def _answered(self, outcome: Outcome, written: asyncio.Future[Written]) -> None:
        if written.cancelled():
            return  # the loop ends
        if isinstance(error := written.exception(), Exception):
            self._spawn(outcome.id, self._record_refused(outcome, error))
        else:
            self._recorded(outcome.id, written.result().held)

    async def _record_refused(self, outcome: Outcome, error: Exception) -> None:
        if not isinstance(error, RejectedError):
            raise error
        self._recorded(outcome.id, (await self._refused(outcome, error)).held)

    def _told(self, end: End, written: bool | None) -> None:
        """An outcome was written with the round of its caller; or it was not, and is alone."""
        if written is None:
            self._spawn(end.outcome.id, self._record_alone(end))
        else:
            self._recorded(end.outcome.id, written)

    async def _record_alone(self, end: End) -> None:
        held = False
        try:
            held = (await self.commit(end.outcome)).held
        finally:
            end.recorded(held)
        self._recorded(end.outcome.id, held)

    def _recorded(self, id: str, held: bool) -> None:
        if held:
            self._probe("recorded", id)
        else:
            log.warning("%s: the outcome came too late, the call is no longer ours", id)
        self._held.release([id])
        self._is_written(id)

    async def _refused(self, item: Round | Outcome, error: RejectedError) -> Written:
        if isinstance(item, Round) and item.taken:
            return NOT_WRITTEN  # each part by itself: then it shows which one it is
        log.error("the database refused what a call came to", exc_info=error)
        refused = settled(failure(error, self._codec), self._codec)
        if isinstance(item, Outcome):
            return await self._gateway.commit(replace(item, settled=refused))
        execution = item.execution
        outcome = Outcome(execution.id, None, execution.caller_id, refused)
        over = Exit(failure(error, self._codec))
        return await self._gateway.commit(Round(execution, over, outcome))
