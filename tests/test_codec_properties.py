"""Laws of the codec, over every kind of value that it supports."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rowtine.codec import JsonCodec
from rowtine.core.payload import Arguments
from rowtine.errors import DecodeError, RemoteError


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: Any = None


@dataclass
class Loose:
    a: Any


CODEC = JsonCodec(max_bytes=50_000_000)
for registered in (Color, Access, Point, Frozen, Loose):
    CODEC.register(registered)

ZONES = st.one_of(
    st.none(),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("America/St_Johns"), ZoneInfo("UTC")]),
    st.builds(
        dt.timezone,
        st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: dt.timedelta(seconds=seconds)),
    ),
)
HASHABLE_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**62, 2**70),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None)),  # lone surrogates and NUL too
    st.text("$abc", max_size=3),
    st.binary(),
    st.dates(),
    st.times(timezones=st.none()),
    st.datetimes(timezones=ZONES),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Color, Access.READ, Access.READ | Access.WRITE, Access(0)]),
)
HASHABLE = st.recursive(
    HASHABLE_LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Frozen, inner, inner),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(HASHABLE, st.binary().map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(HASHABLE, max_size=5),
        st.dictionaries(st.text(max_size=5), inner, max_size=5),
        st.dictionaries(HASHABLE, inner, max_size=5),
        st.builds(Loose, inner),
        st.builds(Point, inner, inner),
    ),
    max_leaves=15,
)
TAGS = (
    "tuple set frozenset dict bytes bytearray date datetime time timedelta decimal uuid int float "
    "text enum dataclass namedtuple pydantic error function unknown"
)
KEYS = [f"${tag}" for tag in TAGS.split()] + [
    "a",
    "zone",
    "fold",
    "args",
    "attrs",
    "notes",
    "kwargs",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


def form(value: Any) -> Any:
    """The value with every type spelled out: equal forms mean the same value, types included."""
    kind = type(value)
    if kind is float:
        return kind, value.hex()
    if kind is Decimal:
        return kind, value.as_tuple()
    if kind in (dt.datetime, dt.time):
        return kind, value.isoformat(), value.fold, str(value.tzinfo)
    if kind is dict:
        return kind, [(form(key), form(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind, sorted((form(item) for item in value), key=repr)
    if kind in (list, tuple, Point):
        return kind, [form(item) for item in value]
    if kind is Frozen:
        return kind, form(value.a), form(value.b)
    return (kind, form(value.a)) if kind is Loose else (kind, value)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_what_goes_in_comes_out(value: Any) -> None:
    text = CODEC.encode(value)

    back = CODEC.decode(text)

    assert form(back) == form(value)
    assert text.isascii()
    assert "\\u0000" not in text.replace("\\\\", "")
    assert CODEC.encode(back) == text
    json.loads(text, parse_constant=pytest.fail)


@given(st.floats())
def test_every_float_comes_out_with_its_sign(value: float) -> None:
    back = CODEC.decode(CODEC.encode(value))

    same_nan = math.isnan(back) and math.isnan(value)
    assert same_nan or back.hex() == value.hex()


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
@settings(deadline=None)
def test_arguments_come_out(args: list[Any], kwargs: dict[str, Any]) -> None:
    text = CODEC.encode_arguments(Arguments(tuple(args), kwargs))

    back = CODEC.decode_arguments(text)

    assert form(back.args) == form(tuple(args))
    assert form(dict(back.kwargs)) == form(kwargs)
    assert CODEC.encode_arguments(back) == text


@given(st.sets(HASHABLE, max_size=6), st.randoms())
@settings(deadline=None)
def test_the_text_of_a_set_does_not_depend_on_its_history(value: set[Any], random: Any) -> None:
    members = list(value)
    random.shuffle(members)

    assert CODEC.encode(set(members)) == CODEC.encode(value)


@given(st.text() | JSON.map(json.dumps))
@settings(max_examples=300, deadline=None)
@example('{"$error":"ValueError","args":[{"$error":"KeyError","args":{}}]}')
def test_no_row_makes_the_reader_raise_anything_but_a_decode_error(text: str) -> None:
    for decode in (CODEC.decode, CODEC.decode_arguments):
        try:
            decode(text)
        except DecodeError:
            continue


@given(JSON.map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_what_a_row_is_read_as_can_be_written_and_read_again(text: str) -> None:
    try:
        value = CODEC.decode(text)
    except DecodeError:
        return

    again = CODEC.encode(value)

    assert CODEC.encode(CODEC.decode(again)) == again


@given(
    st.sampled_from([ValueError, KeyError, OSError, RuntimeError, UnicodeDecodeError]),
    st.lists(VALUES | st.builds(object), max_size=3),
    st.dictionaries(st.text(max_size=3), VALUES | st.builds(object), max_size=3),
)
@settings(deadline=None)
def test_an_error_keeps_its_class_or_what_it_said(
    cls: type[Exception], args: list[Any], attributes: dict[str, Any]
) -> None:
    try:
        error = cls(*args)
    except Exception:
        return
    vars(error).update(attributes)

    stored = CODEC.encode_error(error)
    back = CODEC.decode_error(stored)

    assert type(back) in (type(error), RemoteError)
    if type(back) is RemoteError:
        assert (back.type, back.message) == (stored.type, stored.message)
    if '"args"' in (stored.details or ""):
        again = CODEC.encode_error(back)
        assert (again.type, again.details) == (stored.type, stored.details)


@given(st.builds(RemoteError, st.text(), st.text(), st.none() | st.text(), st.none() | st.text()))
def test_no_stored_error_makes_the_reader_raise(stored: RemoteError) -> None:
    assert isinstance(CODEC.decode_error(stored), Exception)


@given(
    st.sampled_from(["ValueError", "OSError", "ExceptionGroup", "ImportError", "StopIteration"]),
    st.dictionaries(st.sampled_from(["args", "attrs", "notes"]), JSON).map(json.dumps),
)
@settings(deadline=None)
def test_no_details_make_the_reader_raise(name: str, details: str) -> None:
    assert isinstance(CODEC.decode_error(RemoteError(name, "x", None, details)), Exception)
