"""How values cross the border between a body and the scheduler.

Everything inside a `State`, an `Input` or an `Output` is in the codec's form (a *payload*); only
bodies see values. So a warm frame and a rebuilt one see the same thing: what the codec gives back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from rowtine.core.values import value
from rowtine.errors import RemoteError

Payload = Any
"""A value in the codec's form: JSON text under `JsonCodec`, the value itself under `Identity`."""


@value
class Arguments:
    """The arguments of one call. `names` are those of the positional ones, for error messages."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    names: Sequence[str] = field(default=(), compare=False)

    def __hash__(self) -> int:
        """Of what equal ones share and anybody can hash, for asyncio, which hashes awaitables."""
        return hash((len(self.args), *sorted(self.kwargs)))

    def labelled(self) -> list[tuple[str, Any]]:
        """Each argument with the words that a message uses for it."""
        positional = [
            (f"argument '{self.names[i]}'" if i < len(self.names) else f"argument {i + 1}", value)
            for i, value in enumerate(self.args)
        ]
        return positional + [(f"argument '{name}'", value) for name, value in self.kwargs.items()]


class Codec(Protocol):
    """Turns values into payloads and back. `None` as a payload stands for the value None."""

    def encode(self, value: Any, what: str = "value") -> Payload:
        """Raise TypeError (with `what` and the path) or PayloadError if it cannot be stored."""
        ...

    def decode(self, payload: Payload) -> Any:
        """Raise DecodeError if the payload does not fit today's types."""
        ...

    def encode_arguments(self, arguments: Arguments) -> Payload: ...

    def decode_arguments(self, payload: Payload) -> Arguments: ...

    def encode_error(self, error: BaseException) -> Exception:
        """Never raises: what cannot be stored of an error is left out."""
        ...

    def decode_error(self, error: Exception) -> Exception:
        """Never raises: an error that cannot be rebuilt stays a RemoteError."""
        ...


class Identity:
    """The codec of a scheduler used on its own: what never leaves the process is not encoded."""

    def encode(self, value: Any, what: str = "value") -> Payload:  # noqa: ARG002
        return value

    def decode(self, payload: Payload) -> Any:
        return payload

    def encode_arguments(self, arguments: Arguments) -> Payload:
        return arguments

    def decode_arguments(self, payload: Payload) -> Arguments:
        return payload if isinstance(payload, Arguments) else Arguments((payload,))

    def encode_error(self, error: BaseException) -> Exception:
        return error if isinstance(error, Exception) else _as_exception(error)

    def decode_error(self, error: Exception) -> Exception:
        return error


def _as_exception(error: BaseException) -> Exception:
    """SystemExit and its like are a call's error, never the end of whoever runs the call."""
    return RemoteError(type(error).__name__, str(error))
