"""Statuses, their retry classes, and which error means which status."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from rowtine.errors import (
    Cancelled,
    DecodeError,
    IncompatibleState,
    RemoteError,
    TimedOut,
    UsageError,
)

__all__ = [
    "RETRYABLE",
    "Status",
    "register_error_type",
    "register_output_type",
    "status_for_error",
    "status_for_output",
]


class Status(StrEnum):
    """What a call came to. Stored by value."""

    UNSPECIFIED = "UNSPECIFIED"
    OK = "OK"
    TIMEOUT = "TIMEOUT"
    THROTTLED = "THROTTLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_RESPONSE = "INVALID_RESPONSE"
    TEMPORARY_ERROR = "TEMPORARY_ERROR"
    PERMANENT_ERROR = "PERMANENT_ERROR"
    INCOMPATIBLE_STATE = "INCOMPATIBLE_STATE"
    DNS_ERROR = "DNS_ERROR"
    TCP_ERROR = "TCP_ERROR"
    TLS_ERROR = "TLS_ERROR"
    HTTP_ERROR = "HTTP_ERROR"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    CANCELLED = "CANCELLED"

    @property
    def retryable(self) -> bool:
        """Whether a later attempt may come to something else."""
        return self in RETRYABLE


RETRYABLE = frozenset(
    {
        Status.TIMEOUT,
        Status.THROTTLED,
        Status.TEMPORARY_ERROR,
        Status.DNS_ERROR,
        Status.TCP_ERROR,
        Status.TLS_ERROR,
        Status.HTTP_ERROR,
    }
)

# The nearest class in the error's MRO decides, so a subclass (SSLError, gaierror) is asked before
# its base (OSError), whatever the order of the lines here.
_ERRORS: dict[type[BaseException], Status | Callable[[Any], Status]] = {
    BaseException: Status.PERMANENT_ERROR,
    asyncio.CancelledError: Status.CANCELLED,
    Cancelled: Status.CANCELLED,
    TimedOut: Status.PERMANENT_ERROR,
    IncompatibleState: Status.INCOMPATIBLE_STATE,
    TimeoutError: Status.TIMEOUT,
    TypeError: Status.INVALID_ARGUMENT,
    ValueError: Status.INVALID_ARGUMENT,
    UsageError: Status.INVALID_ARGUMENT,
    DecodeError: Status.INVALID_RESPONSE,
    OSError: Status.TEMPORARY_ERROR,
    ConnectionError: Status.TCP_ERROR,
    socket.gaierror: Status.DNS_ERROR,
    ssl.SSLError: Status.TLS_ERROR,
    ssl.CertificateError: Status.TLS_ERROR,
    PermissionError: Status.PERMISSION_DENIED,
    FileNotFoundError: Status.NOT_FOUND,
    InterruptedError: Status.TEMPORARY_ERROR,
    EOFError: Status.TEMPORARY_ERROR,
    MemoryError: Status.TEMPORARY_ERROR,
}

_OUTPUTS: dict[type[Any], Status | Callable[[Any], Status]] = {object: Status.OK}


def register_error_type(
    error_type: type[BaseException], status: Status | Callable[[Any], Status]
) -> None:
    """Say which Status an error means: a Status, or a function of the error.

    The nearest registered class in the error's MRO decides. Holds for this process.
    """
    _ERRORS[error_type] = status


def register_output_type(output_type: type[Any], status: Status | Callable[[Any], Status]) -> None:
    """Say which Status a returned value means (an HTTP response, say); OK unless registered."""
    _OUTPUTS[output_type] = status


def status_for_error(error: BaseException) -> Status:
    """The Status of an error. One in stored form (RemoteError) is PERMANENT_ERROR.

    A handler that itself fails cannot lose the error: it counts as PERMANENT_ERROR.
    """
    if isinstance(error, RemoteError):
        return Status.PERMANENT_ERROR
    return _lookup(_ERRORS, error, Status.PERMANENT_ERROR)


def status_for_output(output: object) -> Status:
    """The Status of a returned value."""
    if len(_OUTPUTS) == 1:
        return Status.OK  # as in most programs
    return _lookup(_OUTPUTS, output, Status.OK)


def _lookup(
    table: dict[type[Any], Status | Callable[[Any], Status]], value: object, default: Status
) -> Status:
    for cls in type(value).__mro__:
        entry = table.get(cls)
        if isinstance(entry, Status):
            return entry
        if entry is not None:
            try:
                return Status(entry(value))
            except Exception:
                return default
    return default
