"""Every statement of the engine finds its rows by an index, however full the tables are.

The statements are those that the engine really sends. Each is explained, with its own parameters,
on tables that hold tens of thousands of rows: once as `ANALYZE` knows them, and once as nobody has
counted them, which is how they are when a first worker begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import event, text

import rowtine
from databases import PostgresDatabases, SqliteDatabases
from rowtine.store import Database, calls, leases, promises, recording, rounds, signals, stopping
from rowtine.store.committing import Begins, Round
from rowtine.store.outcomes import Settled
from rowtine.store.tables import metadata
from store.by_hand import WORKER, Hand

EACH = 5000
"""Executions whose call is queued, as many whose call is done, as many that wait for a timer, and
calls of nobody that are done."""

TABLES = "calls", "states", "coroutines", "futures", "signals"

OF_WHAT_RUNS = "ix_calls_worker"
"""The one index that is read from end to end: it holds what is running and nothing else."""


# ------------------------------------------------------------------------------------- full tables


def fill(database: Database) -> None:
    """Rows that a few workers would leave: no function of the tests is among them."""
    with database.writing() as connection:
        postgresql = connection.dialect.name == "postgresql"
        for statement in _filling(postgresql):
            connection.execute(text(statement))


def _filling(postgresql: bool) -> Iterator[str]:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    schema = "rowtine." if postgresql else ""

    def id(kind: int) -> str:
        if postgresql:
            return (
                f"CAST('01890000-0000-7000-800{kind}-' || lpad(CAST(i AS text), 12, '0') AS uuid)"
            )
        return f"printf('01890000-0000-7000-800{kind}-%012d', i)"

    def at(seconds: str) -> str:
        if postgresql:
            return f"now() + interval '1 second' * ({seconds})"
        return f"CAST((julianday('now') - 2440587.5) * 86400 + {seconds} AS INTEGER) * 1000000"

    def insert(table: str, *parts: dict[str, str]) -> str:
        values = {name: value for part in parts for name, value in part.items()}
        made = f"SELECT {', '.join(values.values())} FROM n"
        columns = ", ".join(values)
        return f"INSERT INTO {schema}{table} ({columns}) {numbers.format(EACH)} {made}"

    for kind, waits in enumerate(("queued", "done", "timer"), 1):
        done = waits == "done"
        place = {"execution_id": id(kind), "run": "0", "coroutine_id": "0"}
        yield insert(
            "calls",
            {"id": id(kind), "kind": "'function'", "function": "'other'", "input": "'[1]'"},
            {"phase": "'suspended'", "claim": "1", "attempt": "1", "created_at": at("-i")},
        )
        yield insert(
            "calls",
            {"id": id(kind + 3), **place, "seq": "1", "call_id": "0", "root_id": id(kind)},
            {"kind": "'timer'" if waits == "timer" else "'function'", "function": "'elsewhere'"},
            {"input": "'[1]'", "created_round": "1", "created_at": at("-i")},
            {"phase": "'done'", "status": "'OK'", "finished_at": at("-i"), "arrived": "1"}
            if done
            else {"phase": "'queued'", "due": at("3600 + i" if waits == "timer" else "-i")},
            {"deadline": at("86400 + i")},
        )
        yield insert(
            "states",
            {"id": id(kind), "seed": "'0'", "semantics": "1", "run": "0", "round": "1"},
            {"next_coroutine_id": "1", "next_call_id": "1", "outstanding_calls": "1"},
            {"arrived": "1" if done else "0", "delivered": "0", "running_seconds": "0"},
            {"poll_min_results": "1", "poll_max_results": "10"},
            {"wake_at": at("-i") if done else "NULL"},
        )
        yield insert(
            "coroutines",
            {"execution_id": id(kind), "run": "0", "id": "0", "kind": "'coroutine'"},
            {"function": "'other'", "phase": "'suspended'", "created_at": at("-i")},
        )
        yield insert(
            "futures",
            {**place, "seq": "0", "kind": "'all'", "function": "'all()'"},
            {"first_child": "1", "children": "0", "pending": "0", "cancel_losers": "true"},
            {"created_round": "1", "resolution": "'result'"},
            {"created_at": at("-i"), "resolved_at": at("-i")},
        )
        yield insert(
            "signals",
            {"execution_id": id(kind), "number": "1", "name": "'unheard'", "value": "'1'"},
            {"created_at": at("-i")},
        )
    yield insert(
        "calls",
        {"id": id(7), "kind": "'function'", "function": "'other'", "input": "'[1]'"},
        {"phase": "'done'", "status": "'OK'", "claim": "1", "attempt": "1"},
        {"created_at": at("-i"), "finished_at": at("-i")},
    )


# ------------------------------------------------------------------------------------------- plans


class Bodies:
    """The registered functions of the running test: a body may not close over locals."""

    steps: Any
    wide: Any
    asks: Any


async def steps(n: int) -> int:
    total = 0
    for number in range(n):
        total += await rowtine.call("leaf", number)
    return total


async def member(number: int) -> int:
    value: int = await rowtine.call("leaf", number)
    return value


async def wide(n: int) -> int:
    members = [Bodies.wide.member(number) for number in range(n)]
    return len(await rowtine.gather(*members, rowtine.call("leaf", n)))


async def asks() -> Any:
    promise = rowtine.promise()
    told = await rowtine.signal("told")
    return told, promise.token, await promise


@dataclass
class Full:
    """Full tables, and what is sent to them."""

    hand: Hand
    sent: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])

    @property
    def database(self) -> Database:
        return self.hand.app.database

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Explain all that is sent meanwhile."""
        self.sent.clear()

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            self.sent.append((statement, parameters))

        event.listen(self.database.engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(self.database.engine, "before_cursor_execute", note)
        assert self.sent
        wrong = {plan: None for each in self.sent for plan in self.explain(*each)}
        assert not wrong, "\n\n".join(wrong)

    def explain(self, statement: str, parameters: Any) -> Iterator[str]:
        """The plans of a statement in which a table is read from end to end."""
        if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement):
            return
        row = parameters[0] if isinstance(parameters, list) else parameters
        with self.database.writing() as connection:
            if connection.dialect.name == "sqlite":
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", row).all()
                lines = [line.detail for line in plan]
                if any(map(_scans, lines)):
                    yield _shown(statement, lines)
                return
            # With these parameters, and as a prepared statement is planned, for any.
            driver: Any = connection.connection.driver_connection
            for way, asked, values in (
                ("", statement, row),
                ("GENERIC_PLAN, ", _numbered(statement), None),
            ):
                explained = f"EXPLAIN ({way}FORMAT JSON, VERBOSE) {asked}"
                ((plan,),) = driver.execute(explained, values, prepare=False).fetchall()
                wrong = list(_walks(plan[0]["Plan"]))
                if wrong:
                    lines = [*wrong, "in", *_outline(plan[0]["Plan"])]
                    yield _shown(statement, lines)


def _scans(line: str) -> bool:
    """Whether a line of SQLite's plan reads all rows of a table, or of an index."""
    return (
        re.match(rf"SCAN ({'|'.join(TABLES)})(_\d+)?\b", line) is not None
        and OF_WHAT_RUNS not in line
    )


def _walks(node: Any) -> Iterator[str]:
    """The nodes of PostgreSQL's plan that read all rows of a table, or of an index."""
    relation, index = node.get("Relation Name"), node.get("Index Name")
    bitmap = node["Node Type"] == "Bitmap Heap Scan"
    searched = node.get("Index Cond") is not None or index == OF_WHAT_RUNS
    if "Scan" in node["Node Type"] and not bitmap and not searched:
        owner = next((name for name in TABLES if index and _has(name, index)), relation)
        if owner in TABLES:
            yield _line(node)
    for below in node.get("Plans", ()):
        yield from _walks(below)


def _has(table: str, index: str) -> bool:
    found = metadata.tables[f"rowtine.{table}"]
    return index in {str(each.name) for each in (*found.indexes, *found.constraints)}


def _outline(node: Any, depth: int = 0) -> Iterator[str]:
    yield "  " * depth + _line(node)
    for below in node.get("Plans", ()):
        yield from _outline(below, depth + 1)


def _line(node: Any) -> str:
    names = ("Relation Name", "Index Name", "Index Cond", "Filter")
    told = [f"{name}: {node[name]}" for name in names if name in node]
    return f"{node['Node Type']} {'; '.join(told)}"


def _numbered(statement: str) -> str:
    """The statement as the server sees it."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${numbers.setdefault(found[1], len(numbers) + 1)}"

    return re.sub(r"%\((\w+)\)s", number, statement).replace("%%", "%")


def _shown(statement: str, plan: list[str]) -> str:
    return "\n".join([re.sub(r"\s+", " ", statement)[:2000], *plan])


@pytest.fixture(
    scope="module",
    params=[("sqlite", True), ("sqlite", False), ("postgresql", True), ("postgresql", False)],
    ids=["sqlite", "sqlite, not analyzed", "postgresql", "postgresql, not analyzed"],
)
def full(
    request: pytest.FixtureRequest,
    sqlite_databases: SqliteDatabases,
    postgres_databases: PostgresDatabases,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Full]:
    kind, analyzed = request.param
    if kind == "sqlite":
        yield from _full(sqlite_databases.migrated(tmp_path_factory.mktemp("full")), analyzed)
    else:
        with postgres_databases.migrated() as url:
            yield from _full(url, analyzed)


def _full(url: str, analyzed: bool) -> Iterator[Full]:
    with closing(rowtine.App(url)) as app:
        Bodies.steps = app.function(steps)
        Bodies.asks = app.function(asks)
        Bodies.wide = app.function(wide)
        Bodies.wide.member = app.coroutine(member)
        full = Full(Hand(app))
        with full.database.writing() as connection:
            if connection.dialect.name == "postgresql":
                for table in TABLES:
                    off = f"ALTER TABLE rowtine.{table} SET (autovacuum_enabled = false)"
                    connection.execute(text(off))
        fill(full.database)
        if analyzed:
            with full.database.writing() as connection:
                connection.execute(text("ANALYZE"))
        yield full


# ---------------------------------------------------------------------------------- from outside


def test_a_start(full: Full) -> None:
    with full.seen():
        full.hand.start(Bodies.steps(1))


def test_a_start_with_a_key(full: Full) -> None:
    with full.seen():
        for _ in range(2):
            full.hand.start(Bodies.steps.options(key="once")(1))


def test_a_signal(full: Full) -> None:
    id = full.hand.start(Bodies.asks())
    full.hand.round(id, Bodies.asks)

    with full.seen(), full.database.writing() as connection:
        signals.send(connection, id, "told", "1")


def test_the_answer_to_a_promise(full: Full) -> None:
    id = full.hand.start(Bodies.asks())
    full.hand.round(id, Bodies.asks)
    asked = "SELECT token FROM {}calls WHERE execution_id = :id AND kind = 'promise'"
    token = _value(full, asked, id)

    with full.seen(), full.database.writing() as connection:
        promises.answer(connection, token, Settled(output="1"))


def test_a_cancellation_and_a_termination(full: Full) -> None:
    for end in ("cancel", "terminate"):
        id = full.hand.start(Bodies.wide(3))
        full.hand.round(id, Bodies.wide)

        with full.seen(), full.database.writing() as connection:
            if end == "cancel":
                assert stopping.cancel(connection, id, "enough")
            else:
                assert stopping.terminate(connection, full.hand.app.codec, id, "enough")
        if end == "cancel":
            with full.seen():
                full.hand.round(id, Bodies.wide)


def test_how_a_call_stands(full: Full) -> None:
    id = full.hand.start(Bodies.steps(1))

    with full.seen(), full.database.reading() as connection:
        assert calls.standing(connection, id)


# ------------------------------------------------------------------------------------- by a worker


def test_a_look_for_what_is_due(full: Full) -> None:
    with full.seen(), full.database.reading() as connection:
        calls.due(connection, ["leaf", "steps", "wide"])


def test_a_claim_of_calls(full: Full) -> None:
    id = full.hand.start(Bodies.wide(3))
    full.hand.round(id, Bodies.wide)

    with full.seen():
        assert full.hand.claim("leaf", "steps", limit=3)


def test_a_claim_of_rounds(full: Full) -> None:
    id = full.hand.start(Bodies.steps(1))
    full.hand.round(id, Bodies.steps)
    full.hand.answer("leaf", limit=1000)

    with full.seen(), full.database.writing() as connection:
        held = rounds.claim_rounds(connection, WORKER, ["steps"], None, 100, 30)
        assert id in held
        rounds.renew_rounds(connection, WORKER, held, 30)
        rounds.hold(connection, WORKER, held[0], "it does not fit", 30)
        rounds.release_rounds(connection, WORKER, held)
        assert rounds.adopt(connection, WORKER, id, (0, 1), 30)


def test_a_heartbeat(full: Full) -> None:
    full.hand.start(Bodies.steps(1))
    held = [(call.id, call.claim) for call in full.hand.claim("steps")]

    with full.seen(), full.database.writing() as connection:
        assert leases.renew(connection, held, 30)
        assert leases.heartbeat(connection, held[0], None, WORKER, 30, '"half"')


def test_what_a_worker_gives_back(full: Full) -> None:
    full.hand.start(Bodies.steps(1))
    held = [(call.id, call.claim) for call in full.hand.claim("steps")]

    with full.seen(), full.database.writing() as connection:
        leases.give_back_unknown(connection, WORKER, dict(held))
        assert leases.give_back(connection, held)


def test_a_sweep(full: Full) -> None:
    with full.seen(), full.database.writing() as connection:
        recording.fire_timers(connection, 100)
        [
            stopping.expire(connection, full.hand.app.codec, id)
            for id in stopping.late(connection, 100)
        ]
        leases.recover(connection, 100)


# ------------------------------------------------------------------------------------------ rounds


def test_rounds_of_one_call_after_the_other(full: Full) -> None:
    id = full.hand.start(Bodies.steps(3))

    for _ in range(3):
        with full.seen():
            full.hand.round(id, Bodies.steps)
        claimed = full.hand.claim("leaf", limit=1000)
        with full.seen():
            full.hand.record(*(full.hand.outcome(call, 1) for call in claimed))
    with full.seen():
        full.hand.round(id, Bodies.steps)


def test_rounds_with_members(full: Full) -> None:
    id = full.hand.start(Bodies.wide(20))

    for _ in range(4):
        with full.seen():
            full.hand.round(id, Bodies.wide)
        full.hand.answer("leaf", value=1, limit=7)


def test_an_outcome_that_is_handed_to_its_caller(full: Full) -> None:
    id = full.hand.start(Bodies.steps(3))
    full.hand.round(id, Bodies.steps)
    (call,) = [call for call in full.hand.claim("leaf", limit=1000) if call.caller_id == id]
    done = full.hand.outcome(call, 1)
    assert call.seat
    full.hand.record(done)
    next_one = full.hand.run(id, Bodies.steps)

    with full.seen():
        full.hand.commit(
            Round(
                next_one.execution,
                next_one.output,
                taken={call.seat.call_id: done},
                begins=Begins(WORKER, 30, {1: "01890000-0000-7000-8fff-000000000001"}),
            )
        )


def _value(full: Full, query: str, id: str) -> Any:
    schema = "rowtine." if full.database.engine.dialect.name == "postgresql" else ""
    with full.database.reading() as connection:
        return connection.scalar(text(query.format(schema)), {"id": id})
