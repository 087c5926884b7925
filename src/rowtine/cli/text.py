"""Text from rows and users, on its way to a terminal.

Names, messages and payloads are other people's text: an escape sequence in the name of a function
must not recolour the screen, and rich's markup in an error message must not be obeyed. What is
printed here goes through `plain` and is never parsed as markup.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["duration", "line_of", "place", "plain", "shortened"]


def plain(text: str) -> str:
    """The text with everything that a terminal would act upon written as an escape.

    That is what `repr` escapes too: control characters, changes of writing direction, lone
    surrogates. Line ends are kept.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def line_of(text: str) -> str:
    """The text as one line."""
    return plain(" ".join(text.split()))


def shortened(text: str, limit: int) -> str:
    """One line of at most `limit` characters."""
    line = line_of(text)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def place(file: str | None, line: int | None, *, short: bool = False) -> str:
    """A source line, from where the reader stands if that is shorter; in short, the file's name."""
    if file is None:
        return ""
    path = Path(file)
    with suppress(ValueError, OSError):  # it is elsewhere, or the working directory is gone
        path = path.relative_to(Path.cwd())
    return plain(f"{path.name if short else path}:{line}")


def duration(seconds: float) -> str:
    """A time span to the precision that one reads it with."""
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
