"""What a worker costs that has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

import rowtine
from rowtine.config import Settings
from rowtine.store import calls
from rowtine.store.workers import WorkerRow, introduce
from rowtine.worker.heartbeat import Heartbeat
from rowtine.worker.held import Held, lost_of
from rowtine.worker.policy import heartbeat_interval, poll_wait

ID = "01890000-0000-7000-8000-000000000001"


@pytest.fixture
def app(database_url: str) -> Iterator[rowtine.App]:
    made = rowtine.App(database_url)
    yield made
    made.close()


def test_an_idle_worker_that_hears_notices_sends_less_than_one_statement_a_second(
    app: rowtine.App,
) -> None:
    """In counts: what a look and a heartbeat send, by how often there is one."""
    settings = Settings()
    row = WorkerRow(ID, "host", 1, "", None, "[]")
    held = Held(settings.concurrency)
    heartbeat = Heartbeat(
        app.database, row, settings.lease, held.snapshot, lambda _: None, lambda: True
    )
    with app.database.writing() as connection:
        introduce(connection, row)
    sent: list[str] = []
    event.listen(app.database.engine, "before_cursor_execute", lambda *a: sent.append(a[2]))

    with app.database.reading() as connection:
        calls.due(connection, ["f"])
    a_look = len(sent)
    heartbeat.beat()
    a_beat = len(sent) - a_look

    soonest = poll_wait(settings.poll_interval, 0.0, told=True)
    assert a_look / soonest + a_beat / heartbeat_interval(settings.lease) < 1


def test_a_call_that_comes_or_goes_with_a_commit_on_its_way_is_not_lost() -> None:
    held = Held(10)
    held.calls["runs"] = 1
    held.take(["comes"])
    held.calls["ended"] = 3
    held.committing.add("ended")
    before = held.snapshot()

    assert lost_of(before, set(), before) == {"runs"}
    held.release("runs")
    assert lost_of(before, set(), held.snapshot()) == set()


def test_what_has_ended_leaves_room_and_what_begins_takes_it() -> None:
    held = Held(3)
    held.calls["a"] = held.calls["b"] = 1
    assert held.room() == 1

    held.committing.add("a")
    assert held.room() == 2
    held.take(["c", "d"])
    assert held.room() == 0
    held.release("a")
    assert held.room() == 0
    held.abandoned = 1
    held.release("c")
    assert held.room() == 0
