"""Random programs in a real database, against a model of a page of plain recursion.

A program is data. What it comes to depends on times alone: each call, timer and promise takes a
time of its own, no two alike, and the test stands for workers, clock and world: it lets what is
next happen, one thing at a time, in a time that only it counts. Each program is run undisturbed,
rebuilt at every round, and with rounds that are cut before their commit and run again; all three
come to what the model says.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Step
from hypothesis import strategies as st
from sqlalchemy import select

import rowtine
from acceptance.support import assert_lawful
from databases import PostgresDatabases, SqliteDatabases
from rowtine import AnyException, Cancelled, Conflict, call
from rowtine.clock import new_seed
from rowtine.core.coroutine import Slot
from rowtine.core.exchange import Input
from rowtine.core.phases import Phase
from rowtine.core.scheduler import OneShotScheduler
from rowtine.core.steps import frames
from rowtine.functions import CoroutineFunction
from rowtine.store import calls, recording, rounds, signals, stopping
from rowtine.store.committing import Round, commit
from rowtine.store.loading import Execution, load
from rowtine.store.outcomes import Outcome, Settled, settled, tail_of
from rowtine.store.tables import calls as table
from store.by_hand import WORKER, _Loader

Program = list[Any]
EXAMPLES = int(os.environ.get("ROWTINE_EXAMPLES", "20"))
NEVER = float("inf")


# ---------------------------------------------------------------------------------- in rowtine


def define(app: rowtine.App) -> rowtine.App:
    @app.function(name="work")
    def work(seconds: float, value: Any) -> Any: ...

    @app.function(name="fail")
    def fail(seconds: float, name: str) -> Any: ...

    @app.function(name="tell")
    def tell(token: str, seconds: float, value: Any) -> None: ...

    @app.function(name="program", retry=rowtine.Retry(max_attempts=1))
    async def program(steps: Program) -> Any:
        return await interpret(steps)

    app.registry.add(interpret)
    return app


@CoroutineFunction
async def interpret(steps: Program) -> Any:
    match steps:
        case ["sleep", seconds]:
            return await rowtine.sleep(seconds)
        case ["promise", seconds, value, timeout]:
            promise = rowtine.promise(timeout=timeout)
            await call("tell", promise.token, seconds, value)
            return await promise
        case ["signal", timeout]:
            return await rowtine.signal("s", timeout=timeout)
        case ["seq", parts]:
            return [await interpret(part) for part in parts]
        case ["loop", count, part]:
            return [await interpret(part) for _ in range(count)]
        case ["try", part]:
            try:
                return await interpret(part)
            except Exception as error:
                return said(error)
        case ["finally", part, seconds]:
            try:
                return await interpret(part)
            finally:
                await call("work", seconds, None)
        case ["timeout", seconds, part]:
            async with rowtine.timeout(seconds):
                return await interpret(part)
        case ["map", limit, failures, leaves]:
            values = await rowtine.map(
                directive, leaves, max_concurrency=limit, max_failures=failures
            )
            return [said(v) if isinstance(v, Exception) else v for v in values]
        case ["tasks", parts, part]:
            tasks = [rowtine.spawn(directive(each)) for each in parts]
            return [await interpret(part), *[await task for task in tasks]]
        case ["completed", parts]:
            seen = []
            async for task in rowtine.as_completed(map(directive, parts)):
                try:
                    seen.append(await task)
                except Exception as error:
                    seen.append(said(error))
            return seen
        case ["shield", part]:
            return await rowtine.shield(directive(part))
        case ["tail", part]:
            raise rowtine.Reset(call("program", part))
        case _:
            return await directive(steps)


def directive(steps: Program) -> Any:
    match steps:
        case ["call", seconds, value]:
            return call("work", seconds, value)
        case ["fail", seconds, name]:
            return call("fail", seconds, name)
        case ["child", part]:
            return call("program", part)
        case ["all", parts]:
            return rowtine.gather(*map(directive, parts))
        case ["any", parts]:
            return rowtine.any(*map(directive, parts))
        case ["race", parts]:
            return rowtine.race(*map(directive, parts))
        case _:
            return interpret(steps)


def said(error: BaseException) -> list[Any]:
    if isinstance(error, AnyException):
        return ["AnyException", [said(each) for each in error.exceptions]]
    return [type(error).__name__, error.args[0] if isinstance(error, KeyError) else ""]


# ---------------------------------------------------------------------------------- in the model


class Failed(Exception):
    def __init__(self, what: list[Any], at: float) -> None:
        super().__init__(what)
        self.what, self.at = what, at


class Told(Exception):
    """CancelledError: from a time limit, or from outside."""

    def __init__(self, limit: Limit, at: float) -> None:
        super().__init__()
        self.limit, self.at = limit, at


class Tail(Exception):
    def __init__(self, program: Program, at: float) -> None:
        super().__init__()
        self.program, self.at = program, at


@dataclass(eq=False)
class Limit:
    at: float
    heard: bool = False


@dataclass
class World:
    """What one coroutine sees: the limits that it is in, the signals that are queued for it."""

    limits: list[Limit] = field(default_factory=list[Limit])
    signals: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def wait(self, now: float, ready: float) -> float:
        open_ = [limit for limit in self.limits if not limit.heard]
        first = min(open_, key=lambda limit: limit.at, default=None)
        if first is None or max(first.at, now) >= ready:
            return ready
        first.heard = True
        raise Told(first, max(first.at, now))


def model(p: Program, now: float, world: World) -> tuple[Any, float]:
    """The value of a program that begins now, and when it has it."""
    match p:
        case ["call", seconds, value]:
            return value, world.wait(now, now + seconds)
        case ["fail", seconds, name]:
            raise Failed(["KeyError", name], world.wait(now, now + seconds))
        case ["sleep", seconds]:
            return None, world.wait(now, now + seconds)
        case ["promise", seconds, value, timeout]:
            if timeout is not None and timeout < seconds:
                raise Failed(["TimedOut", ""], world.wait(now, now + timeout))
            return value, world.wait(now, now + seconds)
        case ["signal", timeout]:
            sent, value = world.signals[0] if world.signals else (NEVER, None)
            if now + timeout < sent:
                raise Failed(["TimedOut", ""], world.wait(now, now + timeout))
            at = world.wait(now, max(now, sent))
            world.signals.pop(0)
            return value, at
        case ["seq", parts]:
            return in_turn(parts, now, world)
        case ["loop", count, part]:
            return in_turn([part] * count, now, world)
        case ["try", part]:
            try:
                return model(part, now, world)
            except Failed as failed:
                return failed.what, failed.at
        case ["finally", part, seconds]:
            return at_last(part, seconds, now, world)
        case ["timeout", seconds, part]:
            return in_time(seconds, part, now, world)
        case ["all" | "any" | "race" as kind, parts]:
            return joined(kind, [alone(part, now) for part in parts], now, world)
        case ["map", limit, failures, leaves]:
            return mapped(limit, failures, leaves, now, world)
        case ["tasks", parts, part]:
            ends = [alone(each, now) for each in parts]
            value, now = model(part, now, world)
            values = [value]
            for value, failed, at in ends:
                now = world.wait(now, max(now, at))
                if failed:
                    raise Failed(value, now)
                values.append(value)
            return values, now
        case ["completed", parts]:
            values = []
            for value, _, at in sorted((alone(each, now) for each in parts), key=lambda e: e[2]):
                now = world.wait(now, max(now, at))
                values.append(value)
            return values, now
        case ["child" | "shield", part]:
            value, failed, at = alone(part, now)
            at = world.wait(now, at)
            if failed:
                raise Failed(value, at)
            return value, at
        case ["tail", part]:
            raise Tail(part, now)
    raise AssertionError(p)


def in_turn(parts: list[Program], now: float, world: World) -> tuple[Any, float]:
    values = []
    for part in parts:
        value, now = model(part, now, world)
        values.append(value)
    return values, now


def alone(part: Program, now: float) -> tuple[Any, bool, float]:
    """A coroutine of its own: value or error, whether it failed, when."""
    try:
        value, at = model(part, now, World())
    except Failed as failed:
        return failed.what, True, failed.at
    return value, False, at


def at_last(part: Program, seconds: float, now: float, world: World) -> tuple[Any, float]:
    try:
        value, now = model(part, now, world)
    except (Failed, Told) as ended:
        ended.at = world.wait(ended.at, ended.at + seconds)
        raise
    return value, world.wait(now, now + seconds)


def in_time(seconds: float, part: Program, now: float, world: World) -> tuple[Any, float]:
    limit = Limit(now + seconds)
    world.limits.append(limit)
    try:
        return model(part, now, world)
    except Told as told:
        if told.limit is limit:
            raise Failed(["TimedOut", ""], told.at) from None
        raise
    finally:
        world.limits.remove(limit)


def joined(
    kind: str, ends: list[tuple[Any, bool, float]], now: float, world: World
) -> tuple[Any, float]:
    ends_in_time = sorted(ends, key=lambda end: end[2])
    last = ends_in_time[-1][2]
    decisive = {
        "all": [end for end in ends_in_time if end[1]],
        "any": [end for end in ends_in_time if not end[1]],
        "race": ends_in_time,
    }[kind]
    if decisive:
        value, failed, at = decisive[0]
    elif kind == "all":
        value, failed, at = [end[0] for end in ends], False, last
    else:
        several = ["AnyException", [end[0] for end in ends]]
        value, failed, at = (ends[0][0] if len(ends) == 1 else several), True, last
    at = world.wait(now, at)
    if failed:
        raise Failed(value, at)
    return value, at


def mapped(
    limit: int | None, failures: int, leaves: list[Program], now: float, world: World
) -> tuple[Any, float]:
    free = [now] * (limit or len(leaves))
    ends = []
    for leaf in leaves:
        end = alone(leaf, heapq.heappop(free))
        heapq.heappush(free, end[2])
        ends.append(end)
    failed = sorted((end for end in ends if end[1]), key=lambda end: end[2])
    if len(failed) > failures:
        raise Failed(failed[failures][0], world.wait(now, failed[failures][2]))
    return [end[0] for end in ends], world.wait(now, max(end[2] for end in ends))


def expected(case: Case) -> Any:
    world = World([Limit(case.cancelled_at)], sorted(case.signals))
    program, now = case.program, 0.0
    while True:
        try:
            return model(program, now, world)[0]
        except Failed as failed:
            return ["failed", failed.what]
        except Told:
            return "cancelled"
        except Tail as tail:
            program, now = tail.program, tail.at


# ------------------------------------------------------------------------------------- programs


@dataclass
class Case:
    program: Program
    signals: list[tuple[float, int]]
    cancelled_at: float


_T = "a time"  # filled in below: no two alike, so that nothing ends at once


def _programs() -> st.SearchStrategy[Program]:
    values = st.integers(0, 9)
    call = st.builds(lambda v: ["call", _T, v], values)
    fail = st.builds(lambda v: ["fail", _T, f"f{v}"], values)
    leaf = st.one_of(
        call,
        fail,
        st.just(["sleep", _T]),
        st.builds(lambda v, t: ["promise", _T, v, _T if t else None], values, st.booleans()),
        st.builds(
            lambda limit, failures, leaves: ["map", limit, failures, leaves],
            st.sampled_from([None, 1, 2]),
            st.integers(0, 1),
            st.lists(st.one_of(call, call, fail), min_size=1, max_size=5),
        ),
    )

    def extend(part: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
        parts = st.lists(part, min_size=1, max_size=3)
        return st.one_of(
            st.builds(lambda k, p: [k, p], st.sampled_from(["all", "any", "race"]), parts),
            st.builds(lambda k, p: [k, p], st.sampled_from(["seq", "completed"]), parts),
            st.builds(lambda k, p: [k, p], st.sampled_from(["try", "child", "shield"]), part),
            st.builds(lambda n, p: ["loop", n, p], st.integers(1, 3), part),
            st.builds(lambda p: ["finally", p, _T], part),
            st.builds(lambda p: ["timeout", _T, p], part),
            st.builds(lambda ps, p: ["tasks", ps, p], parts, part),
        )

    return st.recursive(leaf, extend, max_leaves=8)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    part = _programs()
    step = st.one_of(
        part,
        part.map(lambda p: ["try", p]),
        st.just(["try", ["signal", _T]]),
        st.just(["try", ["timeout", _T, ["signal", _T]]]),
    )
    program: Program = ["seq", draw(st.lists(step, min_size=1, max_size=4))]
    for _ in range(draw(st.integers(0, 1))):
        steps = draw(st.lists(step, min_size=1, max_size=2))
        program = ["seq", [*steps, ["tail", program]]]
    chance = random.Random(draw(st.integers(0, 2**32)))
    sent = [(chance.uniform(0, 30), n) for n in range(draw(st.integers(0, 4)))]
    cancelled_at = chance.uniform(0, 60) if draw(st.booleans()) else NEVER
    return Case(timed(program, chance), sent, cancelled_at)


def timed(program: Any, chance: random.Random) -> Any:
    if isinstance(program, list):
        return [timed(part, chance) for part in program]
    return chance.uniform(0.5, 10) if program == _T else program


# --------------------------------------------------------------------------- workers, clock, world


class Stage:
    """Runs one case in a database: lets happen what is next, until its call is done."""

    def __init__(self, app: rowtine.App, case: Case, warm: bool, cuts: random.Random | None):
        self.app, self.case, self.warm, self.cuts = app, case, warm, cuts
        self.codec = app.codec
        self.program = app.registry.function("program")
        self.now = 0.0
        self.due: dict[str, tuple[float, Callable[[], None]]] = {}
        self.promised: dict[str, tuple[float, Any]] = {}
        self.kept: dict[str, tuple[tuple[int, int], dict[int, Slot]]] = {}

    def run(self) -> Any:
        handle = self.app.start(self.program(self.case.program))
        self.id = handle.id
        world = [(at, lambda n=n: self._signal(n)) for at, n in self.case.signals]
        world.append((self.case.cancelled_at, self._cancel))
        while True:
            self._go_on()
            if self._phase() == "done":
                break
            ready = [*world, *self.due.values()]
            at, happen = min(ready, key=lambda event: event[0])
            assert at < NEVER, "nothing will ever happen"
            self.now = at
            for key in [key for key, event in self.due.items() if event[1] is happen]:
                del self.due[key]
            world = [event for event in world if event[1] is not happen]
            happen()
        try:
            return handle.result(0)
        except Cancelled:
            return "cancelled"
        except Exception as error:
            return ["failed", said(error)]

    def _phase(self) -> str:
        with self.app.database.reading() as connection:
            return connection.scalar(select(table.c.phase).where(table.c.id == self.id))

    # -- what happens

    def _signal(self, value: int) -> None:
        with contextlib.suppress(Conflict), self.app.database.writing() as connection:
            signals.send(connection, self.id, "s", self.codec.encode(value))

    def _cancel(self) -> None:
        with self.app.database.writing() as connection:
            stopping.cancel(connection, self.id, "")

    def _settle(self, row: Any, outcome: Settled) -> None:
        """An outcome may come twice, or late: only the first counts."""
        phase = Phase(row.phase)
        for _ in range(1 if self.cuts is None else self.cuts.randint(1, 2)):
            with self.app.database.writing() as connection:
                recording.record_outcomes(
                    connection, [Outcome(row.id, row.claim, row.execution_id, outcome)], phase=phase
                )

    def _resolve(self, token: str, value: Any) -> None:
        with contextlib.suppress(Conflict):
            self.app.resolve(token, value)

    # -- going on until only time can help

    def _go_on(self) -> None:
        while self._run_rounds() or self._see_calls():
            pass

    def _run_rounds(self) -> bool:
        with self.app.database.writing() as connection:
            claimed = calls.claim(connection, WORKER, ["program"], 10, 1000)
            woken = rounds.claim_rounds(connection, WORKER, ["program"], None, 10, 1000)
        for new in claimed:
            execution = Execution(
                id=new.id,
                function=new.function,
                run=new.run,
                seen_round=None,
                claim=new.claim,
                attempt=new.attempt,
                root_id=new.root_id,
                caller_id=new.caller_id,
                failing_for=0.0,
                began=new.began,
                now=new.began,
            )
            seed = new_seed()
            self._round(
                new.id,
                lambda connection, execution=execution, new=new, seed=seed: (
                    execution,
                    Input(arguments=new.input, now=new.began, seed=seed),
                    None,
                ),
            )
        for id in woken:
            self._round(id, lambda connection, id=id: self._loaded(connection, id))
        return bool(claimed or woken)

    def _loaded(self, connection: Any, id: str) -> Any:
        stand, slots = self.kept.pop(id, (None, {}))
        loaded = load(connection, self.app.body, self.codec, id, slots, stand)
        return loaded.execution, loaded.input, loaded.rows

    def _round(self, id: str, read: Callable[[Any], Any]) -> None:
        cut = self.cuts is not None and self.cuts.random() < 0.4
        if cut:
            self._attempt(read, committed=False)  # its worker dies before the commit
        self._attempt(read, committed=True)
        if self.cuts is not None and self.cuts.random() < 0.2:
            self.kept.pop(id, None)  # another worker has the next round

    def _attempt(self, read: Callable[[Any], Any], *, committed: bool) -> None:
        scheduler = OneShotScheduler(self.program, version=None, codec=self.codec)
        with self.app.database.reading() as connection:
            execution, input, rows = read(connection)
            loader = None if rows is None else _Loader(rows)
            output = asyncio.run(scheduler.run(input, loader))
        assert not isinstance(output, rowtine.Incompatible), output.message
        outcome = None
        if isinstance(output, rowtine.Exit):
            outcome = Outcome(
                execution.id,
                execution.claim if execution.seen_round is None else None,
                execution.caller_id,
                settled(output.result, self.codec),
                tail=tail_of(output.result, self.codec),
            )
        if not committed:
            return
        with self.app.database.writing() as connection:
            (held,), *_ = commit(connection, self.codec, [Round(execution, output, outcome)])
        if held and self.warm and isinstance(output, rowtine.Poll):
            number = 1 if execution.seen_round is None else execution.seen_round + 1
            self.kept[execution.id] = (execution.run, number), dict(frames(output.state))

    def _see_calls(self) -> bool:
        """Give each new call its time; what takes none happens now."""
        with self.app.database.reading() as connection:
            queued = connection.execute(
                select(
                    table.c.id,
                    table.c.execution_id,
                    table.c.claim,
                    table.c.phase,
                    table.c.kind,
                    table.c.function,
                    table.c.input,
                    table.c.token,
                )
                .where(
                    table.c.phase == "queued",
                    table.c.function != "program",
                    table.c.parked.is_not(True),
                )
                .order_by(table.c.id)
            ).all()
        self.due = {
            key: event
            for key, event in self.due.items()
            if key.partition("/")[0] in {row.id for row in queued}
        }
        told = False
        for row in queued:
            if row.id not in self.due:
                told |= self._see(row)
            if row.token in self.promised and f"{row.id}/answer" not in self.due:
                at, value = self.promised[row.token]
                answer = partial(self._resolve, row.token, value)
                self.due[f"{row.id}/answer"] = at, answer
        return told

    def _see(self, row: Any) -> bool:
        arguments = self.codec.decode_arguments(row.input)
        limit = arguments.kwargs.get("timeout")
        up = Settled(rowtine.Status.TIMEOUT, None, "rowtine.errors.TimedOut", "")
        match row.function:
            case "tell":
                token, seconds, value = arguments.args
                self.promised[token] = self.now + seconds, value
                self._settle(row, Settled())
                return True
            case "work" | "sleep" | "timeout":
                seconds, *value = arguments.args
                outcome = Settled(output=self.codec.encode(value[0]) if value else None)
                self.due[row.id] = self.now + seconds, lambda: self._settle(row, outcome)
            case "fail":
                seconds, name = arguments.args
                failed = rowtine.CoroutineResult(0, error=self.codec.encode_error(KeyError(name)))
                error = settled(failed, self.codec)
                self.due[row.id] = self.now + seconds, lambda: self._settle(row, error)
            case _:  # a promise or a signal
                at = NEVER if limit is None else self.now + limit
                self.due[row.id] = at, lambda: self._settle(row, up)
        return False


# ------------------------------------------------------------------------------------ properties


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[rowtine.App]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            sqlite: SqliteDatabases = request.getfixturevalue("sqlite_databases")
            url = sqlite.migrated(Path(tmp_path_factory.mktemp("random")))
        else:
            postgres: PostgresDatabases = request.getfixturevalue("postgres_databases")
            url = stack.enter_context(postgres.migrated())
        app = define(rowtine.App(url, poll_max_results=1))
        yield app
        app.close()
        assert_lawful(url)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Step.explicit, Step.reuse, Step.generate],  # to make it smaller takes for ever
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases(), st.integers(0, 2**32))
def test_a_random_program_comes_to_what_the_model_says(
    app: rowtine.App, case: Case, seed: int
) -> None:
    wanted = expected(case)

    assert Stage(app, case, warm=True, cuts=None).run() == wanted
    assert Stage(app, case, warm=False, cuts=None).run() == wanted
    assert Stage(app, case, warm=True, cuts=random.Random(seed)).run() == wanted
