"""The codec: what goes in comes out equal, or the call site is told what cannot.

Numbers in comments are those of the cases (part 1: P142; part 2: 1.3) and faults (G8).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import enum
import functools
import json
import pickle
import socket
import subprocess
import sys
import threading
import traceback
import typing
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from unittest import mock
from zoneinfo import ZoneInfo

import pytest

from rowtine.codec import JsonCodec, class_name
from rowtine.core.payload import Arguments, Codec
from rowtine.errors import (
    AnyException,
    DecodeError,
    PayloadError,
    RemoteError,
    RemoteTraceback,
    RowtineError,
)

BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = dt.datetime.fromisoformat("2024-01-01T00:00:00")
calls: list[str] = []  # what ran although nothing of the user's should


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Mode(enum.StrEnum):
    FAST = "fast"


@dataclass
class Item:
    name: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class Order:
    id: int
    items: list[Item]
    note: str | None = None


@dataclass
class Secretive:
    shown: int
    hidden: int = field(init=False, repr=False, compare=False)
    seed: InitVar[int] = 0

    def __post_init__(self, seed: int) -> None:
        calls.append("__post_init__")
        self.hidden = seed * 2


class Point(NamedTuple):
    x: int
    y: int = 0


Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - it is a kind of its own


class TwoArgError(Exception):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Tripwire(Exception):
    """An exception that writes down each piece of its code that runs."""

    armed = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        cls._trip("__new__")
        return super().__new__(cls, *args)

    def __init__(self, message: str, *, size: int) -> None:
        self._trip("__init__")
        super().__init__(message)
        self.size = size

    def __setattr__(self, name: str, value: Any) -> None:
        self._trip("__setattr__")
        super().__setattr__(name, value)

    def __reduce__(self) -> Any:
        self._trip("__reduce__")
        return super().__reduce__()

    def __setstate__(self, state: Any) -> None:
        self._trip("__setstate__")

    @property
    def trap(self) -> None:
        self._trip("property")

    @classmethod
    def _trip(cls, what: str) -> None:
        if cls.armed:
            calls.append(what)


@pytest.fixture
def codec() -> JsonCodec:
    made = JsonCodec()
    for cls in (Color, Level, Access, Mode, Item, Order, Secretive, Point, Pair):
        made.register(cls)
    calls.clear()
    return made


@pytest.fixture
def armed() -> Iterator[None]:
    Tripwire.armed = True
    yield
    Tripwire.armed = False


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left.hex() == right.hex()
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=True)
        return len(left) == len(right) and all(same(list(a), list(b)) for a, b in pairs)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def raised(make: Callable[[], Exception]) -> Exception:
    try:
        raise make()
    except Exception as error:
        return error


def there_and_back(codec: JsonCodec, error: BaseException) -> Exception:
    return codec.decode_error(codec.encode_error(error))


# --- values -------------------------------------------------------------------------------------

VALUES = {
    "none": None,  # P142, 1.3
    "true": True,
    "false": False,
    "empty text": "",  # 1.3
    "text": "x",
    "quotes and controls": 'a"b\\c\n\t\x01\x7f',
    "float": 1.5,
    "whole float": 1.0,  # P146
    "negative zero": -0.0,  # G5
    "tiny float": 5e-324,
    "huge float": 1.7976931348623157e308,
    "2**62": 2**62,
    "int64 min": -(2**63),  # P144
    "int64 max": 2**63 - 1,
    "beyond int64": 2**63,
    "below int64": -(2**63) - 1,
    "2**70": 2**70,  # A31, G5
    "more digits than int() converts": -(7**9000),
    "ints in a list": [1, 2, 3],  # P146
    "2**53 + 1 in a dict": {"id": 2**53 + 1},  # P147
    "int keys": {1: "a"},  # P149
    "mixed keys": {1: "a", "1": "b", None: "c", (1, 2): "d", b"x": {"y": ()}},  # G7
    "keys that look like tags": {"$tuple": [1]},
    "a dollar later": {"a": 1, "$b": 2},
    "a key with NUL": {"a\0": 1},
    "key order": {"b": 1, "a": 2},
    "bytes that are a pickle": pickle.dumps({"a": 1}),  # P150
    "bytearray": bytearray(b"\x00\xff"),
    "NUL": "a\0b",  # G2
    "lone surrogate": "a\ud800b\\x00",  # G3
    "two surrogates that are no pair": "\ud83d\ude00",
    "non-ASCII": "é😀\u2028",
    "tuple, set, dataclass": (1, {2}, Item("x", Decimal("1.10"))),  # P145
    "empty containers": [(), [], {}, set(), frozenset()],
    "nested sets": {frozenset({1, 2}), frozenset()},
    "mixed set": {1, "1", None, (1,), b"1", 1.5},
    "date": dt.date(1, 1, 1),
    "naive datetime": NAIVE,  # P153
    "before 1970": dt.datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=dt.UTC),  # P152
    "offset with seconds": dt.datetime(
        1890, 1, 1, tzinfo=dt.timezone(dt.timedelta(minutes=53, seconds=28))
    ),
    "named offset": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "MEZ")),
    "zone": dt.datetime(2024, 7, 1, 12, tzinfo=BERLIN),
    "fold": dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    "time": dt.time(23, 59, 59, 999999, tzinfo=dt.UTC),
    "time in a zone": dt.time(1, 2, fold=1, tzinfo=BERLIN),
    "timedelta": dt.timedelta(days=-1, microseconds=1),
    "longest timedelta": dt.timedelta.max,
    "decimals": [Decimal("1.10"), Decimal("-0"), Decimal("1E+400"), Decimal("Infinity")],
    "uuid": uuid.UUID(int=7),
    "enum": Color.RED,
    "int enum": Level.LOW,
    "str enum as a key": {Mode.FAST: Mode.FAST},
    "flags": [Access.READ, Access.READ | Access.WRITE, Access(0)],
    "frozen dataclass with slots": Order(1, [Item("é", Decimal(2))]),
    "named tuples": [Point(1), Point(1, 2), Pair(left=[1], right=None)],
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_a_value_comes_back_equal_and_of_the_same_type(codec: JsonCodec, value: Any) -> None:
    text = codec.encode(value)

    back = codec.decode(text)

    assert same(back, value)
    assert text.isascii()
    assert codec.encode(back) == text
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])  # G4
def test_a_float_that_json_cannot_say_comes_back(codec: JsonCodec, value: float) -> None:
    back = codec.decode(codec.encode([value]))

    assert repr(back) == repr([value])


def test_two_nans_in_a_set_stay_two(codec: JsonCodec) -> None:
    assert len(codec.decode(codec.encode({float("nan"), float("nan")}))) == 2


def test_fold_zone_and_offset_name_survive_though_equality_does_not_see_them(
    codec: JsonCodec,
) -> None:
    late, named = VALUES["fold"], VALUES["named offset"]
    assert isinstance(named, dt.datetime)

    late_back, named_back = codec.decode(codec.encode([late, named]))

    assert (late_back.fold, late_back.tzinfo) == (1, BERLIN)
    assert late_back.utcoffset() == dt.timedelta(hours=1)
    assert named_back.tzname() == "MEZ"


def test_the_text_is_what_a_person_and_a_query_can_read(codec: JsonCodec) -> None:
    arguments = Arguments((Order(17, [Item("tea", Decimal("2.50"))]),), {"color": Color.RED})

    text = codec.encode_arguments(arguments)

    assert json.loads(text) == {
        "args": [
            {
                "$dataclass": class_name(Order),
                "id": 17,
                "items": [
                    {
                        "$dataclass": class_name(Item),
                        "name": "tea",
                        "price": {"$decimal": "2.50"},
                    }
                ],
                "note": None,
            }
        ],
        "kwargs": {"color": {"$enum": [class_name(Color), "RED"]}},
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), '{"$tuple":[1,2]}'),
        ({10, 9, 1}, '{"$set":[1,9,10]}'),
        (frozenset("ba"), '{"$frozenset":["a","b"]}'),
        (b"\x00", '{"$bytes":"AA=="}'),
        (2**64, '{"$int":"18446744073709551616"}'),
        (float("nan"), '{"$float":"nan"}'),
        ("a\0", '{"$text":"a\\\\x00"}'),
        ({1: 2}, '{"$dict":[[1,2]]}'),
        (NAIVE, '{"$datetime":"2024-01-01T00:00:00"}'),
        (
            dt.datetime(2024, 7, 1, tzinfo=BERLIN),
            '{"$datetime":"2024-07-01T00:00:00+02:00","zone":"Europe/Berlin"}',
        ),
        (dt.timedelta(1, 2, 3), '{"$timedelta":[1,2,3]}'),
        ("é😀", '"\\u00e9\\ud83d\\ude00"'),
    ],
)
def test_the_form_in_rows_is_fixed(codec: JsonCodec, value: Any, text: str) -> None:
    assert codec.encode(value) == text
    assert same(codec.decode(text), value)


def test_equal_sets_give_the_same_text_whatever_their_history(codec: JsonCodec) -> None:
    members: list[Any] = [None, "a", 1, 2.5, (1, "b"), frozenset({3, "c"}), b"d", Color.RED]

    texts = {codec.encode(set(members[i:] + members[:i])) for i in range(len(members))}

    assert len(texts) == 1


def test_none_as_a_payload_is_the_value_none(codec: JsonCodec) -> None:
    assert codec.decode(None) is None
    assert codec.encode(None) == "null"


def test_two_decodings_share_nothing_that_can_change(codec: JsonCodec) -> None:
    text = codec.encode([[], {"a": []}, Order(1, [])])

    first, second = codec.decode(text), codec.decode(text)
    first[0].append(1)
    first[1]["a"].append(1)
    first[2].items.append(1)

    assert second == [[], {"a": []}, Order(1, [])]


@pytest.mark.case(164)
def test_a_function_of_the_registry_is_stored_by_name(codec: JsonCodec) -> None:
    class Registered:
        __rowtine_name__ = "charge"

    function = Registered()
    codec.lookup_function = {"charge": function}.__getitem__

    text = codec.encode([function])

    assert text == '[{"$function":"charge"}]'
    assert codec.decode(text) == [function]
    with pytest.raises(DecodeError):
        codec.decode('{"$function":"gone"}')
    with pytest.raises(DecodeError, match="'charge'"):
        JsonCodec().decode(text)
    with pytest.raises(TypeError, match="cannot store a value of type type"):
        codec.encode(Registered)


# --- classes ------------------------------------------------------------------------------------


def test_a_dataclass_is_rebuilt_as_it_was_and_not_as_its_constructor_would(
    codec: JsonCodec,
) -> None:
    value = Secretive(1, seed=4)
    value.hidden = 99
    calls.clear()

    back = codec.decode(codec.encode(value))

    assert (back.shown, back.hidden) == (1, 99)
    assert calls == []


@pytest.mark.peer_case(128)
def test_a_row_older_than_a_field_gets_its_default(codec: JsonCodec) -> None:
    name = class_name(Order)
    old = f'{{"$dataclass":"{name}","id":1,"items":[]}}'

    assert codec.decode(old) == Order(1, [], None)


def test_a_default_factory_fills_a_field_afresh_each_time(codec: JsonCodec) -> None:
    @dataclass
    class Grown:
        tags: list[str] = field(default_factory=list)

    codec.register(Grown)
    text = f'{{"$dataclass":"{class_name(Grown)}"}}'

    first, second = codec.decode(text), codec.decode(text)

    assert first == second == Grown()
    assert first.tags is not second.tags


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"$dataclass": class_name(Order), "id": 1}, "Order needs the field 'items'"),
        (
            {"$dataclass": class_name(Order), "id": 1, "items": [], "gone": 2},
            "Order has no field 'gone'",
        ),
        ({"$namedtuple": class_name(Point), "y": 1}, "Point needs the field 'x'"),
        ({"$namedtuple": class_name(Point), "x": 1, "z": 1}, "Point has no field 'z'"),
        ({"$enum": [class_name(Color), "GREEN"]}, "Color has no member 'GREEN'"),
        ({"$enum": [class_name(Access), "READ|FLY"]}, "Access has no member 'READ.FLY'"),
        ({"$dataclass": "shop.Gone", "id": 1}, "'shop.Gone' is registered"),
        ({"$enum": ["shop.Gone", "A"]}, "'shop.Gone' is registered"),
        ({"$enum": [class_name(Order), "A"]}, "is registered"),
    ],
)
@pytest.mark.peer_case(128)
def test_a_row_that_does_not_fit_its_class_is_told_by_class_and_field(
    codec: JsonCodec, body: dict[str, Any], says: str
) -> None:
    with pytest.raises(DecodeError, match=says):
        codec.decode(json.dumps(body))


def test_an_attribute_that_is_no_field_is_refused_but_not_a_cached_property(
    codec: JsonCodec,
) -> None:
    @dataclass
    class Caching:
        a: int

        @functools.cached_property
        def twice(self) -> int:
            return self.a * 2

    codec.register(Caching)
    value = Caching(2)
    assert value.twice == 4

    assert codec.decode(codec.encode(value)) == value
    value.extra = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"attribute 'extra' of .*Caching is not a field"):
        codec.encode(value)


def test_a_field_that_was_never_set_is_refused(codec: JsonCodec) -> None:
    @dataclass
    class Unfinished:
        later: int = field(init=False)

    codec.register(Unfinished)

    with pytest.raises(TypeError, match=r"a field of .*Unfinished has no value"):
        codec.encode(Unfinished())


@pytest.mark.parametrize("value", [Order(1, []), Color.RED, Point(1), [Access.READ]])
def test_a_class_that_is_not_registered_is_refused_with_what_to_do(value: Any) -> None:
    with pytest.raises(TypeError, match=r"name it in an annotation .* app\.register\("):
        JsonCodec().encode(value)


def test_a_subclass_of_a_registered_class_is_another_class(codec: JsonCodec) -> None:
    @dataclass
    class Special(Item):
        pass

    with pytest.raises(TypeError, match="Special"):
        codec.encode(Special("a", Decimal(1)))


def test_a_flag_value_that_no_members_make_up_is_refused(codec: JsonCodec) -> None:
    class Bits(enum.IntFlag):
        ONE = 1

    codec.register(Bits)

    assert codec.decode(codec.encode(Bits.ONE)) is Bits.ONE
    with pytest.raises(TypeError, match="no names of its members"):
        codec.encode(Bits(8))


def test_a_reloaded_class_replaces_the_earlier_one_of_its_name(codec: JsonCodec) -> None:
    def load() -> type[Any]:
        @dataclass
        class Reloaded:
            a: int

        return Reloaded

    old, new = load(), load()
    codec.register(old)
    text = codec.encode(old(1))
    codec.register(new)

    assert type(codec.decode(text)) is new
    with pytest.raises(TypeError):
        codec.encode(old(1))


@pytest.mark.parametrize("cls", [int, threading.Thread, enum.Enum, KeyboardInterrupt])
def test_only_classes_with_known_fields_can_be_registered(codec: JsonCodec, cls: type[Any]) -> None:
    with pytest.raises(TypeError, match="cannot be registered"):
        codec.register(cls)


def test_a_dataclass_that_is_also_a_builtin_container_cannot_be_registered(
    codec: JsonCodec,
) -> None:
    @dataclass
    class Both(dict):  # type: ignore[type-arg]
        a: int = 1

    with pytest.raises(TypeError, match="derives from a builtin"):
        codec.register(Both)


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Leaf:
    color: Color


class Row(TypedDict):
    leaf: Leaf


Rows = NewType("Rows", list[Row])


def generously_annotated(
    a: Box[Item],
    b: dict[str, list[Point] | None],
    c: Annotated[Rows, {"not": "hashable"}],
    *rest: Callable[[Level], Pair],
    d: Literal[Mode.FAST, "x"] = Mode.FAST,
) -> type[Order]: ...


def test_annotations_register_what_they_name_at_any_depth() -> None:
    codec = JsonCodec()
    codec.register_annotations(generously_annotated)

    values = [Box(1), Item("a", Decimal(1)), Point(1), Leaf(Color.BLUE), Level.LOW, Pair(1, 2)]
    for value in [*values, Mode.FAST, Order(1, [])]:
        assert codec.decode(codec.encode(value)) == value


def test_an_annotation_that_cannot_be_resolved_hides_no_other() -> None:
    def function(a: OnlyForTypeCheckers, b: Order) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    codec = JsonCodec()
    codec.register_annotations(function)

    assert codec.decode(codec.encode(Order(1, []))) == Order(1, [])


def test_annotations_see_classes_of_the_enclosing_function() -> None:
    @dataclass
    class Local:
        a: int

    def function(a: Local) -> Any:
        return Local(1)

    codec = JsonCodec()
    codec.register_annotations(function)

    assert codec.decode(codec.encode(Local(1))) == Local(1)


@dataclass
class Tree:
    children: list[Tree]
    root: Forest | None = None


@dataclass
class Forest:
    trees: dict[str, Tree]


def test_classes_that_name_each_other_are_all_registered() -> None:
    codec = JsonCodec()
    codec.register(Tree)

    value = Forest({"a": Tree([Tree([])])})

    assert codec.decode(codec.encode(value)) == value


def test_a_class_goes_by_module_and_qualname() -> None:
    assert class_name(ValueError) == "ValueError"
    assert class_name(Order) == f"{__name__}.Order"
    assert class_name(asyncio.CancelledError) == "asyncio.exceptions.CancelledError"


SCRIPT = """
import dataclasses, sys
from rowtine.codec import JsonCodec

@dataclasses.dataclass
class Order:
    id: int

class Broken(Exception):
    pass

def codec():
    made = JsonCodec()
    made.register(Order)
    return made

if __name__ == "__main__":
    print(codec().encode(Order(7)))
    error = codec().encode_error(Broken("x"))
    print(error.type)
    print(type(codec().decode_error(error)) is Broken)
"""


@pytest.mark.parametrize("how", [["shop.py"], ["-m", "shop"]])
def test_a_scripts_main_and_an_import_of_it_are_one_class(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "shop.py").write_text(SCRIPT)

    ran = python(tmp_path, *how)
    text, error_type, rebuilt = ran.splitlines()

    assert text == '{"$dataclass":"shop.Order","id":7}'
    assert (error_type, rebuilt) == ("shop.Broken", "True")
    reader = f"import shop; print(shop.codec().decode({text!r}))"
    assert python(tmp_path, "-c", reader) == "Order(id=7)\n"


def python(directory: Path, *arguments: str) -> str:
    env = {"PYTHONPATH": ":".join([str(directory), *filter(None, sys.path)])}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


# --- pydantic -----------------------------------------------------------------------------------


@pytest.fixture
def model(codec: JsonCodec) -> type[Any]:
    pydantic = pytest.importorskip("pydantic")

    class Customer(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        model_config = pydantic.ConfigDict(extra="allow")
        id: int
        when: Annotated[dt.datetime | None, "since"] = None
        orders: list[Order] = pydantic.Field(default_factory=list)
        _visits: int = pydantic.PrivateAttr(default=0)

        @pydantic.field_validator("id")
        @classmethod
        def check(cls, value: int) -> int:
            calls.append("validator")
            return value + 1

    Customer.__qualname__ = "Customer"
    codec.register(Customer)
    return Customer


def test_a_pydantic_model_comes_back_whole_and_is_not_validated_again(
    codec: JsonCodec, model: type[Any]
) -> None:
    value = model(id=1, orders=[Order(1, [])], nick={"$x": 1})
    value._visits = 3
    calls.clear()

    text = codec.encode(value)
    back = codec.decode(text)

    assert type(back) is model
    assert back == value
    assert (back.id, back._visits, back.nick) == (2, 3, {"$x": 1})
    assert back.model_fields_set == value.model_fields_set
    assert calls == []
    assert json.loads(text)["id"] == 2
    assert codec.encode(back) == text


def test_a_pydantic_row_older_than_a_field_gets_its_default(
    codec: JsonCodec, model: type[Any]
) -> None:
    name = class_name(model)

    back = codec.decode(f'{{"$pydantic":"{name}","id":5}}')

    assert (back.id, back.when, back.orders, back._visits) == (5, None, [], 0)
    assert back.model_fields_set == {"id"}
    with pytest.raises(DecodeError, match="Customer needs the field 'id'"):
        codec.decode(f'{{"$pydantic":"{name}"}}')
    with pytest.raises(DecodeError, match="Customer has no field 'gone'"):
        codec.decode(f'{{"$pydantic":"{name}","id":5,"gone":1}}')


def test_annotations_register_models_and_what_their_fields_name() -> None:
    pydantic = pytest.importorskip("pydantic")
    cart = pydantic.create_model("Cart", items=(list[Item], ...), color=(Color, Color.RED))

    def function(a: Any) -> None: ...

    function.__annotations__["a"] = list[cart]
    codec = JsonCodec()
    codec.register_annotations(function)
    value = cart(items=[Item("tea", Decimal(1))])

    assert codec.decode(codec.encode([value])) == [value]
    with pytest.raises(TypeError, match=r"app\.register\(Other\)"):
        codec.encode(pydantic.create_model("Other")())


def test_rowtine_does_not_import_pydantic(tmp_path: Path) -> None:
    check = "import sys, rowtine.codec; rowtine.codec.JsonCodec(); print('pydantic' in sys.modules)"

    assert python(tmp_path, "-c", check) == "False\n"


# --- refused at the door ------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(  # A13, B30, 1.19, G1
    ("value", "kind"),
    [
        (threading.Lock(), "_thread.lock"),
        (generator(), "generator"),
        (generator, "function"),
        (sys.__stdout__, "_io.TextIOWrapper"),
        (object(), "object"),
        (dict, "type"),
        (1j, "complex"),
        (OrderedDict(a=1), "OrderedDict.*plain dict"),
        (Text("a"), "Text.*plain str"),
        (mock.Mock(), "Mock"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (type("Local", (Exception,), {})(), "Local"),
    ],
)
def test_what_would_not_come_back_the_same_is_refused(
    codec: JsonCodec, value: Any, kind: str
) -> None:
    with pytest.raises(TypeError, match=kind):
        codec.encode(value)


def test_a_foreign_time_zone_is_refused(codec: JsonCodec) -> None:
    class Foreign(dt.tzinfo):
        def utcoffset(self, _when: dt.datetime | None) -> dt.timedelta:
            pytest.fail("asked although it cannot be stored")

    with pytest.raises(TypeError, match=r"Foreign; use .*zoneinfo\.ZoneInfo"):
        codec.encode(dt.datetime(2024, 1, 1, tzinfo=Foreign()))


def test_the_refusal_names_the_path(codec: JsonCodec) -> None:
    @dataclass
    class Shelf:
        items: list[Any]

    codec.register(Shelf)
    value = Shelf([1, 2, 3, {"a": ({5: {"k": threading.Lock()}},)}])

    with pytest.raises(TypeError) as caught:
        codec.encode_arguments(Arguments((1, value), {}, ("first", "shelf")))

    assert str(caught.value).startswith(
        "argument 'shelf', .items[3]['a'][0][5]['k']: cannot store a value of type _thread.lock; "
    )


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        (Arguments((object(),), {}, ("order",)), "argument 'order': cannot store"),
        (Arguments((1, object()), {}, ("order",)), "argument 2: cannot store"),
        (Arguments((1,), {"b": 1, "k": object()}, ("a",)), "argument 'k': cannot store"),
        (Arguments(({object(): 1},)), "argument 1, <key <object>>: cannot store"),
        (Arguments(({object()},)), "argument 1, {...}: cannot store"),
    ],
)
def test_the_refusal_names_the_argument(codec: JsonCodec, arguments: Arguments, label: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec.encode_arguments(arguments)

    assert str(caught.value).startswith(label)


def test_the_refusal_shows_no_value(codec: JsonCodec) -> None:  # G13
    with pytest.raises(TypeError) as caught:
        codec.encode({"password": [object(), "canary"]}, "the returned value")

    assert str(caught.value).startswith("the returned value, ['password'][0]: ")
    assert "canary" not in str(caught.value)


def nested(depth: int, make: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = make(0)
    for _ in range(depth - 1):
        value = make(value)
    return value


@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, lambda v: Pair(v, 0)]
)
def test_depth_is_limited_alike_in_both_directions(
    codec: JsonCodec, make: Callable[[Any], Any]
) -> None:  # G8
    deepest = nested(200, make)
    text, both = (
        codec.encode(deepest),
        codec.encode_arguments(Arguments((deepest,), {"k": deepest})),
    )

    assert codec.encode(codec.decode(text)) == text
    assert codec.encode_arguments(codec.decode_arguments(both)) == both
    with pytest.raises(PayloadError, match="more than 200 deep"):
        codec.encode(nested(201, make))


def test_a_cycle_ends_at_the_depth_limit(codec: JsonCodec) -> None:
    cycle: list[Any] = []
    cycle.append({"again": cycle})

    with pytest.raises(PayloadError) as caught:
        codec.encode_arguments(Arguments((cycle,), {}, ("x",)))

    assert str(caught.value).startswith("argument 'x', [0]['again'][0]['again']")
    assert len(str(caught.value)) < 300


def test_values_that_share_parts_cannot_explode() -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value, value]

    with pytest.raises(PayloadError, match="too large"):
        JsonCodec(max_bytes=100_000).encode(value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 201 + "]" * 201, '{"a":' * 5000])
def test_a_deep_row_is_refused_by_the_reader(codec: JsonCodec, text: str) -> None:  # G8
    with pytest.raises(DecodeError):
        codec.decode(text)


@pytest.mark.parametrize("tag", ["$tuple", "$dict"])
def test_a_deep_row_of_tags_is_refused_by_the_reader(codec: JsonCodec, tag: str) -> None:
    head, tail = ('{"$dict":[[1,', "]]}") if tag == "$dict" else ('{"$tuple":[', "]}")

    with pytest.raises(DecodeError, match="200 deep"):
        codec.decode(head * 201 + "1" + tail * 201)


@pytest.mark.parametrize("room", [40, 60, 100, 200, 400])
def test_a_nearly_full_stack_is_no_reason_for_another_error(codec: JsonCodec, room: int) -> None:
    def deep(levels: int, action: Callable[[], Any]) -> Any:
        return deep(levels - 1, action) if levels else action()

    value = nested(190)
    text = codec.encode(value)
    levels = sys.getrecursionlimit() - len(list(stack())) - room

    for action, refusal in (
        (lambda: codec.encode(value), PayloadError),
        (lambda: codec.decode(text), DecodeError),
    ):
        with contextlib.suppress(refusal):
            deep(levels, action)


def stack() -> Iterator[Any]:
    frame: Any = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_a_payload_over_the_limit_is_refused_with_both_sizes() -> None:  # G9
    codec = JsonCodec()

    with pytest.raises(PayloadError) as caught:
        codec.encode_arguments(Arguments(("x" * 3_250_000,), {}, ("x",)))

    assert str(caught.value) == (
        "argument 'x' is 3.1 MB as JSON; the limit is 2 MB (App(max_payload_bytes=...))"
    )


def test_the_limit_holds_for_the_arguments_together() -> None:
    codec = JsonCodec(max_bytes=100)

    with pytest.raises(PayloadError, match=r"the arguments are 125 bytes as JSON; .* 100 bytes"):
        codec.encode_arguments(Arguments(("x" * 54, "y" * 55)))
    assert codec.encode("x" * 98)
    with pytest.raises(PayloadError, match="value is 101 bytes"):
        codec.encode("x" * 99)


def test_the_limit_counts_what_stands_in_the_row() -> None:
    with pytest.raises(PayloadError):
        JsonCodec(max_bytes=100).encode("é" * 40)


def test_large_bytes_are_refused_before_they_are_copied(codec: JsonCodec) -> None:
    with pytest.raises(PayloadError, match="too large"):
        codec.encode([bytes(100_000_000)])


# --- hostile and foreign rows -------------------------------------------------------------------

HOSTILE = [
    "",
    "{",
    "nul",
    "NaN",
    "1 2",
    "1e999",
    '"\\ud800"',
    '{"$dataclass": "os.system"}',
    '{"$dataclass": "os.system", "command": "touch marker"}',
    '{"$dataclass": ["os", "system"]}',
    '{"$dataclass": {"$dataclass": "os.system"}}',
    '{"$dataclass": null}',
    '{"$enum": "os.system"}',
    '{"$enum": ["os.system"]}',
    '{"$enum": ["os.system", []]}',
    '{"$enum": [["os"], "x"]}',
    '{"$pydantic": "antigravity.Model"}',
    '{"$namedtuple": "this.Zen"}',
    '{"$function": "os.system"}',
    '{"$function": 1}',
    '{"$pickle": "gASV"}',
    '{"$": 1}',
    '{"$tuple": {}}',
    '{"$tuple": [1], "x": 1}',
    '{"$set": [[]]}',
    '{"$set": [1, 1]}',
    '{"$frozenset": [{"a": 1}]}',
    '{"$dict": [[1]]}',
    '{"$dict": [1]}',
    '{"$dict": ["ab"]}',
    '{"$dict": {"a": 1}}',
    '{"$dict": [[[], 1]]}',
    '{"$dict": [[1, 1], [1, 2]]}',
    '{"$bytes": "*"}',
    '{"$bytes": 1}',
    '{"$bytearray": [1]}',
    '{"$int": 1}',
    '{"$int": "x"}',
    '{"$float": "1"}',
    '{"$float": "-nan"}',
    '{"$text": "\\u00e9"}',
    '{"$text": "\\\\x"}',
    '{"$text": null}',
    '{"$date": "2024-13-01"}',
    '{"$datetime": "yesterday"}',
    '{"$datetime": 0}',
    '{"$datetime": "2024-01-01T00:00:00", "zone": "../../../etc/passwd"}',
    '{"$datetime": "2024-01-01T00:00:00", "zone": "Mars/Olympus"}',
    '{"$datetime": "2024-01-01T00:00:00", "zone": "os.path/x"}',
    '{"$datetime": "2024-01-01T00:00:00", "zone": null}',
    '{"$datetime": "2024-01-01T00:00:00", "name": "x"}',
    '{"$datetime": "2024-01-01T00:00:00", "fold": 2}',
    '{"$datetime": "2024-01-01T00:00:00", "more": 1}',
    '{"$time": "25:00"}',
    '{"$timedelta": [1, 2, 3, 4, 5, 6, 7, 8]}',
    '{"$timedelta": ["1"]}',
    '{"$timedelta": [1e300]}',
    '{"$decimal": "x"}',
    '{"$decimal": 1}',
    '{"$decimal": "1E+99999999999999999999"}',
    '{"$uuid": "x"}',
    '{"$error": 1}',
    '{"$error": "ValueError", "message": 1}',
    '{"$error": "ValueError", "traceback": []}',
    '{"$error": "ValueError", "more": 1}',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_malformed_row_is_a_decode_error_and_nothing_else(
    codec: JsonCodec, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    with pytest.raises(DecodeError):
        codec.decode(text)

    with pytest.raises(DecodeError):
        codec.decode_arguments(f'{{"args": [1, {text}]}}')
    assert {name for name in set(sys.modules) - before if "tzdata" not in name} == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload", [b"1", 1, [1], {"a": 1}])
def test_a_payload_that_is_no_text_is_a_decode_error(codec: JsonCodec, payload: Any) -> None:
    with pytest.raises(DecodeError, match="a payload is text"):
        codec.decode(payload)


def test_a_value_of_an_unknown_class_is_an_error_to_be_caught(codec: JsonCodec) -> None:  # P157
    with pytest.raises(RowtineError, match=r"'acme\.Unknown'"):
        codec.decode('{"a": [{"$dataclass": "acme.Unknown", "id": 1}]}')


def test_a_default_factory_that_fails_is_a_decode_error(codec: JsonCodec) -> None:
    @dataclass
    class Failing:
        a: int = field(default_factory=lambda: 1 // 0)

    codec.register(Failing)

    with pytest.raises(DecodeError, match="ZeroDivisionError"):
        codec.decode(f'{{"$dataclass":"{class_name(Failing)}"}}')


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(  # A4
    ("arguments", "text"),
    [
        (Arguments(), "{}"),
        (Arguments((1, (2,))), '{"args":[1,{"$tuple":[2]}]}'),
        (Arguments((), {"b": 1, "a": 2}), '{"kwargs":{"b":1,"a":2}}'),
        (Arguments((None,), {"b": None}), '{"args":[null],"kwargs":{"b":null}}'),
        (Arguments((), {"$tuple": [1]}), '{"kwargs":{"$dict":[["$tuple",[1]]]}}'),
        (Arguments(({"args": [1]},)), '{"args":[{"args":[1]}]}'),
    ],
)
def test_arguments_come_back(codec: JsonCodec, arguments: Arguments, text: str) -> None:
    assert codec.encode_arguments(arguments) == text

    back = codec.decode_arguments(text)

    assert back == arguments
    assert same(list(back.args), list(arguments.args))
    assert list(back.kwargs) == list(arguments.kwargs)


@pytest.mark.parametrize(  # A6
    ("text", "arguments"),
    [
        (None, Arguments()),
        ("[1, [2]]", Arguments((1, [2]))),
        ("[]", Arguments()),
        ("42", Arguments((42,))),
        ("null", Arguments((None,))),
        ('{"id": 1}', Arguments(({"id": 1},))),
        ('{"args": [1], "more": 2}', Arguments(({"args": [1], "more": 2},))),
        ('{"$tuple": [1, 2]}', Arguments(((1, 2),))),
    ],
)
def test_input_that_others_wrote_is_accepted(
    codec: JsonCodec, text: str | None, arguments: Arguments
) -> None:
    assert codec.decode_arguments(text) == arguments


@pytest.mark.parametrize(
    "text",
    ['{"args": 1}', '{"kwargs": []}', '{"args": {"$set": []}}', '{"kwargs": {"$dict": [[1, 2]]}}'],
)
def test_arguments_of_the_wrong_form_are_a_decode_error(codec: JsonCodec, text: str) -> None:
    with pytest.raises(DecodeError, match="malformed arguments"):
        codec.decode_arguments(text)


# --- errors -------------------------------------------------------------------------------------


def test_an_error_is_stored_readably(codec: JsonCodec) -> None:
    stored = codec.encode_error(raised(lambda: ValueError("oops", {1})))

    assert (stored.type, stored.message) == ("ValueError", "('oops', {1})")
    assert stored.details == '{"args":["oops",{"$set":[1]}]}'


def helper_that_fails() -> None:
    raise LookupError("here")


def test_the_traceback_names_the_users_lines_and_prints_as_the_cause(
    codec: JsonCodec,
) -> None:  # A14
    try:
        helper_that_fails()
    except LookupError as error:
        error.add_note("a note")
        stored = codec.encode_error(error)

    assert stored.traceback is not None
    assert "in helper_that_fails" in stored.traceback
    assert 'raise LookupError("here")' in stored.traceback
    assert "a note" in stored.traceback
    back = codec.decode_error(stored)
    assert isinstance(back.__cause__, RemoteTraceback)
    printed = text_of(back)
    assert "in helper_that_fails" in printed
    assert "direct cause" in printed
    assert back.__notes__ == ["a note"]


def text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_frames_of_rowtine_above_the_users_are_not_shown(codec: JsonCodec) -> None:
    codec.lookup_function = lambda name: helper_that_fails()

    with pytest.raises(DecodeError) as caught:
        codec.decode('{"$function":"x"}')
    stored = codec.encode_error(caught.value.__cause__ or caught.value)

    assert stored.traceback is not None
    assert "in helper_that_fails" in stored.traceback
    assert "rowtine/codec" not in stored.traceback
    only_rowtine = caught.value.with_traceback(
        caught.value.__traceback__ and caught.value.__traceback__.tb_next
    )
    only_rowtine.__cause__ = None
    only_rowtine.__context__ = None
    assert "rowtine/codec" in (codec.encode_error(only_rowtine).traceback or "")


def test_causes_and_groups_are_in_the_traceback_and_locals_are_not(codec: JsonCodec) -> None:
    def fail() -> None:
        canary = "secret" + "ive"
        try:
            raise KeyError("inner") from OSError("innermost")
        except KeyError as error:
            raise ExceptionGroup("many", [error, ValueError(len(canary))]) from error

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    text = codec.encode_error(caught.value).traceback or ""

    assert "KeyError: 'inner'" in text
    assert "innermost" in text
    assert "ValueError: 9" in text
    assert "secretive" not in text


def test_an_error_that_was_never_raised_has_no_traceback(codec: JsonCodec) -> None:
    stored = codec.encode_error(ValueError("x"))

    assert stored.traceback is None
    assert codec.decode_error(stored).__cause__ is None


def test_an_error_that_travels_on_keeps_both_tracebacks(codec: JsonCodec) -> None:
    first = there_and_back(codec, raised(lambda: ValueError("x")))
    kept = codec.encode_error(first)

    def pass_on() -> None:
        raise first

    with pytest.raises(ValueError, match="x"):
        pass_on()
    again = codec.encode_error(first)

    assert kept.traceback == codec.encode_error(raised(lambda: ValueError("x"))).traceback
    assert "in raised" in (again.traceback or "")
    assert "in pass_on" in (again.traceback or "")


ERRORS: list[BaseException] = [
    ValueError(),
    ValueError("oops"),
    KeyError("k"),  # B20
    KeyError(("a", 1)),
    TimeoutError(),
    StopIteration(3),
    TwoArgError("bad", 7),  # B27, 1.20
    OSError("only a message"),
    FileNotFoundError(2, "No such file", "/tmp/é"),
    OSError(18, "Cross-device", "a", None, "b"),
    socket.gaierror(-2, "Name not known"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    json.JSONDecodeError("bad", "{", 1),
    subprocess.CalledProcessError(3, ["ls", "-l"], b"out"),
    asyncio.IncompleteReadError(b"a", 2),
    SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)),
    ImportError("no", name="mod", path="/p"),
    ExceptionGroup("many", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])]),
    AnyException([ValueError("a"), KeyError("b")]),
    PayloadError("too large"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_its_class_with_all_it_has(
    codec: JsonCodec, error: BaseException
) -> None:
    back = there_and_back(codec, error)

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert facts(back) == facts(error)


def facts(error: BaseException) -> Any:
    names = ["errno", "filename", "filename2", "name", "path", "value", "object", "lineno", "msg"]
    members = [facts(member) for member in getattr(error, "exceptions", ())]
    held = {name: getattr(error, name, None) for name in names}
    plain = {k: v for k, v in vars(error).items() if k != "exceptions"}
    args = None if members else error.args
    return type(error), args, held, plain, members


@pytest.mark.usefixtures("armed")
def test_no_code_of_the_class_runs_when_an_error_is_rebuilt(codec: JsonCodec) -> None:
    error = raised(lambda: Tripwire("ouch", size=3))
    error.add_note("noted")
    stored = codec.encode_error(error)
    calls.clear()

    back = codec.decode_error(stored)

    assert calls == []
    assert isinstance(back, Tripwire)
    assert (back.args, back.size, back.__notes__) == (("ouch",), 3, ["noted"])
    assert isinstance(back.__cause__, RemoteTraceback)


def test_an_oserror_with_its_own_init_keeps_its_errno(codec: JsonCodec) -> None:
    class Disk(OSError):
        def __init__(self, device: str) -> None:
            super().__init__(28, "No space", device)
            self.device = device

    codec.register(Disk)

    back = there_and_back(codec, Disk("sda"))

    assert isinstance(back, Disk)
    assert (back.errno, back.filename, back.device, str(back)) == (
        28,
        "sda",
        "sda",
        "[Errno 28] No space: 'sda'",
    )


def test_attributes_in_slots_survive(codec: JsonCodec) -> None:
    class Slotted(Exception):
        __slots__ = ("code", "unset")

    codec.register(Slotted)
    error = Slotted("x")
    error.code = 7

    back = there_and_back(codec, error)

    assert isinstance(back, Slotted)
    assert back.code == 7


def test_what_cannot_be_stored_of_an_error_is_left_out(codec: JsonCodec) -> None:  # G12
    error = TwoArgError("bad", 7)
    error.request = threading.Lock()  # type: ignore[attr-defined]
    both = ValueError(threading.Lock(), 1)

    back, both_back = there_and_back(codec, error), there_and_back(codec, both)

    assert vars(back) == {"code": 7}
    assert type(both_back) is ValueError
    assert both_back.args == (str(both),)


def test_what_is_left_out_of_an_error_does_not_disturb_the_rest(codec: JsonCodec) -> None:
    error, inner = ValueError("outer"), KeyError("inner")
    inner.mixed = {(1, "a"), "b"}  # type: ignore[attr-defined]
    error.a = [{object(), (1,)}, threading.Lock()]  # type: ignore[attr-defined]
    error.b = {1, "a", (2, frozenset({3, "b"}))}  # type: ignore[attr-defined]
    error.c = {inner, "text"}  # type: ignore[attr-defined]

    back = there_and_back(codec, error)

    assert vars(back).keys() == {"b", "c"}
    assert vars(back)["b"] == vars(error)["b"]
    (found,) = (item for item in vars(back)["c"] if item != "text")
    assert vars(found) == vars(inner)


def test_an_error_with_only_type_and_message_is_its_class(codec: JsonCodec) -> None:  # B26
    back = codec.decode_error(RemoteError("ValueError", "bad"))

    assert type(back) is ValueError
    assert back.args == ("bad",)


@pytest.mark.parametrize(
    "stored",
    [
        RemoteError("acme.Unknown", "bad", "the trace", '{"args":["bad"]}'),
        RemoteError("SystemExit", "1"),
        RemoteError("asyncio.exceptions.CancelledError", ""),
        RemoteError("os.system", "touch marker"),
        RemoteError("antigravity.Error", "x"),
        RemoteError("builtins.eval", "1"),
        RemoteError("eval", "1"),
        RemoteError("int", "1"),
        RemoteError("", "x"),
        RemoteError(".", "x"),
        RemoteError("a." * 10_000, "x"),
        RemoteError("UnicodeDecodeError", "no args"),
        RemoteError("ExceptionGroup", "x", details='{"args":["x",[1]]}'),
        RemoteError("ValueError", "x", details='{"args":1}'),
        RemoteError("ValueError", "x", details='{"attrs":[1]}'),
        RemoteError("ValueError", "x", details='{"args":[{"$dataclass":"os.system"}]}'),
        RemoteError("rowtine.errors.AnyException", "x", details='{"args":[[1],2,3]}'),
    ],
    ids=lambda error: f"{error.type:.40} {error.details}",
)
def test_an_error_that_cannot_be_rebuilt_is_a_fresh_remote_error(
    codec: JsonCodec, stored: RemoteError
) -> None:  # B27, 1.20
    before = set(sys.modules)

    back = codec.decode_error(stored)

    assert type(back) is RemoteError
    assert back is not stored
    assert (back.type, back.message, back.details) == (stored.type, stored.message, stored.details)
    assert (back.__cause__ is not None) == (stored.traceback is not None)
    assert set(sys.modules) == before


def test_malformed_details_cost_the_details_only(codec: JsonCodec) -> None:
    back = codec.decode_error(RemoteError("ValueError", "bad", details="{"))

    assert type(back) is ValueError
    assert back.args == ("bad",)


def test_looking_up_a_class_triggers_nothing(
    codec: JsonCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            calls.append(name)
            return super().__getattribute__(name)

    class Lazy(type(sys)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            calls.append(name)
            return super().__getattribute__(name)

    class Holder(metaclass=Meta):
        error = property(lambda _self: calls.append("property"))

    lazy = Lazy("lazy")
    lazy.Holder = Holder
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    monkeypatch.setitem(sys.modules, "weird", mock.MagicMock())
    calls.clear()

    for name in ("lazy.Holder.error", "lazy.Holder", "lazy.gone", "weird.Error"):
        assert type(codec.decode_error(RemoteError(name, "x"))) is RemoteError

    assert calls == []


def test_a_stored_error_passes_through_unchanged(codec: JsonCodec) -> None:
    stored = RemoteError("acme.Unknown", "bad", "the trace", "{}")

    assert codec.encode_error(stored) is stored

    bare = raised(lambda: RemoteError("acme.Unknown", "bad", None, '{"args":[]}'))
    filled = codec.encode_error(bare)
    assert (filled.type, filled.message, filled.details) == ("acme.Unknown", "bad", '{"args":[]}')
    assert "in raised" in (filled.traceback or "")
    assert codec.encode_error(RemoteError("a", "b")).traceback is None


def test_an_error_raised_twice_shares_no_traceback(codec: JsonCodec) -> None:
    stored = RemoteError("acme.Unknown", "bad")

    first, second = codec.decode_error(stored), codec.decode_error(stored)
    raised(lambda: first)

    assert second.__traceback__ is None


def test_members_of_an_any_exception_are_rebuilt_each(codec: JsonCodec) -> None:
    stored = AnyException([RemoteError("KeyError", "x", "trace"), RemoteError("acme.E", "y")])

    back = codec.decode_error(stored)

    assert isinstance(back, AnyException)
    assert back is not stored
    assert [type(member) for member in back.exceptions] == [KeyError, RemoteError]
    again = there_and_back(codec, back)
    assert isinstance(again, AnyException)
    assert [type(member) for member in again.exceptions] == [KeyError, RemoteError]
    assert isinstance(again.exceptions[0].__cause__, RemoteTraceback)
    assert str(again.exceptions[1]) == "acme.E: y"


def test_members_of_a_group_keep_their_tracebacks_and_lose_only_what_cannot_be_stored(
    codec: JsonCodec,
) -> None:
    member = raised(lambda: TwoArgError("bad", 7))
    member.lock = threading.Lock()  # type: ignore[attr-defined]

    back = there_and_back(codec, ExceptionGroup("many", [member, ValueError("b")]))

    assert isinstance(back, ExceptionGroup)
    first = back.exceptions[0]
    assert isinstance(first, TwoArgError)
    assert first.code == 7
    assert "in raised" in str(first.__cause__)


def test_a_group_class_with_its_own_constructor_survives(codec: JsonCodec) -> None:
    class Errors(ExceptionGroup[Exception]):
        code: int

        def __new__(cls, errors: list[Exception], code: int) -> typing.Self:
            self = super().__new__(cls, f"exit code {code}", errors)
            self.code = code
            return self

        def __init__(self, errors: list[Exception], code: int) -> None: ...

    codec.register(Errors)

    back = there_and_back(codec, Errors([ValueError("a")], 3))

    assert isinstance(back, Errors)
    assert (back.message, back.code, len(back.exceptions)) == ("exit code 3", 3, 1)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(2), KeyboardInterrupt()])
def test_a_base_exception_is_stored_and_comes_back_as_a_remote_error(
    codec: JsonCodec, error: BaseException
) -> None:
    back = there_and_back(codec, error)

    assert type(back) is RemoteError
    assert back.type == class_name(type(error))


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, RecursionError])
def test_an_error_that_cannot_say_its_message_is_stored_all_the_same(
    codec: JsonCodec, failure: type[BaseException]
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise failure

        @property
        def __notes__(self) -> list[str]:
            raise failure

    stored = codec.encode_error(raised(Mute))

    assert stored.message == "<no message: its __str__ failed>"
    assert isinstance(codec.decode_error(stored), RemoteError)


def test_long_texts_of_an_error_are_cut(codec: JsonCodec) -> None:  # G12
    stored = codec.encode_error(raised(lambda: ValueError("x" * 10_000_000)))

    assert len(stored.message) < 8_100
    assert "10,000,000 characters" in stored.message
    assert stored.traceback is not None
    assert len(stored.traceback) < 65 * 1024
    assert stored.traceback.startswith("Traceback")
    assert stored.details is None
    assert type(codec.decode_error(stored)) is ValueError


def test_the_largest_part_of_an_error_goes_first() -> None:
    codec = JsonCodec(max_bytes=1000)
    error = ValueError("short")
    error.body = "x" * 2000  # type: ignore[attr-defined]

    assert codec.encode_error(error).details == '{"args":["short"]}'


def test_an_error_that_holds_itself_ends(codec: JsonCodec) -> None:  # G12
    error, other = ValueError("a"), KeyError("b")
    error.me = error  # type: ignore[attr-defined]
    error.other = other  # type: ignore[attr-defined]
    other.back, other.back2 = error, error  # type: ignore[attr-defined]
    error.__cause__ = other
    other.__cause__ = error

    stored = codec.encode_error(error)

    assert len(stored.details or "") < 500
    assert type(codec.decode_error(stored)) is ValueError
    with pytest.raises(PayloadError, match="200 deep"):
        codec.encode(error)


def test_errors_that_share_errors_cannot_explode(codec: JsonCodec) -> None:
    error: Exception = ValueError("first")
    for _ in range(40):
        later = ValueError("later")
        later.a, later.b = error, error  # type: ignore[attr-defined]
        error = later

    assert len(codec.encode_error(error).details or "") < codec.max_bytes
    with pytest.raises(PayloadError):
        JsonCodec(max_bytes=100_000).encode(error)


def test_a_thousand_causes_are_no_reason_to_lose_the_traceback(codec: JsonCodec) -> None:
    error: Exception = ValueError("first")
    for number in range(3000):
        later = ValueError(number)
        later.__cause__ = error
        error = later

    assert "The above exception" in (codec.encode_error(error).traceback or "")


def test_an_any_exception_of_a_thousand_members_keeps_them(codec: JsonCodec) -> None:
    members = [raised(lambda: KeyError("k")) for _ in range(1000)]

    back = there_and_back(codec, AnyException(members))

    assert isinstance(back, AnyException)
    assert {type(member) for member in back.exceptions} == {KeyError}
    assert len(back.exceptions) == 1000


def test_every_text_of_an_error_can_be_stored_anywhere(codec: JsonCodec) -> None:  # G2, G3
    class Odd(Exception):
        pass

    Odd.__qualname__ = "Odd\0"
    stored = codec.encode_error(raised(lambda: Odd("a\0b\ud800")))
    cleaned = codec.encode_error(RemoteError("a\0", "b\ud800", "c\0"))

    for text in (stored.type, stored.message, stored.traceback, stored.details, cleaned.type):
        assert text is not None
        assert "\0" not in text
        text.encode("utf-8")
    assert stored.message == r"a\x00b\ud800"
    assert (cleaned.type, cleaned.message, cleaned.traceback) == (r"a\x00", r"b\ud800", r"c\x00")


def test_an_error_of_another_kind_is_given_back_as_it_is(codec: JsonCodec) -> None:
    error = ValueError("x")

    assert codec.decode_error(error) is error


# --- errors as values ---------------------------------------------------------------------------


def test_an_exception_can_be_a_value(codec: JsonCodec) -> None:
    value = [KeyError("k"), TwoArgError("bad", 7), AnyException([ValueError("a")])]

    text = codec.encode(value)
    back = codec.decode(text)

    assert [facts(error) for error in back] == [facts(error) for error in value]
    assert codec.encode(back) == text
    assert json.loads(text)[0] == {"$error": "KeyError", "args": ["k"]}


def test_an_exception_as_a_value_does_not_depend_on_where_it_was_raised(codec: JsonCodec) -> None:
    assert codec.encode(raised(lambda: ValueError("x"))) == codec.encode(ValueError("x"))


def test_an_exception_as_a_value_of_an_unknown_class_says_what_its_args_say(
    codec: JsonCodec,
) -> None:
    text = '[{"$error":"a.B"},{"$error":"a.B","args":["bad"]},{"$error":"a.B","args":[1,[]]}]'

    back = codec.decode(text)

    assert [error.message for error in back] == ["", "bad", "[1,[]]"]
    assert codec.encode(back) == text


def test_a_rebuilt_exception_as_a_value_keeps_its_remote_traceback(codec: JsonCodec) -> None:
    error = there_and_back(codec, raised(lambda: ValueError("x")))

    text = codec.encode(raised(lambda: error))
    back = codec.decode(text)

    assert "in raised" in str(back.__cause__)
    assert codec.encode(back) == text


def test_a_remote_error_as_a_value_stands_for_the_error_that_it_holds(codec: JsonCodec) -> None:
    class Late(Exception):
        pass

    text = codec.encode(
        RemoteError(class_name(Late), "bad", "trace", '{"args":["bad",{"$set":[]}]}')
    )
    before = codec.decode(text)
    codec.register(Late)
    after = codec.decode(text)

    assert type(before) is RemoteError
    assert codec.encode(before) == text
    assert type(after) is Late
    assert after.args == ("bad", set())


def test_what_an_exception_holds_is_refused_with_its_path(codec: JsonCodec) -> None:
    error = ValueError("a")
    error.request = [threading.Lock()]  # type: ignore[attr-defined]

    with pytest.raises(TypeError, match=r"value, \[0\]\.__dict__\['request'\]\[0\]: cannot store"):
        codec.encode([error])
    with pytest.raises(TypeError, match=r"value, \.args\[1\]: cannot store"):
        codec.encode(ValueError("a", object()))


def test_the_codec_has_the_form_that_the_core_expects(codec: JsonCodec) -> None:
    expected: Codec = codec

    assert set(typing.get_type_hints(Codec.encode)) <= {"value", "what", "return"}
    assert expected is codec
    assert dataclasses.is_dataclass(Arguments)


def test_an_offset_with_a_fraction_of_a_second_is_refused() -> None:
    """Python reads its own text of such an offset as another one."""
    zone = dt.timezone(dt.timedelta(microseconds=1))

    with pytest.raises(TypeError, match="fraction of a second"):
        JsonCodec().encode(dt.datetime(2000, 1, 1, tzinfo=zone))
