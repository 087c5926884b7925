"""What is refused at decoration, at the first call, and at the call site."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import rowtine
from rowtine.core.directives import Call
from rowtine.functions import fingerprint


@pytest.fixture
def app() -> rowtine.App:
    return rowtine.App("sqlite:///never-opened.db")


def add(a: int, b: int = 1) -> int:
    return a + b


async def helper(a: int) -> int:
    return a


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Thing:
    def method(self) -> None: ...


def test_calling_a_function_makes_a_template_and_runs_nothing(app: rowtine.App) -> None:
    call = app.function(add)(1, b=2)

    assert isinstance(call, Call)
    assert (call.function, call.arguments.args, call.arguments.kwargs) == ("add", (1,), {"b": 2})


def test_a_function_keeps_its_name_docstring_and_plain_callable(app: rowtine.App) -> None:
    function = app.function(add)

    assert (function.__name__, function.func(1), function.__wrapped__) == ("add", 2, add)


@pytest.mark.parametrize("refused", [generator, async_generator], ids=lambda f: f.__name__)
def test_a_generator_is_refused_at_decoration(app: rowtine.App, refused: Any) -> None:
    with pytest.raises(rowtine.RegistrationError, match="is a generator"):
        app.function(refused)


@pytest.mark.parametrize("refused", [Thing().method, Thing.method], ids=["bound", "in the class"])
def test_a_method_is_refused_at_decoration(app: rowtine.App, refused: Any) -> None:
    with pytest.raises(rowtine.RegistrationError, match="is a method: move it"):
        app.function(refused)


@pytest.mark.parametrize("refused", [Thing, print, Thing()], ids=["class", "builtin", "object"])
def test_what_is_no_def_is_refused_at_decoration(app: rowtine.App, refused: Any) -> None:
    with pytest.raises(rowtine.RegistrationError, match="is not a function"):
        app.function(refused)


def test_a_coroutine_must_be_an_async_def(app: rowtine.App) -> None:
    with pytest.raises(rowtine.RegistrationError, match=r"add is not an async def.*@app\.function"):
        app.coroutine(add)  # type: ignore[arg-type]


def test_a_free_variable_is_refused_at_the_first_call_by_its_name(app: rowtine.App) -> None:
    lock = threading.Lock()

    @app.function
    def uses_it() -> bool:
        return lock.locked()

    with pytest.raises(rowtine.RegistrationError, match="the local variable 'lock'"):
        uses_it()


def test_modules_classes_the_app_and_registered_functions_may_be_free_variables(
    app: rowtine.App,
) -> None:
    registered = app.function(add)
    module, cls = threading, Thing

    @app.function
    async def uses_them() -> Any:
        return module, cls, app, await registered(1)

    assert uses_them().function.endswith("uses_them")


@pytest.mark.case(161)
def test_the_same_name_from_elsewhere_is_refused(app: rowtine.App) -> None:
    app.function(add)

    with pytest.raises(rowtine.RegistrationError, match="'add' is already registered, from"):
        app.function(name="add")(helper)


@pytest.mark.case(162)
def test_the_same_name_in_two_apps_is_two_functions() -> None:
    one, other = rowtine.App(), rowtine.App()

    one.function(name="run")(add)
    other.function(name="run")(helper)

    assert one.registry.function("run").func is add
    assert other.registry.function("run").func is helper


@pytest.mark.case(167)
def test_the_library_itself_takes_no_names() -> None:
    assert rowtine.App().registry.functions() == []


@pytest.mark.case(163)
def test_registering_the_same_source_again_replaces_it(app: rowtine.App) -> None:
    source = "async def cell():\n    return {}\n"
    first: dict[str, Any] = {"__name__": "notebook"}
    second: dict[str, Any] = {"__name__": "notebook"}
    exec(source.format(1), first)
    exec(source.format(2), second)

    app.function(first["cell"])
    app.function(second["cell"])

    assert app.registry.function("cell").func is second["cell"]


@pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines", "\x1b[31mred"])
def test_a_name_that_is_empty_too_long_or_unprintable_is_refused(
    app: rowtine.App, name: str
) -> None:
    with pytest.raises(rowtine.RegistrationError, match="name"):
        app.function(name=name)(add)
    with pytest.raises(rowtine.RegistrationError, match="name"):
        rowtine.call(name)


def test_a_name_of_200_characters_is_fine(app: rowtine.App) -> None:
    assert app.function(name="x" * 200)(add).name == "x" * 200


def test_arguments_that_do_not_fit_raise_as_a_plain_call_would(app: rowtine.App) -> None:
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'a'"):
        app.function(add)()  # type: ignore[call-arg]


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_must_be_positive(app: rowtine.App, timeout: float) -> None:
    with pytest.raises(rowtine.RegistrationError, match="timeout of add must be a positive"):
        app.function(timeout=timeout)(add)


def test_a_fingerprint_ignores_lines_and_sees_names_and_constants() -> None:
    def code(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(text, names)
        return names["f"]

    plain = fingerprint(code("async def f():\n    return await a(1)\n"))

    assert fingerprint(code("\n\n# moved\nasync def f():\n    return await a(1)\n")) == plain
    assert fingerprint(code("async def f():\n    return await b(1)\n")) != plain
    assert fingerprint(code("async def f():\n    return await a(2)\n")) != plain


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e300])
def test_a_sleep_that_no_clock_can_hold_is_refused_at_the_call(seconds: float) -> None:
    with pytest.raises(ValueError, match="the longest is 100 years"):
        rowtine.sleep(seconds)


def test_a_negative_sleep_is_a_sleep_of_zero() -> None:
    assert rowtine.sleep(-5).arguments.args == (0.0,)


def test_a_sleep_adds_its_units() -> None:
    assert rowtine.sleep(1, minutes=1, hours=1, days=1).arguments.args == (90061.0,)
