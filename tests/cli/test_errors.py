"""What goes wrong is one line on stderr that says what to do, and an exit code; no traceback."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.support import Said, Shell
from databases import query

Ask = Callable[..., Said]

ASKING = (("ps",), ("show", "019a"))
WITH_APP = (("worker", "shop:app"), ("start", "shop:app", "double", "1"))


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("command", [("migrate",), ("ps",), *WITH_APP])
def test_an_unreachable_server_is_one_line_without_the_password(
    shell: Shell, closed_port: int, command: tuple[str, ...]
) -> None:
    url = f"postgresql://ann:s3cret@127.0.0.1:{closed_port}/shop"

    said = shell(*command, "--database", url)

    assert said.code == 1
    assert "refused" in said.complaint
    assert "is the URL right?" in said.complaint
    assert "s3cret" not in said.err
    assert "ann" in said.err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://localhost/x", "rowtine cannot use 'mysql'"),
        ("postgresql+asyncpg://localhost/x", "through psycopg, not asyncpg"),
        ("sqlite://", "sqlite:///file.db"),
        ("shop.db", "this is not a database URL"),
        ("sqlite:////no/such/directory/x.db", "there is no directory /no/such/directory"),
    ],
)
def test_a_url_that_rowtine_cannot_use_says_which_it_can(ask: Ask, url: str, words: str) -> None:
    for command in ("migrate", "ps"):
        said = ask(command, "--database", url)

        assert said.code == 1
        assert words in said.complaint


def test_postgresql_without_its_extra_says_what_to_install(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not installed')")
    path = shell.environment.get("PYTHONPATH", "")
    shell.environment["PYTHONPATH"] = f"{tmp_path}:{path}"

    said = shell("ps", "--database", "postgresql://localhost/x")

    assert said.code == 1
    assert "pip install 'rowtine[postgres]'" in said.complaint


@pytest.mark.parametrize("command", [*ASKING, *WITH_APP])
def test_a_file_that_is_not_there_is_not_made_by_looking(
    shell: Shell, command: tuple[str, ...]
) -> None:
    said = shell(*command, "--database", "sqlite:///shop.db")

    assert said.code == 1
    assert "`rowtine migrate`" in said.complaint
    assert not list(shell.directory.glob("shop.db*"))


@pytest.mark.parametrize("command", [*ASKING, *WITH_APP])
def test_a_database_without_tables_says_to_migrate(
    shell: Shell, empty_database_url: str, command: tuple[str, ...]
) -> None:
    _make_empty(empty_database_url)

    said = shell(*command, "--database", empty_database_url)

    assert said.code == 1
    assert "`rowtine migrate" in said.complaint


@pytest.mark.parametrize("command", [("migrate",), ("ps",), ("worker", "shop:app")])
def test_tables_of_a_newer_rowtine_are_left_alone(
    shell: Shell, database_url: str, command: tuple[str, ...]
) -> None:
    query(database_url, "update rowtine_revision set version_num = '9999'")

    said = shell(*command, "--database", database_url)

    assert said.code == 1
    assert "9999" in said.complaint
    assert "install a newer rowtine" in said.complaint


def test_a_file_that_is_no_database_is_one_line(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("dear diary\n" * 1000)

    for command in ("migrate", "ps"):
        said = ask(command, "--database", f"sqlite:///{tmp_path}/notes.db")

        assert said.code == 1
        assert "not a database" in said.complaint


# ------------------------------------------------------------------------------------- MODULE:APP


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("shop:number", "shop has shop:app, shop:another"),
        ("shop:missing", "'shop:missing' is not a rowtine.App"),
        ("shop.py:app", "write shop:app"),
        ("./shop:app", "write shop:app"),
        (":app", "write shop:app"),
    ],
)
def test_a_target_that_is_no_app_says_what_there_is(shell: Shell, target: str, words: str) -> None:
    said = shell("worker", target)

    assert said.code == 2
    assert words in said.complaint


def test_an_error_in_the_module_shows_the_lines_of_its_author(shell: Shell) -> None:
    (shell.directory / "broken.py").write_text(
        "import rowtine\n"
        "app = rowtine.App()\n"
        "def register():\n"
        "    @app.function\n"
        "    def f(x):\n"
        "        yield x\n"
        "register()\n"
    )

    said = shell("worker", "broken:app")

    assert said.code == 1
    assert 'broken.py", line 7' in said.err
    assert 'broken.py", line 4' in said.err
    assert "rowtine/" not in said.err
    assert "importlib" not in said.err
    assert said.err.splitlines()[-1].startswith("rowtine: cannot import broken: ")
    assert "is a generator" in said.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import does_not_exist", "No module named 'does_not_exist'"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise ValueError('\\x1b[31mred')", r"\x1b[31mred"),
    ],
)
def test_a_module_may_fail_in_many_ways(shell: Shell, text: str, words: str) -> None:
    (shell.directory / "broken.py").write_text(text)

    said = shell("start", "broken:app", "f")

    assert said.code == 1
    assert words in said.err.splitlines()[-1]
    assert "\x1b" not in said.err


# ---------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("ps", "--frobnicate"),
        ("show",),
        ("worker", "shop:app", "--processes", "0"),
    ],
)
def test_wrong_usage_ends_with_two_and_names_the_help(ask: Ask, arguments: tuple[str, ...]) -> None:
    said = ask(*arguments)

    first, second = said.err.splitlines()
    assert said.code == 2
    assert first.startswith("rowtine: ")
    assert second.startswith("try `rowtine")
    assert second.endswith("--help`")


@pytest.mark.parametrize("command", ["show", "result"])
def test_an_id_that_nobody_has_is_not_found(ask: Ask, sqlite_url: str, command: str) -> None:
    unknown = str(uuid.uuid4())

    said = ask(command, unknown, "--database", sqlite_url)

    assert said.code == 1
    assert said.complaint == f"rowtine: there is no call {unknown}"


@pytest.mark.parametrize("id", ["order 7", "-", "", "\x1b[31m", "0" * 40, "%"])
def test_what_cannot_be_an_id_is_said_to_be_none(ask: Ask, database_url: str, id: str) -> None:
    said = ask("show", "--database", database_url, "--", id)

    assert said.code == 1
    assert "is not the id of a call" in said.complaint
    assert "\x1b" not in said.err


# ---------------------------------------------------------------------------- interrupts and pipes


def test_an_interrupt_ends_a_wait_with_130(shell: Shell, sqlite_url: str) -> None:
    waiting = shell.start("start", "shop:app", "double", "1", "--wait", "--database", sqlite_url)
    waiting.err_until("-7")  # the id: the call is accepted

    waiting.signal(signal.SIGINT)
    said = waiting.wait()

    assert said.code == 130
    assert "Traceback" not in said.err
    assert query(sqlite_url, "select function, phase from calls") == [("double", "queued")]


def test_a_closed_pipe_is_no_error(shell: Shell, sqlite_url: str) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.executemany(
            "insert into calls (id, kind, function, input, phase, due, created_at)"
            " values (?, 'function', 'f', '{}', 'queued', 1, 1)",
            [(str(uuid.uuid4()),) for _ in range(3000)],
        )
    connection.close()
    command = shell.command("ps", "--json", "--limit", "3000", "--database", sqlite_url)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["execution"] == "f"
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def _make_empty(url: str) -> None:
    if url.startswith("sqlite"):
        sqlite3.connect(url.removeprefix("sqlite:///")).execute("vacuum").connection.close()
