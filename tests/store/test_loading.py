"""What a round is given of the rows, and of the frames that a worker kept."""

from __future__ import annotations

import pytest

import rowtine
from rowtine.core.coroutine import Slot
from rowtine.store.loading import load
from store.by_hand import Hand


async def waits() -> None:
    await rowtine.sleep(3600)


@pytest.mark.parametrize(
    ("stand", "used"), [((0, 1), True), ((0, 2), False), ((1, 1), False), (None, False)]
)
def test_frames_are_used_only_where_the_execution_stands(
    database_url: str, stand: tuple[int, int] | None, used: bool
) -> None:
    """Rounds begin anew with each run, so a round alone does not say whose frame it is."""
    app = rowtine.App(database_url)
    function = app.function(waits)
    hand = Hand(app)
    id = hand.start(function())
    hand.round(id, function)
    kept = {0: Slot()}

    with app.database.reading() as connection:
        loaded = load(connection, app.body, app.codec, id, kept, stand)

    assert loaded.rows.warm == (kept if used else {})
