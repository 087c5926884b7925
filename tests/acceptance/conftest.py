"""Fixtures of the tests with worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowtine
from acceptance import nursery as nurseries
from acceptance import program
from acceptance.nursery import Child, Nursery
from acceptance.support import assert_lawful


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks processes; kills those that are left at the end."""
    with nurseries.opened(tmp_path_factory.mktemp("nursery") / "log") as opened:
        yield opened


@pytest.fixture
def effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which each run of a body leaves a line, whatever process it is in."""
    path = tmp_path / "effects"
    monkeypatch.setenv(program.EFFECTS, str(path))
    return path


@pytest.fixture
def make_app(database_url: str, warm: int) -> Iterator[Callable[..., rowtine.App]]:
    """Makes the program's app on the test's database; the laws hold when the test is over."""
    made: list[rowtine.App] = []

    def make(url: str = database_url, **options: Any) -> rowtine.App:
        options = {"warm": warm, "poll_interval": 0.02, **options}
        made.append(program.build(url, **options))
        return made[-1]

    yield make
    for app in made:
        app.database.close()
    assert_lawful(database_url)


@pytest.fixture
def fork_worker(
    nursery: Nursery, database_url: str, warm: int, effects: Path
) -> Iterator[Callable[..., Child]]:
    """Starts worker processes for the test's database; they end with the test at the latest."""
    children: list[Child] = []

    def fork(kill: tuple[str, int] | None = None, **options: Any) -> Child:
        options = {"warm": warm, "poll_interval": 0.02, **options}
        children.append(
            nursery.fork(
                "acceptance.workers:work",
                {program.EFFECTS: str(effects)},
                url=database_url,
                kill=kill,
                **options,
            )
        )
        return children[-1]

    yield fork
    for child in children:
        if child.alive:
            child.kill()
        child.wait()
