"""`JsonCodec`: the codec that an App uses unless it is given another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from rowtine.codec.classes import Registry
from rowtine.codec.decoding import HOLDERS, Decoder
from rowtine.codec.encoding import LEAVES, Encoder
from rowtine.codec.errors import (
    attempt,
    fitting,
    message_of,
    traceback_of,
    with_members_shown,
    with_traceback,
)
from rowtine.codec.leaves import text_tree
from rowtine.codec.text import (
    Refused,
    TooDeep,
    TooLarge,
    dumps,
    is_plain_key,
    is_untagged,
    loads,
    megabytes,
    storable,
)
from rowtine.core.names import class_name
from rowtine.core.payload import Arguments
from rowtine.errors import AnyException, DecodeError, PayloadError, RemoteError

_PARTS = frozenset({"args", "kwargs"})

# So much of an error is looked at: 2,000 members of a group, say, which is what fits into 2 MB.
_ERROR_ITEMS = 200_000


class JsonCodec:
    """Implements `rowtine.core.payload.Codec` with JSON text.

    Equal values in the same order give the same text, byte for byte; sets are sorted. `max_bytes`
    limits the text of one payload, `max_depth` the nesting of values, in both directions.

    `lookup_function` gives the registered function of a name, for functions passed as values.
    """

    def __init__(self, *, max_bytes: int = 2 * 1024 * 1024, max_depth: int = 200) -> None:
        self.max_bytes = max_bytes
        self.lookup_function: Callable[[str], Any] | None = None
        self._registry = Registry()
        self._max_depth = max_depth
        self._decoder = Decoder(self._registry, max_depth, self._find_function)

    def register(self, cls: type[Any]) -> None:
        """Allow a class, and those in the annotations of its fields, to be stored and rebuilt.

        Raises TypeError unless it is a dataclass, Enum, NamedTuple, pydantic model or Exception.
        """
        self._registry.register(cls)

    def register_annotations(self, func: Callable[..., Any]) -> None:
        """Register every class in the annotations of a function, also inside generics and fields.

        An annotation that cannot be resolved here is passed over.
        """
        self._registry.register_annotations(func)

    def encode(self, value: Any, what: str = "value") -> str:
        """The text of a value.

        Raises TypeError with `what` and the path if it cannot be stored, PayloadError if it is too
        large or nested too deeply.
        """
        leaf = LEAVES.get(type(value))  # pyright: ignore[reportUnknownArgumentType]
        try:
            text = dumps(self._encoder().tree(value) if leaf is None else leaf(value))
        except (Refused, RecursionError) as error:
            raise self._refusal(error, what) from error.__cause__
        return text if len(text) <= self.max_bytes else self._within_limit(text, f"{what} is")

    def decode(self, payload: str | None) -> Any:
        """The value, made afresh at each call. Raises DecodeError if today's types do not fit."""
        if payload is None:
            return None
        tree = _parsed(payload)
        if type(tree) not in HOLDERS or is_untagged(payload, self._max_depth):
            return tree
        return self._decoder.value(tree)

    def encode_arguments(self, arguments: Arguments) -> str:
        """The text ``{"args": [...], "kwargs": {...}}``, without the parts that are empty.

        Raises as `encode` does, naming the argument.
        """
        values, count = arguments.args, len(arguments.args)
        if arguments.kwargs:
            values = (*values, *arguments.kwargs.values())
        try:
            trees = [LEAVES[type(value)](value) for value in values]  # as most are
        except (KeyError, Refused):
            trees = self._argument_trees(arguments)
        tree: dict[str, Any] = {"args": trees[:count]} if count else {}
        if arguments.kwargs:
            tree["kwargs"] = _named(arguments.kwargs, trees[count:])
        text = dumps(tree)
        if len(text) <= self.max_bytes:
            return text
        for (label, _), argument in zip(arguments.labelled(), trees, strict=True):
            self._within_limit(dumps(argument), f"{label} is")  # perhaps one of them alone
        return self._within_limit(text, "the arguments are")

    def decode_arguments(self, payload: str | None) -> Arguments:
        """The arguments. Raises DecodeError if today's types do not fit.

        Rows written by others may also hold a JSON list (positional arguments), or any other value
        (the single positional argument).
        """
        if payload is None:
            return Arguments()
        if (usual := _usual_arguments(payload, self._max_depth)) is not None:
            return Arguments(tuple(usual.args), usual.kwargs)
        parts = _argument_parts(_parsed(payload))
        args, kwargs = parts.get("args", []), parts.get("kwargs", {})
        if not is_untagged(payload, self._max_depth):
            args = self._decoder.value(args, depth=-1)
            kwargs = self._decoder.value(kwargs, depth=-1)
        if not (_is(list, args) and _is(dict, kwargs) and all(_is(str, name) for name in kwargs)):
            raise DecodeError("malformed arguments: args is no list, or kwargs no object")
        return Arguments(tuple(args), kwargs)

    def encode_error(self, error: BaseException) -> RemoteError:
        """The error in the form in which it is stored. Never raises.

        What cannot be stored of its args and attributes is left out, what is too long is shortened.
        """
        if isinstance(error, RemoteError):
            text = error.traceback or attempt(lambda: traceback_of(error))
            return with_traceback(error, text)
        details = attempt(lambda: fitting(self._lenient().described(error), self.max_bytes))
        return RemoteError(
            attempt(lambda: storable(class_name(type(error)))) or type(error).__name__,
            message_of(error),
            attempt(lambda: traceback_of(error)),
            details,
        )

    def decode_error(self, error: Exception) -> Exception:
        """The error as its class, if that is an Exception subclass imported or registered here.

        Never raises: an error that cannot be rebuilt is a RemoteError. No code of the class runs.
        """
        if isinstance(error, AnyException):
            members = [self.decode_error(member) for member in error.exceptions]
            return with_members_shown(AnyException(members))
        return self._decoder.revived(error) if isinstance(error, RemoteError) else error

    def _argument_trees(self, arguments: Arguments) -> list[Any]:
        encoder = self._encoder()
        trees: list[Any] = []
        try:
            trees.extend(map(encoder.tree, (*arguments.args, *arguments.kwargs.values())))
        except (Refused, RecursionError) as error:
            label, _ = arguments.labelled()[len(trees)]  # those before it are there
            raise self._refusal(error, label) from error.__cause__
        return trees

    def _encoder(self) -> Encoder:
        # An item is two bytes of text at the least.
        return Encoder(self._registry, self._max_depth, self.max_bytes // 2)

    def _lenient(self) -> Encoder:
        return Encoder(self._registry, self._max_depth, _ERROR_ITEMS, lenient=True)

    def _refusal(self, error: Refused | RecursionError, what: str) -> Exception:
        if isinstance(error, RecursionError):
            return PayloadError(f"{what}: nested too deeply for what is left of the stack")
        where = f"{what}, {error.path}" if error.path else what
        match error:
            case TooLarge():
                return PayloadError(f"{what} is too large as JSON; {self._limit}")
            case TooDeep():
                return PayloadError(f"{where}: {error.reason}")
            case _:
                return TypeError(f"{where}: {error.reason}")

    def _within_limit(self, text: str, what: str) -> str:
        if len(text) > self.max_bytes:
            raise PayloadError(f"{what} {megabytes(len(text))} as JSON; {self._limit}")
        return text

    @property
    def _limit(self) -> str:
        return f"the limit is {megabytes(self.max_bytes)} (App(max_payload_bytes=...))"

    def _find_function(self, name: str) -> Any:
        if self.lookup_function is None:
            raise DecodeError(f"no function {name!r:.200} is known here")
        return self.lookup_function(name)


def _parsed(payload: str) -> Any:
    if not isinstance(payload, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DecodeError(f"a payload is text, not {type(payload).__name__}")
    try:
        return loads(payload)
    except Exception as error:
        raise DecodeError(f"not JSON that can be read: {error}") from error


class _Usual(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments as `encode_arguments` writes them."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}


_decode_usual = msgspec.json.Decoder(_Usual).decode


def _usual_arguments(payload: str, max_depth: int) -> _Usual | None:
    """The arguments in one go, where the text means just what it says; None for any other."""
    try:
        return _decode_usual(payload) if is_untagged(payload, max_depth) else None
    except Exception:
        return None


def _argument_parts(tree: Any) -> dict[str, Any]:
    if type(tree) is dict and tree.keys() <= _PARTS:
        return cast("dict[str, Any]", tree)
    return {"args": tree if isinstance(tree, list) else [tree]}


def _named(kwargs: Mapping[str, Any], trees: list[Any]) -> dict[str, Any]:
    """The keyword arguments as the codec has any dict: a name like `$x` makes it a tagged one."""
    if all(map(is_plain_key, kwargs)):
        return dict(zip(kwargs, trees, strict=True))
    return {"$dict": [[text_tree(name), tree] for name, tree in zip(kwargs, trees, strict=True)]}


def _is(kind: type[Any], value: object) -> bool:
    return type(value) is kind
