"""Drop a suspended frame without running any of its code.

When a suspended coroutine dies, CPython throws GeneratorExit into it: its `finally` and `with`
blocks run, at once or in a pass of the garbage collector, in whatever thread that pass falls. An
unloaded frame must not do that, for it is rebuilt later and its blocks end then. So `discard` sets
the bit in which CPython remembers that a finalizer has run, on every coroutine and generator that
dies with the frame. What has a `__del__` or a `weakref.finalize` of its own keeps it: that is how
files, sockets and connections are given back.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import sysconfig
import types
from collections.abc import AsyncGenerator, Coroutine, Generator
from itertools import chain
from typing import Any, cast

__all__ = ["Shared", "discard", "parked_count", "works"]


class Shared:
    """Base of what outlives every frame (an app, a function): `discard` does not look inside."""

    __slots__ = ()


_FINALIZABLE = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
_NOT_ENTERED = (Shared, types.ModuleType, types.CodeType, type, asyncio.AbstractEventLoop)

# How many objects to look at in search of cycles. A frame that holds a database engine, say, leads
# to most of the program. What lies beyond counts as held from outside, so a cycle that far away
# would end with GeneratorExit after all; the search is breadth first, so it would have to be far.
_REACH = 5_000

_OURS = 2  # the references of our own that getrefcount sees: in one container, and as argument

_parked: list[object] = []


def discard(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Make a suspended coroutine safe to let go of; the caller then drops its reference.

    Let go of what the coroutine has yielded first: what anybody else holds is not marked.
    """
    if _works:
        _mark(_doomed(coroutine))
    else:
        _parked.append(coroutine)
        # Never taken back, so that the end of the interpreter does not finalize it either.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def works() -> bool:
    """Whether frames can be dropped here. If not, `discard` parks them: they stay for ever."""
    return _works


def parked_count() -> int:
    """How many frames are kept because they could not be dropped."""
    return len(_parked)


def _doomed(coroutine: object) -> list[Any]:
    """Everything that dies with the coroutine, whoever else may hold the coroutine itself.

    It is found as the collector does it: what has more references than lead there from inside is
    held from outside, and so is all that it leads to.
    """
    dying = {id(coroutine)}
    found: dict[int, Any] = {id(coroutine): coroutine}
    counted = dict.fromkeys(dying, 0)

    def held(key: int) -> bool:
        return sys.getrefcount(found[key]) - _OURS > counted[key]

    doomed: list[Any] = []
    fresh: list[Any] = [coroutine]
    while fresh:  # what the reference counts alone will free
        doomed += fresh
        alone, others = _count(gc.get_referents(*fresh), found, counted)
        freed = {key for key in others - dying if not held(key)}
        dying |= freed
        fresh = alone + [found[key] for key in freed]

    def led_to_by(keys: set[int]) -> list[Any]:
        # In order of size: one long list of the program's must not use up the reach.
        each = [gc.get_referents(found[key]) for key in keys]
        each.sort(key=len)
        return list(chain.from_iterable(each))

    suspects = new = found.keys() - dying  # held from outside, or by cycles
    limit = len(found) + _REACH
    while new:
        _, others = _count(led_to_by(new), found, counted, limit)
        new = others - suspects - dying
        suspects = suspects | new
    alive = {key for key in suspects if held(key)}
    while alive:
        suspects = suspects - alive
        alive = suspects.intersection(map(id, led_to_by(alive)))
    return doomed + [found[key] for key in suspects]


def _count(
    targets: list[Any], found: dict[int, Any], counted: dict[int, int], limit: int | None = None
) -> tuple[list[Any], set[int]]:
    """Count references to these objects. Without a limit, what has no other reference is returned
    instead: most of a frame is of that sort, and needs no book-keeping."""
    alone: list[Any] = []
    others: set[int] = set()
    for target, references in zip(targets, list(map(sys.getrefcount, targets)), strict=True):
        key = id(target)
        if key in counted:
            counted[key] += 1
            others.add(key)
        elif not gc.is_tracked(target):
            continue
        elif limit is None and references - _OURS == 1:
            alone.append(target)
        elif (limit is None or len(found) < limit) and _entered(target):
            found[key], counted[key] = target, 1
            others.add(key)
    return alone, others


def _entered(target: object) -> bool:
    kind = type(target)  # isinstance, or a set of types, may run code of the class or metaclass
    if kind is dict:  # the globals of a module, to which each function leads, are not
        return "__spec__" not in cast("dict[str, Any]", target)
    return not issubclass(kind, _NOT_ENTERED)


class _Head(ctypes.Structure):
    """PyGC_Head, which lies in front of every object the collector knows."""

    _fields_ = (("next", ctypes.c_size_t), ("prev", ctypes.c_size_t))
    next: int
    prev: int


_FINALIZED = 1  # _PyGC_PREV_MASK_FINALIZED


def _mark(doomed: list[Any]) -> None:
    for each in doomed:
        if issubclass(type(each), _FINALIZABLE):
            head = _Head.from_address(id(each) - ctypes.sizeof(_Head))
            # The other bits are a link in the collector's list. Nothing may run between reading
            # and writing them, so this stays one statement without a call.
            head.prev |= _FINALIZED
        if type(each) is types.AsyncGeneratorType:
            _unlist(each)


def _unlist(asyncgen: Any) -> None:
    """An event loop that ends closes each async generator that it saw begin, and one in a cycle
    is still there if no collection came first."""
    for hook in gc.get_referents(asyncgen):
        if type(hook) is types.MethodType:
            loop: Any = hook.__self__
            if issubclass(type(loop), asyncio.BaseEventLoop):
                getattr(loop, "_asyncgens", set[Any]()).discard(asyncgen)


@types.coroutine
def _forever() -> Generator[None]:
    yield


def _self_test() -> bool:
    """Try it on a frame that holds one of each kind: at its end, in a cycle, and shared."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False  # no PyGC_Head: what lies in front of an object is not ours to write
    ran: list[str] = []

    def generator(name: str, *_held: object) -> Generator[None]:
        try:
            yield
        finally:
            ran.append(name)

    async def asyncgen() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            ran.append("async generator")

    async def body(*_held: object) -> None:
        try:
            async for _ in asyncgen():
                await _forever()
        finally:
            ran.append("coroutine")

    cycle: list[Any] = []
    cycle += [cycle, generator("cycle", cycle)]
    shared = generator("shared")
    coroutine = body(cycle, shared)
    for started in (cycle[1], shared, coroutine):
        started.send(None)
    del cycle, started
    _mark(_doomed(coroutine))
    del coroutine
    gc.collect(0)
    silent = not ran
    del shared
    return silent and ran == ["shared"]


try:
    _works = _self_test()
except Exception:
    _works = False
