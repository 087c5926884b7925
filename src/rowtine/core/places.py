"""Where in the user's code a coroutine is suspended, and whether it may be suspended there."""

from __future__ import annotations

import asyncio
import functools
import gc
import opcode
import sysconfig
import types
from collections.abc import Callable
from collections.abc import Coroutine as NativeCoroutine
from operator import attrgetter
from pathlib import Path
from types import MethodType
from typing import Any

from rowtine.core.directives import Running
from rowtine.core.values import value
from rowtine.errors import UsageError

__all__ = [
    "Chain",
    "Where",
    "await_chain",
    "may_be_in_a_block",
    "note",
    "refuse_after_interruption",
    "refuse_open_block",
    "where",
]

_PACKAGE = Path(__file__).parent.parent
_OURS = tuple(str(_PACKAGE / name) for name in ("core", "awaitables.py", "fanout.py"))
"""Frames of these files are not the user's. Those of the demo, which is in the package too, are."""


@value
class Where:
    """The user's line at which a coroutine is suspended, and the await stack down to it."""

    file: str
    line: int
    stack: tuple[str, ...] = ()


Chain = list[tuple[Any, types.FrameType]]

_PARTS: dict[type[Any], Callable[[Any], tuple[Any, Any]]] = {
    types.CoroutineType: attrgetter("cr_frame", "cr_await"),
    types.GeneratorType: attrgetter("gi_frame", "gi_yieldfrom"),
    types.AsyncGeneratorType: attrgetter("ag_frame", "ag_await"),
}


def await_chain(coroutine: NativeCoroutine[Any, Any, Any]) -> Chain:
    """A suspended coroutine, what it awaits, what that awaits, and so on; with their frames."""
    chain: Chain = []
    link: Any = coroutine
    while link is not None:
        if parts := _PARTS.get(link.__class__):
            frame, awaited = parts(link)
            chain.append((link, frame))
            link = awaited
        else:
            # What `__await__` of a coroutine or a step of an async generator gives, which does
            # not say whose it is.
            link = next((held for held in gc.get_referents(link) if type(held) in _PARTS), None)
    return chain


def where(chain: Chain) -> Where | None:
    """The innermost line of the user's code in an await chain."""
    lines = tuple(
        [
            (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            for _, frame in chain
            if not frame.f_code.co_filename.startswith(_OURS)
        ]
    )
    return _where(lines) if lines else None


@functools.lru_cache(maxsize=1_000)
def _where(lines: tuple[tuple[str, int, str], ...]) -> Where:
    """Kept, because bodies are seen at the same few places again and again."""
    file, line, _ = lines[-1]
    return Where(file, line, tuple(f"{file}:{line} in {name}" for file, line, name in lines))


_INSTALLED = tuple(
    str(path)
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def note(running: Running, chain: Chain) -> None:
    """Remember where a body awaits natively: the innermost line of its own code.

    Further in are asyncio and an HTTP client, say. A body that is itself installed cannot be told
    from these by its file; of that, its own line.
    """
    place = where([link for link in chain if not _is_installed(link[1])] or chain[:1])
    if place is not None:
        running.natives[place] = None


def _is_installed(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_INSTALLED)


_OPEN = {
    asyncio.Timeout: "use rowtine.timeout",
    asyncio.TaskGroup: "use rowtine.gather",
    asyncio.Lock: "leave the block first",
    asyncio.Semaphore: "leave the block first",
    asyncio.Condition: "leave the block first",
}
"""Blocks that belong to one task of one event loop, and what to do instead of awaiting in them."""


def refuse_after_interruption() -> None:
    """Raise UsageError: a body was told to stop in a native await and now awaits durably.

    It may end here, but it cannot suspend: at which point of which native await it was stopped is
    not recorded (and would not come again), so a rebuild would take it past that point.
    """
    raise UsageError(
        "a durable await in the clean-up of a coroutine that was told to stop in a native "
        "await, which a rebuild could not repeat: do the native part in an @app.function"
    )


_ENTERS = opcode.opmap.get("BEFORE_ASYNC_WITH", opcode.opmap.get("LOAD_SPECIAL"))
"""What ``async with`` is compiled to: the latter from Python 3.14 on."""

_LOOKED_THROUGH: dict[int, tuple[types.CodeType, bool]] = {}
"""By the id of a code object, which it keeps from being given to another: a hash of its own would
be one of all its instructions."""


def _opens_blocks(code: types.CodeType) -> bool:
    """Whether a frame of this code may hold an ``__aexit__``: there is an ``async with`` in it, or
    the name."""
    if (found := _LOOKED_THROUGH.get(id(code))) is None:
        opens = _ENTERS is None or _ENTERS in code.co_code[::2] or "__aexit__" in code.co_names
        if len(_LOOKED_THROUGH) >= 10_000:  # of code that is made again and again
            _LOOKED_THROUGH.clear()
        found = _LOOKED_THROUGH[id(code)] = code, opens
    return found[1]


def may_be_in_a_block(coroutine: NativeCoroutine[Any, Any, Any]) -> bool:
    """Whether it takes an await chain, and `refuse_open_block`, to say."""
    link: Any = coroutine
    while link is not None:
        kind = link.__class__
        if kind is types.CoroutineType:
            code, link = link.cr_code, link.cr_await
        elif kind is types.GeneratorType:
            code, link = link.gi_code, link.gi_yieldfrom
        else:
            return True
        if _opens_blocks(code):
            return True
    return False


def refuse_open_block(chain: Chain) -> None:
    """Raise UsageError if a body awaits inside a block that cannot outlive this process.

    Of an open ``async with`` the frame holds the bound ``__aexit__``.
    """
    links = [link for link, frame in chain if _opens_blocks(frame.f_code)]
    for held in gc.get_referents(*links):
        if type(held) is MethodType and held.__name__ == "__aexit__":
            for block, instead in _OPEN.items():
                if isinstance(held.__self__, block):
                    raise UsageError(
                        f"a durable await inside an open asyncio.{block.__name__}, "
                        f"which a rebuild could not restore: {instead}"
                    )
