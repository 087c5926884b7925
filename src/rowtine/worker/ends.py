"""The ends of calls on their way to the database: handed to their callers, or written alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from msgspec.structs import replace

from rowtine.core.exchange import Exit
from rowtine.core.payload import Codec
from rowtine.probes import Probe
from rowtine.store import RejectedError
from rowtine.store.calls import Seat
from rowtine.store.committing import Round
from rowtine.store.outcomes import Outcome, settled
from rowtine.worker.committer import NOTHING_WRITTEN, Failed, Heard
from rowtine.worker.gateway import Gateway
from rowtine.worker.handoff import End, Handoff
from rowtine.worker.held import Held
from rowtine.worker.policy import failure

__all__ = ["Broken", "Ends", "Spawn", "Then"]

Spawn = Callable[[str, Coroutine[Any, Any, None]], None]
"""Runs what goes on with a call or an execution, as a task."""

Broken = Callable[[str, BaseException], None]
"""Is told that a call or an execution cannot be run here, and why."""

Then = Callable[[bool | Exception], None]
"""Is told whether the fence of a round held, or why it could not be written."""

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
        broken: Broken,
        written: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._handoff = handoff
        self._held = held
        self._codec = codec
        self._probe = probe
        self._broken = broken
        self._is_written = written

    def record(self, outcome: Outcome, seat: Seat | None) -> None:
        """Write an outcome, with the next round of its caller if that is warm here."""
        if self._handoff.offer(outcome, outcome, seat, self._told) is None:
            self._commit_alone(outcome, partial(self._recorded, outcome.id))

    def record_last(self, round: Round, outcome: Outcome, then: Then) -> None:
        """Write the last round of an execution, likewise."""

        def over(held: bool | Exception) -> None:
            if held is True:
                self._probe("committed", outcome.id)
                self._is_written(outcome.id)
            then(held)

        def told(end: End, written: bool | None) -> None:
            if written is None:
                self._commit_alone(round, over, end)
            else:
                over(written)

        if self._handoff.offer(round, outcome, round.execution.seat, told) is None:
            self._commit_alone(round, over)

    def commit(self, item: Round | Outcome, heard: Heard, failed: Failed) -> None:
        """Commit; what the database will not take becomes the error of its call."""
        self._gateway.commit(item, heard, partial(self._refused, item, heard, failed))

    def _commit_alone(self, item: Round | Outcome, then: Then, end: End | None = None) -> None:
        """Commit what no round takes along. Who has refused it as an `end` waits for what came of
        it too."""

        def told(held: bool | Exception) -> None:
            if end is not None:
                end.recorded(held is True)
            then(held)

        self.commit(item, lambda held, _: told(held), told)

    # -- outcomes

    def _told(self, end: End, written: bool | None) -> None:
        """An outcome was written with the round of its caller; or it was not, and is alone."""
        id = end.outcome.id
        if written is None:
            self._commit_alone(end.outcome, partial(self._recorded, id), end)
        else:
            self._recorded(id, written)

    def _recorded(self, id: str, held: bool | Exception) -> None:
        if isinstance(held, Exception):
            self._broken(id, held)
            return
        if held:
            self._probe("recorded", id)
        else:
            log.warning("%s: the outcome came too late, the call is no longer ours", id)
        self._held.release(id)
        self._is_written(id)

    def _refused(
        self, item: Round | Outcome, heard: Heard, failed: Failed, error: Exception
    ) -> None:
        if not isinstance(error, RejectedError):
            failed(error)
            return
        if isinstance(item, Round) and item.taken:
            # Each part by itself: then it shows which one it is.
            heard(False, NOTHING_WRITTEN)
            return
        log.error("the database refused what a call came to", exc_info=error)
        refused = settled(failure(error, self._codec), self._codec)
        instead: Round | Outcome
        if isinstance(item, Outcome):
            instead = replace(item, settled=refused)
        else:
            execution = item.execution
            outcome = Outcome(execution.id, None, execution.caller_id, refused)
            instead = Round(execution, Exit(failure(error, self._codec)), outcome)
        self._gateway.commit(instead, heard, failed)
