"""What the decorators return. Calling a function makes a template of a call; nothing happens
until that is awaited, started, or passed to gather, any or race.
"""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from rowtine.core.directives import Body, Call, Inline, running
from rowtine.core.discard import Shared
from rowtine.core.names import class_name
from rowtine.core.options import CallOptions, checked_options
from rowtine.core.payload import Arguments, Codec
from rowtine.core.retry import Retry
from rowtine.core.values import value
from rowtine.errors import RegistrationError, UsageError

__all__ = [
    "Configured",
    "CoroutineFunction",
    "Function",
    "FunctionCall",
    "fingerprint",
    "valid_name",
]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

MAX_NAME = 200
"""Characters in a function's name; a limit of the column too."""


class Home(Protocol):
    """What a function needs of its app: to start a call outside an execution and wait for it; and
    what a store needs that is given no more than the function."""

    @property
    def codec(self) -> Codec: ...

    @property
    def schema(self) -> str: ...

    def body(self, name: str) -> Body | None: ...

    async def arun(self, call: Call[Any]) -> Any: ...


@value
class FunctionCall(Call[R_co]):
    """A call of a registered function. Awaited outside an execution, it starts and waits."""

    home: Home | None = field(default=None, compare=False)

    def __await__(self) -> Generator[Any, Any, R_co]:
        if self.options.key is not None:
            refuse_key_inside()
        return self._asked()

    def _outside(self) -> Coroutine[Any, Any, R_co]:
        if self.home is None:
            raise UsageError(f"{self!r} has no app that could start it")
        return self.home.arun(self)


class _Registered(Shared):
    """What functions and coroutines have in common: a name, a signature, a body."""

    def __init__(self, func: Callable[..., Any], name: str | None) -> None:
        self.func = func
        self.name = checked_name(func, name)
        self.source = class_name(func)
        self.__doc__ = func.__doc__
        self.__name__ = getattr(func, "__name__", self.name)
        self.__qualname__ = getattr(func, "__qualname__", self.name)
        self.__module__ = func.__module__
        self.__wrapped__ = func
        self._signature = inspect.signature(func)
        self._checked = False
        self._positional = tuple(
            parameter.name
            for parameter in self._signature.parameters.values()
            if parameter.kind
            in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        )
        self._fitting = _positional_counts(self._signature)

    @property
    def __rowtine_name__(self) -> str:
        """The name under which the codec stores a registered function that is passed as a value."""
        return self.name

    def arguments(self, *args: Any, **kwargs: Any) -> Arguments:
        """The arguments, checked against the signature: TypeError as a plain call would raise."""
        if not self._checked:
            refuse_free_variables(self.func, self.name)
            self._checked = True
        if kwargs or len(args) not in self._fitting:  # else they fit, and binding costs more
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}() {error}") from None
        return Arguments(args, kwargs, self._positional)


def _positional_counts(signature: inspect.Signature) -> range:
    """With how many positional arguments alone a function can be called; not all, if it takes any
    number."""
    least = most = 0
    for parameter in signature.parameters.values():
        required = parameter.default is inspect.Parameter.empty
        match parameter.kind:
            case inspect.Parameter.POSITIONAL_ONLY | inspect.Parameter.POSITIONAL_OR_KEYWORD:
                least, most = least + required, most + 1
            case inspect.Parameter.KEYWORD_ONLY if required:
                return range(0)
            case _:
                pass
    return range(least, most + 1)


class Function(_Registered, Generic[P, R]):
    """A registered function: ``f(x)`` is a template of a call, ``f.func`` the plain callable.

    `retry` and `timeout` (seconds of running time of one attempt, None for no limit) are those
    of the worker that runs it.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        home: Home,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> None:
        refuse_kind(func, "function")
        super().__init__(func, name)
        if timeout is not None and not timeout > 0:
            raise RegistrationError(f"timeout of {self.name} must be a positive number of seconds")
        self.retry = retry or Retry()
        self.timeout = timeout
        self.is_async = inspect.iscoroutinefunction(func)
        self.body = Body(self.name, func) if self.is_async else None
        self.home = home

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        return FunctionCall(self.name, self.arguments(*args, **kwargs), home=self.home)

    def options(
        self,
        *,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        deadline: datetime | float | timedelta | None = None,
        delay: float | timedelta = 0.0,
        key: str | None = None,
        cancel_losers: bool = True,
    ) -> Configured[P, R]:
        """The function for calls that are run differently: ``f.options(delay=60)(x)``.

        `retry` and `timeout` stand instead of the function's own. `delay` is the time before the
        first attempt, `deadline` a moment (a naive one in UTC), or the time from acceptance, after
        which the call ends as TimedOut. Times are seconds or a timedelta. `key` makes two
        starts one call; `cancel_losers` says whether the call ends with a join that others have
        decided. UsageError for what makes no sense, for a retry with a predicate, which cannot be
        stored, and for a key inside an execution.
        """
        if key is not None:
            refuse_key_inside()
        options = checked_options(
            retry=retry,
            timeout=timeout,
            deadline=deadline,
            delay=delay,
            key=key,
            cancel_losers=cancel_losers,
        )
        return Configured(self, options)

    def __repr__(self) -> str:
        return f"<function {self.name}>"


class Configured(Shared, Generic[P, R]):
    """A function with options: called, it makes a template of a call that carries them."""

    def __init__(self, function: Function[P, R], options: CallOptions) -> None:
        self.function = function
        self.call_options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        function = self.function
        arguments = function.arguments(*args, **kwargs)
        return FunctionCall(function.name, arguments, options=self.call_options, home=function.home)

    def __repr__(self) -> str:
        return f"<function {self.function.name} with options>"


class CoroutineFunction(_Registered, Generic[P, R]):
    """A helper that runs inside its caller's execution; as a member of a join, as a child."""

    def __init__(self, func: Callable[..., Any], *, name: str | None = None) -> None:
        if not inspect.iscoroutinefunction(func):
            raise RegistrationError(
                f"{_named(func)} is not an async def: @app.coroutine marks helpers that await; "
                "use @app.function for plain functions"
            )
        refuse_kind(func, "coroutine")
        super().__init__(func, name)
        self.body = Body(self.name, func)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Inline[R]:
        return Inline(self.body, self.arguments(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<coroutine {self.name}>"


# ----------------------------------------------------------------------------- refused at the door


def refuse_key_inside() -> None:
    """A key is of starts. A call inside an execution has its place in the journal, which already
    makes it one call however often its caller is rebuilt."""
    if running.get() is not None:
        raise UsageError(
            "options(key=...) inside an execution: a durable call is made once without a key; "
            "keys are for app.start and its like"
        )


def checked_name(func: Callable[..., Any], name: str | None) -> str:
    """The name to register under: `name`, or the qualified name. Never a module or a line."""
    return valid_name(name if name is not None else func.__qualname__)


def valid_name(name: str) -> str:
    """The name itself, or RegistrationError if no function can have it."""
    if not name or len(name) > MAX_NAME:
        raise RegistrationError(
            f"a name has 1 to {MAX_NAME} characters, {name[:40]!r}... has {len(name)}"
        )
    if not name.isprintable():
        raise RegistrationError(f"the name {name!r} has characters that cannot be printed")
    return name


def refuse_kind(func: Any, decorator: str) -> None:
    """Generators and methods are refused: neither can be rebuilt from a name and its arguments."""
    name = _named(func)
    if inspect.isasyncgenfunction(func) or inspect.isgeneratorfunction(func):
        raise RegistrationError(f"{name} is a generator: @app.{decorator} takes plain functions")
    if inspect.ismethod(func) or isinstance(func, staticmethod | classmethod):
        raise RegistrationError(f"{name} is a method: move it to a plain function")
    if not inspect.isfunction(func):
        raise RegistrationError(f"{name} is not a function: @app.{decorator} takes a def")
    parameters = list(inspect.signature(func).parameters)
    inside_class = "." in func.__qualname__.rpartition("<locals>.")[2]
    if inside_class and parameters[:1] in (["self"], ["cls"]):
        raise RegistrationError(f"{name} is a method: move it to a plain function")


def refuse_free_variables(func: Any, name: str) -> None:
    """A closure over a local value could not be restored by a rebuild in another process."""
    for variable, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # not bound yet: a function that names itself
        if not _restorable(value):
            raise RegistrationError(
                f"{name} uses the local variable {variable!r} of the function around it, which a "
                "rebuild in another process could not restore: pass it as an argument, or make it "
                "a global of its module"
            )


def _restorable(value: object) -> bool:
    return (
        isinstance(value, types.ModuleType | type | _Registered)
        or getattr(value, "__rowtine_app__", False) is True
    )


def _named(func: Any) -> str:
    return getattr(func, "__qualname__", repr(func))


def fingerprint(func: Callable[..., Any]) -> str:
    """A short hash of what a function's code does: bytecode, constants and names, no lines.

    It advises (which executions stand in changed code), and by itself refuses nothing. It differs
    between Python versions, whose bytecode differs.
    """
    digest = hashlib.sha256()

    def add(code: types.CodeType) -> None:
        digest.update(code.co_code)
        digest.update(repr(code.co_names + code.co_varnames).encode())
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                add(constant)
            else:
                digest.update(repr(constant).encode())

    add(func.__code__)
    return digest.hexdigest()[:16]
