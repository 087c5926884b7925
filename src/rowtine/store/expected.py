"""A batch in one statement, if all is as expected.

Nearly always nobody has touched what a batch was made for. Then the fences are conditions of the
one statement that writes it: one round trip, and no transaction that is open between two. If one
of them does not hold, nothing is written, and the batch is committed as `committing` does it: locks
first, then a look, then what holds. PostgreSQL only: SQLite has no round trips to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    column,
    exists,
    func,
    select,
)

from rowtine.core.exchange import Exit, Poll
from rowtine.core.payload import Codec
from rowtine.core.phases import Kind, Phase
from rowtine.store import statements as sql
from rowtine.store.committing import Committed, Round, Writes
from rowtine.store.each import Each, as_document, fit_into_one, in_document
from rowtine.store.locks import LOCKED_CALLS, LOCKED_STATES
from rowtine.store.outcomes import Outcome
from rowtine.store.prepared import Prepared
from rowtine.store.recording import outcome_rows
from rowtine.store.tables import calls
from rowtine.store.types import among, moment_read, now
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
        rows = self._writes.rows
        chosen = next(of for of in (*sql.USUAL, sql.EXPECTED) if rows.keys() <= set(of))
        statement = _guarded(chosen)
        documents = {each.parameter: as_document(rows.get(each, ())) for each in chosen}
        held, at = tuple(statement.execute(connection, documents | self._fences()).one())
        return self.made(moment_read(at)) if held else None

    def made(self, at: datetime) -> Committed:
        """What became of it, if it was written."""
        writes = self._writes
        return Committed(
            [True] * len(self._rounds),
            [True] * len(self._outcomes),
            at,
            writes.begun,
            min(writes.seconds_until_due(), default=None),
            writes.queued,
        )

    def _fences(self) -> dict[str, Any]:
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
        return {
            "states": [state["f"] for state in states],
            "calls": claims,
            "roots": {each.execution.root_id for each in self._every if each.begins},
            "fenced_states": as_document(states),
            "fenced_calls": as_document([{"f": id, "claim": claims[id]} for id in claims]),
            "how_many_states": len(states),
            "how_many_calls": len(claims),
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
        writes.put(sql.MARK, w=mark.worker, batch=mark.batch)
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
    that was."""
    id, run, round = column("f", Text()), column("run", Integer()), column("round", Integer())
    fence = in_document("fenced_states", id, run, round)
    claim = in_document("fenced_calls", column("f", Text()), column("claim", Integer()))
    states = (
        select(func.count())
        .select_from(LOCKED_STATES.join(fence, LOCKED_STATES.c.id == fence.c.f))
        .where(
            LOCKED_STATES.c.run == fence.c.run,
            LOCKED_STATES.c.round == fence.c.round,
            LOCKED_STATES.c.arrived == LOCKED_STATES.c.delivered,
            LOCKED_STATES.c.quiet,
        )
        .scalar_subquery()
    )
    claims = (
        select(func.count())
        .select_from(LOCKED_CALLS.join(claim, LOCKED_CALLS.c.id == claim.c.f))
        .where(
            LOCKED_CALLS.c.phase == Phase.RUNNING.value,
            LOCKED_CALLS.c.round == claim.c.claim,
            ~LOCKED_CALLS.c.one,
        )
        .scalar_subquery()
    )
    told = exists(select(calls.c.id).where(among(calls.c.id, "roots"), calls.c.cancelling))
    fences = (
        select(
            and_(
                states == bindparam("how_many_states", type_=Integer()),
                claims == bindparam("how_many_calls", type_=Integer()),
                ~told,
            ).label("hold")
        )
        .cte("fences")
        .prefix_with("MATERIALIZED")
    )
    hold = select(fences.c.hold).scalar_subquery()
    whole: Any = select(hold, now())
    for each in chosen:
        made: Any = each.guarded(hold)
        whole = whole.add_cte(made.cte(each.name))
    return Prepared(whole)
