"""Plain JSON values back to values: each tag has its line in one table.

What comes from the database is not trusted: every way to be malformed ends in a DecodeError, only
registered classes are rebuilt, and nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rowtine.codec import leaves
from rowtine.codec.classes import Registry
from rowtine.codec.errors import revive, said_by
from rowtine.codec.text import Container, dumps, entries
from rowtine.errors import DecodeError, RemoteError

# Where a JSON value stands: (container, key), and its depth.
Place = tuple[Container, Any, int]

HOLDERS = frozenset({dict, list})
_ERROR_KEYS = {"$error", "message", "args", "attrs", "notes", "traceback"}


class Decoder:
    """The walk down to what holds other values, and up again, rebuilding.

    It works in place: what it is given must be fresh from the parser. Like the encoder's it needs
    no stack of the interpreter's.
    """

    def __init__(
        self, registry: Registry, max_depth: int, find_function: Callable[[str], Any]
    ) -> None:
        self.registry = registry
        self.find_function = find_function
        self._max_depth = max_depth

    def value(self, tree: object, depth: int = 0) -> Any:
        """The value that plain JSON values stand for, or DecodeError."""
        root = [tree]
        tagged: list[Place] = []
        waiting: list[Place] = [(root, 0, depth)] if type(tree) in HOLDERS else []
        while waiting:
            place = waiting.pop()
            container, key, depth = place
            inside = container[key]
            tag = _tag_of(inside)
            if tag is None:
                waiting += self._children(inside, depth)
            else:
                tagged.append(place)
                for inner in tag.inside(inside):
                    waiting += self._children(inner, depth)
        for container, key, depth in reversed(tagged):
            container[key] = self._rebuilt(container[key], depth)
        return root[0]

    def _children(self, container: Container, depth: int) -> list[Place]:
        if depth >= self._max_depth:
            raise DecodeError(f"nested more than {self._max_depth} deep")
        below = depth + 1
        return [
            (container, key, below) for key, item in entries(container) if type(item) in HOLDERS
        ]

    def _rebuilt(self, body: dict[str, Any], depth: int) -> Any:
        name = next(iter(body))
        try:
            return _TAGS[name].build(self, name, body, depth)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"a malformed {name}: {type(error).__name__}: {error}") from error

    def revived(self, remote: RemoteError, depth: int = 0) -> Exception:
        """The error that was stored, as its class where that can be."""
        return revive(remote, self.registry.exception, lambda tree: self.value(tree, depth))


@dataclass(frozen=True, slots=True)
class Tag:
    """How the object under a tag is rebuilt, and which containers in it hold values."""

    build: Callable[[Decoder, str, dict[str, Any], int], Any]
    inside: Callable[[dict[str, Any]], list[Any]] = lambda _body: []


def _tag_of(tree: Container) -> Tag | None:
    name = next(iter(tree), "") if isinstance(tree, dict) else ""
    if name[:1] != "$":
        return None
    if name not in _TAGS:
        raise DecodeError(f"unknown tag {name!r:.60}")
    return _TAGS[name]


def _only(tag: str, body: dict[str, Any], kind: type[Any]) -> Any:
    if len(body) > 1 or type(body[tag]) is not kind:
        raise DecodeError(f"a malformed {tag}: it holds one {kind.__name__} and nothing else")
    return body[tag]


def _tuple(_decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    return tuple(_only(tag, body, list))


def _set(_decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    items = _only(tag, body, list)
    values = (set if tag == "$set" else frozenset)(items)
    if len(values) < len(items):
        raise DecodeError(f"a malformed {tag}: two equal items")
    return values


def _dict(_decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    pairs = _only(tag, body, list)
    value: dict[Any, Any] = dict(_pairs(body))
    if len(value) < len(pairs):
        raise DecodeError(f"a malformed {tag}: two equal keys, or something that is no pair")
    return value


def _moment(_decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    return leaves.moment(tag, body)


def _record(decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    return decoder.registry.named(body.pop(tag), tag).build(body)


def _member(decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    name, member = _only(tag, body, list)
    return decoder.registry.named(name, tag).build({"name": member})


def _function(decoder: Decoder, tag: str, body: dict[str, Any], _depth: int) -> Any:
    return decoder.find_function(_only(tag, body, str))


def _error(decoder: Decoder, tag: str, body: dict[str, Any], depth: int) -> Exception:
    if not body.keys() <= _ERROR_KEYS:
        raise DecodeError("a malformed $error: it has other keys than an error has")
    name, traceback = body.pop(tag), body.pop("traceback", "")
    message = body.pop("message", None) if "message" in body else said_by(body)
    if not all(type(text) is str for text in (name, message, traceback)):
        raise DecodeError("a malformed $error: its type, message or traceback is no text")
    details = dumps(body) if body else None
    return decoder.revived(RemoteError(name, message, traceback or None, details), depth)


def _leaf(leaf: leaves.Leaf) -> Tag:
    return Tag(lambda _decoder, tag, body, _depth: leaf.from_json(_only(tag, body, leaf.json)))


def _items(body: dict[str, Any]) -> list[Any]:
    """The list under the tag, if it is one."""
    return [items for items in [*body.values()][:1] if type(items) is list]


def _pairs(body: dict[str, Any]) -> list[Any]:
    return [pair for items in _items(body) for pair in items if type(pair) is list]


# An error has none inside: it is rebuilt as a whole, or stays a RemoteError as a whole.
_TAGS: dict[str, Tag] = {
    "$tuple": Tag(_tuple, _items),
    "$set": Tag(_set, _items),
    "$frozenset": Tag(_set, _items),
    "$dict": Tag(_dict, _pairs),
    "$datetime": Tag(_moment),
    "$time": Tag(_moment),
    "$dataclass": Tag(_record, lambda body: [body]),
    "$namedtuple": Tag(_record, lambda body: [body]),
    "$pydantic": Tag(_record, lambda body: [body]),
    "$enum": Tag(_member),
    "$function": Tag(_function),
    "$error": Tag(_error),
    **{
        leaf.tag: _leaf(leaf)
        for leaf in (*leaves.SOMETIMES, *leaves.ALWAYS, *leaves.BINARY.values())
    },
}
