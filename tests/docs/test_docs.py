"""What the documentation shows, runs. The first words after a fence say what its block is:

- ``python``: part of the page's program. All of a page together are one file, which is run on
  SQLite and on PostgreSQL, with ROWTINE_DATABASE_URL set to a fresh, migrated database.
- ``output``: what that program has printed up to its end; all of a page together.
- ``python FILE``: a file for the commands of the page.
- ``sql``, ``sql sqlite``, ``sql postgresql``: a query, run after the page's program.
- ``console``: commands and what they print. All of a page are one shell session.
  ``console varies``: what they print differs from run to run; they must succeed.
  ``console not-run``: they cannot be run here.
- ``text``, ``markdown``: there is nothing to run.

(docs/reference/schema.md has tests of its own.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from databases import query

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted(
    page
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if page.name != "schema.md"
)


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    about: str
    line: int
    """Of its first line, counted from 0."""
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def blocks(page: Path) -> Iterator[Block]:
    opened: tuple[str, int] | None = None
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = line[3:].strip(), number + 1
        else:
            info, first = opened
            kind, _, about = info.partition(" ")
            yield Block(kind, about, first, lines[first:number])
            opened = None
    assert opened is None, f"{page} has a fence that is not closed"


def those(kind: str, *about: str) -> list[Path]:
    """The pages that have blocks of this sort."""
    found = [(page, block) for page in PAGES for block in blocks(page)]
    return sorted({page for page, b in found if b.kind == kind and b.about in (about or ("",))})


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_block_says_what_it_is(page: Path) -> None:
    known = {
        "python": {""},
        "output": {""},
        "sql": {"", "sqlite", "postgresql"},
        "console": {"", "varies", "not-run"},
        "text": {""},
        "markdown": {""},
    }
    for block in blocks(page):
        is_file = block.kind == "python" and block.about.endswith(".py")
        fits = is_file or block.about in known.get(block.kind, set())
        assert fits, f"{named(page)}:{block.line}: {block.kind} {block.about}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _links(page.read_text()):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), f"{named(page)} links to {target}"
        if anchor:
            assert anchor in _anchors(found), f"{named(page)} links to {target}"


def test_the_first_program_is_the_first_example() -> None:
    first = next(block for block in blocks(ROOT / "README.md") if block.kind == "python")

    assert (ROOT / "examples" / "checkout.py").read_text().endswith(f"\n{first.text}\n")


@pytest.mark.parametrize("page", those("python"), ids=named)
def test_the_code_of_a_page_runs(page: Path, database_url: str, tmp_path: Path) -> None:
    # At the line at which it stands in the page, for readable tracebacks.
    program = [""] * len(page.read_text().splitlines())
    printed: list[str] = []
    for block in blocks(page):
        if block.kind == "python" and not block.about:
            program[block.line : block.line + len(block.lines)] = block.lines
        if block.kind == "output":
            printed += block.lines
    (tmp_path / "page.py").write_text("\n".join(program) + "\n")

    ran = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env={**os.environ, "ROWTINE_DATABASE_URL": database_url},
        text=True,
        capture_output=True,
        check=False,
        timeout=200,
    )

    assert ran.returncode == 0, ran.stderr
    assert not printed or ran.stdout.splitlines() == printed
    for block in blocks(page):
        if block.kind == "sql" and (not block.about or database_url.startswith(block.about)):
            query(database_url, block.text)


@pytest.mark.slow
@pytest.mark.parametrize("page", those("console", "", "varies"), ids=named)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    commands: list[tuple[str, list[str] | None]] = []
    for block in blocks(page):
        if block.kind == "python" and block.about.endswith(".py"):
            (tmp_path / block.about).write_text(block.text + "\n")
        if block.kind == "console" and block.about != "not-run":
            commands += _commands(block)

    results = _session([command for command, _ in commands], tmp_path)

    for (command, printed), (status, output) in zip(commands, results, strict=True):
        assert status == 0, f"$ {command}\n" + "\n".join(output)
        if printed is not None:
            assert output == printed, f"$ {command}"


def _commands(block: Block) -> Iterator[tuple[str, list[str] | None]]:
    """Each command with what it prints: None where that varies."""
    found: list[tuple[str, list[str]]] = []
    for line in block.lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    for command, printed in found:
        yield command, None if block.about == "varies" else printed


_MARK = "@@@ "


def _session(commands: list[str], directory: Path) -> list[tuple[int, list[str]]]:
    """Run commands in one shell; of each its status and what it printed."""
    script = directory / "session.sh"
    marked = (f"{command}\necho '{_MARK}'$?" for command in commands)
    script.write_text("\n".join(marked) + "\n")
    tools = _tools(directory)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    # A session of its own, so that the workers it leaves behind can be ended with it.
    with subprocess.Popen(
        ["bash", script],
        cwd=directory,
        env={**environment, "COLUMNS": "120"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=250)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    results: list[tuple[int, list[str]]] = []
    output: list[str] = []
    for line in printed.splitlines():
        if line.startswith(_MARK):
            results.append((int(line.removeprefix(_MARK)), output))
            output = []
        else:
            output.append(line)
    return results


_SQLITE3 = """\
import sqlite3, sys
for row in sqlite3.connect(sys.argv[-2]).execute(sys.argv[-1]):
    print(*row, sep="|")
"""


def _tools(directory: Path) -> Path:
    """This rowtine as a command; and a plain `sqlite3` where there is none."""
    tools = directory / ".tools"
    tools.mkdir()
    command = f'#!/bin/sh\nexec "{sys.executable}" -m rowtine.cli "$@"\n'
    (tools / "rowtine").write_text(command)
    if shutil.which("sqlite3") is None:
        (tools / "sqlite3").write_text(f"#!{sys.executable}\n{_SQLITE3}")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return tools


def _prose(text: str) -> Iterator[str]:
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line


def _links(text: str) -> Iterator[str]:
    prose = "\n".join(_prose(text))
    for part in prose.split("](")[1:]:
        target = part.partition(")")[0]
        if not target.startswith(("http:", "https:")):
            yield target


def _anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = (line.lstrip("#").strip() for line in _prose(page.read_text()) if line[:1] == "#")
    return {
        "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
        for heading in headings
    }
