"""Rounds: every workload with every engine in turn, as often as asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.databases import empty_database
from benchmarks.results import Report
from benchmarks.workloads.workload import Case, Figures, Workload, in_words

LIMIT, LONG = 300, 3600
"""Seconds that a run may take, and one of those that are made once, or of a size asked for."""

LAST_WORDS = 2000
"""Characters that are kept of what a run that failed has written."""


class FailedRunError(Exception):
    """The process of a run ended with something else than figures."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement."""

    workload: Workload
    case: Case
    database: str
    engine: str
    once: bool = False
    """Whether the first round alone goes through it, because it takes long."""
    seconds: int = LIMIT
    """How long it may take."""

    def __str__(self) -> str:
        return f"{self.workload.name} ({in_words(self.case)}): {self.engine}, {self.database}"


def plans(
    workloads: Sequence[Workload],
    databases: Sequence[str],
    engines: frozenset[str],
    full: bool,
    given: Case | None = None,
) -> list[Plan]:
    """One round: engines next to each other, so that they share what else the machine does. A case
    that is given stands for those that a workload has."""
    return [
        _plan(workload, case, database, engine, asked_for=given is not None)
        for workload in workloads
        for case in ([given] if given else workload.cases(full))
        for database in databases
        for engine in workload.engines_on(database)
        if engine in engines
    ]


def _plan(workload: Workload, case: Case, database: str, engine: str, *, asked_for: bool) -> Plan:
    once = case in workload.once
    return Plan(workload, case, database, engine, once, LONG if once or asked_for else LIMIT)


def measure(
    report: Report,
    round: Sequence[Plan],
    urls: Mapping[str, str],
    tell: Callable[[str], None],
) -> None:
    """Go through the rounds, and add what they come to."""
    for number, plan in _repeated(round, report.repeats):
        tell(f"round {number}: {plan}")
        result = report.find(plan.workload.name, plan.case, plan.database, plan.engine)
        try:
            result.runs.append(_run(plan, urls[plan.database]))
        except FailedRunError as error:
            result.runs.append({})
            result.errors.append(str(error))
            tell(f"round {number}: {plan} FAILED: {str(error).splitlines()[-1]}")


def _repeated(round: Sequence[Plan], repeats: int) -> Iterator[tuple[int, Plan]]:
    return (
        (number, plan)
        for number in range(1, repeats + 1)
        for plan in round
        if number == 1 or not plan.once
    )


def _run(plan: Plan, server: str) -> Figures:
    with empty_database(server) as url:
        arguments = [plan.workload.name, plan.engine, url, json.dumps(plan.case)]
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, complaints = child.communicate(timeout=plan.seconds)
        except subprocess.TimeoutExpired:
            raise FailedRunError(f"not done after {plan.seconds} s") from None
        finally:
            _end(child)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if child.returncode != 0 or not lines:
        last_words = complaints.strip()[-LAST_WORDS:]
        raise FailedRunError(last_words or f"ended with {child.returncode}, and said nothing")
    figures: Figures = json.loads(lines[-1])
    return figures


def _end(child: subprocess.Popen[str]) -> None:
    """With the workers and servers that it started: they are in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
