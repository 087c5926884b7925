"""What a worker holds: calls that it runs, and executions whose round it runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

__all__ = ["Held", "Snapshot", "lost_of"]


class Snapshot(NamedTuple):
    """What was held at one moment, for another thread."""

    calls: dict[str, int]
    rounds: frozenset[str]
    unsettled: frozenset[str]
    """Those of `calls` that come or go with a commit which is on its way."""


class Held:
    """Read by the threads of the heartbeat and of the database; changed by the loop alone."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.calls: dict[str, int] = {}
        """id -> the claim that this worker has."""
        self.rounds: set[str] = set()
        """Executions of which the database says that this worker runs a round."""
        self.committing: set[str] = set()
        """Those of `calls` that have ended: they are on their way to a commit, or have been
        committed and the loop has not heard of it."""
        self.coming: set[str] = set()
        """Those of `calls` that are not in the database before the commit that makes them."""
        self.abandoned = 0
        """Threads whose call has timed out and that have not ended yet."""

    def room(self) -> int:
        """How many more calls fit. An abandoned one (a timed-out thread) still takes its place."""
        taken = len(self.calls) - len(self.committing) + self.abandoned
        return max(0, self.concurrency - taken)

    def room_for_rounds(self) -> int:
        """Rounds have places of their own: calls that take long must not hold up their callers."""
        return max(0, self.concurrency - len(self.rounds))

    def take(self, ids: Collection[str]) -> None:
        """New calls that begin with the commit that makes them. From before that: a claim must
        know them as ours."""
        for id in ids:
            self.calls[id] = 1
            self.coming.add(id)

    def release(self, *ids: str) -> None:
        """Calls that are no longer ours."""
        for id in ids:
            self.calls.pop(id, None)
            self.committing.discard(id)
            self.coming.discard(id)

    def snapshot(self) -> Snapshot:
        """A copy. The interpreter makes each in one piece, whatever the loop does meanwhile."""
        unsettled = frozenset(self.committing) | frozenset(self.coming)
        return Snapshot(dict(self.calls), frozenset(self.rounds), unsettled)


def lost_of(held: Snapshot, mine: Collection[str], now: Snapshot) -> set[str]:
    """Those of the calls that were `held` which others have taken, if only `mine` of them are left.
    What has ended meanwhile, or is on its way to a commit, is not lost."""
    return {
        id
        for id in held.calls.keys() - set(mine)
        if now.calls.get(id) == held.calls[id] and id not in held.unsettled | now.unsettled
    }
