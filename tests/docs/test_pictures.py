"""The pictures of the documentation are those that docs/pictures.py draws today."""

from __future__ import annotations

import importlib.util
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXPLANATION = ROOT / "docs" / "explanation"
PICTURES = ("calls.svg", "coroutines.svg", "flow.svg")


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pictures"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_all_pictures_are_drawn(pictures: ModuleType) -> None:
    assert tuple(sorted(pictures.DRAWN)) == PICTURES
    there = sorted(file.name for file in (EXPLANATION / "pictures").iterdir())
    # Those of measurements are drawn by the benchmarks.
    assert [name for name in there if not name.startswith("performance-")] == [*PICTURES]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_up_to_date(pictures: ModuleType, name: str) -> None:
    drawn = pictures.DRAWN[name]().svg()

    ET.fromstring(drawn)  # it is XML
    assert (EXPLANATION / "pictures" / name).read_text() == drawn, "run python docs/pictures.py"


@pytest.mark.parametrize("name", PICTURES)
def test_boxes_stand_apart_and_on_the_card(pictures: ModuleType, name: str) -> None:
    picture = pictures.DRAWN[name]()

    for box in picture.boxes:
        assert 0 < box.left < box.right < picture.width
        assert 0 < box.top < box.bottom < picture.height
        for line in (box.name, *box.lines):
            assert 7 * len(line) < box.width + 8, f"{line!r} is wider than its box"
    for one, other in combinations(picture.boxes, 2):
        assert not one.overlaps(other)


def test_a_move_that_nobody_has_drawn_is_an_error(pictures: ModuleType) -> None:
    with pytest.raises(KeyError):
        pictures._moves({"here": frozenset({"there"})}, {})
