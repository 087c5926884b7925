"""The app: functions, a database, and the ways in from outside an execution."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from functools import cached_property, partial
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload
from weakref import WeakValueDictionary

from rowtine import clock
from rowtine.codec import JsonCodec
from rowtine.config import Settings, default_database_url
from rowtine.core.directives import Body, Call, running
from rowtine.core.discard import Shared
from rowtine.core.payload import Arguments
from rowtine.core.phases import Kind, Phase
from rowtine.core.results import CoroutineResult
from rowtine.core.retry import Retry
from rowtine.core.status import status_for_error
from rowtine.errors import Conflict, NotFound, UsageError
from rowtine.functions import CoroutineFunction, Function, valid_name
from rowtine.probes import SILENT, Probe
from rowtine.registry import Registry
from rowtine.store import Connection, Database, calls, promises, schema, signals, stopping
from rowtine.store.calls import Accepted, NewCall
from rowtine.store.notices import News, announce
from rowtine.store.outcomes import Settled, error_of, settled
from rowtine.worker import Worker

__all__ = ["App", "Handle"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.25
"""Seconds between two looks at a call that somebody waits for, which double in between."""


class Options(TypedDict, total=False):
    """What `App` takes beside its database and version: see `Settings` for units and defaults."""

    schema: str
    warm: int
    concurrency: int
    lease: float
    stall: float
    grace: float
    poll_interval: float
    hold: float
    poll_min_results: int
    poll_max_results: int
    poll_max_wait_seconds: float | None
    max_payload_bytes: int
    max_depth: int


class App(Shared):
    """Durable functions over one database.

    `database_url` defaults to ``ROWTINE_DATABASE_URL``, else ``sqlite:///rowtine.db``. `version`
    gates suspended executions: only workers of the same version go on with them. None: no version
    gate, the journal alone decides whether code still fits. Further options are those of
    `rowtine.config.Settings`. Nothing is opened before it is used.
    """

    __rowtine_app__ = True

    def __init__(
        self,
        database_url: str | None = None,
        version: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._url = database_url
        self.version = version
        self.settings = Settings(**options)
        self.codec = JsonCodec(
            max_bytes=self.settings.max_payload_bytes, max_depth=self.settings.max_depth
        )
        self.registry = Registry()
        self.codec.lookup_function = self.registry.find
        self._lock = threading.Lock()
        self._news = WeakValueDictionary[str, threading.Event]()
        """Of the calls that somebody waits for."""
        self._workers: list[Worker] = []

    def __repr__(self) -> str:
        return f"<App of {len(self.registry.functions())} functions>"

    # -- decorators

    @overload
    def function(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Function[P, R]: ...
    @overload
    def function(self, func: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def function(
        self,
        func: None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> _FunctionDecorator: ...
    def function(
        self,
        func: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
    ) -> object:
        """Register a function, sync or async, under its qualified name or `name`.

        Its outcome is recorded once; its body may run more than once. `retry` says when a failed
        attempt is repeated, `timeout` how many seconds one attempt may run, suspension not
        counted. RegistrationError for generators, methods and names that are taken.
        """

        def register(func: Callable[..., Any]) -> Function[..., Any]:
            made: Function[..., Any] = Function(
                func, home=self, name=name, retry=retry, timeout=timeout
            )
            self.registry.add(made)
            self.codec.register_annotations(func)
            return made

        return register if func is None else register(func)

    def coroutine(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineFunction[P, R]:
        """Register an async helper that runs inside its caller's execution, and that `gather`,
        `any` and `race` take as a member. RegistrationError for anything but an ``async def``."""
        made: CoroutineFunction[P, R] = CoroutineFunction(func)
        self.registry.add(made)
        self.codec.register_annotations(func)
        return made

    def register(self, cls: type[T]) -> type[T]:
        """Let the codec carry a class that no annotation names. Usable as a decorator."""
        self.codec.register(cls)
        return cls

    # -- ways in

    def run(self, call: Call[R], *, timeout: float | None = None) -> R:
        """Start a call and be the worker until its result is there; the value, or its error.

        TimeoutError after `timeout` seconds; the call itself goes on when a worker has it.
        """
        self._refuse_inside("run")
        worker = self.worker()
        with worker.start() as background:
            handle = self.start(call)
            return handle.wait(timeout, lambda: background.error)

    def start(self, call: Call[R]) -> Handle[R]:
        """Accept a call durably. When this returns it is in the database, and will be run.

        With ``f.options(key=...)``, a function and a key are one call: another start gives the
        handle of the first. `Conflict` if the arguments are others.
        """
        self._refuse_inside("start")
        if call.kind is not Kind.FUNCTION:
            raise UsageError(f"{call!r} is not a call of a function: only those can be started")
        input = self.codec.encode_arguments(call.arguments)
        new = NewCall(clock.new_id(), call.function, input, call.options)
        schema.check_once(self.database)
        news = _news_of(new)
        announced = partial(announce, news=news, by=self.database.sender)
        accepted = self.database.at_once(partial(calls.accept, new=new), announced)
        self._wake_workers(news)
        if accepted.id != new.id:
            self._refuse_other_arguments(new, accepted)
        return Handle(self, accepted.id)

    async def astart(self, call: Call[R]) -> Handle[R]:
        """`start`, from an event loop."""
        self._refuse_inside("astart")
        return await asyncio.to_thread(self.start, call)

    async def arun(self, call: Call[R]) -> R:
        """Start a call and wait for its result, which a worker has to bring about."""
        handle = await self.astart(call)
        return await handle

    def handle(self, id: str) -> Handle[Any]:
        """The handle of a call that was started elsewhere. NotFound when it is first asked."""
        return Handle(self, str(id))

    def resolve(self, token: str, value: Any = None) -> None:
        """Answer a promise. The same value again is fine.

        NotFound for an unknown token; Conflict if the promise has another answer, its time was up,
        or nobody waits for it any more.
        """
        self._answer("resolve", token, Settled(output=self.codec.encode(value)))

    def reject(self, token: str, error: Exception) -> None:
        """Let a promise fail: its await raises `error`. Errors as in `resolve`."""
        if not isinstance(error, Exception):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a promise is rejected with an Exception, not {error!r}")
        result = CoroutineResult(
            0, error=self.codec.encode_error(error), status=status_for_error(error)
        )
        self._answer("reject", token, settled(result, self.codec))

    def _answer(self, what: str, token: str, answer: Settled) -> None:
        self.write(what, lambda connection: promises.answer(connection, token, answer), News.ROUNDS)

    def write(self, what: str, work: Callable[[Connection], T], news: News = News.ANYTHING) -> T:
        """One transaction from outside; then workers look for what is due, here and elsewhere."""
        self._refuse_inside(what)
        schema.check_once(self.database)
        announced = partial(announce, news=news, by=self.database.sender)
        with self.database.writing(announced) as connection:
            done = work(connection)
        self._wake_workers(news)
        return done

    def _wake_workers(self, news: News) -> None:
        for worker in self._workers:
            worker.wake(news)

    def worker(self, *, probe: Probe = SILENT) -> Worker:
        """A worker for this app's functions; `start` it in a thread, or `run` it on a loop."""
        worker = Worker(
            self.database,
            self.registry,
            self.codec,
            version=self.version,
            settings=self.settings,
            probe=probe,
            notify=self._notify,
        )
        self._workers.append(worker)
        return worker

    def use_database(self, url: str) -> None:
        """Use another database than the one `App` was given, as ``rowtine --database`` does.
        UsageError once it has been opened."""
        if "database" in self.__dict__:
            raise UsageError("the app has opened its database already: choose before its first use")
        self._url = url

    def close(self) -> None:
        """Close the connections that are not in use; the app opens new ones when it is used."""
        if "database" in self.__dict__:
            self.database.close()

    # -- what functions and the store ask

    @cached_property
    def database(self) -> Database:
        """The database; DatabaseError if the URL is none that rowtine can use."""
        return Database(self._url or default_database_url(), schema=self.settings.schema)

    @property
    def schema(self) -> str:
        return self.settings.schema

    def body(self, name: str) -> Body | None:
        """The async body registered under a name."""
        return self.registry.body(name)

    def news_of(self, id: str) -> threading.Event:
        """What a worker of this process sets when it has written the outcome of a call. Asked for
        before looking whether it is there."""
        with self._lock:
            return self._news.setdefault(id, threading.Event())

    def _notify(self, id: str) -> None:
        if (news := self._news.get(id)) is not None:
            news.set()

    def _refuse_other_arguments(self, new: NewCall, first: Accepted) -> None:
        if new.input == first.input:
            return
        try:
            recorded = self._in_todays_form(first.input)
        except Exception as error:
            recorded = f"{first.input} (which cannot be read: {error})"
        if recorded != (now := self._in_todays_form(new.input)):
            raise Conflict(
                f"the key {new.options.key!r} of {new.function} belongs to call {first.id} with "
                f"input {recorded:.200}, now it is {now:.200}"
            )

    def _in_todays_form(self, input: str) -> str:
        """Encoded with the classes of today, and with the named arguments in one order."""
        arguments = self.codec.decode_arguments(input)
        named = dict(sorted(arguments.kwargs.items()))
        return self.codec.encode_arguments(Arguments(arguments.args, named))

    def _refuse_inside(self, what: str) -> None:
        if running.get() is not None:
            raise UsageError(
                f"app.{what} inside an execution would start again at every rebuild: "
                "await the call itself"
            )


class _FunctionDecorator:
    """The type of ``app.function(...)`` with options, for editors and type checkers."""

    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Function[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> Function[P, R]: ...
    def __call__(self, func: Callable[..., Any], /) -> Function[..., Any]:
        raise NotImplementedError


class Handle(Generic[R]):
    """A call that was accepted: its id, and its result when there is one."""

    def __init__(self, app: App, id: str) -> None:
        self.id = id
        self._app = app

    def __repr__(self) -> str:
        return f"<handle of {self.id}>"

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result: the value, or the error of the call, rebuilt.

        TimeoutError after `timeout` seconds, which the call itself does not notice; NotFound if
        there is no such call.
        """
        return self.wait(timeout, lambda: None)

    def wait(self, timeout: float | None, broken: Callable[[], BaseException | None]) -> R:
        """`result`, but give up with the error of `broken` once it has one."""
        if running.get() is not None:
            raise UsageError("handle.result() inside an execution: await the call itself")
        deadline = None if timeout is None else clock.monotonic() + timeout
        news, pause = self._app.news_of(self.id), _FIRST_LOOK
        while (settled := self._look_for(news)) is None:
            if (error := broken()) is not None:
                raise error
            left = None if deadline is None else deadline - clock.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no result of {self.id} within {timeout} s")
            news.wait(pause if left is None else min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)
        return self._unwrap(settled)

    def signal(self, name: str, value: Any = None) -> None:
        """Send a signal: the next ``await rowtine.signal(name)`` of the execution has the value.

        NotFound if there is no such call, Conflict if it is over.
        """
        payload = self._app.codec.encode(value)
        self._app.write(
            "signal",
            lambda connection: signals.send(connection, self.id, valid_name(name), payload),
            News.ROUNDS,
        )

    def cancel(self, reason: str = "") -> bool:
        """Tell it to stop: `asyncio.CancelledError` at its await, and everything that it waits for
        with it. Its clean-up may make durable calls, and it may even come to a value. Whoever waits
        for it sees `Cancelled`. Again: the same. False if it was over already.

        NotFound if there is no such call.
        """
        return self._app.write(
            "cancel", lambda connection: stopping.cancel(connection, self.id, reason)
        )

    def terminate(self, reason: str = "") -> bool:
        """End it now, with everything below it, and without any clean-up; as `cancel` otherwise."""
        codec = self._app.codec
        return self._app.write(
            "terminate", lambda connection: stopping.terminate(connection, codec, self.id, reason)
        )

    def __await__(self) -> Generator[Any, Any, R]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> R:
        if running.get() is not None:
            raise UsageError(
                "a handle cannot be awaited inside an execution: await the call itself"
            )
        pause = _FIRST_LOOK
        while (settled := await asyncio.to_thread(self._look)) is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
        return self._unwrap(settled)

    def _look_for(self, news: threading.Event) -> Settled | None:
        news.clear()  # an attempt may have come to no more than another one
        return self._look()

    def _look(self) -> Settled | None:
        schema.check_once(self._app.database)
        with self._app.database.reading() as connection:
            standing = calls.standing(connection, self.id)
        if standing is None:
            raise NotFound(f"there is no call {self.id}")
        return standing.settled if standing.phase is Phase.DONE else None

    def _unwrap(self, settled: Settled) -> R:
        if (error := error_of(settled)) is None:
            return cast(R, self._app.codec.decode(settled.output))
        raise self._app.codec.decode_error(error)


def _news_of(new: NewCall) -> News:
    """What a start brings about."""
    if new.options.delay:
        return News.LATER
    return News.CALLS if new.options.deadline is None else News.CALLS | News.LATER
