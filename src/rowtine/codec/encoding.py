"""Values to plain JSON values.

A plain JSON type stays itself. Everything else becomes an object whose first key is its tag, which
starts with `$`; so a dict with such a key of its own is tagged as well. Types are exact: a subclass
is another type, and what it adds would be lost without a word.

Depth is counted in values, not in brackets, so both directions draw the same line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, time
from types import NoneType
from typing import Any

from rowtine.codec import leaves
from rowtine.codec.classes import HINT, Registry
from rowtine.codec.errors import (
    PARTS,
    attempt,
    message_of,
    remote_traceback,
    state_of,
    stored_form,
    traceback_of,
)
from rowtine.codec.names import class_name, type_name
from rowtine.codec.shapes import Shape, kind_of
from rowtine.codec.text import Refused, TooDeep, TooLarge, dumps, is_plain_key, storable
from rowtine.errors import RemoteError

_NATURAL_ORDER = frozenset({int, str})
_ERROR_COST = 100  # in items, of an exception inside a value: its texts take time and room


class Encoder:
    """One walk down a value.

    `budget` is how many items the containers met may hold in all: values that share parts are
    written out once for each way to them, which can be far more than they occupy in memory.
    `lenient` is about the insides of errors only: what cannot be stored of one is left out.
    """

    __slots__ = ("_budget", "_errors", "_lenient", "_max_depth", "_registry")

    def __init__(
        self, registry: Registry, max_depth: int, budget: int, *, lenient: bool = False
    ) -> None:
        self._registry = registry
        self._max_depth = max_depth
        self._budget = budget
        self._lenient = lenient
        self._errors: list[BaseException] = []

    def tree(self, value: object, depth: int = 0) -> Any:
        """The value as plain JSON values, or Refused with the reason and the path."""
        kind = type(value)
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        if depth >= self._max_depth:
            raise TooDeep(f"nested more than {self._max_depth} deep")
        container = _CONTAINERS.get(kind)
        return container(self, value, depth) if container else self._of_class(value, depth)

    def items(
        self, values: Collection[Any], depth: int, segment: Callable[[int], str] = "[{}]".format
    ) -> list[Any]:
        """What a container holds; `segment` is how the path names its nth item."""
        self._spend(len(values))
        tree: list[Any] = []
        try:
            for value in values:  # no comprehension: after an error, the length says where
                tree.append(self.tree(value, depth + 1))  # noqa: PERF401
        except Refused as refused:
            refused.below(segment(len(tree)))
            raise
        return tree

    def values(
        self, value: Mapping[Any, Any], depth: int, segment: Callable[[Any], str]
    ) -> dict[Any, Any]:
        """The same mapping with its values encoded."""
        self._spend(len(value))
        tree: dict[Any, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                tree[key] = self.tree(item, depth + 1)
        except Refused as refused:
            refused.below(segment(key))
            raise
        return tree

    def mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        """A JSON object, if every key can be one's."""
        return self._object(self.values(value, depth, _subscript), depth)

    def _object(self, tree: dict[Any, Any], depth: int) -> Any:
        if all(map(is_plain_key, tree)):
            return tree
        keys = self.items(tree, depth, "<key {}>".format)
        return {"$dict": [[key, item] for key, item in zip(keys, tree.values(), strict=True)]}

    def unordered(self, value: set[Any] | frozenset[Any], depth: int) -> Any:
        """In an order that is the same in every process: Python's own for numbers and text."""
        kinds = {*map(_type, value)}
        natural = len(kinds) == 1 and kinds <= _NATURAL_ORDER
        items = self.items(sorted(value) if natural else value, depth, lambda _at: "{...}")
        return {f"${type(value).__name__}": items if natural else sorted(items, key=dumps)}

    def binary(self, value: bytes | bytearray, _depth: int) -> Any:
        """Refused before it is copied several times, if it is too large anyway."""
        self._spend(len(value) // 2)
        return leaves.BINARY[type(value)].tagged(value)

    def described(self, error: BaseException, depth: int = 0) -> dict[str, Any]:
        """What a rebuild of the error needs: args, attributes, notes."""
        if any(error is outer for outer in self._errors):
            raise Refused("an exception that holds itself")
        self._errors.append(error)
        try:
            return self._parts(self._state(error), depth)
        finally:
            self._errors.pop()

    def _state(self, error: BaseException) -> dict[str, Any]:
        try:
            return state_of(error)
        except Exception as failure:
            if self._lenient:
                return {}
            raise Refused(f"cannot store this {type_name(error)}: {failure}") from failure

    def _parts(self, state: dict[str, Any], depth: int) -> dict[str, Any]:
        if not self._lenient:
            return self.values(state, depth, PARTS.__getitem__)
        attributes = self._kept(state.pop("attrs", {}), depth + 1)
        attrs = {"attrs": self._object(attributes, depth + 1)} if attributes else {}
        return self._kept(state, depth) | attrs

    def _kept(self, value: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """What of a mapping can be stored."""
        kept: dict[str, Any] = {}
        for key, item in value.items():
            with contextlib.suppress(Exception):
                kept[key] = self.tree(item, depth + 1)
        return kept

    def _spend(self, items: int) -> None:
        self._budget -= items
        if self._budget < 0:
            raise TooLarge("its containers hold too many items")

    def _of_class(self, value: object, depth: int) -> Any:
        shape = self._registry.of(type(value))
        if shape is not None:
            return self._shaped(shape, value, depth)
        if isinstance(value, RemoteError):
            return {"$error": storable(str(value.type))} | stored_form(value)
        if isinstance(value, BaseException):
            return self._error(value, depth)
        name = _function_name(value)
        if name is None:
            raise Refused(f"cannot store a value of type {type_name(value)}; {_hint(value)}")
        return {"$function": name}

    def _shaped(self, shape: Shape, value: Any, depth: int) -> dict[str, Any]:
        try:
            fields = shape.take(value)
        except Exception as error:  # a property among the fields is user code
            raise Refused(str(error)) from error
        if shape.tag == "$enum":
            return {"$enum": [shape.name, fields["name"]]}
        return {shape.tag: shape.name, **self.values(fields, depth, ".{}".format)}

    def _error(self, error: BaseException, depth: int) -> dict[str, Any]:
        """An exception as a value: what it is, not where it was raised.

        So its text is the same at a rebuild of the coroutine. Inside an error (lenient) it has
        been raised, and keeps its traceback.
        """
        name = class_name(type(error))
        if not self._lenient and self._registry.exception(name) is not type(error):
            raise Refused(
                f"cannot store an exception of type {name}; it must be an Exception that its "
                "module has under this name, or be registered: app.register(...)"
            )
        self._spend(_ERROR_COST)
        text = attempt(lambda: traceback_of(error) if self._lenient else remote_traceback(error))
        body = {"message": message_of(error), **self.described(error, depth)}
        return {"$error": name} | body | ({"traceback": text} if text else {})


_LEAVES: dict[type[Any], Callable[[Any], Any]] = {
    NoneType: lambda value: value,
    bool: lambda value: value,
    int: leaves.int_tree,
    float: leaves.float_tree,
    str: leaves.text_tree,
    datetime: leaves.moment_tree,
    time: leaves.moment_tree,
    **{leaf.kind: leaf.tagged for leaf in leaves.ALWAYS},
}
_CONTAINERS: dict[type[Any], Callable[[Encoder, Any, int], Any]] = {
    list: Encoder.items,
    dict: Encoder.mapping,
    tuple: lambda encoder, value, depth: {"$tuple": encoder.items(value, depth)},
    set: Encoder.unordered,
    frozenset: Encoder.unordered,
    bytes: Encoder.binary,
    bytearray: Encoder.binary,
}


def _function_name(value: object) -> str | None:
    """The name of a registered function that is passed as a value."""
    try:
        name = getattr(value, "__rowtine_name__", None)
    except Exception:
        return None
    return name if isinstance(name, str) and not isinstance(value, type) else None


def _type(value: object) -> type[Any]:
    return type(value)


def _subscript(key: object) -> str:
    return f"[{key!r:.60}]" if type(key) in _LEAVES else f"[<{type_name(key)}>]"


def _hint(value: object) -> str:
    cls = type(value)
    if kind_of(cls) is not None:
        return HINT.format(cls.__name__)
    for base in cls.__mro__[1:]:
        if base in _LEAVES or base in _CONTAINERS:
            return f"make it a plain {base.__name__}: what a subclass adds would be lost"
    return "pass what it can be made of again (an id, a path, its fields)"
