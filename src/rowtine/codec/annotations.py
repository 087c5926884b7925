"""The classes that annotations name, found through generics, unions and the fields of classes."""

from __future__ import annotations

import contextlib
import enum
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, cast

from rowtine.codec.shapes import is_pydantic


def classes_in(owner: Any) -> Iterator[type[Any]]:
    """Every class in the annotations of a function or class, and in those of the fields found.

    An annotation that cannot be resolved here is passed over.
    """
    seen: set[Any] = set()
    waiting = _annotations(owner)
    while waiting:
        found = waiting.pop()
        if not _add(found, seen):
            continue
        if isinstance(found, type) and typing.get_origin(found) is None:
            yield found
            waiting += _annotations(found) if _has_fields(found) else []
        else:
            with contextlib.suppress(Exception):  # a `type` statement may name what is not there
                waiting += _parts(found)


def _add(found: Any, seen: set[Any]) -> bool:
    """Whether it is new. What cannot be hashed (metadata of Annotated) is no class."""
    try:
        new = found not in seen
        seen.add(found)
    except TypeError:
        return False
    return new


def _parts(annotation: Any) -> Iterable[Any]:
    """What an alias, union, type variable, NewType, `type` statement or literal is made of."""
    if isinstance(annotation, enum.Enum):
        return [type(annotation)]
    parts = [typing.get_origin(annotation), *getattr(annotation, "__constraints__", ())]
    for argument in typing.get_args(annotation):  # the first one of Callable[[A], B] is a list
        parts += argument if isinstance(argument, list) else [argument]
    named = ("__bound__", "__supertype__", "__value__")
    return parts + [getattr(annotation, name, None) for name in named]


def _has_fields(cls: type[Any]) -> bool:
    """Whether values of the class hold values of its annotations."""
    marks = ("__dataclass_fields__", "_fields", "__total__")
    return is_pydantic(cls) or any(hasattr(cls, mark) for mark in marks)


def _annotations(owner: Any) -> list[Any]:
    if isinstance(owner, type) and is_pydantic(owner):
        return [field.annotation for field in cast(Any, owner).model_fields.values()]
    try:
        return list(typing.get_type_hints(owner).values())
    except Exception:
        holders = owner.__mro__ if isinstance(owner, type) else [inspect.unwrap(owner)]
        return [hint for holder in holders for hint in _resolvable(holder)]


def _resolvable(holder: Any) -> Iterator[Any]:
    """One by one, so that a name which only type checkers know does not hide the others."""
    scopes = _scopes(holder)
    for name, annotation in inspect.get_annotations(holder).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(Exception):
            yield from typing.get_type_hints(alone, *scopes).values()


def _scopes(holder: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The globals and locals in which the annotations of a class or function were written."""
    if isinstance(holder, type):
        return vars(sys.modules.get(holder.__module__, types)), dict(vars(holder))
    return holder.__globals__, dict(inspect.getclosurevars(holder).nonlocals)
