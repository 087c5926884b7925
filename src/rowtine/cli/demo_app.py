"""The durable half of `rowtine demo`: index a source tree, one call for each file.

Nothing here knows of processes that die. `index` is an ordinary async function; every `await` in
it is a row, and so is each of the calls that it gathers.
"""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rowtine

# A short lease, so that one sees what a dead worker held being taken over. And rounds in groups: a
# gather of two thousand need not look at each result by itself.
app = rowtine.App(lease=2, poll_min_results=50)

MOST_FILES = 10_000
"""More would make the list of all counts, which is one value, too large for one row."""

SKIPPED = {"__pycache__", "node_modules", "site-packages"}


@dataclass(frozen=True)
class Counts:
    """What is in one source file, or in many."""

    files: int = 0
    unparsed: int = 0
    lines: int = 0
    definitions: int = 0
    imports: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.files + other.files,
            self.unparsed + other.unparsed,
            self.lines + other.lines,
            self.definitions + other.definitions,
            self.imports + other.imports,
        )


@app.function(name="demo.index")
async def index(directory: str) -> Counts:
    files = await find_files(directory)
    counts = await rowtine.gather(*[count(directory, file) for file in files])
    return await merge(counts)


@app.function(name="demo.find_files")
def find_files(directory: str) -> list[str]:
    found: list[str] = []
    for parent, directories, files in os.walk(directory):
        directories[:] = [d for d in sorted(directories) if d not in SKIPPED and d[0] != "."]
        found += [str(Path(parent, file)) for file in sorted(files) if file.endswith(".py")]
    return [str(Path(file).relative_to(directory)) for file in found[:MOST_FILES]]


@app.function(name="demo.count")
def count(directory: str, file: str) -> Counts:
    try:
        source = Path(directory, file).read_bytes()
        with _one_at_a_time:
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return Counts(files=1, unparsed=1)
    statements = list(_statements(module))
    return Counts(
        files=1,
        lines=len(source.splitlines()),
        definitions=sum(isinstance(s, DEFINITIONS) for s in statements),
        imports=sum(isinstance(s, ast.Import | ast.ImportFrom) for s in statements),
    )


@app.function(name="demo.merge")
def merge(counts: list[Counts]) -> Counts:
    return sum(counts, Counts())


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_one_at_a_time = threading.Lock()
"""CPython counts how deep its parser is for all threads together, and raises a SystemError when one
thread comes in the middle of another (seen with 3.11, once in some thousand files)."""


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement of a module, however deep. (`ast.walk` would go into expressions as well.)"""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from _statements(child)
