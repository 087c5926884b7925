"""The command line: `rowtine`, or `python -m rowtine.cli`."""

from rowtine.cli.commands import main

__all__ = ["main"]
