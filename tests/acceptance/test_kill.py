"""A worker process is killed in every phase; another one goes on where the last commit left it."""

from __future__ import annotations

import copy
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import program
from acceptance.nursery import Child
from acceptance.support import assert_lawful, end_leases, rows, wait_until
from databases import SqliteDatabases

MOMENTS = ("claiming", "claimed", "running", "ran", "recorded", "round", "committed")

Row = dict[str, Any]

_CHANCE = re.compile(r"(^|_)(at|round|expires)$")
"""Columns in which two undisturbed runs differ already: times, and the number of the round, which
depends on how many results each finds."""


def story(url: str) -> dict[str, list[Row]]:
    """Every table, without what differs between two runs that were not disturbed.

    The calls of an execution are told apart by their place in it instead of by their ids: call ids
    are given out in the order of arrival.
    """
    calls = {row["id"]: row for row in rows(url, "calls")}

    def place(id: str | None) -> tuple[Any, ...]:
        if id is None:
            return ()
        row = calls[id]
        return (*place(row["execution_id"]), row["run"], row["coroutine_id"], row["seq"])

    def told(row: Row, *identity: str) -> Row:
        kept = {
            name: value
            for name, value in row.items()
            if not _CHANCE.search(name) and name not in ("id", "execution_id", "root_id", "call_id")
        }
        return {"place": tuple(place(row[name]) for name in identity), **kept}

    return {
        "calls": sorted((told(row, "id", "root_id") for row in calls.values()), key=repr),
        "states": rows(url, "states"),
        "coroutines": sorted(
            ({"number": row["id"], **told(row, "execution_id")} for row in rows(url, "coroutines")),
            key=repr,
        ),
        "futures": sorted((told(row, "execution_id") for row in rows(url, "futures")), key=repr),
    }


def attempts(story: dict[str, list[Row]]) -> dict[Any, tuple[int, int]]:
    """Take attempt and claim out of the calls, and return them by the calls' places."""
    return {row["place"]: (row.pop("attempt"), row.pop("claim")) for row in story["calls"]}


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.case(109, 199, 200, 215)
@pytest.mark.peer_case(13, 95, 103)
def test_what_a_killed_worker_has_left_is_finished_as_if_nothing_had_happened(
    moment: str,
    times: int,
    database_url: str,
    effects: Path,
    make_app: Callable[..., rowtine.App],
    fork_worker: Callable[..., Child],
    undisturbed: dict[str, list[Row]],
) -> None:
    app = make_app()
    handle = app.start(rowtine.call("program", 1))

    # One call and one round at a time, so that no more than one call can be interrupted.
    victim = fork_worker(kill=(moment, times), concurrency=1)
    assert victim.wait() == -signal.SIGKILL
    assert_lawful(database_url)

    end_leases(database_url)
    with app.worker().start():
        result = handle.result(timeout=60)

    assert result == program.expected(1)
    now, then = story(database_url), undisturbed
    now_attempts, then_attempts = attempts(now), attempts(then)
    assert now == then
    interrupted = {
        place: (attempt - then_attempts[place][0], claim - then_attempts[place][1])
        for place, (attempt, claim) in now_attempts.items()
        if (attempt, claim) != then_attempts[place]
    }
    assert list(interrupted.values()) in ([], [(1, 1)])
    assert interrupted or moment not in ("running", "ran")
    ran = program.effects(effects)
    assert ran.keys() == program.expected_effects(1)
    assert ran.total() <= len(ran) + len(interrupted)
    assert {row["pid"] for row in rows(database_url, "workers")} <= {victim.pid}


def test_thirty_executions_outlive_twenty_kills(
    database_url: str,
    effects: Path,
    make_app: Callable[..., rowtine.App],
    fork_worker: Callable[..., Child],
) -> None:
    chance = random.Random(2026)
    app = make_app()
    numbers = [10_000 * i for i in range(1, 31)]
    handles = [app.start(rowtine.call("program", n)) for n in numbers]
    in_all = sum(len(program.expected_effects(n)) for n in numbers)

    workers = [fork_worker(concurrency=8) for _ in range(2)]
    for kill in range(1, 21):
        wait_until(lambda kill=kill: len(program.effects(effects)) >= in_all * kill / 22)
        time.sleep(chance.uniform(0, 0.02))  # not always at the same place of a body
        victim = workers.pop(chance.randrange(2))
        victim.kill()
        assert victim.wait() == -signal.SIGKILL
        assert_lawful(database_url)
        end_leases(database_url, victim.pid)
        workers.append(fork_worker(concurrency=8))
    results = [handle.result(timeout=60) for handle in handles]

    assert results == [program.expected(n) for n in numbers]
    ran = program.effects(effects)
    assert ran.keys() == set().union(*map(program.expected_effects, numbers))
    attempts = {
        f"{row['function']} {re.search('[0-9]+', row['input'])[0]}": row["attempt"]
        for row in rows(database_url, "calls")
        if row["function"] in ("double", "refuse")
    }
    assert [text for text, times in ran.items() if times > attempts[text]] == []
    assert ran.total() > len(ran)  # else the kills have met nothing that ran


@pytest.fixture(scope="session")
def calm_story(
    sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Row]]:
    url = sqlite_databases.migrated(tmp_path_factory.mktemp("calm"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(program.EFFECTS, "/dev/null")
        app = program.build(url, poll_interval=0.02)
        assert app.run(rowtine.call("program", 1), timeout=60) == program.expected(1)
        app.database.close()
    return story(url)


@pytest.fixture
def undisturbed(calm_story: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The tables after a run that nobody disturbed, on SQLite: both databases tell one story."""
    return copy.deepcopy(calm_story)
