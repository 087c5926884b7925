"""Exceptions to their stored form and back.

An exception is stored as what it is (class, args, attributes, notes) and as what it says (message,
traceback text). It is rebuilt through the interpreter's own base class, attribute by attribute, so
that no ``__init__``, ``__new__``, ``__reduce__``, ``__setstate__`` or ``__setattr__`` of the user
runs; what cannot be rebuilt stays a RemoteError, which says the same.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path
from traceback import FrameSummary, TracebackException
from typing import Any, cast

from rowtine.codec.names import native_base
from rowtine.codec.text import dumps, loads, shortened, storable
from rowtine.core.names import class_name
from rowtine.errors import AnyException, RemoteError, RemoteTraceback

MESSAGE_LIMIT = 8_000
TRACEBACK_LIMIT = 64 * 1024

_PACKAGE = f"{Path(__file__).parent.parent}{os.sep}"
# The descriptors themselves, which a user's class cannot override.
_ARGS: Any = vars(BaseException)["args"]
_CAUSE: Any = vars(BaseException)["__cause__"]
_DICT: Any = vars(BaseException)["__dict__"]
# Members in C that say nothing beyond args, or (AttributeError.obj) hold on to the user's objects.
_NOT_STATE = {
    (BaseException, "__suppress_context__"),
    (BaseExceptionGroup, "message"),
    (BaseExceptionGroup, "exceptions"),
    (AttributeError, "obj"),
}
# The parts of a description, and how the path to a value names them.
PARTS = {"args": ".args", "attrs": ".__dict__", "notes": ".__notes__"}


def attempt(part: Callable[[], str | None]) -> str | None:
    """A part of an error, or None.

    Looking at an error runs user code; whatever that raises, the rest of the error is to be kept.
    """
    try:
        return part()
    except BaseException:
        return None


# What it says


def message_of(error: BaseException) -> str:
    """Its `str`, fit for a text column."""
    message = attempt(lambda: storable(str(error)))
    if message is None:
        return "<no message: its __str__ failed>"
    return shortened(message, MESSAGE_LIMIT)


def traceback_of(error: BaseException) -> str | None:
    """The traceback as text, without locals; None if the error was never raised.

    It shows cause, context, notes and the members of a group, each with its own. An error that was
    rebuilt here and not raised since keeps the text that it came with.
    """
    if error.__traceback__ is None and (text := remote_traceback(error)):
        return text
    raised = error.__traceback__ or error.__cause__ or error.__context__
    if not (raised or isinstance(error, AnyException)):
        return None
    text = "".join(_summary(error).format())
    return shortened(storable(text), TRACEBACK_LIMIT, tail=TRACEBACK_LIMIT // 2)


def remote_traceback(error: BaseException) -> str | None:
    """The text with which an error was rebuilt."""
    cause = error.__cause__
    return cause.text if isinstance(cause, RemoteTraceback) else None


def with_members_shown(error: AnyException) -> AnyException:
    """The error of an `any`, which prints what its members came to."""
    if text := attempt(lambda: traceback_of(error)):
        _CAUSE.__set__(error, RemoteTraceback(text))
    return error


def _summary(error: BaseException) -> TracebackException:
    """What Python would print, and what it would leave out."""
    whole = _bare_summary(error)
    waiting = [(whole, error)]
    seen: set[int] = set()  # what is added here may lead back, unlike what Python itself collects
    while waiting:
        part, error = waiting.pop()
        # Begin where the user's code begins: the frames of rowtine above it explain nothing.
        part.stack[:] = list(dropwhile(_is_own, part.stack)) or list(part.stack)
        if id(error) not in seen:
            seen.add(id(error))
            _add_left_out(part, error)
        waiting += _parts(part, error)
    return whole


def _bare_summary(error: BaseException) -> TracebackException:
    return TracebackException(type(error), error, error.__traceback__, compact=True)


def _add_left_out(part: TracebackException, error: BaseException) -> None:
    """The members of an AnyException, and what was being handled when a rebuilt error was raised.

    Python shows the cause, or else the context. Here the cause is only the text of the error, so
    the context stands before that. An AnyException that was rebuilt has its members in its text.
    """
    if not isinstance(error.__cause__, RemoteTraceback):
        if isinstance(error, AnyException):
            part.exceptions = [_bare_summary(member) for member in error.exceptions]
    elif part.__cause__ is not None and error.__context__ is not None:
        part.__cause__.__context__ = _bare_summary(error.__context__)


def _parts(
    part: TracebackException, error: BaseException
) -> list[tuple[TracebackException, BaseException]]:
    """The summaries inside a summary, each with its error."""
    found = [(part.__cause__, error.__cause__), (part.__context__, error.__context__)]
    if isinstance(error.__cause__, RemoteTraceback) and part.__cause__ is not None:
        found.append((part.__cause__.__context__, error.__context__))
    found += zip(part.exceptions or (), getattr(error, "exceptions", ()), strict=False)
    return [(inner, of) for inner, of in found if inner is not None and of is not None]


def _is_own(frame: FrameSummary) -> bool:
    return frame.filename.startswith(_PACKAGE)


# What it is


def state_of(error: BaseException) -> dict[str, Any]:
    """Its args (always), attributes and notes (if any). May raise: it looks at user objects."""
    attributes = dict(_DICT.__get__(error))
    notes = attributes.pop("__notes__", None)
    args = _args(error)
    attributes |= _native_attributes(error, args)
    if type(error) is AnyException:
        del attributes["exceptions"]  # they are its args
    state: dict[str, Any] = {"args": list(args)}
    if attributes:
        state["attrs"] = attributes
    return state if notes is None else state | {"notes": notes}


def _args(error: BaseException) -> tuple[Any, ...]:
    """A subclass of ExceptionGroup may have its own args; what it is made of counts."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return (group.message, list(group.exceptions))
    return cast("tuple[Any, ...]", _ARGS.__get__(error))


def _native_attributes(error: BaseException, args: tuple[Any, ...]) -> dict[str, Any]:
    """What stands in slots (OSError.filename, ImportError.name) and does not follow from args."""
    bare, members = _make(type(error), args), _members(type(error))
    held = {name: _get(member, error) for name, member in members.items()}
    return {name: value for name, value in held.items() if value is not _get(members[name], bare)}


def _get(member: types.MemberDescriptorType, error: BaseException) -> Any:
    try:
        return member.__get__(error)
    except AttributeError:  # a slot that was never filled
        return None


def _members(cls: type[Any]) -> dict[str, types.MemberDescriptorType]:
    return {
        name: member
        for base in reversed(cls.__mro__)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType) and (base, name) not in _NOT_STATE
    }


def _make(cls: type[Any], args: tuple[Any, ...]) -> Any:
    """An exception of this class as its C base makes it."""
    if cls is AnyException:
        return AnyException(*args)
    base = native_base(cls)
    made = base.__new__(cls, *args)
    if type(made) is not cls:
        raise TypeError(f"{class_name(base)} made another class of these args")
    base.__init__(made, *args)
    _ARGS.__set__(made, args)
    return made


# The stored form


def stored_form(remote: RemoteError) -> dict[str, Any]:
    """A RemoteError as the body of an `$error`."""
    details, message = details_of(remote), storable(str(remote.message))
    said = {} if message == said_by(details) else {"message": message}
    return said | details | ({"traceback": storable(remote.traceback)} if remote.traceback else {})


def said_by(details: dict[str, Any]) -> str:
    """The message of an error of which only the args are known, as JSON values."""
    match details.get("args"):
        case None | []:
            return ""
        case [str(text)]:
            return text
        case args:
            return dumps(args)


def with_traceback(remote: RemoteError, traceback: str | None) -> RemoteError:
    """The same error if it is fit to be stored and has this traceback, else one that is and has."""
    texts = [storable(str(text)) for text in (remote.type, remote.message, traceback or "")]
    wanted = (texts[0], texts[1], texts[2] or None)
    if wanted == (remote.type, remote.message, remote.traceback):
        return remote
    return RemoteError(*wanted, remote.details)


def details_of(remote: RemoteError) -> dict[str, Any]:
    """What a rebuild needs, still as JSON values; empty if there is nothing, or nothing sound."""
    parts: Any = None
    with contextlib.suppress(Exception):
        parts = loads(remote.details) if remote.details else None
    return {key: parts[key] for key in PARTS if key in parts} if type(parts) is dict else {}


def fitting(parts: dict[str, Any], limit: int) -> str | None:
    """The details as text, without the largest parts if all of it is too much."""
    parts = dict(parts)
    while parts:
        text = dumps(parts)
        if len(text) <= limit:
            return text
        del parts[max(parts, key=lambda part: len(dumps(parts[part])))]
    return None


def revive(
    remote: RemoteError,
    find: Callable[[str], type[Exception] | None],
    decode: Callable[[Any], Any],
) -> Exception:
    """The exception that was stored, or a RemoteError if it cannot be rebuilt. Never raises.

    The remote traceback becomes its cause, so that printing it shows where it really happened.
    """
    try:
        error = _rebuilt(remote, find, decode)
    except Exception:
        error = RemoteError(remote.type, remote.message, remote.traceback, remote.details)
    if remote.traceback:
        _CAUSE.__set__(error, RemoteTraceback(remote.traceback))
    return error


def _rebuilt(
    remote: RemoteError,
    find: Callable[[str], type[Exception] | None],
    decode: Callable[[Any], Any],
) -> Exception:
    cls = find(remote.type)
    if cls is None:
        raise LookupError(remote.type)
    parts = decode(details_of(remote))
    args = parts.get("args", [remote.message] if remote.message else [])
    error: Exception = _make(cls, tuple(args))
    _restore(error, parts.get("attrs", {}))
    if "notes" in parts:
        _DICT.__get__(error)["__notes__"] = parts["notes"]
    return error


def _restore(error: Exception, attributes: dict[str, Any]) -> None:
    members = _members(type(error))
    for name, value in attributes.items():
        if name in members:
            members[name].__set__(error, value)
        else:
            _DICT.__get__(error)[name] = value
