"""Classes by name, without importing anything.

A name in a row is only ever looked up among what this process has imported already.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, cast

from rowtine.core.names import class_name, main_name

_LONGEST_NAME = 500
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not one of the interpreter's own static types


def type_name(value: object) -> str:
    """The `class_name` of a value's type, for messages."""
    return class_name(type(value))


def imported_exception(name: str) -> type[Exception] | None:
    """The Exception subclass of this name, if a module imported already has it."""
    found = (_walk(namespace, path) for namespace, path in _places(name))
    return next((cls for cls in found if cls is not None), None)


def _places(name: str) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """Where a dotted name may stand: the longest module name first, `builtins` for a bare one."""
    parts = name.split(".") if len(name) <= _LONGEST_NAME else []
    if len(parts) == 1:
        yield vars(builtins), parts
    for cut in range(len(parts) - 1, 0, -1):
        for module in _loaded(".".join(parts[:cut])):
            # Past the module's own __getattribute__: a lazy one would run its import here.
            yield types.ModuleType.__getattribute__(module, "__dict__"), parts[cut:]


def _loaded(name: str) -> Iterator[types.ModuleType]:
    names = ("__main__", name) if name == main_name() else (name,)
    for module in map(sys.modules.get, names):
        if issubclass(type(module), types.ModuleType):
            yield cast(types.ModuleType, module)


def _walk(namespace: Mapping[str, Any], path: list[str]) -> type[Exception] | None:
    """Follow attributes as they stand in ``__dict__``: no descriptor or ``__getattr__`` runs."""
    found: Any = None
    for part in path:
        found = namespace.get(part)
        if not issubclass(type(found), type):
            return None
        namespace = type.__dict__["__dict__"].__get__(found)
    return found if issubclass(found, Exception) else None


def native_base(cls: type[Any]) -> type[Any]:
    """The nearest base that is the interpreter's own, whose ``__new__`` is C code."""
    while cls.__flags__ & _HEAP_TYPE:
        cls = cast("type[Any]", cls.__base__)
    return cls
