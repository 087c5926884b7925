"""Draws the pictures of docs/explanation: `python docs/pictures.py` writes them all.

What can move where is read from the tables in rowtine.core.phases; only places and words stand
here. A move without words, or words for a move that the table does not have, is a KeyError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import hypot
from pathlib import Path
from typing import Any

from rowtine.core.phases import CALL_MOVES, COROUTINE_MOVES, CoroutinePhase, Phase

PICTURES = Path(__file__).resolve().parent / "explanation" / "pictures"

Point = tuple[float, float]

INK, GREY, PAPER, FRAME = "#1f2328", "#57606a", "#ffffff", "#d0d7de"
FILLS = {"plain": "#f6f8fa", "live": "#ddf4ff", "rows": "#fff8c5", "over": "#dafbe1"}
LINE = 17
"""The height of a line of small text."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box around (x, y), with a name and smaller lines below it."""

    x: float
    y: float
    width: float
    height: float
    name: str
    lines: Sequence[str] = ()
    fill: str = "plain"
    dashed: bool = False

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    def overlaps(self, other: Box) -> bool:
        return (
            abs(self.x - other.x) < (self.width + other.width) / 2
            and abs(self.y - other.y) < (self.height + other.height) / 2
        )

    def svg(self) -> str:
        dash = ' stroke-dasharray="5 4"' if self.dashed else ""
        first = self.y + 5 - (len(self.lines) * LINE) / 2
        return "\n".join(
            [
                f'<rect x="{self.left:g}" y="{self.top:g}" width="{self.width:g}" '
                f'height="{self.height:g}" rx="8" fill="{FILLS[self.fill]}" stroke="{INK}"{dash}/>',
                _text(self.x, first, self.name, bold=True),
                *(
                    _text(self.x, first + LINE * n, line, small=True)
                    for n, line in enumerate(self.lines, 1)
                ),
            ]
        )


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line through points with a head at its end, and words around a point of their own."""

    points: Sequence[Point]
    words: Sequence[str]
    at: Point
    anchor: str = "middle"
    curved: bool = False
    dashed: bool = False

    def svg(self) -> str:
        (x, y), rest = self.points[0], self.points[1:]
        how = "C " if self.curved else "L "
        path = f"M {x:g} {y:g} {how}" + " ".join(f"{x:g} {y:g}" for x, y in rest)
        dash = ' stroke-dasharray="5 4"' if self.dashed else ""
        return "\n".join(
            [
                f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.3"{dash}/>',
                _head(self.points[-2], self.points[-1]),
                *(
                    _text(self.at[0], self.at[1] + LINE * n, line, small=True, anchor=self.anchor)
                    for n, line in enumerate(self.words)
                ),
            ]
        )


@dataclass(frozen=True, slots=True)
class Picture:
    width: float
    height: float
    title: str
    boxes: list[Box] = field(default_factory=list[Box])
    arrows: list[Arrow] = field(default_factory=list[Arrow])

    def svg(self) -> str:
        """The whole, on a white card, so that it can be read on any page."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" '
            f'height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif">',
            f"<title>{escape(self.title)}</title>",
            f'<rect x="0.5" y="0.5" width="{self.width - 1:g}" height="{self.height - 1:g}" '
            f'rx="10" fill="{PAPER}" stroke="{FRAME}"/>',
            *(arrow.svg() for arrow in self.arrows),
            *(box.svg() for box in self.boxes),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"


def _text(
    x: float,
    y: float,
    text: str,
    *,
    bold: bool = False,
    small: bool = False,
    anchor: str = "middle",
) -> str:
    size, ink = (12, GREY) if small else (15, INK)
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}"{weight} text-anchor="{anchor}" '
        f'fill="{ink}">{escape(text)}</text>'
    )


def _head(before: Point, end: Point) -> str:
    """The head of an arrow that comes from `before`. (Markers are not drawn everywhere.)"""
    (x, y), length, half = end, 9, 4
    away = hypot(x - before[0], y - before[1])
    dx, dy = (x - before[0]) / away, (y - before[1]) / away
    corners = [
        end,
        (x - length * dx - half * dy, y - length * dy + half * dx),
        (x - length * dx + half * dy, y - length * dy - half * dx),
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon points="{points}" fill="{INK}"/>'


def _moves(table: Mapping[Any, frozenset[Any]], drawn: Mapping[Any, Arrow]) -> list[Arrow]:
    """The arrow of each move of a table; KeyError for one too few or too many."""
    moves = {(start, end) for start, ends in table.items() for end in ends}
    if moves != drawn.keys():
        raise KeyError(moves ^ drawn.keys())
    return list(drawn.values())


# -------------------------------------------------------------------------------------- pictures


def calls() -> Picture:
    queued = Box(110, 150, 140, 56, "queued", ["waits for its time"])
    running = Box(430, 150, 140, 56, "running", ["a worker holds it"], "live")
    suspended = Box(750, 150, 140, 56, "suspended", ["is rows"], "rows")
    done = Box(430, 360, 140, 56, "done", ["has its outcome"], "over")
    boxes = {
        Phase.QUEUED: queued,
        Phase.RUNNING: running,
        Phase.SUSPENDED: suspended,
        Phase.DONE: done,
    }
    arrows = {
        (Phase.QUEUED, Phase.RUNNING): Arrow(
            [(queued.right, 138), (running.left, 138)], ["a worker claims it"], (270, 128)
        ),
        (Phase.RUNNING, Phase.QUEUED): Arrow(
            [(running.left, 164), (queued.right, 164)],
            ["a retry, a tail call,", "a lost lease, given back"],
            (270, 182),
        ),
        (Phase.RUNNING, Phase.SUSPENDED): Arrow(
            [(running.right, 150), (suspended.left, 150)], ["its first round", "awaits"], (590, 123)
        ),
        (Phase.SUSPENDED, Phase.QUEUED): Arrow(
            [(750, suspended.top), (700, 10), (160, 10), (110, queued.top)],
            ["a retry, or a tail call"],
            (430, 28),
            curved=True,
        ),
        (Phase.RUNNING, Phase.DONE): Arrow(
            [(430, running.bottom), (430, done.top)],
            ["returned, failed for good,", "or was cancelled"],
            (440, 238),
            anchor="start",
        ),
        (Phase.QUEUED, Phase.DONE): Arrow(
            [(110, queued.bottom), (110, 360), (done.left, 360)],
            ["a timer fires, a promise is", "answered, a signal comes,", "or it is cancelled"],
            (122, 302),
            anchor="start",
        ),
        (Phase.SUSPENDED, Phase.DONE): Arrow(
            [(750, suspended.bottom), (750, 360), (done.right, 360)],
            ["its last round is over,", "or it was terminated"],
            (738, 320),
            anchor="end",
        ),
    }
    placed = [boxes[phase] for phase in Phase]
    return Picture(860, 420, "Phases of a call", placed, _moves(CALL_MOVES, arrows))


def coroutines() -> Picture:
    suspended = Box(430, 170, 150, 56, "suspended", ["is rows"], "rows")
    done = Box(730, 170, 150, 56, "done", ["has its outcome"], "over")
    running = Box(130, 170, 150, 56, "running", ["inside a round"], "live", dashed=True)
    boxes = {CoroutinePhase.SUSPENDED: suspended, CoroutinePhase.DONE: done}
    arrows = {
        (CoroutinePhase.SUSPENDED, CoroutinePhase.DONE): Arrow(
            [(suspended.right, 170), (done.left, 170)],
            ["its last step", "has ended it"],
            (580, 143),
        ),
    }
    inside = [
        Arrow(
            [(running.right, 158), (suspended.left, 158)],
            ["it awaits durably"],
            (280, 148),
            dashed=True,
        ),
        Arrow(
            [(suspended.left, 184), (running.right, 184)],
            ["what it waits for", "has ended, or it is", "told to stop"],
            (280, 203),
            dashed=True,
        ),
        Arrow(
            [(130, running.top), (200, 40), (660, 40), (730, done.top)],
            ["returned or raised"],
            (430, 56),
            curved=True,
            dashed=True,
        ),
    ]
    placed = [*(boxes[phase] for phase in CoroutinePhase), running]
    moves = _moves(COROUTINE_MOVES, arrows)
    return Picture(860, 260, "Phases of a coroutine", placed, [*moves, *inside])


def flow() -> Picture:
    rows = Box(95, 110, 130, 110, "rows", ["states, calls,", "coroutines,", "futures"], "rows")
    given = Box(290, 110, 120, 110, "Input", ["State,", "results that", "have arrived"])
    run = Box(
        480, 110, 130, 110, "run", ["deliver, resume,", "until all wait", "or main is done"], "live"
    )
    output = Box(
        670, 110, 120, 110, "Output", ["Poll, Exit or", "Incompatible,", "and what changed"]
    )
    back = Box(865, 110, 130, 110, "rows", ["one transaction,", "or none"], "rows")
    arrows = [
        Arrow([(rows.right, 110), (given.left, 110)], ["load"], (195, 100)),
        Arrow([(given.right, 110), (run.left, 110)], [], (0, 0)),
        Arrow([(run.right, 110), (output.left, 110)], [], (0, 0)),
        Arrow([(output.right, 110), (back.left, 110)], ["commit"], (765, 100)),
        Arrow(
            [(865, back.bottom), (865, 220), (95, 220), (95, rows.bottom)],
            ["when results have arrived: the next round"],
            (480, 212),
        ),
    ]
    boxes = [rows, given, run, output, back]
    return Picture(960, 245, "A round: rows, Input, run, Output, rows", boxes, arrows)


DRAWN = {"calls.svg": calls, "coroutines.svg": coroutines, "flow.svg": flow}


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        (PICTURES / name).write_text(draw().svg())


if __name__ == "__main__":
    main()
