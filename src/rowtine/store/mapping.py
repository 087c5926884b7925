"""Between rows and the core's values. Nothing here runs a statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from rowtine.codec import class_name
from rowtine.core.coroutine import Continuation
from rowtine.core.directives import Body
from rowtine.core.futures import CallFuture, Remaining, join_future
from rowtine.core.journal import Entry, Wait
from rowtine.core.phases import WITHDRAWN, Kind, Resolution
from rowtine.core.results import CallResult, CoroutineResult
from rowtine.core.state import Coroutine
from rowtine.core.status import Status
from rowtine.errors import AnyException, Cancelled, IncompatibleState, RemoteError
from rowtine.store.options import options_from_text
from rowtine.store.reading import AnyRow, JoinRow
from rowtine.store.types import moment_read

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

Bodies = Callable[[str], Body | None]
"""Finds the async body that is registered under a name."""


_CANCELLED = RemoteError(class_name(Cancelled), "")

_KINDS = {kind.value: kind for kind in Kind}
_RESOLUTIONS = {resolution.value: resolution for resolution in Resolution}
# Looked up in a dictionary they take a fifth of the time: a journal has thousands.


def error_of(row: AnyRow) -> Exception | None:
    """The error of a call or coroutine, in stored form. A call that was given up came to that,
    whatever it came to afterwards."""
    if getattr(row, "resolution", None) in WITHDRAWN:
        return _CANCELLED
    return _error(row.output, row.error_type, row.error_message, row.error_traceback)


def _error(
    output: Any, type: str | None, message: str | None, traceback: str | None
) -> Exception | None:
    return None if type is None else RemoteError(type, message or "", traceback, output)


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
    """The wait for a call that has not been delivered, as the caller's journal has it."""
    options = options_from_text(row.options)
    return Wait(_KINDS[row.kind], row.function, row.input, options=options)


def _call_entry(row: Sequence[Any], reason: str | None) -> tuple[int, Entry]:
    """A call as a line of its caller's journal, with its position; `row` is as a `CallRow`."""
    _, seq, kind, function, input, how, told_at, decided_by, output, *error, _, _ = row
    wait, at = Wait(_KINDS[kind], function, input), moment_read(told_at)
    resolution = _RESOLUTIONS[how]
    if resolution is Resolution.CANCELLED:
        return seq, Entry(wait, resolution, None, None, at, decided_by, reason)
    if resolution is Resolution.TIMEOUT:
        return seq, Entry(wait, resolution, None, None, at, decided_by)
    if error[0] is None:
        return seq, Entry(wait, resolution, output, None, at, decided_by)
    return seq, Entry(wait, resolution, None, _error(output, *error), at, decided_by)


def join_wait(join: JoinRow, members: Iterable[AnyRow] = ()) -> Wait:
    kind = _KINDS[join.kind]
    task = kind is Kind.TASK
    return Wait(
        kind,
        join.function,
        members=() if task else tuple(_member_wait(row) for row in members),
        children=_children(join) if task else None,
        cancel_losers=bool(join.cancel_losers),
        max_failures=join.max_failures,
        max_concurrency=join.max_concurrency,
    )


def _member_wait(row: AnyRow) -> Wait:
    return Wait(_KINDS[row.kind], row.function, row.input)


def _children(join: JoinRow) -> range:
    return range(join.first_child, join.first_child + join.children)


def _join_entry(join: JoinRow, members: Sequence[AnyRow], reason: str | None) -> Entry:
    """A join as a line of its coroutine's journal. `members` are in order of declaration; of a
    wait for tasks, the one that decided it."""
    resolution = _RESOLUTIONS[join.resolution or ""]
    at = moment_read(join.resolved_at)
    entry = Entry(join_wait(join, members), resolution, at=at, decided_by=join.decided_by)
    if resolution is Resolution.CANCELLED:
        return structs.replace(entry, reason=reason)
    if resolution is Resolution.TIMEOUT:
        return entry
    if resolution is Resolution.ERROR:
        return structs.replace(entry, error=_join_error(join, members))
    return structs.replace(entry, value=_join_value(join, members))


def _join_value(join: JoinRow, members: Sequence[AnyRow]) -> Any:
    if join.kind == Kind.SPAWN:
        return join.first_child
    if join.kind == Kind.ALL:
        return [error_of(row) or row.output for row in members]
    return None if join.decided_by is None else _decider(join, members).output


def _join_error(join: JoinRow, members: Sequence[AnyRow]) -> Exception | None:
    if join.decided_by is not None:
        return error_of(_decider(join, members))
    errors = [error for row in members if (error := error_of(row)) is not None]
    return errors[0] if len(errors) == 1 else AnyException(errors)


def _decider(join: JoinRow, members: Sequence[AnyRow]) -> AnyRow:
    at: int = 0 if join.kind == Kind.TASK else (join.decided_by or 0) - join.first_child
    return members[at]


@dataclass(slots=True)
class Journal:
    """What one coroutine has waited for, and the call or the join that it waits for."""

    coroutine_id: int
    reason: str | None
    """Why the coroutine was told to stop, if it was."""
    call: AnyRow | None = None
    join: JoinRow | None = None
    members: Sequence[AnyRow] = ()
    """Of the join, in order of declaration."""
    entries: dict[int, Entry] = field(default_factory=dict[int, Entry])

    @property
    def seq(self) -> int | None:
        """The position of what it waits for; None if that is not known."""
        if self.call is not None:
            return int(self.call.seq)
        return None if self.join is None else self.join.seq

    @property
    def lacks(self) -> bool:
        """Whether there are earlier positions of which nothing is known."""
        return len(self.entries) < (self.seq or 0)

    def add_call(self, row: Sequence[Any]) -> None:
        """A call that is over."""
        seq, entry = _call_entry(row, self.reason)
        self.entries[seq] = entry

    def add_join(self, join: JoinRow, members: Sequence[AnyRow]) -> None:
        """A join that is over; of a wait for tasks, `members` are the one that decided it."""
        self.entries[join.seq] = _join_entry(join, members, self.reason)

    def in_order(self) -> tuple[Entry, ...]:
        """What it has waited for."""
        seqs = sorted(self.entries)
        if seqs != list(range(len(seqs))):
            raise IncompatibleState(f"the journal has gaps: its waits are {seqs}")
        return tuple([self.entries[seq] for seq in seqs])


def suspended_body(row: AnyRow, continuation: Continuation, journal: Journal) -> Coroutine:
    """A suspended coroutine with a body."""
    if journal.seq is None:
        raise IncompatibleState(f"coroutine {row.id} is suspended without a pending wait")
    coroutine = _coroutine(row, journal.seq, continuation)
    if journal.call is not None:
        coroutine.result = CallFuture(call_id=journal.call.call_id)
        coroutine.wait = call_wait(journal.call)
    elif journal.join is not None:
        _wait_for_join(coroutine, journal.join, journal.members)
    return coroutine


def counter(row: AnyRow, join: JoinRow) -> Coroutine:
    """A coroutine that waits for a join, without its body: the counter is all that is loaded."""
    coroutine = _coroutine(row, join.seq, None)
    _wait_for_join(coroutine, join)
    return coroutine


def _coroutine(row: AnyRow, seq: int, continuation: Continuation | None) -> Coroutine:
    return Coroutine(
        id=row.id,
        parent_id=row.parent_id,
        coroutine=continuation,
        kind=_KINDS[row.kind],
        seq=seq,
        serves=row.serves,
        cancelled=bool(row.cancelled),
        shielded=bool(row.shielded),
    )


def _wait_for_join(coroutine: Coroutine, join: JoinRow, members: Sequence[AnyRow] = ()) -> None:
    coroutine.members = _children(join)
    coroutine.result = join_future(
        _KINDS[join.kind],
        coroutine.members,
        Remaining(coroutine.members, join.pending),
        join.max_failures,
        join.failed,
    )
    coroutine.wait = join_wait(join, members)


def call_member(row: AnyRow) -> Coroutine:
    """A call that is itself a member of a join."""
    return Coroutine(
        id=row.coroutine_id,
        parent_id=row.parent_id,
        coroutine=None,
        result=CallFuture(call_id=row.call_id),
        kind=_KINDS[row.kind],
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
