"""Each constraint refuses a planted corruption, by name, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Column, Table, bindparam, insert, update
from sqlalchemy.exc import IntegrityError

from databases import PostgresDatabases, SqliteDatabases
from rowtine.store.engine import Database
from rowtine.store.tables import (
    calls,
    coroutines,
    futures,
    metadata,
    signals,
    states,
    workers,
)
from rowtine.store.types import now

# A root that waits for all of a coroutine and three calls: one that is queued, a promise and one
# that is parked; the call of that coroutine, which a worker runs; two signals for the root, one of
# them taken; and a root with a key that is done.
ROOT = "01890000-0000-7000-8000-00000000000a"
QUEUED = "01890000-0000-7000-8000-00000000000b"
RUNNING = "01890000-0000-7000-8000-00000000000c"
DONE = "01890000-0000-7000-8000-00000000000d"
WORKER = "01890000-0000-7000-8000-00000000000e"
PROMISE = "01890000-0000-7000-8000-00000000001a"
PARKED = "01890000-0000-7000-8000-00000000001b"
NOBODY = "01890000-0000-7000-8000-0000000000ff"

NO_CALLER = dict.fromkeys(("execution_id", "run", "coroutine_id", "seq", "call_id", "root_id"))


def a_call(id: str, phase: str, **columns: Any) -> dict[str, Any]:
    return {
        "id": id,
        "kind": "function",
        "function": "f",
        "input": "[]",
        "phase": phase,
        "created_at": now(),
        **columns,
    }


def a_child(id: str, phase: str, number: int, **columns: Any) -> dict[str, Any]:
    caller = {"execution_id": ROOT, "run": 0, "seq": 0, "call_id": number, "root_id": ROOT}
    return a_call(id, phase, **caller, created_round=1, **columns)


def a_state(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "seed": "5eed",
        "semantics": 1,
        "run": 0,
        "round": 1,
        "next_coroutine_id": 5,
        "next_call_id": 4,
        "outstanding_calls": 4,
        "arrived": 0,
        "delivered": 0,
        "poll_min_results": 1,
        "poll_max_results": 10,
        "running_seconds": 0.0,
    }


def a_coroutine(id: int, **columns: Any) -> dict[str, Any]:
    return {
        "execution_id": ROOT,
        "run": 0,
        "id": id,
        "kind": "coroutine",
        "function": "f",
        "phase": "suspended",
        "created_at": now(),
        **columns,
    }


def a_future(**columns: Any) -> dict[str, Any]:
    return {
        "execution_id": ROOT,
        "run": 0,
        "coroutine_id": 0,
        "seq": 0,
        "kind": "all",
        "function": "all(f, g, promise, h)",
        "first_child": 1,
        "children": 4,
        "pending": 4,
        "max_concurrency": 2,
        "cancel_losers": True,
        "created_round": 1,
        "created_at": now(),
        **columns,
    }


def a_signal(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "execution_id": ROOT,
        "number": number,
        "name": "paid",
        "value": "1",
        "created_at": now(),
        **columns,
    }


def a_worker(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "host": "amber",
        "pid": 7,
        "boot_id": "b",
        "functions": "[]",
        "started_at": now(),
        "heartbeat_at": now(),
    }


MEMBER = {"parent_id": 0, "serves": 0}

SOUND: list[tuple[Table, dict[str, Any]]] = [
    (workers, a_worker(WORKER)),
    (calls, a_call(ROOT, "suspended")),
    (states, a_state(ROOT)),
    (calls, a_child(QUEUED, "queued", 0, coroutine_id=2, **MEMBER, due=now())),
    (calls, a_child(RUNNING, "running", 1, coroutine_id=1, worker=WORKER, lease_expires=now())),
    (
        calls,
        a_child(PROMISE, "queued", 2, coroutine_id=3, **MEMBER, token="t1") | {"kind": "promise"},
    ),
    (calls, a_child(PARKED, "queued", 3, coroutine_id=4, **MEMBER, parked=True)),
    (calls, a_call(DONE, "done", status="OK", output="1", finished_at=now(), key="k")),
    (coroutines, a_coroutine(0)),
    (coroutines, a_coroutine(1, parent_id=0, serves=0, input="[]")),
    (futures, a_future()),
    (signals, a_signal(1)),
    (signals, a_signal(2, call_id=DONE)),
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One migrated database for all tests here: what is refused leaves no trace."""
    if request.param == "sqlite":
        sqlite: SqliteDatabases = request.getfixturevalue("sqlite_databases")
        yield sqlite.migrated(tmp_path_factory.mktemp("constraints"))
    else:
        postgres: PostgresDatabases = request.getfixturevalue("postgres_databases")
        with postgres.migrated() as url:
            yield url


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Database]:
    """A database that holds the sound rows."""
    with closing(Database(url)) as database:
        with database.writing() as connection:
            for table, row in SOUND:
                connection.execute(insert(table).values(row))
        yield database


class Corrupt:
    """One statement that must be refused, and by what."""

    def __init__(self, constraint: str, table: Table, id: Any = None, /, **columns: Any) -> None:
        """`id` is that of the sound row that is changed; without, `columns` is one to insert."""
        self.constraint = constraint
        # A negative number of calls breaks both, and each database names the one it tries first.
        implied = constraint == "ck_states_outstanding"
        self.constraints = {constraint} | ({"ck_states_arrived"} if implied else set())
        self.table = table
        if id is None:
            self.statement: Any = insert(table).values(columns)
        else:
            self.statement = update(table).where(table.c.id == id).values(columns)


def call(constraint: str, id: str, /, **columns: Any) -> Corrupt:
    return Corrupt(f"ck_calls_{constraint}", calls, id, **columns)


def state(constraint: str, **columns: Any) -> Corrupt:
    return Corrupt(f"ck_states_{constraint}", states, ROOT, **columns)


def coroutine(constraint: str, id: int, **columns: Any) -> Corrupt:
    return Corrupt(f"ck_coroutines_{constraint}", coroutines, id, **columns)


def future(constraint: str, **columns: Any) -> Corrupt:
    return Corrupt(f"ck_futures_{constraint}", futures, **a_future(seq=1, **columns))


def told(resolution: str) -> dict[str, Any]:
    return {"delivered_round": 2, "resolution": resolution, "resolved_at": now()}


CORRUPTIONS = {
    # calls
    "two calls of one id": Corrupt("pk_calls", calls, **a_call(DONE, "queued", due=now())),
    "a call of an execution that is not": Corrupt(
        "fk_calls_execution", calls, QUEUED, execution_id=NOBODY
    ),
    "a call number given twice": Corrupt("uq_calls_call", calls, RUNNING, call_id=0),
    "two calls at one place of a journal": Corrupt(
        "uq_calls_journal", calls, RUNNING, coroutine_id=2
    ),
    "a call of an unknown kind": call("kind", QUEUED, kind="coroutine"),
    "an unknown phase": call("phase", ROOT, phase="sleeping"),
    "an unknown status": call("status", QUEUED, status="FINE"),
    "an unknown resolution": call(
        "resolution", DONE, resolution="luck", delivered_round=1, resolved_at=now()
    ),
    "a function without a name": call("function", QUEUED, function=""),
    "a name of 201 characters": call("function", QUEUED, function="f" * 201),
    "a negative attempt": call("counters", QUEUED, attempt=-1),
    "a negative claim": call("counters", QUEUED, claim=-1),
    "a negative run": call("counters", QUEUED, current_run=-1),
    **{
        f"a child without its {column}": call("caller", QUEUED, **{column: None})
        for column in NO_CALLER
    },
    "a root with a call number": call("caller", DONE, call_id=0),
    "a member of no wait": call("member", QUEUED, serves=None),
    "a member of nobody": call("member", QUEUED, parent_id=None),
    "running, but held by nobody": call("lease", RUNNING, worker=None, lease_expires=None),
    "held without an end": call("lease", RUNNING, lease_expires=None),
    "done, but still held": call("lease", DONE, worker=WORKER, lease_expires=now()),
    "a lease of nobody's": call("lease", DONE, lease_expires=now()),
    "done, and due": call("due", DONE, due=now()),
    "running, and due": call("due", RUNNING, due=now()),
    "queued, and never due": call("due", QUEUED, due=None),
    "queued after it was parked, and never due": call("due", PARKED, parked=False),
    "parked, and due": call("parked", PARKED, due=now()),
    "running, and parked": call("parked", RUNNING, parked=True),
    "a promise without a token": call("token", PROMISE, token=None),
    "a token of a call that is no promise": call("token", QUEUED, token="t2"),
    "one token for two": Corrupt(
        "ix_calls_token",
        calls,
        **a_call(NOBODY, "queued", token="t1") | {"kind": "promise"},
    ),
    "a key of a call that is no root": call("key", QUEUED, key="k2"),
    "a key without a character": call("key", DONE, key=""),
    "a key of 201 characters": call("key", DONE, key="k" * 201),
    "two calls of one function and key": Corrupt(
        "ix_calls_key", calls, **a_call(NOBODY, "queued", due=now(), key="k")
    ),
    "... also where one has become another": Corrupt(
        "ix_calls_key",
        calls,
        **a_call(NOBODY, "queued", due=now(), key="k", asked_function="f", asked_input="[]")
        | {"function": "g"},
    ),
    "done without an outcome": call("done", DONE, status=None),
    "done without a time": call("done", DONE, finished_at=None),
    "finished, but not done": call("done", QUEUED, finished_at=now()),
    "OK with an error": call("error", DONE, error_type="ValueError"),
    "an error of no status": call("error", QUEUED, error_type="ValueError"),
    "arrived, but not done": call("arrived", QUEUED, arrived=1),
    "arrived, and delivered": call(
        "arrived", DONE, arrived=1, delivered_round=1, resolution="result", resolved_at=now()
    ),
    "delivered without a resolution": call("delivered", DONE, delivered_round=2, resolved_at=now()),
    "resolved without a round": call("delivered", DONE, resolution="result", resolved_at=now()),
    "resolved at no time": call("delivered", DONE, delivered_round=2, resolution="result"),
    "a wait whose time was up, by no limit": call("decided", DONE, **told("timeout")),
    "a wait with a result, by a limit": call("decided", DONE, **told("result"), decided_by=1),
    "an open wait with a limit that was over": call("decided", QUEUED, decided_by=1),
    # states
    "two states of one execution": Corrupt("pk_states", states, **a_state(ROOT)),
    "a state of no call": Corrupt("fk_states_call", states, **a_state(NOBODY)),
    "less than no call outstanding": state("outstanding", outstanding_calls=-1),
    "less delivered than nothing": state("arrived", arrived=-1, delivered=-1),
    "more delivered than arrived": state("arrived", arrived=1, delivered=2),
    "more waiting than outstanding": state("arrived", arrived=5),
    "a round before the first": state("round", round=0),
    "a run before the first": state("round", run=-1),
    "a round that is run, and never ends": state("lease", worker=WORKER),
    "a poll for no result": state("poll", poll_min_results=0),
    "a poll for at most none": state("poll", poll_max_results=0),
    # coroutines
    "two coroutines of one number": Corrupt(
        "pk_coroutines", coroutines, **a_coroutine(1, parent_id=0, serves=0)
    ),
    "a coroutine of no execution": Corrupt(
        "fk_coroutines_execution", coroutines, **(a_coroutine(0) | {"execution_id": NOBODY})
    ),
    "a coroutine of an unknown kind": coroutine("kind", 1, kind="function"),
    "a coroutine in an unknown phase": coroutine("phase", 1, phase="running"),
    "a coroutine of an unknown status": Corrupt(
        "ck_coroutines_status",
        coroutines,
        **a_coroutine(9, parent_id=0, serves=0, status="FINE", finished_at=now())
        | {"phase": "done"},
    ),
    "a second main coroutine": coroutine("tree", 1, parent_id=None, serves=None),
    "a main coroutine with a parent": coroutine("tree", 0, parent_id=-1, serves=0),
    "a child that serves no wait": coroutine("tree", 1, serves=None),
    "its own parent": coroutine("tree", 1, parent_id=1),
    "a coroutine that is done without an outcome": coroutine(
        "done", 1, phase="done", finished_at=now()
    ),
    "a coroutine that is done without a time": coroutine("done", 1, phase="done", status="OK"),
    "an outcome of a suspended coroutine": coroutine("done", 1, status="OK"),
    # futures
    "two waits at one place of a journal": Corrupt("pk_futures", futures, **a_future()),
    "a wait in no execution": Corrupt(
        "fk_futures_execution", futures, **(a_future() | {"execution_id": NOBODY})
    ),
    "a wait of an unknown kind": future("kind", kind="some"),
    "an unknown resolution of a wait": future("resolution", resolution="luck", resolved_at=now()),
    "more pending than there are": future("pending", pending=5),
    "less pending than none": future("pending", pending=-1),
    "a wait for oneself": future("children", first_child=0),
    "more failures than members": future("failed", failed=5),
    "less failures than none": future("failed", failed=-1),
    "a bearing of less than no failure": future("limits", max_failures=-1),
    "room for none": future("limits", max_concurrency=0),
    "resolved, but at no time": future("resolved", resolution="result"),
    "a time of a resolution that is not": future("resolved", resolved_at=now()),
    "decided by one before the members": future(
        "decided", decided_by=0, resolution="result", resolved_at=now()
    ),
    "decided by one after the members": future(
        "decided", decided_by=5, resolution="result", resolved_at=now()
    ),
    # signals
    "two signals of one number": Corrupt("pk_signals", signals, **a_signal(1)),
    "a signal to nobody": Corrupt(
        "fk_signals_execution", signals, **a_signal(1) | {"execution_id": NOBODY}
    ),
    "two signals that one wait has taken": Corrupt(
        "uq_signals_call", signals, **a_signal(3, call_id=DONE)
    ),
    "a signal before the first": Corrupt("ck_signals_number", signals, **a_signal(0)),
    "a signal without a name": Corrupt("ck_signals_name", signals, **a_signal(3) | {"name": ""}),
    "a signal's name of 201 characters": Corrupt(
        "ck_signals_name", signals, **a_signal(3) | {"name": "n" * 201}
    ),
    # workers
    "two workers of one id": Corrupt("pk_workers", workers, **a_worker(WORKER)),
}


@pytest.mark.parametrize("story", CORRUPTIONS)
def test_the_database_refuses(database: Database, story: str) -> None:
    corruption = CORRUPTIONS[story]

    with pytest.raises(IntegrityError) as refused, database.engine.begin() as connection:
        connection.execute(corruption.statement)

    assert named(refused.value, corruption.table) & corruption.constraints


def test_every_constraint_has_a_corruption_that_it_refuses() -> None:
    constraints = {
        str(each.name)
        for table in metadata.tables.values()
        for each in (*table.constraints, *(index for index in table.indexes if index.unique))
    }

    assert {corruption.constraint for corruption in CORRUPTIONS.values()} == constraints


def _required() -> list[Column[Any]]:
    return [
        column
        for table in metadata.sorted_tables
        for column in table.columns
        if not column.nullable
    ]


@pytest.mark.parametrize(
    "column", _required(), ids=lambda column: f"{column.table.name}.{column.name}"
)
def test_the_database_refuses_null_as(database: Database, column: Column[Any]) -> None:
    null = bindparam("null", None, type_=column.type)

    with pytest.raises(IntegrityError) as refused, database.engine.begin() as connection:
        connection.execute(update(column.table).values({column.name: null}))

    assert named(refused.value, column.table) == {column.name}


def named(error: IntegrityError, table: Table) -> set[str]:
    """The constraint, or the column that must not be null, that the database says was violated.

    SQLite names no foreign key, so that all of the table are meant.
    """
    original: Any = error.orig
    if (diagnosis := getattr(original, "diag", None)) is not None:
        return {diagnosis.constraint_name or diagnosis.column_name}
    kind, _, what = str(original).partition(" constraint failed")
    if kind == "FOREIGN KEY":
        return {str(each.constraint.name) for each in table.foreign_keys if each.constraint}
    what = what.removeprefix(": ").replace(f"{table.name}.", "")
    if kind == "UNIQUE" and what.startswith("index "):  # one with an expression
        return {what.split("'")[1]}
    if kind == "UNIQUE":
        return {
            str(each.name)
            for each in (*table.constraints, *table.indexes)
            if [column.name for column in getattr(each, "columns", ())] == what.split(", ")
        }
    return {what}


@pytest.mark.case(219)
def test_what_belongs_to_a_call_goes_with_it(database: Database) -> None:
    with database.engine.connect() as connection:  # rolled back, for the other tests
        connection.execute(calls.delete().where(calls.c.id == ROOT))

        assert connection.scalars(calls.select().with_only_columns(calls.c.id)).all() == [DONE]
        for table in (states, coroutines, futures, signals):
            assert connection.execute(table.select()).all() == []
