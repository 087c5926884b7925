"""`rowtine worker`: how it ends, and several processes under one parent."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from acceptance.support import wait_until
from cli.support import Running, Shell
from databases import query
from rowtine.cli import supervise


@pytest.fixture
def serving(shell: Shell, sqlite_url: str) -> Shell:
    shell.environment["ROWTINE_DATABASE_URL"] = sqlite_url
    return shell


def hold(shell: Shell, name: str) -> str:
    """Start a call that runs until the test lets it go; its id."""
    return shell("start", "shop:app", "hold", f'"{name}"').out.strip()


def let_go(shell: Shell, name: str) -> None:
    (shell.directory / name).touch()


def holder(line: str) -> int:
    """The process that said this."""
    return int(line.rsplit(maxsplit=1)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_finish_and_the_worker_ends_well(
    serving: Shell, sqlite_url: str, number: signal.Signals
) -> None:
    worker = serving.start("worker", "shop:app")
    hold(serving, "a")
    worker.out_until("holding a")

    worker.signal(number)
    let_go(serving, "a")
    said = worker.wait()

    assert said.code == 0
    assert query(sqlite_url, "select phase, status, attempt from calls") == [("done", "OK", 1)]
    assert query(sqlite_url, "select count(*) from workers") == [(0,)]


def test_a_second_signal_gives_the_work_back_at_once(serving: Shell, sqlite_url: str) -> None:
    worker = serving.start("worker", "shop:app")
    hold(serving, "a")
    worker.out_until("holding a")

    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)  # two of one kind that come close together are one to the kernel
    said = worker.wait()

    assert said.code == 0
    assert query(sqlite_url, "select phase, attempt from calls") == [("queued", 0)]


def test_it_says_whom_it_serves_without_the_password(serving: Shell) -> None:
    worker = serving.start("worker", "shop:app", "--concurrency", "3")

    line = worker.err_until("serves")
    worker.signal(signal.SIGTERM)

    assert f"worker process {worker.pid} serves 9 functions of shop:app on sqlite:///" in line
    assert worker.wait().code == 0


def test_concurrency_bounds_what_runs_at_once(serving: Shell, sqlite_url: str) -> None:
    worker = serving.start("worker", "shop:app", "--concurrency", "2")
    for name in "abc":
        hold(serving, name)
    first = worker.out_until("holding").split()[1]
    second = worker.out_until("holding").split()[1]

    running = query(sqlite_url, "select count(*) from calls where phase = 'running'")
    let_go(serving, first)
    third = worker.out_until("holding").split()[1]
    for name in "abc":
        let_go(serving, name)
    worker.signal(signal.SIGTERM)

    assert running == [(2,)]
    assert {first, second, third} == {"a", "b", "c"}
    assert worker.wait().code == 0


def test_its_process_collects_garbage_seldom_and_not_what_is_imported(serving: Shell) -> None:
    worker = serving.start("worker", "shop:app")

    said = serving("start", "shop:app", "garbage", "--wait")
    worker.signal(signal.SIGTERM)

    often, kept = json.loads(said.out)
    assert often == 10_000
    assert kept > 10_000
    assert worker.wait().code == 0


# ------------------------------------------------------------------------------ several processes


def start_two(shell: Shell) -> tuple[Running, int, int]:
    """Two processes, each holding a call; the parent and the pids of the two."""
    parent = shell.start("worker", "shop:app", "--processes", "2", "--concurrency", "1")
    hold(shell, "a")
    hold(shell, "b")
    first, second = (holder(parent.out_until("holding")) for _ in range(2))
    return parent, first, second


def test_each_process_is_a_worker_of_its_own(serving: Shell, sqlite_url: str) -> None:
    parent, first, second = start_two(serving)

    pids = {pid for (pid,) in query(sqlite_url, "select pid from workers")}
    parent.signal(signal.SIGTERM)
    let_go(serving, "a")
    let_go(serving, "b")

    assert parent.wait().code == 0
    assert pids == {first, second}
    assert parent.pid not in pids
    assert query(sqlite_url, "select distinct phase, attempt from calls") == [("done", 1)]


def test_a_process_that_dies_is_replaced(serving: Shell, sqlite_url: str) -> None:
    parent, first, second = start_two(serving)

    os.kill(first, signal.SIGKILL)
    notice = parent.err_until("another starts")
    hold(serving, "c")
    third = holder(parent.out_until("holding c"))
    for name in "abc":
        let_go(serving, name)
    parent.signal(signal.SIGTERM)

    assert f"worker process {first} was ended by SIGKILL" in notice
    assert third not in (first, second)
    assert parent.wait().code == 0


def test_the_second_signal_is_handed_on_too(serving: Shell, sqlite_url: str) -> None:
    parent, _, _ = start_two(serving)

    parent.signal(signal.SIGTERM)
    parent.signal(signal.SIGINT)

    assert parent.wait().code == 0
    assert query(sqlite_url, "select phase, attempt from calls") == [("queued", 0)] * 2


def test_a_parent_that_is_killed_takes_its_processes_along(serving: Shell, sqlite_url: str) -> None:
    parent, _, _ = start_two(serving)

    parent.signal(signal.SIGKILL)
    let_go(serving, "a")
    let_go(serving, "b")

    wait_until(lambda: query(sqlite_url, "select count(*) from workers") == [(0,)])
    assert query(sqlite_url, "select distinct phase, attempt from calls") == [("done", 1)]


def test_a_module_that_fails_is_not_started_again_and_again(serving: Shell) -> None:
    (serving.directory / "broken.py").write_text("raise RuntimeError('no')")

    said = serving("worker", "broken:app", "--processes", "2")

    assert said.code == 1
    assert said.err.splitlines()[-1] == "rowtine: cannot import broken: RuntimeError: no"


def test_the_url_of_the_processes_is_not_among_their_arguments() -> None:
    url = "postgresql://ann:s3cret@localhost/shop"

    assert not any("s3cret" in word for word in supervise.command("shop:app", 3))
    assert supervise.environment(url)["ROWTINE_DATABASE_URL"] == url


def test_restarts_are_further_and_further_apart_up_to_half_a_minute() -> None:
    waits = [supervise.restart_wait(deaths) for deaths in range(1, 50)]

    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits == sorted(waits)
    assert waits[-1] == 30.0


def test_the_working_directory_is_searched_for_the_module(serving: Shell, tmp_path: Path) -> None:
    package = serving.directory / "deep" / "down"
    package.mkdir(parents=True)
    (package / "shop2.py").write_text((serving.directory / "shop.py").read_text())

    said = serving("start", "deep.down.shop2:app", "double", "1")

    assert said.code == 0, said.err
