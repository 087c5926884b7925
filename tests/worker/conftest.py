"""Fixtures of the worker's tests: apps on the test's database, and the laws after each test."""

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


@pytest.fixture
def plain_app(database_url: str) -> Iterator[Callable[..., rowtine.App]]:
    """Makes apps without functions on the test's database; when the test is over the laws hold."""
    made: list[rowtine.App] = []

    def make(**options: Any) -> rowtine.App:
        made.append(rowtine.App(database_url, **{"poll_interval": 0.02, **options}))
        return made[-1]

    yield make
    for app in made:
        app.close()
    assert_lawful(database_url)


@pytest.fixture
def new_app(plain_app: Callable[..., rowtine.App], warm: int) -> Callable[..., rowtine.App]:
    """The same, for what behaves alike warm and cold: a test with it runs both ways."""
    return lambda **options: plain_app(warm=warm, **options)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks processes; kills those that are left at the end."""
    with nurseries.opened(tmp_path_factory.mktemp("nursery") / "log") as opened:
        yield opened


@pytest.fixture
def fork(nursery: Nursery, diary: Path) -> Iterator[Callable[..., Child]]:
    """Starts processes that end with the test at the latest."""
    children: list[Child] = []

    def start(function: str, **given: Any) -> Child:
        children.append(nursery.fork(function, {program.EFFECTS: str(diary)}, **given))
        return children[-1]

    yield start
    for child in children:
        if child.alive:
            child.kill()
        child.wait()


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which each run of a body of `acceptance.program` leaves a line, anywhere."""
    path = tmp_path / "diary"
    monkeypatch.setenv(program.EFFECTS, str(path))
    return path
