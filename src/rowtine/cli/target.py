"""From the words of a command line to an App, a function and its arguments."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_type_hints

import msgspec

from rowtine.app import App
from rowtine.cli.failures import ImportFailure
from rowtine.core.directives import Call
from rowtine.errors import UsageError

__all__ = ["json_value", "load_app", "parse_call"]


# ------------------------------------------------------------------------------------ MODULE:APP


def load_app(target: str) -> App:
    """Import ``MODULE:APP``, the working directory first on the path.

    UsageError if there is no such module or App in it, `ImportFailure` if the module fails.
    """
    name, _, attribute = target.partition(":")
    if not name or "/" in name or "\\" in name or name.endswith(".py"):
        raise UsageError(f"{target!r} is not MODULE:APP: write shop:app for `app` in shop.py")
    module = _import(name)
    found: Any = module
    for part in (attribute or "app").split("."):
        found = getattr(found, part, None)
    if not isinstance(found, App):
        raise UsageError(f"{target!r} is not a rowtine.App; {_apps_in(module)}")
    return found


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script that runs when it is imported
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise UsageError(f"there is no module {missing!r}, in {here} or elsewhere") from None
        raise ImportFailure(name, error) from error


def _apps_in(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, App)]
    if not names:
        return f"{module.__name__} has none"
    return f"{module.__name__} has " + ", ".join(f"{module.__name__}:{name}" for name in names)


# ----------------------------------------------------------------------------- FUNCTION and JSON


def parse_call(app: App, function: str, text: str | None) -> Call[Any]:
    """The call of a registered function with arguments written as JSON.

    A list holds positional arguments, an object keyword arguments, anything else is the one
    argument. UsageError if they do not fit the signature, NotFound if there is no such function.
    """
    known = app.registry.function(function)
    args, kwargs = _arguments(text)
    try:
        bound = inspect.signature(known.func).bind(*args, **kwargs)
        fitted = _fit(known.func, bound)
        return known(*fitted.args, **fitted.kwargs)
    except TypeError as error:
        raise UsageError(f"{known.name}(): {error}") from None


def _arguments(text: str | None) -> tuple[list[Any], dict[str, Any]]:
    if text is None:
        return [], {}
    value = json_value(text, "the arguments are")
    if _is(list, value):
        return value, {}
    return ([], value) if _is(dict, value) else ([value], {})


def json_value(text: str, what: str = "the value is") -> Any:
    """What a JSON text says; UsageError if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{what} not JSON: {error} (a text needs its own quotes: '\"text\"')"
        ) from None


def _is(kind: type[Any], value: object) -> bool:
    return type(value) is kind


def _fit(func: Callable[..., Any], bound: inspect.BoundArguments) -> inspect.BoundArguments:
    """JSON has no dataclasses, dates or tuples: make of each argument what is annotated."""
    try:
        hints = get_type_hints(func)
    except Exception:  # an annotation that cannot be resolved says nothing
        return bound
    kinds = bound.signature.parameters
    for name, value in bound.arguments.items():
        if name not in hints:
            continue
        bound.arguments[name] = _fit_parameter(kinds[name], value, hints[name])
    return bound


def _fit_parameter(parameter: inspect.Parameter, value: Any, hint: Any) -> Any:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return tuple(_fit_value(f"*{parameter.name}", item, hint) for item in value)
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        named = cast("Mapping[str, Any]", value)
        return {name: _fit_value(name, item, hint) for name, item in named.items()}
    return _fit_value(parameter.name, value, hint)


def _fit_value(name: str, value: Any, hint: Any) -> Any:
    try:
        validate = getattr(hint, "model_validate", None)  # a pydantic model knows best itself
        return validate(value) if callable(validate) else msgspec.convert(value, hint)
    except ValueError as error:  # msgspec's and pydantic's errors are both
        raise UsageError(f"argument {name!r}: {error}") from None
    except TypeError:
        return value  # an annotation that msgspec does not know
