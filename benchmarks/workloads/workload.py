"""What a workload is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.databases import POSTGRESQL

Case = Mapping[str, int]
"""The sizes of one measurement, by the words for what is counted."""

Figures = Mapping[str, float]
"""What one run came to, by the keys of the workload's figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    key: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """`measure(engine, url, case)` is called in a process of its own, on an empty database."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    """The first is the one that engines are compared by."""
    engines: tuple[str, ...]
    measure: Callable[[str, str, Case], Figures]
    quick: tuple[Case, ...]
    full: tuple[Case, ...]
    once: tuple[Case, ...] = ()
    """More cases of a full run, which take so long that its first round alone goes through them."""
    compared: bool = True
    """Whether the first figure of one engine by that of another says anything."""
    sqlite: tuple[str, ...] = ()
    """Those of the engines that are measured on SQLite too."""

    def cases(self, full: bool) -> tuple[Case, ...]:
        return (*self.full, *self.once) if full else self.quick

    def engines_on(self, database: str) -> tuple[str, ...]:
        return self.engines if database == POSTGRESQL else self.sqlite


def median_and_p99(seconds: Iterable[float]) -> tuple[float, float]:
    """In milliseconds."""
    ordered = sorted(1000 * each for each in seconds)
    return median(ordered), ordered[int(len(ordered) * 0.99)]


SINGULAR = {"processes": "process"}


def in_words(case: Case) -> str:
    return ", ".join(
        f"{value:,} {name if value != 1 else SINGULAR.get(name, name.removesuffix('s'))}"
        for name, value in case.items()
    )
