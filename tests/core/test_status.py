"""Statuses: their retry classes, and which error or output means which."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from typing import Any

import pytest

from rowtine import (
    AnyException,
    DecodeError,
    PayloadError,
    RemoteError,
    Status,
    UsageError,
    register_error_type,
    register_output_type,
)
from rowtine.core.status import status_for_error, status_for_output
from rowtine.errors import IncompatibleState

RETRIED = {
    Status.TIMEOUT,
    Status.THROTTLED,
    Status.TEMPORARY_ERROR,
    Status.DNS_ERROR,
    Status.TCP_ERROR,
    Status.TLS_ERROR,
    Status.HTTP_ERROR,
}


@pytest.mark.parametrize("status", Status)
def test_what_may_come_to_something_else_later_is_retryable(status: Status) -> None:
    assert status.retryable == (status in RETRIED)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimeoutError(), Status.TIMEOUT),
        (TypeError(), Status.INVALID_ARGUMENT),
        (ValueError(), Status.INVALID_ARGUMENT),
        (ConnectionError(), Status.TCP_ERROR),
        (PermissionError(), Status.PERMISSION_DENIED),
        (FileNotFoundError(), Status.NOT_FOUND),
        (EOFError(), Status.TEMPORARY_ERROR),
        (InterruptedError(), Status.TEMPORARY_ERROR),
        (OSError(), Status.TEMPORARY_ERROR),
        (KeyError(), Status.PERMANENT_ERROR),
        (RuntimeError(), Status.PERMANENT_ERROR),
        (ssl.SSLError("bad"), Status.TLS_ERROR),
        (ssl.SSLCertVerificationError("bad"), Status.TLS_ERROR),
        (ssl.SSLEOFError(), Status.TLS_ERROR),
        # and what the table leaves to the classes between
        (socket.gaierror(), Status.DNS_ERROR),
        (ConnectionResetError(), Status.TCP_ERROR),
        (BrokenPipeError(), Status.TCP_ERROR),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), Status.INVALID_ARGUMENT),
        (IsADirectoryError(), Status.TEMPORARY_ERROR),
        (MemoryError(), Status.TEMPORARY_ERROR),
        (asyncio.CancelledError(), Status.CANCELLED),
        (SystemExit(3), Status.PERMANENT_ERROR),
        (ExceptionGroup("", [TimeoutError()]), Status.PERMANENT_ERROR),
        (subprocess.CalledProcessError(1, "x"), Status.PERMANENT_ERROR),
        (IncompatibleState(), Status.INCOMPATIBLE_STATE),
        (UsageError(), Status.INVALID_ARGUMENT),
        (PayloadError(), Status.INVALID_ARGUMENT),
        (DecodeError(), Status.INVALID_RESPONSE),
        (AnyException([]), Status.PERMANENT_ERROR),
        (RemoteError("TimeoutError", ""), Status.PERMANENT_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
@pytest.mark.case(8, 9)
def test_an_error_means_a_status(error: BaseException, status: Status) -> None:
    assert status_for_error(error) is status


class Mine(OSError):
    pass


class MineToo(Mine):
    pass


@pytest.mark.case(11)
def test_the_nearest_registered_class_decides() -> None:
    assert status_for_error(MineToo()) is Status.TEMPORARY_ERROR

    register_error_type(Mine, Status.THROTTLED)

    assert status_for_error(MineToo()) is Status.THROTTLED
    assert status_for_error(OSError()) is Status.TEMPORARY_ERROR


def _raises(value: Any) -> Status:
    raise KeyError(value)


def _says_nonsense(value: Any) -> Any:
    return "NONSENSE"


def _says_by_value(value: Any) -> Any:
    return "NOT_FOUND"


@pytest.mark.parametrize(
    ("handler", "for_error", "for_output"),
    [
        (_raises, Status.PERMANENT_ERROR, Status.OK),
        (_says_nonsense, Status.PERMANENT_ERROR, Status.OK),
        (_says_by_value, Status.NOT_FOUND, Status.NOT_FOUND),
    ],
)
def test_a_handler_that_fails_loses_nothing(
    handler: Any, for_error: Status, for_output: Status
) -> None:
    class Error(Exception):
        pass

    class Response:
        pass

    register_error_type(Error, handler)
    register_output_type(Response, handler)

    assert status_for_error(Error()) is for_error
    assert status_for_output(Response()) is for_output


@pytest.mark.parametrize(
    "output", [None, 0, "", ValueError(), object()], ids=lambda output: type(output).__name__
)
def test_every_output_is_ok_unless_registered(output: Any) -> None:
    assert status_for_output(output) is Status.OK


def test_statuses_are_stored_by_value() -> None:
    assert [str(status) for status in Status] == [status.name for status in Status]
