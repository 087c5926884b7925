"""Between rows and the core's values. Nothing here runs a statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from rowtine.codec import class_name
from rowtine.core.coroutine import Continuation, Entry, Slot, Wait
from rowtine.core.directives import Body
from rowtine.core.futures import CallFuture, Remaining, join_future
from rowtine.core.phases import CALL_KINDS, WITHDRAWN, Kind, Resolution
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.state import Coroutine
from rowtine.core.status import Status
from rowtine.errors import AnyException, Cancelled, IncompatibleState, RemoteError
from rowtine.store.options import options_from_text

__all__ = [
    "Bodies",
    "Journal",
    "body_of",
    "call_member",
    "call_result",
    "counter",
    "member_result",
    "suspended_body",
]

AnyRow = Row[Any]

Bodies = Callable[[str], Body | None]
"""Finds the async body that is registered under a name."""


_CANCELLED = RemoteError(class_name(Cancelled), "")


def error_of(row: AnyRow) -> Exception | None:
    """The error of a call or coroutine, in stored form. A call that was given up came to that,
    whatever it came to afterwards."""
    if getattr(row, "resolution", None) in WITHDRAWN:
        return _CANCELLED
    if row.error_type is None:
        return None
    return RemoteError(row.error_type, row.error_message or "", row.error_traceback, row.output)


def call_result(row: AnyRow) -> CallResult:
    """What a call came to, for its caller."""
    error = error_of(row)
    return CallResult(row.call_id, value=None if error else row.output, error=error)


def member_result(row: AnyRow) -> CoroutineResult:
    """What a member of a join came to; `row.member` is its coroutine id."""
    error = error_of(row)
    value = None if error else row.output
    status = Status(row.status or Status.CANCELLED)
    return CoroutineResult(row.member, value=value, error=error, status=status)


def call_wait(row: AnyRow) -> Wait:
    """The wait for a call, as the caller's journal has it."""
    return Wait(
        Kind(row.kind),
        row.asked_function or row.function,
        row.input if row.asked_input is None else row.asked_input,
        options=options_from_text(row.options),
    )


def member_wait(row: AnyRow) -> Wait:
    kind = Kind(row.kind)
    if kind in CALL_KINDS:
        return call_wait(row)
    return Wait(kind, row.function, row.input if kind is Kind.COROUTINE else None)


def join_wait(future: AnyRow, members: Iterable[AnyRow] = ()) -> Wait:
    kind = Kind(future.kind)
    task = kind is Kind.TASK
    return Wait(
        kind,
        future.function,
        members=() if task else tuple(member_wait(row) for row in members),
        children=_children(future) if task else None,
        cancel_losers=future.cancel_losers,
        max_failures=future.max_failures,
        max_concurrency=future.max_concurrency,
    )


def _children(future: AnyRow) -> range:
    return range(future.first_child, future.first_child + future.children)


class Journal:
    """The waits of one coroutine as they were loaded: calls, joins, and the joins' members."""

    def __init__(
        self,
        calls: Sequence[AnyRow],
        futures: Sequence[AnyRow],
        members: Mapping[int, Sequence[AnyRow]],
        reason: str | None = None,
    ) -> None:
        self.calls = {row.seq: row for row in calls}
        self.futures = {row.seq: row for row in futures}
        self.members = members
        """seq of a join -> its members, in order of declaration; of a wait for tasks, the one that
        decided it."""
        self.reason = reason
        """Why the coroutine was told to stop, if it was."""

    def entries(self) -> tuple[Entry, ...]:
        """The resolved waits, in order."""
        seqs = [seq for seq, row in (self.calls | self.futures).items() if row.resolution]
        entries = tuple(self._entry(seq) for seq in sorted(seqs))
        if sorted(seqs) != list(range(len(seqs))):
            raise IncompatibleState(f"the journal has gaps: its waits are {sorted(seqs)}")
        return entries

    def _entry(self, seq: int) -> Entry:
        call = self.calls.get(seq)
        row = self.futures[seq] if call is None else call
        members = self.members.get(seq, ())
        wait = join_wait(row, members) if call is None else call_wait(row)
        resolution = Resolution(row.resolution)
        entry = Entry(wait, resolution, at=row.resolved_at, decided_by=row.decided_by)
        if resolution is Resolution.CANCELLED:
            return replace(entry, reason=self.reason)
        if resolution is Resolution.TIMEOUT:
            return entry
        if call is None:
            failed = resolution is Resolution.ERROR
            error = _join_error(row, members) if failed else None
            return replace(entry, error=error, value=None if failed else _join_value(row, members))
        error = error_of(row)
        return replace(entry, error=error, value=None if error else row.output)

    def pending(self) -> tuple[int, AnyRow] | None:
        """The one wait that is not resolved, with its position."""
        for seq, row in (self.calls | self.futures).items():
            if row.resolution is None:
                return seq, row
        return None


def _join_value(future: AnyRow, members: Sequence[AnyRow]) -> Any:
    if future.kind == Kind.SPAWN:
        return future.first_child
    if future.kind == Kind.ALL:
        return [error_of(row) or row.output for row in members]
    return None if future.decided_by is None else _decider(future, members).output


def _join_error(future: AnyRow, members: Sequence[AnyRow]) -> Exception | None:
    if future.decided_by is not None:
        return error_of(_decider(future, members))
    errors = [error for row in members if (error := error_of(row)) is not None]
    return errors[0] if len(errors) == 1 else AnyException(errors)


def _decider(future: AnyRow, members: Sequence[AnyRow]) -> AnyRow:
    at: int = 0 if future.kind == Kind.TASK else future.decided_by - future.first_child
    return members[at]


def suspended_body(
    row: AnyRow,
    body: Body,
    input: Any,
    journal: Journal,
    slot: Slot | None,
    began: datetime | None,
) -> Coroutine:
    """A suspended coroutine with a body: from its journal, or with its warm frame."""
    pending = journal.pending()
    if pending is None:
        raise IncompatibleState(f"coroutine {row.id} is suspended without a pending wait")
    seq, waiting = pending
    coroutine = Coroutine(
        id=row.id,
        parent_id=row.parent_id,
        coroutine=Continuation(
            body=body,
            input=input,
            journal=None if slot is not None else journal.entries(),
            slot=slot or Slot(),
            began=began,
        ),
        seq=seq,
        serves=row.serves,
        cancelled=row.cancelled,
        shielded=row.shielded,
    )
    if seq in journal.calls:
        coroutine.result = CallFuture(call_id=waiting.call_id)
        coroutine.wait = call_wait(waiting)
    else:
        _wait_for_join(coroutine, waiting, journal.members.get(seq, ()))
    return coroutine


def _wait_for_join(coroutine: Coroutine, future: AnyRow, members: Sequence[AnyRow] = ()) -> None:
    coroutine.members = _children(future)
    coroutine.result = join_future(
        Kind(future.kind),
        coroutine.members,
        Remaining(coroutine.members, future.pending),
        future.max_failures,
        future.failed,
    )
    coroutine.wait = join_wait(future, members)


def counter(row: AnyRow, future: AnyRow) -> Coroutine:
    """A coroutine that waits for a join, without its body: the counter is all that is loaded."""
    coroutine = Coroutine(
        id=row.id,
        parent_id=row.parent_id,
        coroutine=None,
        kind=Kind(row.kind),
        seq=future.seq,
        serves=row.serves,
        cancelled=row.cancelled,
        shielded=row.shielded,
    )
    _wait_for_join(coroutine, future)
    return coroutine


def call_member(row: AnyRow) -> Coroutine:
    """A call that is itself a member of a join."""
    return Coroutine(
        id=row.coroutine_id,
        parent_id=row.parent_id,
        coroutine=None,
        result=CallFuture(call_id=row.call_id),
        kind=Kind(row.kind),
        seq=row.seq,
        serves=row.serves,
        wait=call_wait(row),
        limited=row.parked is not None,
    )


def body_of(bodies: Bodies, name: str) -> Body:
    """The body that a row names. It is looked up, never imported."""
    body = bodies(name)
    if body is None:
        raise IncompatibleState(f"no async function or coroutine {name!r} is registered here")
    return body
