"""One round inside the user's own transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import TypeVar

from sqlalchemy import Connection, bindparam, null, select, update
from sqlalchemy.orm import Session

from rowtine import quiet
from rowtine.context import here
from rowtine.core.exchange import Exit, Incompatible, Output
from rowtine.core.options import DEFAULT
from rowtine.core.payload import Identity
from rowtine.core.phases import Phase
from rowtine.core.results import CoroutineResult
from rowtine.core.scheduler import OneShotScheduler
from rowtine.core.state import Coroutine
from rowtine.errors import UsageError
from rowtine.store.committing import Round, commit
from rowtine.store.details import Told
from rowtine.store.dialect import translate_schema
from rowtine.store.loading import Execution, Loaded, Rows, load
from rowtine.store.locks import Locked, lock
from rowtine.store.outcomes import Outcome, settled, tail_of
from rowtine.store.prepared import Prepared
from rowtine.store.tables import calls
from rowtine.store.types import Id, as_text, moment_read, now

__all__ = ["run_round"]

T = TypeVar("T")


def run_round(
    session: Session | Connection,
    scheduler: OneShotScheduler,
    execution_id: str,
) -> Output:
    """Load, run and commit one round inside the caller's own transaction.

    Nothing is committed here: a rollback of `session` leaves no trace of the round. The bodies run
    on an event loop of their own, in another thread, while this one waits (and reads what they
    turn out to need). An exit ends the call with what it came to: retries are a worker's business.

    `scheduler` is made for the execution's function, ``OneShotScheduler(f)``; codec, schema and
    the bodies of the children are those of the function's app.

    NotFound if there is no such call, UsageError if it is one of another function; `Incompatible`
    if the state does not fit, if a worker runs it, or if another transaction was faster.
    """
    home = getattr(scheduler.entry_point, "home", None)
    if home is None:
        raise UsageError("run_round needs a scheduler made for an @app.function")
    if isinstance(scheduler.codec, Identity):
        scheduler = scheduler.with_codec(home.codec)
    connection = session.connection() if isinstance(session, Session) else session
    options = connection.get_execution_options()
    known: dict[str | None, str | None] = options.get("schema_translate_map") or {}
    tables: dict[str | None, str | None] = {**known}
    tables.update(translate_schema(connection, home.schema))
    connection = connection.execution_options(schema_translate_map=tables)
    # An exit wakes the caller, whose state is locked first: in order of their ids.
    caller = _CALLER.execute(connection, {"id": execution_id}).scalar()
    ids = [id for id in (caller, execution_id) if id]
    locked: Locked | None = lock(connection, ids, [execution_id])
    loaded = load(connection, home.body, scheduler.codec, execution_id)
    if loaded.lost:
        return Incompatible(f"call {execution_id} is done")
    execution = loaded.execution
    if execution.function != scheduler.entry_point.name:
        raise UsageError(
            f"call {execution_id} is one of {execution.function!r}, the scheduler was made for "
            f"{scheduler.entry_point.name!r}"
        )
    if execution.seen_round is None:
        claimed = _claim_here(connection, execution)
        if claimed is None:
            return Incompatible(f"a worker is running call {execution_id}")
        execution, locked = claimed, None
        loaded.input.now = claimed.now
    output = _run_beside(scheduler, replace(loaded, execution=execution))
    if isinstance(output, Incompatible):
        return output
    outcome = None
    if isinstance(output, Exit):
        outcome = Outcome(
            id=execution.id,
            claim=None,
            execution_id=execution.caller_id,
            settled=settled(output.result, scheduler.codec),
            tail=tail_of(output.result, scheduler.codec),
            tail_options=DEFAULT if output.tail_call is None else output.tail_call.options,
        )
    round = Round(execution, output, outcome)
    committed = commit(connection, scheduler.codec, [round], already=locked)
    return (
        output if committed.held[0] else Incompatible(f"another round of {execution_id} was faster")
    )


_CALLER = Prepared(
    select(as_text(calls.c.execution_id)).where(calls.c.id == bindparam("id", type_=Id()))
)


def _claim_here(connection: Connection, execution: Execution) -> Execution | None:
    """Take a queued call for the time of this transaction; None if it is not queued."""
    claimed = _CLAIM.execute(connection, {"e": execution.id}).scalar()
    if claimed is None:
        return None
    began = moment_read(claimed)
    return replace(
        execution,
        claim=execution.claim + 1,
        attempt=execution.attempt + 1,
        began=began,
        now=began,
    )


_CLAIM = Prepared(
    update(calls)
    .where(calls.c.id == bindparam("e", type_=Id()), calls.c.phase == Phase.QUEUED.value)
    .values(
        phase=Phase.RUNNING.value,
        claim=calls.c.claim + 1,
        attempt=calls.c.attempt + 1,
        due=null(),
        worker=calls.c.id,
        lease_expires=now(),
        started_at=now(),
    )
    .returning(calls.c.started_at)
)


def _run_beside(scheduler: OneShotScheduler, loaded: Loaded) -> Output:
    """Run the scheduler on a loop in another thread; serve its loads here, in the transaction."""
    quiet.install()
    asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    answer: list[Output | BaseException] = []

    def run() -> None:
        here.set(Told(loaded.execution, scheduler.codec, _nothing_to_renew))
        try:
            answer.append(asyncio.run(scheduler.run(loaded.input, _Beside(loaded.rows, asked))))
        except BaseException as error:
            answer.append(error)
        finally:
            asked.put(None)

    thread = threading.Thread(target=run, name="rowtine-round")
    thread.start()
    while (load := asked.get()) is not None:
        load()
    thread.join()
    (result,) = answer
    if isinstance(result, BaseException):
        raise result
    return result


def _nothing_to_renew(_execution: object, _details: str | None) -> bool:
    """The heartbeat of a body: the row is locked by the caller's transaction."""
    return True


class _Beside:
    """A loader whose rows are read by the thread that has the transaction."""

    def __init__(self, rows: Rows, asked: SimpleQueue[Callable[[], None] | None]) -> None:
        self.rows = rows
        self.asked = asked

    async def _ask(self, read: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def serve() -> None:
            try:
                found = read()
            except BaseException as error:
                loop.call_soon_threadsafe(future.set_exception, error)
            else:
                loop.call_soon_threadsafe(future.set_result, found)

        self.asked.put(serve)
        return await future

    async def coroutines(self, ids: Sequence[int] | None) -> Sequence[Coroutine]:
        return await self._ask(lambda: self.rows.coroutines(ids))

    async def counters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        return await self._ask(lambda: self.rows.counters(ids))

    async def results(self, coroutine: Coroutine) -> Sequence[CoroutineResult]:
        return await self._ask(lambda: self.rows.results(coroutine))

    async def waiters(self, ids: Sequence[int]) -> Sequence[Coroutine]:
        if (known := self.rows.known_waiters(ids)) is not None:
            return known
        return await self._ask(lambda: self.rows.waiters(ids))

    async def ended_among(self, ids: Sequence[int]) -> Sequence[CoroutineResult]:
        return await self._ask(lambda: self.rows.ended_among(ids))
