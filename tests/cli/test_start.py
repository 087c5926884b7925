"""`rowtine start`: arguments from JSON, and what is printed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from cli.support import Shell
from databases import query


@pytest.fixture
def started(shell: Shell, sqlite_url: str) -> Iterator[Shell]:
    """The shell, on a database that the environment names."""
    shell.environment["ROWTINE_DATABASE_URL"] = sqlite_url
    return shell


def test_the_id_is_printed_and_the_call_is_in_the_database(started: Shell, sqlite_url: str) -> None:
    said = started("start", "shop:app", "add", '{"a": 1, "c": 5}')

    assert (said.code, said.err) == (0, "")
    ((id, input, phase),) = query(sqlite_url, "select id, input, phase from calls")
    assert id == said.out.strip()
    assert uuid.UUID(id).version == 7
    assert json.loads(input) == {"args": [1], "kwargs": {"c": 5}}
    assert phase == "queued"


@pytest.mark.peer_case(110)
def test_a_function_and_a_key_are_one_call(started: Shell, sqlite_url: str) -> None:
    first = started("start", "shop:app", "add", '{"a": 1, "b": 2}', "--key", "order 7")
    again = started("start", "shop:app", "add", "[1, 2]", "--key", "order 7")
    other = started("start", "shop:app", "add", "[1, 3]", "--key", "order 7")
    wrong = started("start", "shop:app", "add", "[1, 3]", "--key", "")

    assert (first.code, again.code, other.code, wrong.code) == (0, 0, 2, 2)
    assert first.out == again.out
    assert "the key 'order 7' of add belongs to call" in other.complaint
    assert "a key has 1 to 200" in wrong.complaint
    assert query(sqlite_url, "select key from calls") == [("order 7",)]


def test_arguments_that_do_not_fit_are_refused_and_nothing_is_stored(
    started: Shell, sqlite_url: str
) -> None:
    said = started("start", "shop:app", "double", '{"y": 1}')

    assert said.code == 2
    assert said.complaint == "rowtine: double(): missing a required argument: 'x'"
    assert query(sqlite_url, "select count(*) from calls") == [(0,)]


def test_an_unknown_function_is_answered_with_those_that_are_known(started: Shell) -> None:
    said = started("start", "shop:app", "dobule", "1")

    assert said.code == 1
    assert "no function 'dobule'" in said.complaint
    assert "double" in said.complaint


def test_waiting_prints_the_result_as_json_and_the_id_beside_it(started: Shell) -> None:
    worker = started.start("worker", "shop:app")

    good = started("start", "shop:app", "double", "21", "--wait")
    bad = started("start", "shop:app", "fail", '"out of \\u001b[31mtea"', "--wait")
    worker.process.terminate()

    assert (good.code, good.out) == (0, "42\n")
    assert uuid.UUID(good.err.strip())
    assert (bad.code, bad.out) == (1, "")
    assert bad.err.splitlines()[1].endswith(
        r"failed: INVALID_ARGUMENT: ValueError: out of \x1b[31mtea"
    )
    assert worker.wait().code == 0


# -------------------------------------------------------------------------------- which database


def test_the_option_beats_the_environment_which_beats_the_app(
    shell: Shell, sqlite_url: str, empty_sqlite_url: str
) -> None:
    text = (shell.directory / "shop.py").read_text()
    (shell.directory / "shop.py").write_text(text.replace("App(", "App('sqlite:///own.db', ", 1))
    shell("migrate", "--database", "sqlite:///own.db")
    shell("migrate", "--database", empty_sqlite_url)

    shell("start", "shop:app", "double", "1")
    shell.environment["ROWTINE_DATABASE_URL"] = empty_sqlite_url
    shell("start", "shop:app", "double", "2")
    shell("start", "shop:app", "double", "3", "--database", sqlite_url)

    own = f"sqlite:///{shell.directory}/own.db"
    inputs = [query(url, "select input from calls") for url in (own, empty_sqlite_url, sqlite_url)]
    assert [json.loads(rows[0][0])["args"] for rows in inputs] == [[1], [2], [3]]
    assert [len(rows) for rows in inputs] == [1, 1, 1]


def test_without_any_of_them_the_file_in_the_working_directory_is_taken(shell: Shell) -> None:
    migrated = shell("migrate")

    assert migrated.out == "sqlite:///rowtine.db is at revision 0001\n"
    assert shell("start", "shop:app", "double", "1").code == 0
    assert (shell.directory / "rowtine.db").exists()


def test_an_app_that_is_used_by_its_module_keeps_its_database(
    shell: Shell, sqlite_url: str
) -> None:
    with (shell.directory / "shop.py").open("a") as module:
        module.write("app.database\n")

    said = shell("start", "shop:app", "double", "1", "--database", sqlite_url)

    assert said.code == 2
    assert "has opened its database already" in said.complaint
