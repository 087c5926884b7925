"""Values that hold no others, both directions side by side."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from rowtine.codec.names import type_name
from rowtine.codec.text import Refused, is_storable


@dataclass(frozen=True, slots=True)
class Leaf:
    """A type, its tag, its way to a JSON value (of type `json`) and the way back."""

    kind: type[Any]
    tag: str
    to_json: Callable[[Any], Any]
    json: type[Any]
    from_json: Callable[[Any], Any]

    def tagged(self, value: Any) -> dict[str, Any]:
        return {self.tag: self.to_json(value)}


def _base64(value: bytes | bytearray) -> str:
    return b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _digits(value: int) -> str:
    """Decimal while any process converts it back (see `sys.set_int_max_str_digits`), then hex."""
    return str(value) if value.bit_length() < 2_000 else hex(value)


def _not_finite(text: str) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError("a finite float needs no tag")
    return float(text)


INT = Leaf(int, "$int", _digits, str, lambda text: int(text, 0))
FLOAT = Leaf(float, "$float", str, str, _not_finite)
TEXT = Leaf(
    str,
    "$text",
    lambda text: text.encode("unicode_escape").decode(),
    str,
    lambda text: text.encode("ascii").decode("unicode_escape"),
)
# Tagged only where JSON, or PostgreSQL's reading of it, cannot say the value.
SOMETIMES = (INT, FLOAT, TEXT)

BYTES = Leaf(bytes, "$bytes", _base64, str, _bytes)
BYTEARRAY = Leaf(bytearray, "$bytearray", _base64, str, lambda text: bytearray(_bytes(text)))
BINARY = {leaf.kind: leaf for leaf in (BYTES, BYTEARRAY)}

ALWAYS = (
    Leaf(date, "$date", date.isoformat, str, date.fromisoformat),
    Leaf(
        timedelta,
        "$timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        list,
        lambda parts: timedelta(*parts),
    ),
    Leaf(Decimal, "$decimal", str, str, Decimal),
    Leaf(UUID, "$uuid", str, str, UUID),
)

_INT64 = range(-(2**63), 2**63)
_INFINITY = float("inf")


def int_tree(value: int) -> Any:
    return value if value in _INT64 else INT.tagged(value)


def float_tree(value: float) -> Any:
    return value if -_INFINITY < value < _INFINITY else FLOAT.tagged(value)


def text_tree(value: str) -> Any:
    if value.isascii() and "\0" not in value:  # is_storable without a call
        return value
    return value if is_storable(value) else TEXT.tagged(value)


# Moments: {"$datetime": ISO text, "zone": ..., "name": ..., "fold": 1}, what is needed of it.
# The offset stands in the text for readers also where a zone is named; then the zone decides.

_MOMENT_KEYS = {"$datetime", "$time", "zone", "name", "fold"}
_ZONE = re.compile(r"[A-Za-z0-9_+/-]+")  # no dots: a key is a path, and a package name to zoneinfo


def moment_tree(value: datetime | time) -> dict[str, Any]:
    zone = _zone_tree(value.tzinfo)  # before isoformat, which would call a foreign tzinfo
    fold = {"fold": 1} if value.fold else {}
    return {f"${type(value).__name__}": value.isoformat()} | zone | fold


def _storable_name(name: str) -> str:
    if not is_storable(name):
        raise Refused("cannot store the name of this time zone: it has NUL or a lone surrogate")
    return name


def _zone_tree(zone: Any) -> dict[str, Any]:
    """What the offset in the text does not say."""
    if zone is None:
        return {}
    if type(zone) is ZoneInfo and _ZONE.fullmatch(zone.key or ""):
        return {"zone": zone.key}
    if type(zone) is timezone:
        if zone.utcoffset(None).microseconds:  # Python's own reader takes such a one for UTC
            raise Refused("cannot store an offset from UTC with a fraction of a second")
        name = zone.tzname(None)
        usual = timezone(zone.utcoffset(None)).tzname(None)
        return {} if name == usual else {"name": _storable_name(name)}
    raise Refused(
        f"cannot store a time zone of type {type_name(zone)}; "
        "use datetime.timezone, or zoneinfo.ZoneInfo with a key"
    )


def moment(tag: str, body: dict[str, Any]) -> datetime | time:
    """The way back. Raises ValueError, or what a malformed body leads to."""
    if not body.keys() <= _MOMENT_KEYS:
        raise ValueError("it has other keys than a moment has")
    value = (datetime if tag == "$datetime" else time).fromisoformat(body[tag])
    return value.replace(tzinfo=_zone(value, body), fold=body.get("fold", 0))


def _zone(value: datetime | time, body: dict[str, Any]) -> Any:
    if "zone" in body:
        if not _ZONE.fullmatch(body["zone"]):
            raise ValueError("the zone is no key of a time zone")
        return ZoneInfo(body["zone"])
    if "name" in body:
        offset: Any = value.utcoffset()  # None, of a naive one, is malformed
        return timezone(offset, body["name"])
    return value.tzinfo
