"""How the values are made that nobody changes, and that every round makes many of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

__all__ = ["value"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass that type checkers know as a frozen one.

    It is not at runtime: a frozen one sets each of its fields by a call of object.__setattr__,
    which makes it four times as slow to build.
    """
    return dataclass(slots=True, unsafe_hash="__hash__" not in cls.__dict__)(cls)
