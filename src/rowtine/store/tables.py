"""The tables. Rows are facts: no behaviour here, and every constraint states an invariant.

The schema name is a token: an engine's `schema_translate_map` turns it into the configured schema
on PostgreSQL and into none on SQLite (see `dialect`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from rowtine.core.phases import (
    CALL_KINDS,
    COROUTINE_KINDS,
    FUTURE_KINDS,
    CoroutinePhase,
    Phase,
    Resolution,
)
from rowtine.core.status import Status
from rowtine.store.rowtypes import check_by_type
from rowtine.store.types import Id, JsonText, Timestamp

__all__ = [
    "SCHEMA",
    "calls",
    "coroutines",
    "futures",
    "metadata",
    "signals",
    "states",
    "workers",
]

SCHEMA = "rowtine"

metadata = MetaData(schema=SCHEMA)


def _partial(name: str, *columns: ColumnElement[Any], where: str, unique: bool = False) -> None:
    """An index of some rows only."""
    condition = text(where)
    Index(name, *columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _one_of(name: str, column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({_listed(values)})", name=name)


calls = Table(
    "calls",
    metadata,
    Column("id", Id, nullable=False),
    # Who asked: null for a root.
    Column("execution_id", Id),
    Column("run", Integer),
    Column("coroutine_id", Integer),
    Column("seq", Integer),
    Column("call_id", Integer),
    Column("root_id", Id),
    # For a call that is itself a member of a join: the coroutine that waits, and its wait.
    Column("parent_id", Integer),
    Column("serves", Integer),
    # What is asked for. A tail call replaces it; `asked_*` then keep what the caller's journal has.
    Column("kind", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("input", JsonText, nullable=False),
    Column("asked_function", Text),
    Column("asked_input", JsonText),
    Column("options", JsonText),  # what `f.options(...)` says and the worker needs
    Column("key", Text),  # of idempotency: one root call for each function and key
    Column("token", Text),  # whoever holds it may resolve the promise
    # Where it stands.
    Column("phase", Text, nullable=False),
    Column("status", Text),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("claim", Integer, nullable=False, server_default=text("0")),
    Column("current_run", Integer, nullable=False, server_default=text("0")),
    Column("due", Timestamp),
    # Of a member of a join that limits how many run at once: whether there was no room yet.
    Column("parked", Boolean),
    Column("deadline", Timestamp),
    Column("worker", Id),
    Column("lease_expires", Timestamp),
    Column("details", JsonText),  # of its last heartbeat
    Column("cancelling", Boolean, nullable=False, server_default=text("false")),
    Column("cancel_reason", Text),
    # What it came to. With an error, `output` holds what the codec needs to rebuild it.
    Column("output", JsonText),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_traceback", Text),
    # Its life in the caller's journal.
    Column("created_round", Integer),
    Column("arrived", BigInteger),
    Column("delivered_round", Integer),
    Column("resolution", Text),
    Column("resolved_at", Timestamp),
    Column("decided_by", Integer),
    Column("source_file", Text),
    Column("source_line", Integer),
    Column("await_stack", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("started_at", Timestamp),
    Column("first_failed_at", Timestamp),
    Column("finished_at", Timestamp),
    PrimaryKeyConstraint("id", name="pk_calls"),
    ForeignKeyConstraint(
        ["execution_id"], [f"{SCHEMA}.calls.id"], name="fk_calls_execution", ondelete="CASCADE"
    ),
    _one_of("ck_calls_kind", "kind", CALL_KINDS),
    _one_of("ck_calls_phase", "phase", Phase),
    _one_of("ck_calls_status", "status", Status),
    _one_of("ck_calls_resolution", "resolution", Resolution),
    CheckConstraint("length(function) BETWEEN 1 AND 200", name="ck_calls_function"),
    CheckConstraint("attempt >= 0 AND claim >= 0 AND current_run >= 0", name="ck_calls_counters"),
    CheckConstraint(
        "(execution_id IS NULL AND run IS NULL AND coroutine_id IS NULL AND seq IS NULL"
        " AND call_id IS NULL AND root_id IS NULL)"
        " OR (execution_id IS NOT NULL AND run IS NOT NULL AND coroutine_id IS NOT NULL"
        " AND seq IS NOT NULL AND call_id IS NOT NULL AND root_id IS NOT NULL)",
        name="ck_calls_caller",
    ),
    CheckConstraint("(parent_id IS NULL) = (serves IS NULL)", name="ck_calls_member"),
    CheckConstraint(
        "(phase = 'running') = (worker IS NOT NULL) AND (worker IS NULL) = (lease_expires IS NULL)",
        name="ck_calls_lease",
    ),
    CheckConstraint(
        "(phase = 'queued' OR due IS NULL)"
        " AND (phase <> 'queued' OR due IS NOT NULL OR COALESCE(parked, false)"
        " OR kind IN ('promise', 'signal'))",
        name="ck_calls_due",
    ),
    CheckConstraint(
        "NOT COALESCE(parked, false) OR (phase = 'queued' AND due IS NULL)", name="ck_calls_parked"
    ),
    CheckConstraint("(kind = 'promise') = (token IS NOT NULL)", name="ck_calls_token"),
    CheckConstraint(
        "key IS NULL OR (execution_id IS NULL AND length(key) BETWEEN 1 AND 200)",
        name="ck_calls_key",
    ),
    CheckConstraint(
        "(phase = 'done') = (finished_at IS NOT NULL) AND (phase <> 'done' OR status IS NOT NULL)",
        name="ck_calls_done",
    ),
    CheckConstraint(
        "error_type IS NULL OR (status IS NOT NULL AND status <> 'OK')", name="ck_calls_error"
    ),
    CheckConstraint(
        "arrived IS NULL OR (phase = 'done' AND delivered_round IS NULL)",
        name="ck_calls_arrived",
    ),
    CheckConstraint(
        "(delivered_round IS NULL) = (resolution IS NULL)"
        " AND (delivered_round IS NULL) = (resolved_at IS NULL)",
        name="ck_calls_delivered",
    ),
    CheckConstraint(
        "(COALESCE(resolution, '') = 'timeout') = (decided_by IS NOT NULL)",
        name="ck_calls_decided",
    ),
)
# Not of roots, of which each is in every index that it has a part in three times: queued, running
# and done.
_partial(
    "uq_calls_call",
    calls.c.execution_id,
    calls.c.run,
    calls.c.call_id,
    unique=True,
    where="execution_id IS NOT NULL",
)
_partial(
    "uq_calls_journal",
    calls.c.execution_id,
    calls.c.run,
    calls.c.coroutine_id,
    calls.c.seq,
    unique=True,
    where="execution_id IS NOT NULL",
)
# What workers take, by what they filter on; and what the clock answers.
_partial(
    "ix_calls_due",
    calls.c.function,
    calls.c.due,
    calls.c.id,
    where="due IS NOT NULL AND kind = 'function'",
)
_partial(
    "ix_calls_clock",
    calls.c.due,
    calls.c.id,
    where="due IS NOT NULL AND kind <> 'function'",
)
_partial(
    "ix_calls_worker",
    calls.c.worker,
    where="worker IS NOT NULL",
)
_partial(
    "ix_calls_arrived",
    calls.c.execution_id,
    calls.c.run,
    calls.c.arrived,
    where="arrived IS NOT NULL",
)
_partial(
    "ix_calls_parked",
    calls.c.execution_id,
    calls.c.run,
    calls.c.parent_id,
    calls.c.serves,
    calls.c.call_id,
    where="parked",
)
_partial(
    "ix_calls_deadline",
    calls.c.deadline,
    where="deadline IS NOT NULL AND finished_at IS NULL",
)
_partial(
    "ix_calls_token",
    calls.c.token,
    unique=True,
    where="token IS NOT NULL",
)
_partial(
    "ix_calls_key",
    calls.c.key,
    # A tail call changes the function, and the key stays that of the one asked for.
    func.coalesce(calls.c.asked_function, calls.c.function),
    unique=True,
    where="key IS NOT NULL",
)

states = Table(
    "states",
    metadata,
    Column("id", Id, nullable=False),
    Column("version", Text),
    # Of this run: promises' tokens, `random` and `uuid` are drawn from it.
    Column("seed", Text, nullable=False),
    Column("semantics", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    Column("next_coroutine_id", Integer, nullable=False),
    Column("next_call_id", Integer, nullable=False),
    Column("outstanding_calls", Integer, nullable=False),
    # Outcomes that ever came in, and those of them that a round has taken: the difference waits.
    # Growing counters give each arrival its ordinal, which is the order of delivery.
    Column("arrived", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    # When the next round is due; while `worker` runs one, when that claim lapses.
    Column("wake_at", Timestamp),
    Column("worker", Id),
    Column("poll_min_results", Integer, nullable=False),
    Column("poll_max_results", Integer, nullable=False),
    Column("poll_max_wait_seconds", Float),
    Column("running_seconds", Float, nullable=False),
    Column("exit", JsonText),
    PrimaryKeyConstraint("id", name="pk_states"),
    ForeignKeyConstraint(["id"], [f"{SCHEMA}.calls.id"], name="fk_states_call", ondelete="CASCADE"),
    CheckConstraint("outstanding_calls >= 0", name="ck_states_outstanding"),
    CheckConstraint(
        "delivered >= 0 AND arrived >= delivered AND arrived - delivered <= outstanding_calls",
        name="ck_states_arrived",
    ),
    CheckConstraint("run >= 0 AND round >= 1", name="ck_states_round"),
    CheckConstraint("worker IS NULL OR wake_at IS NOT NULL", name="ck_states_lease"),
    CheckConstraint("poll_min_results >= 1 AND poll_max_results >= 1", name="ck_states_poll"),
)
_partial(
    "ix_states_wake",
    states.c.wake_at,
    states.c.id,
    where="wake_at IS NOT NULL",
)

coroutines = Table(
    "coroutines",
    metadata,
    Column("execution_id", Id, nullable=False),
    Column("run", Integer, nullable=False),
    Column("id", Integer, nullable=False),
    Column("parent_id", Integer),
    Column("serves", Integer),
    Column("kind", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("input", JsonText),  # null for coroutine 0, whose input is the call's
    Column("fingerprint", Text),
    Column("phase", Text, nullable=False),
    Column("cancelled", Boolean, nullable=False, server_default=text("false")),
    Column("shielded", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text),
    Column("output", JsonText),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_traceback", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    PrimaryKeyConstraint("execution_id", "run", "id", name="pk_coroutines"),
    ForeignKeyConstraint(
        ["execution_id"], [f"{SCHEMA}.calls.id"], name="fk_coroutines_execution", ondelete="CASCADE"
    ),
    _one_of("ck_coroutines_kind", "kind", COROUTINE_KINDS),
    _one_of("ck_coroutines_phase", "phase", CoroutinePhase),
    _one_of("ck_coroutines_status", "status", Status),
    CheckConstraint(
        "(id = 0) = (parent_id IS NULL) AND (parent_id IS NULL) = (serves IS NULL)"
        " AND (parent_id IS NULL OR parent_id < id)",
        name="ck_coroutines_tree",
    ),
    CheckConstraint(
        "(phase = 'done') = (status IS NOT NULL) AND (phase = 'done') = (finished_at IS NOT NULL)",
        name="ck_coroutines_done",
    ),
)

futures = Table(
    "futures",
    metadata,
    Column("execution_id", Id, nullable=False),
    Column("run", Integer, nullable=False),
    Column("coroutine_id", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("function", Text, nullable=False),  # the members in words: all(charge, reserve)
    Column("first_child", Integer, nullable=False),
    Column("children", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("max_failures", Integer, nullable=False, server_default=text("0")),
    Column("max_concurrency", Integer),
    Column("cancel_losers", Boolean, nullable=False),
    Column("created_round", Integer, nullable=False),
    Column("resolution", Text),
    Column("decided_by", Integer),
    Column("source_file", Text),
    Column("source_line", Integer),
    Column("await_stack", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("resolved_at", Timestamp),
    PrimaryKeyConstraint("execution_id", "run", "coroutine_id", "seq", name="pk_futures"),
    ForeignKeyConstraint(
        ["execution_id"], [f"{SCHEMA}.calls.id"], name="fk_futures_execution", ondelete="CASCADE"
    ),
    _one_of("ck_futures_kind", "kind", FUTURE_KINDS),
    _one_of("ck_futures_resolution", "resolution", Resolution),
    CheckConstraint("pending BETWEEN 0 AND children", name="ck_futures_pending"),
    CheckConstraint("failed BETWEEN 0 AND children", name="ck_futures_failed"),
    CheckConstraint(
        "max_failures >= 0 AND (max_concurrency IS NULL OR max_concurrency >= 1)",
        name="ck_futures_limits",
    ),
    # The members of a wait for tasks were there before it.
    CheckConstraint("kind = 'task' OR first_child > coroutine_id", name="ck_futures_children"),
    CheckConstraint("(resolution IS NULL) = (resolved_at IS NULL)", name="ck_futures_resolved"),
    CheckConstraint(
        # With `timeout` it is the timer of the time limit.
        "decided_by IS NULL OR resolution = 'timeout'"
        " OR (decided_by >= first_child AND decided_by < first_child + children)",
        name="ck_futures_decided",
    ),
)

_partial(
    "ix_futures_tasks",
    futures.c.execution_id,
    futures.c.run,
    # Before the first of them: who waits for one task, as most do, is found by its number.
    futures.c.children,
    futures.c.first_child,
    where="kind = 'task' AND resolution IS NULL",
)

signals = Table(
    "signals",
    metadata,
    Column("execution_id", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", JsonText),
    # The wait that took it; null while it is queued.
    Column("call_id", Id),
    Column("created_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("execution_id", "number", name="pk_signals"),
    ForeignKeyConstraint(
        ["execution_id"], [f"{SCHEMA}.calls.id"], name="fk_signals_execution", ondelete="CASCADE"
    ),
    UniqueConstraint("call_id", name="uq_signals_call"),
    CheckConstraint("number >= 1", name="ck_signals_number"),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="ck_signals_name"),
)
_partial(
    "ix_signals_queued",
    signals.c.execution_id,
    signals.c.name,
    signals.c.number,
    where="call_id IS NULL",
)

workers = Table(
    "workers",
    metadata,
    Column("id", Id, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("version", Text),
    Column("functions", JsonText, nullable=False),
    # The last batch that it committed: asked for when the reply to a COMMIT was lost.
    Column("batch", BigInteger, nullable=False, server_default=text("0")),
    Column("started_at", Timestamp, nullable=False),
    Column("heartbeat_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("id", name="pk_workers"),
)


for _table in metadata.tables.values():
    check_by_type(_table)
