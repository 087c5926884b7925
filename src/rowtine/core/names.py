"""How classes and functions are called in rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["class_name", "main_name"]

_MAIN = ("__main__", "__mp_main__")


def class_name(cls: Callable[..., Any]) -> str:
    """The name of a class (or function) in rows: ``module.qualname``, for builtins the bare name.

    ``__main__`` is replaced by the name under which the same file is imported, so that a script's
    class and a worker's import of it are one class.
    """
    module = cls.__module__
    if module == "builtins":
        return cls.__qualname__
    return f"{main_name() if module in _MAIN else module}.{cls.__qualname__}"


def main_name() -> str:
    """The name under which the running script would be imported."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)  # set by `python -m`
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"
