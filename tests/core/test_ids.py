"""Ids of calls are UUIDs of version 7."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest

from rowtine.core.ids import head_of, uuid7


@pytest.mark.parametrize("milliseconds", [0, 1, 1_700_000_000_000, (1 << 48) - 1, 1 << 48])
@pytest.mark.parametrize("counter", [0, 1, 0xFFF, 0x1000])
@pytest.mark.parametrize("random", [0, 1, (1 << 62) - 1, 1 << 62])
def test_each_part_has_its_place(milliseconds: int, counter: int, random: int) -> None:
    id = UUID(text := uuid7(head_of(milliseconds), counter, f"{random:016x}"))

    assert str(id) == text
    assert (id.version, id.variant) == (7, RFC_4122)
    assert id.int >> 80 == milliseconds % (1 << 48)
    assert id.int >> 64 & 0xFFF == counter % (1 << 12)
    assert id.int % (1 << 62) == random % (1 << 62)


def test_an_id_sorts_by_time_then_by_counter() -> None:
    made = [
        uuid7(head_of(ms), counter, "7" * 16) for ms in (1, 2, 300) for counter in (0, 1, 0xFFF)
    ]

    assert made == sorted(made)
