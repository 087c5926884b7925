"""Values to plain JSON values.

A plain JSON type stays itself. Everything else becomes an object whose first key is its tag, which
starts with `$`; so a dict with such a key of its own is tagged as well. Types are exact: a subclass
is another type, and what it adds would be lost without a word.

The walk keeps its own stack, so the depth of a value is limited by `max_depth` and not by how much
is left of the interpreter's. Depth is counted in values, not in brackets, here and in `decoding`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
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
from rowtine.codec.names import type_name
from rowtine.codec.shapes import Shape, kind_of
from rowtine.codec.text import (
    Container,
    Refused,
    TooDeep,
    TooLarge,
    dumps,
    entries,
    is_plain_key,
    storable,
)
from rowtine.core.names import class_name
from rowtine.errors import RemoteError

# A container that is being filled: its items are values first, and trees in the end. With it goes
# how the path to a value names a key of it.
Filling = tuple[Container, Callable[[Any], str]]
Opened = tuple[Any, list[Filling]]
# Where a value stands: (container, key), its depth, how the path names the key, the place around.
Place = tuple[Container, Any, int, Callable[[Any], str], Any]

_NATURAL_ORDER = frozenset({int, str})
# What an exception costs, in items: its bare form is that long; with a traceback it takes time too.
_ERROR = 16
_LENIENT_ERROR = 100


class Encoder:
    """One walk down a value.

    `budget` is how many items the containers met may hold in all: values that share parts are
    written out once for each way to them, which can be far more than they occupy in memory.
    `lenient` is about the insides of errors only: what cannot be stored of one is left out.
    """

    __slots__ = ("_budget", "_errors", "_lenient", "_max_depth", "_registry", "_unsorted")

    def __init__(
        self, registry: Registry, max_depth: int, budget: int, *, lenient: bool = False
    ) -> None:
        self._registry = registry
        self._max_depth = max_depth
        self._budget = budget
        self._lenient = lenient
        self._errors: list[BaseException] = []
        self._unsorted: list[list[Any]] = []

    def tree(self, value: object, depth: int = 0) -> Any:
        """The value as plain JSON values, or Refused with the reason and the path."""
        leaf = LEAVES.get(type(value))
        if leaf is not None:
            return leaf(value)
        # Its own list for each walk: inside an error a walk starts in the middle of another.
        around, self._unsorted = self._unsorted, []
        try:
            return self._walk(value, depth)
        finally:
            self._unsorted = around

    def _walk(self, value: object, depth: int) -> Any:
        root = [value]
        waiting: list[Place] = [(root, 0, depth, str, None)]
        while waiting:
            place = waiting.pop()
            try:
                children = self._open(place)
            except Refused as refused:
                refused.path = refused.path or _path(place)
                raise
            waiting += reversed(children)
        while self._unsorted:  # the inner ones before those that hold them
            self._unsorted.pop().sort(key=dumps)
        return root[0]

    def _open(self, place: Place) -> list[Place]:
        """Put the form of a container into its place; what it holds is left to be opened."""
        holder, key, depth, _, _ = place
        value: object = holder[key]
        if depth >= self._max_depth:
            raise TooDeep(f"nested more than {self._max_depth} deep")
        opened = _CONTAINERS.get(type(value), Encoder._of_class)
        holder[key], fillings = opened(self, value, depth)
        children: list[Place] = []
        for container, name in fillings:
            self._fill(container, name, place, children)
        return children

    def _fill(
        self, container: Container, name: Callable[[Any], str], place: Place, children: list[Place]
    ) -> None:
        """Encode the leaves at once, note the others."""
        self._spend(len(container))
        depth = place[2] + 1
        for key, item in entries(container):
            leaf = LEAVES.get(type(item))
            if leaf is None:
                children.append((container, key, depth, name, place))
            else:
                try:
                    container[key] = leaf(item)
                except Refused as refused:
                    refused.path = _path((container, key, depth, name, place))
                    raise

    def _spend(self, items: int) -> None:
        self._budget -= items
        if self._budget < 0:
            raise TooLarge("its containers hold too many items")

    def open_list(self, value: list[Any], _depth: int) -> Opened:
        items = list(value)
        return items, [(items, "[{}]".format)]

    def open_tuple(self, value: tuple[Any, ...], _depth: int) -> Opened:
        items = list(value)
        return {"$tuple": items}, [(items, "[{}]".format)]

    def open_dict(self, value: dict[Any, Any], _depth: int) -> Opened:
        """A JSON object, if every key can be one's."""
        if all(map(is_plain_key, value)):
            tree = dict(value)
            return tree, [(tree, _subscript)]
        pairs = [[key, item] for key, item in value.items()]
        return {"$dict": pairs}, [(pair, _pair_name(pair[0])) for pair in pairs]

    def open_set(self, value: set[Any] | frozenset[Any], _depth: int) -> Opened:
        """In an order that is the same in every process: Python's own for numbers and text."""
        kinds = {*map(_type, value)}
        natural = len(kinds) == 1 and kinds <= _NATURAL_ORDER
        items: list[Any] = sorted(value) if natural else list(value)
        if not natural:
            self._unsorted.append(items)
        return {f"${type(value).__name__}": items}, [(items, lambda _at: "{...}")]

    def open_bytes(self, value: bytes | bytearray, _depth: int) -> Opened:
        """Refused before it is copied several times, if it is too large anyway."""
        self._spend(len(value) // 2)
        return leaves.BINARY[type(value)].tagged(value), []

    def _of_class(self, value: object, depth: int) -> Opened:
        shape = self._registry.of(type(value))
        if shape is not None:
            return self._shaped(shape, value)
        if isinstance(value, RemoteError):
            return {"$error": storable(str(value.type))} | stored_form(value), []
        if isinstance(value, BaseException):
            return self._error(value, depth)
        name = _function_name(value)
        if name is None:
            raise Refused(f"cannot store a value of type {type_name(value)}; {_hint(value)}")
        return {"$function": name}, []

    def _shaped(self, shape: Shape, value: Any) -> Opened:
        try:
            fields = shape.take(value)
        except Exception as error:  # a property among the fields is user code
            raise Refused(str(error)) from error
        if shape.tag == "$enum":
            return {"$enum": [shape.name, fields["name"]]}, []
        tree = {shape.tag: shape.name, **fields}
        return tree, [(tree, ".{}".format)]

    def _error(self, error: BaseException, depth: int) -> Opened:
        """An exception as a value: what it is, not where it was raised.

        Neither is its message: the order in which a set prints differs between processes. So the
        text is the same at every rebuild of a coroutine. Inside an error (lenient) nobody compares.
        """
        self._spend(_LENIENT_ERROR if self._lenient else _ERROR)
        name = class_name(type(error))
        if self._lenient:
            said = {"message": message_of(error)}
            text = attempt(lambda: traceback_of(error))
            return _error_tree(name, said | self.described(error, depth), text), []
        if self._registry.exception(name) is not type(error):
            raise Refused(
                f"cannot store an exception of type {name}; it must be an Exception that its "
                "module has under this name, or be registered: app.register(...)"
            )
        try:
            tree = _error_tree(name, state_of(error), remote_traceback(error))
        except Exception as failure:
            raise Refused(f"cannot store this {name}: {failure}") from failure
        return tree, [(tree, PARTS.__getitem__)]

    def described(self, error: BaseException, depth: int = 0) -> dict[str, Any]:
        """As much as can be stored of what a rebuild of the error needs.

        Raises whatever looking at it raises, and Refused if it is inside itself.
        """
        if any(error is outer for outer in self._errors):
            raise Refused("an exception that holds itself")
        self._errors.append(error)
        try:
            state = state_of(error)
            attributes = self._kept(state.pop("attrs", {}), depth + 1)
            return self._kept(state, depth) | ({"attrs": attributes} if attributes else {})
        finally:
            self._errors.pop()

    def _kept(self, value: Mapping[str, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key in filter(is_plain_key, value):
            with contextlib.suppress(Exception):
                kept[key] = self.tree(value[key], depth + 1)
        return kept


LEAVES: dict[type[Any], Callable[[Any], Any]] = {
    NoneType: lambda value: value,
    bool: lambda value: value,
    int: leaves.int_tree,
    float: leaves.float_tree,
    str: leaves.text_tree,
    datetime: leaves.moment_tree,
    time: leaves.moment_tree,
    **{leaf.kind: leaf.tagged for leaf in leaves.ALWAYS},
}
"""How values are encoded that hold no others; they need no Encoder."""
_CONTAINERS: dict[type[Any], Callable[[Encoder, Any, int], Opened]] = {
    list: Encoder.open_list,
    dict: Encoder.open_dict,
    tuple: Encoder.open_tuple,
    set: Encoder.open_set,
    frozenset: Encoder.open_set,
    bytes: Encoder.open_bytes,
    bytearray: Encoder.open_bytes,
}


def _error_tree(name: str, state: dict[str, Any], traceback: str | None) -> dict[str, Any]:
    tree = {"$error": name, **state}
    return tree | {"traceback": traceback} if traceback else tree


def _function_name(value: object) -> str | None:
    """The name of a registered function that is passed as a value."""
    try:
        name = getattr(value, "__rowtine_name__", None)
    except Exception:
        return None
    return name if isinstance(name, str) and not isinstance(value, type) else None


def _type(value: object) -> type[Any]:
    return type(value)


def _path(place: Place | None) -> str:
    """``.items[3].lock``; of a long path the start, which says where to look."""
    steps: list[str] = []
    while place is not None:
        _, key, _, name, place = place
        steps.append(name(key))
    shown = steps[::-1][1:21]  # without the root
    return "".join(shown) + ("..." if len(steps) > 21 else "")


def _subscript(key: object) -> str:
    return f"[{key!r:.60}]" if type(key) in LEAVES else f"[<{type_name(key)}>]"


def _pair_name(key: Any) -> Callable[[int], str]:
    return lambda at: _subscript(key) if at else f"<key {_subscript(key)[1:-1]}>"


def _hint(value: object) -> str:
    cls = type(value)
    if kind_of(cls) is not None:
        return HINT.format(cls.__name__)
    for base in cls.__mro__[1:]:
        if base in LEAVES or base in _CONTAINERS:
            return f"make it a plain {base.__name__}: what a subclass adds would be lost"
    return "pass what it can be made of again (an id, a path, its fields)"
