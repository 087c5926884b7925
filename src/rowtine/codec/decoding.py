"""Plain JSON values back to values: each tag has its line in one table.

What comes from the database is not trusted: every way to be malformed ends in a DecodeError, only
registered classes are rebuilt, and nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from rowtine.codec import leaves
from rowtine.codec.classes import Registry
from rowtine.codec.errors import revive
from rowtine.codec.text import dumps
from rowtine.errors import DecodeError, RemoteError

_ERROR_KEYS = {"$error", "message", "args", "attrs", "notes", "traceback"}


class Decoder:
    """The walk up. It works in place: what it is given must be fresh from the parser."""

    def __init__(
        self, registry: Registry, max_depth: int, find_function: Callable[[str], Any]
    ) -> None:
        self._registry = registry
        self._max_depth = max_depth
        self._find_function = find_function

    def value(self, tree: object, depth: int = 0) -> Any:
        """The value that plain JSON values stand for, or DecodeError."""
        kind = type(tree)
        if kind is list:
            return self._list(tree, depth)
        return self._object(tree, depth) if kind is dict else tree

    def _list(self, tree: Any, depth: int) -> Any:
        numbered: Any = enumerate(tree)
        return self._each(tree, numbered, depth)

    def _object(self, tree: Any, depth: int) -> Any:
        first = next(iter(tree), "")
        if first[:1] == "$":
            return self._tagged(first, tree, depth)
        return self._each(tree, tree.items(), depth)

    def _each(self, tree: Any, items: Iterable[tuple[Any, object]], depth: int) -> Any:
        self._check(depth)
        for key, item in items:
            kind = type(item)
            if kind is dict or kind is list:
                tree[key] = self.value(item, depth + 1)
        return tree

    def _check(self, depth: int) -> None:
        if depth >= self._max_depth:
            raise DecodeError(f"nested more than {self._max_depth} deep")

    def _tagged(self, tag: str, body: dict[str, Any], depth: int) -> Any:
        from_json = _FROM_JSON.get(tag)
        if from_json is None:
            raise DecodeError(f"unknown tag {tag!r:.60}")
        try:
            return from_json(self, tag, body, depth)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"a malformed {tag}: {type(error).__name__}: {error}") from error

    def items(self, tag: str, body: dict[str, Any], depth: int) -> list[Any]:
        return cast("list[Any]", self.value(_only(body, tag, list), depth))

    def unique(self, tag: str, body: dict[str, Any], depth: int) -> set[Any]:
        items = self.items(tag, body, depth)
        values = set(items)
        if len(values) < len(items):
            raise DecodeError(f"a malformed {tag}: two equal items")
        return values

    def pairs(self, tag: str, body: dict[str, Any], depth: int) -> dict[Any, Any]:
        self._check(depth)
        pairs = _only(body, tag, list)
        value = {self.value(key, depth + 1): self.value(item, depth + 1) for key, item in pairs}
        if len(value) < len(pairs):
            raise DecodeError(f"a malformed {tag}: two equal keys")
        return value

    def moment(self, tag: str, body: dict[str, Any], depth: int) -> Any:
        return leaves.moment(body, tag, self.value(body.get("name"), depth))

    def record(self, tag: str, body: dict[str, Any], depth: int) -> Any:
        shape = self._registry.named(body.pop(tag), tag)
        return shape.build(self._each(body, body.items(), depth))

    def member(self, tag: str, body: dict[str, Any], _depth: int) -> Any:
        name, member = _only(body, tag, list)
        return self._registry.named(name, tag).build({"name": member})

    def function(self, tag: str, body: dict[str, Any], _depth: int) -> Any:
        return self._find_function(_only(body, tag, str))

    def error(self, tag: str, body: dict[str, Any], depth: int) -> Exception:
        if not body.keys() <= _ERROR_KEYS:
            raise DecodeError("a malformed $error: it has other keys than an error has")
        name, message, traceback = (
            body.pop(tag),
            body.pop("message", ""),
            body.pop("traceback", None),
        )
        if not (isinstance(name, str) and isinstance(message, str)):
            raise DecodeError("a malformed $error: its type or message is no text")
        if not isinstance(traceback, str | None):
            raise DecodeError("a malformed $error: its traceback is no text")
        remote = RemoteError(name, message, traceback, dumps(body) if body else None)
        return self.revived(remote, depth)

    def revived(self, remote: RemoteError, depth: int = 0) -> Exception:
        """The error that was stored, as its class where that can be."""
        return revive(remote, self._registry.exception, lambda tree: self.value(tree, depth))


def _only(body: dict[str, Any], tag: str, kind: type[Any]) -> Any:
    if len(body) > 1 or type(body[tag]) is not kind:
        raise DecodeError(f"a malformed {tag}: it holds one {kind.__name__} and nothing else")
    return body[tag]


def _leaf(leaf: leaves.Leaf) -> Callable[[Decoder, str, dict[str, Any], int], Any]:
    return lambda _decoder, tag, body, _depth: leaf.from_json(_only(body, tag, leaf.json))


_FROM_JSON: dict[str, Callable[[Decoder, str, dict[str, Any], int], Any]] = {
    "$tuple": lambda decoder, tag, body, depth: tuple(decoder.items(tag, body, depth)),
    "$set": Decoder.unique,
    "$frozenset": lambda decoder, tag, body, depth: frozenset(decoder.unique(tag, body, depth)),
    "$dict": Decoder.pairs,
    "$datetime": Decoder.moment,
    "$time": Decoder.moment,
    "$dataclass": Decoder.record,
    "$namedtuple": Decoder.record,
    "$pydantic": Decoder.record,
    "$enum": Decoder.member,
    "$error": Decoder.error,
    "$function": Decoder.function,
    **{
        leaf.tag: _leaf(leaf)
        for leaf in (*leaves.SOMETIMES, *leaves.ALWAYS, *leaves.BINARY.values())
    },
}
