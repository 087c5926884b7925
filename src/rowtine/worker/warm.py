"""The frames that a worker keeps between two rounds of an execution: a bounded LRU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from rowtine.core.coroutine import Slot

__all__ = ["Warm"]


Stand = tuple[int, int]
"""The run and the round after which frames were kept: rounds begin anew with each run."""


@dataclass(frozen=True, slots=True)
class _Kept:
    stand: Stand
    slots: Mapping[int, Slot]


class Warm:
    """Keeps the frames of up to `limit` suspended executions; dropping one runs no user code.

    Frames are valid for the run and round after which they were kept, and belong to whoever takes
    them: a round that loses its commit drops them, and the next one rebuilds.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, execution_id: str) -> tuple[Stand | None, Mapping[int, Slot]]:
        """Where an execution stood and its frames: (None, {}) if none are kept."""
        kept = self._kept.pop(execution_id, None)
        return (None, {}) if kept is None else (kept.stand, kept.slots)

    def keep(self, execution_id: str, stand: Stand, slots: Mapping[int, Slot]) -> None:
        """Keep frames; the execution used longest ago makes room."""
        warm = {id: slot for id, slot in slots.items() if slot.warm}
        if self._limit == 0:
            drop(warm)
            return
        self._kept[execution_id] = _Kept(stand, warm)
        while len(self._kept) > self._limit:
            _, oldest = self._kept.popitem(last=False)
            drop(oldest.slots)

    def clear(self) -> None:
        """Drop everything."""
        while self._kept:
            _, kept = self._kept.popitem()
            drop(kept.slots)


def drop(slots: Mapping[int, Slot]) -> None:
    """Let go of frames without running any of their code."""
    for slot in slots.values():
        slot.drop()
