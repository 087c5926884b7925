"""Who is here: the coroutines of one execution that a round has in memory, and how it gets at the
others. A partial state leaves out what a round hardly ever needs, and what it turns out to need is
asked for, at most once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rowtine.core.futures import CallFuture
from rowtine.core.phases import Kind
from rowtine.core.results import CoroutineResult
from rowtine.core.state import Coroutine, Loader, State
from rowtine.core.steps import Running

__all__ = ["Present"]


class Present:
    """The coroutines that a round knows of. The state that it was given stays as it is."""

    def __init__(self, state: State, loader: Loader | None) -> None:
        self.suspended = state.suspended
        self.loader = loader
        self.absent = loader
        """Who knows the coroutines that are not here; None when all are."""
        self.running: dict[int, Running] = {}
        self.stepping: set[int] = set()
        """Coroutines whose last step is being worked in: neither running nor suspended."""
        self.gone: set[int] = set()
        """Coroutines that ended in this round: the rows still show them as suspended."""
        self.owned: dict[int, Coroutine] = {}
        """The round's own copies, which it may change."""
        self.callers = state.callers
        """Who waits for each call, as far as it is known."""
        self.sought_callers = False
        self.tasks = state.ended
        self.counted: set[int] = set()
        """Coroutines whose counters were asked for."""
        self.watching: dict[int, set[int]] | None = None
        """Who may wait for a task, by its id; under no id those that wait for the next of several.
        None until somebody asks. Whoever waits for something else by now is still there."""
        self.watched: set[int] = set()
        """Coroutines whose waiters were asked for."""
        self.sought: set[int] = set()
        self.earlier: dict[int, CoroutineResult] = {}
        """Tasks that were asked for, and what those came to that had ended."""

    def caller(self, call_id: int) -> Coroutine | None:
        """Who waits for a call."""
        if call_id not in self.callers and not self.sought_callers:
            self.sought_callers = True
            self.callers.update(_callers(self.suspended))
        coroutine = self.suspended.get(self.callers.get(call_id, -1))
        if coroutine is None or not isinstance(coroutine.result, CallFuture):
            return None
        return coroutine if coroutine.result.call_id == call_id else None

    def own(self, coroutine: Coroutine) -> Coroutine:
        """This round's own copy of a coroutine and its future; the given state stays as it is."""
        if (mine := self.owned.get(coroutine.id)) is not None:
            return mine
        mine = self.owned[coroutine.id] = coroutine.copied()
        if coroutine.id in self.suspended:
            self.suspended[coroutine.id] = mine
        return mine

    async def whole(self, id: int) -> Coroutine | None:
        """A suspended coroutine, whole."""
        here = self.suspended.get(id)
        whole = here is not None and (here.coroutine is not None or here.kind is not Kind.COROUTINE)
        if whole or id in self.gone or self.absent is None:
            return here
        for coroutine in await self.absent.coroutines([id]):
            self.admit(coroutine)
        return self.suspended.get(id)

    def admit(self, coroutine: Coroutine) -> None:
        """Take a loaded coroutine in; what this round already knows of it is newer."""
        if coroutine.id in self.gone or coroutine.id in self.running:
            return
        if coroutine.id in self.stepping:
            return
        here = self.suspended.get(coroutine.id)
        if here is None:
            self.suspended[coroutine.id] = coroutine
            self.watch(coroutine)
        elif here.coroutine is None and coroutine.coroutine is not None:
            mine = self.own(here)
            mine.coroutine, mine.wait = coroutine.coroutine, coroutine.wait

    async def parent(self, child: Coroutine) -> Coroutine | None:
        """The parent of a child, if it is suspended: at least the counter of its join."""
        if child.parent_id is None:
            return None
        id = child.parent_id
        here = self.suspended.get(id)
        known = here is not None or id in self.gone or id in self.owned or id in self.counted
        if self.absent is not None and not known:
            self.counted.add(id)
            for coroutine in await self.absent.counters([id]):
                self.admit(coroutine)
        return self.suspended.get(id)

    async def results(self, parent: Coroutine) -> Sequence[CoroutineResult]:
        """What the members of a join came to in earlier rounds."""
        return () if self.loader is None else await self.loader.results(parent)

    async def members(self, parent: Coroutine, opened: bool) -> list[Coroutine]:
        """The members of a join that have not ended, whole, in order of declaration. Those of one
        that was `opened` in this round are all here."""
        if self.absent is not None and not opened:
            for coroutine in await self.absent.coroutines(parent.members):
                self.admit(coroutine)
        return [each for id in parent.members if (each := self.find(id)) is not None]

    async def load_all(self) -> None:
        """Everybody who has not ended."""
        if self.absent is not None:
            for coroutine in await self.absent.coroutines(None):
                self.admit(coroutine)
            self.absent = None

    def open(self) -> list[Coroutine]:
        """All that have not ended, parents before their children."""
        running = [running.coroutine for running in self.running.values()]
        return sorted((*self.suspended.values(), *running), key=lambda each: each.id)

    def find(self, id: int) -> Coroutine | None:
        """A coroutine that is here and has not ended."""
        running = self.running.get(id)
        return self.suspended.get(id) if running is None else running.coroutine

    async def among(self, ids: Sequence[int]) -> list[Coroutine]:
        """The coroutines among these that have not ended, whole, in order of their ids."""
        if self.absent is not None and not all(id in self.owned for id in ids):
            for coroutine in await self.absent.coroutines(ids):
                self.admit(coroutine)
        return [each for id in ids if (each := self.find(id)) is not None]

    async def ended(self, tasks: Sequence[int]) -> CoroutineResult | None:
        """What the first of these tasks that ended came to; None if none has."""
        unknown = [id for id in tasks if id not in self.owned and id not in self.sought]
        if unknown and self.loader is not None:
            self.sought.update(unknown)
            for result in await self.loader.ended_among(unknown):
                self.earlier[result.coroutine_id] = result
        for results in (self.earlier, self.tasks):
            if len(tasks) == 1:
                first = tasks[0] if tasks[0] in results else None
            else:
                asked = set(tasks)
                first = next((id for id in results if id in asked), None)
            if first is not None:
                return results[first]
        return None

    async def waiters(self, id: int) -> list[Coroutine]:
        """Those that wait for a coroutine as a task."""
        if self.absent is not None and id not in self.watched:
            # All that have arrived are asked about at once.
            ids = {id, *_callers(self.suspended).values()} - self.watched
            self.watched |= ids
            for coroutine in await self.absent.waiters(sorted(ids)):
                self.admit(coroutine)
        if self.watching is None:
            self.watching = {}
            for each in self.suspended.values():
                self.watch(each)
        may_wait = self.watching.get(id, set()) | self.watching.get(_SEVERAL, set())
        if len(may_wait) > 1:  # in the order in which they were suspended
            found = [each for each in self.suspended.values() if each.id in may_wait]
        else:
            found = [self.suspended[each] for each in may_wait if each in self.suspended]
        return [each for each in found if _waits_for_task(each) and id in each.members]

    def watch(self, coroutine: Coroutine) -> None:
        """Note whom a coroutine waits for, if that is a task: most that end are nobody's, and to
        look through everybody at the end of each would take as long as there are."""
        if self.watching is not None and _waits_for_task(coroutine):
            members = coroutine.members
            task = members.start if len(members) == 1 else _SEVERAL
            self.watching.setdefault(task, set()).add(coroutine.id)


_SEVERAL = -1


def _waits_for_task(coroutine: Coroutine) -> bool:
    return coroutine.wait is not None and coroutine.wait.kind is Kind.TASK


def _callers(suspended: Mapping[int, Coroutine]) -> dict[int, int]:
    return {
        coroutine.result.call_id: coroutine.id
        for coroutine in suspended.values()
        if isinstance(coroutine.result, CallFuture) and coroutine.result.call_id is not None
    }
