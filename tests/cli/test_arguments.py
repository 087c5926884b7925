"""The arguments of a call, written as JSON on a command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pydantic
import pytest

import rowtine
from rowtine.cli.target import parse_call
from rowtine.errors import UsageError

app = rowtine.App()


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Item:
    sku: str
    size: Size = Size.SMALL


@dataclass
class Order:
    items: list[Item]
    day: date | None = None


class Note(pydantic.BaseModel):
    text: str
    stars: int = 0


@app.function
def plain(a: int, b: int = 1, *, c: int = 0) -> None: ...


@app.function
def free(value: Any, *rest, **named) -> None: ...


@app.function
def rich(order: Order, *notes: Note, **words: Decimal) -> None: ...


@app.function
def kinds(id: UUID, pair: tuple[int, str], tags: set[str], wait: float) -> None: ...


@app.function
def strange(wait: timedelta, odd: Missing) -> None: ...  # noqa: F821


def arguments(function: str, text: str | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    given = parse_call(app, function, text).arguments
    return given.args, dict(given.kwargs)


@pytest.mark.parametrize(
    ("function", "text", "expected"),
    [
        ("plain", "21", ((21,), {})),
        ("plain", "[1, 2]", ((1, 2), {})),
        ("plain", '{"a": 1, "c": 5}', ((1,), {"c": 5})),
        ("free", "[[1, 2]]", (([1, 2],), {})),
        ("free", "null", ((None,), {})),
        ("free", '[{"a": 1}, 2, "x"]', (({"a": 1}, 2, "x"), {})),
        ("free", '{"value": 1, "n": [2]}', ((1,), {"n": [2]})),
        ("free", "1180591620717411303424", ((2**70,), {})),
    ],
)
def test_a_list_is_positional_an_object_by_name_and_else_it_is_the_one_argument(
    function: str, text: str, expected: object
) -> None:
    assert arguments(function, text) == expected


def test_no_text_is_no_argument() -> None:
    with pytest.raises(UsageError, match="missing a required argument: 'a'"):
        arguments("plain", None)


def test_annotated_classes_are_made_of_objects_also_inside_lists() -> None:
    text = '[{"items": [{"sku": "tea", "size": "l"}], "day": "2026-11-22"}, {"text": "hello"}]'

    assert arguments("rich", text) == (
        (Order([Item("tea", Size.LARGE)], date(2026, 11, 22)), Note(text="hello")),
        {},
    )


def test_values_that_json_lacks_are_made_as_annotated() -> None:
    text = '["12345678-1234-5678-1234-567812345678", [1, "x"], ["b", "a"], 1]'

    (id, pair, tags, wait), _ = arguments("kinds", text)

    assert id == UUID("12345678-1234-5678-1234-567812345678")
    assert (pair, tags) == ((1, "x"), {"a", "b"})
    assert (wait, type(wait)) == (1.0, float)


def test_named_extras_have_the_annotation_of_all() -> None:
    assert arguments("rich", '{"order": {"items": []}, "price": "1.50"}') == (
        (Order([]),),
        {"price": Decimal("1.50")},
    )


def test_an_annotation_that_cannot_be_resolved_says_nothing() -> None:
    assert arguments("strange", '["soon", 1]') == (("soon", 1), {})


@pytest.mark.parametrize(
    ("function", "text", "words"),
    [
        ("plain", "[1, 2, 3]", r"plain\(\): too many positional arguments"),
        ("plain", '"two"', "argument 'a': Expected `int`, got `str`"),
        ("rich", '{"order": {}}', "argument 'order': Object missing required field `items`"),
        ("rich", '[{"items": []}, {"stars": 1}]', "argument '\\*notes': 1 validation error"),
        ("plain", "two", "not JSON.*quotes"),
        ("plain", "", "not JSON"),
        ("plain", "[" * 100_000, "not JSON"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_name_of_the_argument(
    function: str, text: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        arguments(function, text)
