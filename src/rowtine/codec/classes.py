"""Which classes a payload may hold: those that were registered, or named in an annotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rowtine.codec.annotations import classes_in
from rowtine.codec.names import imported_exception
from rowtine.codec.shapes import Shape, kind_of
from rowtine.core.names import class_name
from rowtine.errors import DecodeError

HINT = "name it in an annotation of the function or call app.register({})"


class Registry:
    """The classes that one App stores and rebuilds."""

    def __init__(self) -> None:
        self._by_class: dict[type[Any], Shape] = {}
        self._by_name: dict[str, Shape] = {}
        self._exceptions: dict[str, type[Exception]] = {}

    def register(self, cls: type[Any]) -> None:
        """Register a class, and the classes in the annotations of its fields.

        Raises TypeError unless it is a dataclass, Enum, NamedTuple, pydantic model or Exception.
        """
        if issubclass(cls, Exception):
            self._exceptions[class_name(cls)] = cls
        elif not self._add(cls):
            raise TypeError(
                f"{class_name(cls)} cannot be registered: it is no dataclass, Enum, NamedTuple, "
                "pydantic model or Exception"
            )
        self.register_annotations(cls)

    def register_annotations(self, owner: Callable[..., Any]) -> None:
        """Register every class of these kinds in the annotations of a function or class."""
        for cls in classes_in(owner):
            self._add(cls)

    def _add(self, cls: type[Any]) -> bool:
        """Whether the class is of a kind that has a shape.

        A class under a name already taken (a reloaded module) replaces the earlier one.
        """
        kind = None if issubclass(cls, BaseException) else kind_of(cls)
        if kind is not None and cls not in self._by_class:
            shape = kind(cls)
            replaced = self._by_name.get(shape.name)
            if replaced is not None:
                self._by_class.pop(replaced.cls, None)
            self._by_class[cls] = self._by_name[shape.name] = shape
        return kind is not None

    def of(self, cls: type[Any]) -> Shape | None:
        """The shape of a class, if it is registered."""
        return self._by_class.get(cls)

    def named(self, name: object, tag: str) -> Shape:
        """The shape of this name; DecodeError if there is none, or one of another kind."""
        shape = self._by_name.get(name) if isinstance(name, str) else None
        if shape is None or shape.tag != tag:
            hint = HINT.format("it")
            raise DecodeError(f"no {tag[1:]} {name!r:.200} is registered here: {hint}")
        return shape

    def exception(self, name: str) -> type[Exception] | None:
        """The Exception subclass of this name, registered or imported already."""
        return self._exceptions.get(name) or imported_exception(name)
