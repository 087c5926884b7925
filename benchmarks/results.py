"""The figures as values: what `--json` writes and reports are made from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.workloads.workload import Case, Figures


class Spread(NamedTuple):
    median: float
    least: float
    most: float


@dataclass(slots=True)
class Result:
    """All runs of one engine at one case of a workload."""

    workload: str
    case: Case
    database: str
    engine: str
    runs: list[Figures] = field(default_factory=list)
    """One for each round, and one without figures for each that failed."""
    errors: list[str] = field(default_factory=list)
    """The end of what was written to stderr by each run that failed."""

    def spread(self, figure: str) -> Spread | None:
        return _spread([run[figure] for run in self.runs if figure in run])

    def ratio_to(self, other: Result, figure: str) -> Spread | None:
        """This by the other, round by round: what else the machine did, it did to both."""
        return _spread(
            [
                mine[figure] / its[figure]
                for mine, its in zip(self.runs, other.runs, strict=False)
                if figure in mine and its.get(figure)
            ]
        )


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


@dataclass(slots=True)
class Report:
    """One call of the command."""

    machine: dict[str, Any]
    versions: dict[str, str]
    """Of every engine, and of what they stand on."""
    servers: dict[str, dict[str, str]]
    """The settings of each database."""
    repeats: int
    absent: dict[str, str] = field(default_factory=dict)
    """Why an engine was not measured."""
    results: list[Result] = field(default_factory=list)

    def of(self, workload: str) -> Iterator[Result]:
        return (result for result in self.results if result.workload == workload)

    def find(self, workload: str, case: Case, database: str, engine: str) -> Result:
        """The result of these, an empty one if there is none yet."""
        for result in self.of(workload):
            if (result.case, result.database, result.engine) == (case, database, engine):
                return result
        self.results.append(Result(workload, case, database, engine))
        return self.results[-1]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def merged(reports: Sequence[Report]) -> Report:
    """The figures of several calls of the command, of which the first says where it was."""
    first, *others = reports
    for other in others:
        first.results += other.results
        first.versions |= other.versions
        first.servers |= other.servers
        first.absent |= other.absent
    return first


def read(path: Path) -> Report:
    stored = json.loads(path.read_text())
    results = [Result(**result) for result in stored.pop("results")]
    return Report(**stored, results=results)
