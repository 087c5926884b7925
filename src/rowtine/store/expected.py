"""A batch in one statement, if all is as expected.

Nearly always nobody has touched what a batch was made for. Then the fences are conditions of the
one statement that writes it: one round trip, and no transaction that is open between two. If one
of them does not hold, nothing is written, and the batch is committed as `committing` does it: locks
first, then a look, then what holds. PostgreSQL only: SQLite has no round trips to save.

A batch of one, as an execution makes it that is alone with its worker, has a smaller statement: its
values are parameters, and each of its rows is found by its key. What a statement costs before it
has seen a row is most of what it costs there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    and_,
    bindparam,
    column,
    exists,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.types import TypeEngine

from rowtine.core.exchange import Exit, Poll
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind, Phase
from rowtine.store import statements as sql
from rowtine.store.committing import Committed, Round, Writes
from rowtine.store.each import (
    Each,
    Given,
    as_document,
    fit_into_one,
    in_document,
    parameters,
)
from rowtine.store.outcomes import Outcome
from rowtine.store.prepared import Prepared
from rowtine.store.recording import outcome_rows
from rowtine.store.tables import calls, states
from rowtine.store.types import Id, among, moment_read, now
from rowtine.store.workers import Mark

__all__ = ["Expected", "expected"]


class Expected:
    """A batch as it is written if every fence holds."""

    def __init__(
        self,
        writes: Writes,
        rounds: Sequence[Round],
        every: Sequence[Round],
        outcomes: Sequence[Outcome],
    ) -> None:
        self._writes = writes
        self._rounds = rounds
        self._every = every
        """The rounds and those that they were given."""
        self._outcomes = outcomes

    def write(self, connection: Connection) -> Committed | None:
        """Write it, on a connection in autocommit; None if something was not as expected."""
        fences = self._fences()
        chosen = _ALONE.get(frozenset(self._writes.rows))
        if chosen is not None and fences.of_one and self._has_one_of_each():
            statement, values = self._alone(chosen, fences)
        else:
            statement, values = self._together(fences)
        held, at = tuple(statement.execute(connection, values).one())
        return self.made(moment_read(at)) if held else None

    def _has_one_of_each(self) -> bool:
        return all(len(rows) == 1 for rows in self._writes.rows.values())

    def _alone(self, chosen: tuple[Each, ...], fences: _Fences) -> tuple[Prepared, dict[str, Any]]:
        values = fences.parameters()
        for each, (row,) in self._writes.rows.items():
            values |= each.as_parameters(row)
        return _guarded_alone(chosen, bool(fences.states), bool(fences.roots)), values

    def _together(self, fences: _Fences) -> tuple[Prepared, dict[str, Any]]:
        rows = self._writes.rows
        chosen = next(of for of in (*sql.USUAL, sql.EXPECTED) if rows.keys() <= set(of))
        documents = {each.parameter: as_document(rows.get(each, ())) for each in chosen}
        return _guarded(chosen), documents | fences.documents()

    def made(self, at: datetime) -> Committed:
        """What became of it, if it was written."""
        writes = self._writes
        return Committed(
            [True] * len(self._rounds),
            [True] * len(self._outcomes),
            at,
            writes.begun,
            writes.due_in(),
            writes.news(),
            writes.queued,
        )

    def _fences(self) -> _Fences:
        states: list[dict[str, Any]] = []
        claims: dict[str, int | None] = {}
        for each in self._every:
            execution = each.execution
            if execution.seen_round is None:
                claims[execution.id] = execution.claim
            else:
                states.append(
                    {"f": execution.id, "run": execution.run, "round": execution.seen_round}
                )
        for outcome in (*self._outcomes, *(end for each in self._every for end in each.outcomes())):
            claims[outcome.id] = outcome.claim
        roots = {each.execution.root_id for each in self._every if each.begins}
        return _Fences(states, claims, roots)


class _Fences(NamedTuple):
    """What has to be as it was when the batch was made."""

    states: list[dict[str, Any]]
    """Each with its run and its round."""
    claims: dict[str, int | None]
    """Of running calls, by id."""
    roots: set[str]
    """Those that nobody may have told to stop."""

    @property
    def of_one(self) -> bool:
        return len(self.claims) == 1 and len(self.states) <= 1 and len(self.roots) <= 1

    def parameters(self) -> dict[str, Any]:
        """For `_guarded_alone`."""
        ((call, claim),) = self.claims.items()
        values: dict[str, Any] = {"call": call, "claim": claim}
        for state in self.states:
            values |= state
        for root in self.roots:
            values["root"] = root
        return values

    def documents(self) -> dict[str, Any]:
        """For `_guarded`, which locks in this order."""
        return {
            "states": as_document(sorted(self.states, key=itemgetter("f"))),
            "calls": as_document(
                [{"call": id, "claim": self.claims[id]} for id in sorted(self.claims)]
            ),
            "roots": self.roots,
            "how_many_states": len(self.states),
            "how_many_calls": len(self.claims),
        }


def expected(
    codec: Codec, rounds: Sequence[Round], outcomes: Sequence[Outcome], mark: Mark | None
) -> Expected | None:
    """The batch as one statement; None if it does more than such a statement can."""
    every = [each for round in rounds for each in round.family()]
    ids = [each.execution.id for each in every]
    if len(set(ids)) < len(ids) or not all(map(_is_simple, every)):
        return None
    if any(outcome.execution_id is not None or not outcome.done for outcome in outcomes):
        return None  # an arrival gets its number from what is locked
    writes = Writes(codec, None)
    for each in every:
        writes.add(each, 0)
    ended = [*outcomes, *writes.exits.values()]
    if any(outcome.execution_id is not None for outcome in ended):
        return None
    writes.merge(outcome_rows(ended, {}, {}))
    if mark is not None:
        writes.put(sql.MARK, {"w": mark.worker, "batch": mark.batch})
    if writes.released or not writes.rows.keys() <= set(sql.EXPECTED) or sql.twice(writes.rows):
        return None
    if not fit_into_one(writes.rows):
        return None
    return Expected(writes, rounds, every, outcomes)


def _is_simple(round: Round) -> bool:
    """Whether what a round does depends on nothing but that its fence holds."""
    execution, output = round.execution, round.output
    changes = output.changes
    if changes is None or changes.gives_up:
        return False
    if execution.seen_round is not None and (not round.taken or execution.held):
        return False  # it was claimed: what has arrived, or was asked for meanwhile, is to be seen
    match output:
        case Poll():
            return not any(call.kind is Kind.SIGNAL for call in output.calls)
        case Exit():
            return round.outcome is not None and round.outcome.done


@lru_cache(maxsize=1024)
def _guarded(chosen: tuple[Each, ...]) -> Prepared:
    """The statement that makes all of these writes if the fences hold: whether they did, and when
    that was. It locks the states before the calls, each by id."""
    held_states = _counted("states", _FENCED_STATE, _state_holds)
    held_calls = _counted("calls", _FENCED_CALL, _call_holds)
    told = exists(select(calls.c.id).where(among(calls.c.id, "roots"), calls.c.cancelling))
    fences = (
        select(
            and_(
                held_states == bindparam("how_many_states", type_=Integer()),
                held_calls == bindparam("how_many_calls", type_=Integer()),
                ~told,
            ).label("hold")
        )
        .cte("fences")
        .prefix_with("MATERIALIZED")
    )
    hold = select(fences.c.hold).scalar_subquery()
    return _whole(hold, {each: each.guarded(hold) for each in chosen})


_FENCED_STATE: dict[str, TypeEngine[Any]] = {"f": Id(), "run": Integer(), "round": Integer()}

_FENCED_CALL: dict[str, TypeEngine[Any]] = {"call": Id(), "claim": Integer()}


def _state_holds(fence: Given) -> tuple[Any, ...]:
    return (
        states.c.id == fence.f,
        states.c.run == fence.run,
        states.c.round == fence.round,
        states.c.arrived == states.c.delivered,
        # Nobody has seen to its next round: it is neither due nor claimed.
        states.c.worker.is_(None),
        states.c.wake_at.is_(None),
    )


def _call_holds(fence: Given) -> tuple[Any, ...]:
    return (
        calls.c.id == fence.call,
        calls.c.phase == literal_column(f"'{Phase.RUNNING.value}'"),
        calls.c.claim == fence.claim,
        ~calls.c.cancelling,
    )


def _counted(name: str, fence: Mapping[str, Any], holds: Callable[[Given], Any]) -> Any:
    """How many of the rows of a document are as it says, and locked from now on, in its order.

    One for each: a join may begin at the table, and go through all of it for a batch.
    """
    document = in_document(name, *itertools.starmap(column, fence.items()))
    row = select(true().label("holds")).where(*holds(document.c)).correlate(document)
    locked = row.with_for_update(key_share=True).lateral(f"locked_{name}")
    return select(func.count()).select_from(document.join(locked, true())).scalar_subquery()


_ALONE = {frozenset(chosen): chosen for chosen in sql.ALONE}


@lru_cache(maxsize=64)
def _guarded_alone(chosen: tuple[Each, ...], state: bool, root: bool) -> Prepared:
    """The statement that makes one of each of these writes if the fences hold: that of one call,
    and those of a state and of a root if there are any. It locks the state before the call."""
    of_call = [*_call_holds(parameters(_FENCED_CALL))]
    if state:
        of_call.append(_locked("state", *_state_holds(parameters(_FENCED_STATE))))
    if root:
        above = calls.alias()
        told = above.c.id == bindparam("root", type_=Id()), above.c.cancelling
        of_call.append(~exists(select(above.c.id).where(*told)))
    hold = _locked("fences", *of_call)
    return _whole(hold, {each: each.alone(hold) for each in chosen})


def _locked(name: str, *conditions: Any) -> Any:
    """Whether the row of a table is as these conditions say, and locked from now on; null if it is
    not. They see it as those have left it for whom the lock had to wait."""
    row = select(true().label("hold")).where(*conditions).with_for_update(key_share=True)
    return select(row.cte(name).prefix_with("MATERIALIZED").c.hold).scalar_subquery()


def _whole(hold: Any, writes: dict[Each, Any]) -> Prepared:
    whole: Any = select(hold, now())
    for each, made in writes.items():
        whole = whole.add_cte(made.cte(each.name))
    return Prepared(whole)
