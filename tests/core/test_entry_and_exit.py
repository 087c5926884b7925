"""How an execution begins and how it ends."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from core.scheduling import COLD, JSON, Begin, Mode, durable
from rowtine import Status, call, register_error_type, register_output_type
from rowtine.codec import JsonCodec
from rowtine.core.exchange import Exit, Input
from rowtine.core.scheduler import OneShotScheduler
from rowtine.errors import Cancelled, RegistrationError, RemoteError


@durable
async def adds(a: int, b: int = 1) -> int:
    return a + b


@durable
async def fails(error: Exception) -> None:
    raise error


@pytest.mark.case(1)
def test_the_value_that_main_returns_is_the_exit(begin: Begin) -> None:
    @durable
    async def main() -> int:
        return 1

    execution = begin(main)

    assert execution.value == 1
    assert execution.status is Status.OK
    assert execution.exit.changes.calls == []


@pytest.mark.case(3)
def test_the_error_that_main_raises_is_the_exit(begin: Begin) -> None:
    execution = begin(fails, ValueError("oops"))

    assert isinstance(execution.error, ValueError)
    assert str(execution.error) == "oops"
    assert execution.status is Status.INVALID_ARGUMENT


@pytest.mark.case(4)
def test_arguments_may_be_positional_and_by_name(begin: Begin) -> None:
    execution = begin(adds, 2, b=10)

    assert execution.value == 12


@pytest.mark.case(5)
def test_arguments_that_do_not_fit_are_an_invalid_argument(begin: Begin) -> None:
    execution = begin(adds)

    assert isinstance(execution.error, TypeError)
    assert execution.status is Status.INVALID_ARGUMENT
    assert not execution.status.retryable


@pytest.mark.parametrize(("mode", "payload"), [(COLD, 42), (JSON, "42")], ids=["value", "text"])
@pytest.mark.case(6)
def test_input_that_is_no_argument_list_is_the_one_argument(mode: Mode, payload: Any) -> None:
    scheduler = OneShotScheduler(adds, codec=mode.codec())

    output = asyncio.run(scheduler.run(Input(arguments=payload)))

    assert isinstance(output, Exit)
    assert scheduler.codec.decode(output.value) == 43


def _plain() -> None: ...


@pytest.mark.parametrize("entry_point", [_plain, None, 7], ids=["function", "None", "number"])
@pytest.mark.case(7)
def test_an_entry_point_must_be_marked(begin: Begin, entry_point: Any) -> None:
    execution = begin(entry_point)

    assert execution.status is Status.INVALID_ARGUMENT
    assert "the entry point is not an async @app.function" in str(execution.error)


@pytest.mark.case(7, 137)
def test_generators_are_refused_by_the_decorator() -> None:
    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    for refused in (generator, async_generator):
        with pytest.raises(RegistrationError, match=refused.__qualname__):
            durable(refused)


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
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
@pytest.mark.case(8)
def test_the_error_decides_the_status(begin: Begin, error: Exception, status: Status) -> None:
    execution = begin(fails, error)

    assert execution.status is status
    assert type(execution.error) is type(error)


class Throttled(Exception):
    pass


class Missing(Throttled):
    pass


class Slow(Throttled):
    pass


@pytest.mark.case(11)
def test_the_nearest_registered_class_decides_the_status(begin: Begin) -> None:
    register_error_type(Throttled, Status.THROTTLED)
    register_error_type(Missing, lambda error: Status.NOT_FOUND)

    slow, missing = begin(fails, Slow()), begin(fails, Missing())

    assert slow.status is Status.THROTTLED
    assert missing.status is Status.NOT_FOUND


@dataclass
class Response:
    status: Status


def test_a_registered_output_type_decides_the_status(begin: Begin) -> None:
    register_output_type(Response, lambda output: output.status)
    codec = begin.mode.codec()
    if isinstance(codec, JsonCodec):
        codec.register(Response)

    @durable
    async def main() -> Response:
        return Response(Status.UNAUTHENTICATED)

    execution = begin.using(codec=codec)(main)

    assert execution.value == Response(Status.UNAUTHENTICATED)
    assert execution.status is Status.UNAUTHENTICATED


@pytest.mark.case(13)
def test_a_value_that_cannot_be_stored_fails_the_execution(begin_json: Begin) -> None:
    class Lock:
        instance = threading.Lock()

    @durable
    async def main() -> Any:
        return Lock.instance

    execution = begin_json(main)

    assert isinstance(execution.error, TypeError)
    assert "the returned value" in str(execution.error)
    assert "lock" in str(execution.error)
    assert not execution.status.retryable


def _helper() -> None:
    raise KeyError("deep")


@pytest.mark.case(14)
def test_the_traceback_names_the_line_that_failed(begin_json: Begin) -> None:
    @durable
    async def main() -> None:
        _helper()

    execution = begin_json(main)

    stored = execution.exit.error
    assert isinstance(stored, RemoteError)
    assert stored.traceback is not None
    assert "in _helper" in stored.traceback
    assert 'raise KeyError("deep")' in stored.traceback
    assert stored.traceback.rstrip() in str(execution.error.__cause__)


@pytest.mark.parametrize("signal", [SystemExit, asyncio.CancelledError])
def test_a_signal_raised_by_a_body_is_its_error(begin: Begin, signal: type[BaseException]) -> None:
    class Raised:
        cls = signal

    @durable
    async def main() -> None:
        raise Raised.cls

    execution = begin(main)

    if signal is asyncio.CancelledError:
        assert isinstance(execution.error, Cancelled)
    else:
        assert isinstance(execution.error, RemoteError)
        assert signal.__name__ in execution.error.type


def test_a_keyboard_interrupt_raised_by_a_body_is_its_error(begin: Begin) -> None:
    """A body that raises it must not take every worker along that tries it. The real one comes
    as a cancellation of the task that runs the round."""

    @durable
    async def main() -> Any:
        await call("foo")
        raise KeyboardInterrupt

    execution = begin(main)

    execution.answer(foo=1)

    assert isinstance(execution.error, RemoteError)
    assert execution.error.type == "KeyboardInterrupt"


def test_a_body_that_cancels_its_own_task_fails(begin: Begin) -> None:
    @durable
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await call("never")

    execution = begin(main)

    assert execution.status is Status.CANCELLED


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_a_round_runs_on_a_loop_whose_tasks_start_at_once() -> None:
    @durable
    async def main() -> int:
        await asyncio.sleep(0)
        return await call("foo")

    async def eager() -> Any:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await OneShotScheduler(main).run(Input.first())

    output = asyncio.run(eager())

    assert [request.function for request in output.calls] == ["foo"]
