"""JSON text that every database stores, and the error with which a value is refused.

Nothing here knows a type beyond JSON's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")

Container = dict[Any, Any] | list[Any]


def entries(container: Container) -> Iterable[tuple[Any, object]]:
    """What a JSON object or list holds, with the keys or indices."""
    return container.items() if isinstance(container, dict) else enumerate(container)


class Refused(Exception):
    """A value cannot be stored, for this reason; `path` leads to it from the value given."""

    path = ""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooDeep(Refused):
    """Refused for its depth: a PayloadError rather than a TypeError."""


class TooLarge(Refused):
    """Refused for its size before there is any text: a PayloadError too."""


def dumps(tree: Any) -> str:
    """The JSON text of plain values, ASCII only."""
    text = _encode(tree).decode()
    return text if text.isascii() else _NOT_ASCII.sub(_escape, text)


loads: Callable[[str], Any] = msgspec.json.Decoder().decode
"""The plain values of a JSON text. Raises ValueError (or RecursionError) if it is none."""


def is_untagged(text: str, depth: int) -> bool:
    """Whether a JSON text means just what it says: no key in it starts with `$`, however it is
    written, and there are not enough brackets to be nested more than `depth` deep."""
    if '"$' in text or "\\u0024" in text:
        return False
    return len(text) <= depth or text.count("[") + text.count("{") <= depth


def _escape(run: re.Match[str]) -> str:
    """Outside ASCII there is only the inside of strings, so a run needs no look at its context."""
    return json.dumps(run[0])[1:-1]


def is_storable(text: str) -> bool:
    """False for text with NUL or a lone surrogate, which PostgreSQL takes in no form."""
    return "\0" not in text if text.isascii() else _UNSTORABLE.search(text) is None


def is_plain_key(key: object) -> bool:
    """Whether a dict with this key can be a JSON object: `$` is kept for the tags."""
    if type(key) is not str:
        return False
    return key.isidentifier() or (key[:1] != "$" and is_storable(key))


def storable(text: str) -> str:
    """The text with NUL and lone surrogates written as backslash escapes (for people, one way)."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def shortened(text: str, limit: int, tail: int = 0) -> str:
    """At most about `limit` characters: the head, what is left out, and the last `tail` of it."""
    if len(text) <= limit:
        return text
    end = text[len(text) - tail :]
    return f"{text[: limit - tail]}... ({len(text):,} characters in all) ...{end}"


def megabytes(size: int) -> str:
    """`2 MB`, `3.1 MB`; rounded up, so that what is over a limit also looks so."""
    if size < 1_000_000:
        return f"{size:,} bytes"
    return f"{-(-size * 10 // 1024**2) / 10:g} MB"
