"""The figures as pictures: one message each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.databases import POSTGRESQL
from benchmarks.results import Report, Result
from benchmarks.tables import OWN, number
from benchmarks.workloads import WORKLOADS

OWN_COLOUR, COLOUR, BOUND_COLOUR, INK = "#0969da", "#8c959f", "#d8dee4", "#1f2328"
BOUNDS = ("floor", "pgbench")
"""No engines: what the server itself does."""

COMPARED = (
    "ten-steps",
    "one-step",
    "jobs",
    "chain",
    "fan-out",
    "job-latency",
    "workflow-latency",
    "crash",
)

Draw = Callable[[Any, list[Result]], None]


def draw(report: Report, directory: Path) -> dict[str, Path]:
    """Write a picture for each workload that has one and was measured; they are returned by it."""
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rowtine", "text.color": INK})
    drawers: dict[str, Draw] = {
        **{name: _bars(name) for name in COMPARED},
        "flat-rounds": _flat_rounds,
        "drain": _drain,
        "churn": _churn,
    }
    written = {}
    for name, draw_one in drawers.items():
        results = [
            each for each in report.of(name) if each.database == POSTGRESQL and any(each.runs)
        ]
        if results:
            written[name] = directory / f"performance-{name}.svg"
            _write(written[name], WORKLOADS[name].title, draw_one, results)
    return written


def _write(path: Path, title: str, draw_one: Draw, results: list[Result]) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.45 * max(5, len(results)) + 1), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    draw_one(axes, results)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _bars(name: str) -> Draw:
    """One bar for each engine, the best on top, with a line from the minimum to the maximum."""
    measured = WORKLOADS[name].figures[0]

    def draw_bars(axes: Any, results: list[Result]) -> None:
        found = [(each.engine, spread) for each in results if (spread := each.spread(measured.key))]
        found.sort(key=lambda pair: pair[1].median, reverse=not measured.more_is_better)
        names = [engine for engine, _ in found]
        medians = [spread.median for _, spread in found]
        beyond = [
            [spread.median - spread.least for _, spread in found],
            [spread.most - spread.median for _, spread in found],
        ]
        axes.barh(names, medians, xerr=beyond, color=list(map(_colour, names)), ecolor=INK)
        for position, (_, spread) in enumerate(found):
            axes.annotate(
                number(spread.median), (spread.most, position), (6, 0), va="center",
                textcoords="offset points",
            )  # fmt: skip
        axes.margins(x=0.12)
        axes.set_xlabel(
            f"{measured.unit} ({'more' if measured.more_is_better else 'less'} is better)"
        )

    return draw_bars


def _colour(engine: str) -> str:
    if engine in BOUNDS:
        return BOUND_COLOUR
    return OWN_COLOUR if engine.startswith(OWN) else COLOUR


def _flat_rounds(axes: Any, results: list[Result]) -> None:
    counts = [result.case["children"] for result in results]
    for key, label in (("warm", "in memory"), ("cold", "rebuilt")):
        axes.plot(counts, _medians(results, key), marker="o", label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("suspended children")
    axes.set_ylabel("ms of CPU for a round")
    axes.legend(frameon=False)


def _drain(axes: Any, results: list[Result]) -> None:
    for result in results:
        rates = [_medians([result], f"tenth-{tenth}")[0] for tenth in range(1, 11)]
        axes.plot(range(10, 101, 10), rates, marker="o", label=f"{result.case['calls']:,} calls")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("% of the queue")
    axes.set_ylabel("calls/s")
    axes.legend(frameon=False)


def _churn(axes: Any, results: list[Result]) -> None:
    result = results[-1]
    keys = sorted((key for key in result.runs[0] if key.startswith("mb-")), key=_sample)
    sizes = [_medians([result], key)[0] for key in keys]
    step = result.case["seconds"] / max(1, len(sizes) - 1)
    axes.plot([step * position for position in range(len(sizes))], sizes, color=OWN_COLOUR)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB of tables and indexes")


def _sample(key: str) -> int:
    return int(key.rpartition("-")[2])


def _medians(results: Sequence[Result], key: str) -> list[float]:
    return [spread.median if (spread := each.spread(key)) else math.nan for each in results]
