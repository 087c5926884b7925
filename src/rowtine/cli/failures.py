"""How the command line fails: one line that says what to do, and an exit code. No traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

import click

from rowtine.cli.text import line_of, plain
from rowtine.errors import NotFound, RowtineError, UsageError

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "ImportFailure", "report"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

_PACKAGE = str(Path(__file__).parent.parent)


class ImportFailure(RowtineError):
    """The user's module failed while it was imported; `trace` shows their own lines."""

    def __init__(self, module: str, error: BaseException) -> None:
        words = traceback.TracebackException.from_exception(error)
        _drop_our_frames(words)
        self.trace = "".join(words.format())
        reason = "".join(words.format_exception_only()).strip().splitlines()[-1]
        super().__init__(f"cannot import {module}: {reason}")


def _drop_our_frames(words: traceback.TracebackException) -> None:
    """Whose mistake it is stands in the user's files, not in importlib or in a decorator."""
    words.stack[:] = [
        frame
        for frame in words.stack
        if not frame.filename.startswith((_PACKAGE, "<frozen importlib"))
        and "/importlib/" not in frame.filename.replace("\\", "/")
    ]
    for other in (words.__cause__, words.__context__):
        if other is not None:
            _drop_our_frames(other)


def report(error: BaseException) -> int:
    """Say on stderr what went wrong; the exit code."""
    match error:
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED
        case click.UsageError():
            _say(error.format_message())
            if error.ctx is not None:
                click.echo(f"try `{error.ctx.command_path} --help`", err=True)
            return error.exit_code
        case click.ClickException():
            _say(error.format_message())
            return error.exit_code
        case ImportFailure():
            click.echo(plain(error.trace).rstrip(), err=True)
            _say(str(error))
            return FAILED
        case UsageError() if not isinstance(error, NotFound):
            _say(str(error))
            return MISUSED
        case _:
            _say(str(error))
            return FAILED


def _say(message: str) -> None:
    click.echo(f"rowtine: {line_of(message)}", err=True)
