"""The first tables, and the views that answer an operator's questions.

Frozen: it imports nothing of rowtine, so that it still builds the same tables when the model has
moved on. A test compares the catalog that it leaves with the one that the model makes.

Revision ID: 0001
Revises:
"""
# ruff: noqa: S608 - the SQL here is made of words of this file and of the schema's checked name

from __future__ import annotations

import re
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(schema: str | None) -> None:
    types = _types()
    for create in (
        _create_calls,
        _create_states,
        _create_coroutines,
        _create_futures,
        _create_signals,
        _create_workers,
    ):
        create(schema, types)
    for name, query in _views(schema).items():
        op.execute(f"CREATE VIEW {_prefix(schema)}{name} AS {query}")


def downgrade(schema: str | None) -> None:
    for view in ("execution_tree", "outstanding_calls", "in_flight", "awaits"):
        op.execute(f"DROP VIEW {_prefix(schema)}{view}")
    for table in ("workers", "signals", "futures", "coroutines", "states", "calls"):
        if _on_postgresql() and table != "workers":
            op.drop_constraint(f"ck_{table}_row", table, schema=schema)
            op.execute(f"DROP DOMAIN {_prefix(schema)}{table}_row")
        op.drop_table(table, schema=schema)


# ----------------------------------------------------------------------------------- what differs


def _on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


class _Types(NamedTuple):
    id: Any
    json: Any
    """Text that is kept byte for byte: `json`, not `jsonb`."""
    moment: Any
    """In SQLite microseconds since 1970."""


def _types() -> _Types:
    if _on_postgresql():
        return _Types(postgresql.UUID(), postgresql.JSON(), postgresql.TIMESTAMP(timezone=True))
    return _Types(sa.Text(), sa.Text(), sa.BigInteger())


def _one_of(name: str, column: str, words: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({words})", name=name)


def _prefix(schema: str | None) -> str:
    return f'"{schema}".' if schema else ""


_HOT = {
    # Room on each page for the next version of its rows, and a vacuum at 2 % of dead ones instead
    # of 20 %: every row of these tables is updated several times in its short active life.
    "fillfactor": 80,
    "autovacuum_vacuum_scale_factor": 0.02,
}


def _create_table(name: str, *parts: Any, schema: str | None, **options: Any) -> None:
    """On PostgreSQL with a type that has the CHECKs: it reads them once for a connection, those of
    a table again for each statement."""
    checks = [part for part in parts if isinstance(part, sa.CheckConstraint)]
    if not (checks and _on_postgresql()):
        op.create_table(name, *parts, schema=schema, **options)
        return
    others = [part for part in parts if not isinstance(part, sa.CheckConstraint)]
    op.create_table(name, *others, schema=schema, **options)
    names = "|".join(part.name for part in parts if isinstance(part, sa.Column))
    column = re.compile(rf"('[^']*')|\b({names})\b")

    def of_value(check: sa.CheckConstraint) -> str:
        return column.sub(lambda found: found[1] or f"(VALUE).{found[2]}", str(check.sqltext))

    table, row = f"{_prefix(schema)}{name}", f"{_prefix(schema)}{name}_row"
    holds = " ".join(f"CONSTRAINT {check.name} CHECK ({of_value(check)})" for check in checks)
    op.execute(f"CREATE DOMAIN {row} AS {table} {holds}")
    # Always true of what the type lets through. (IS NOT NULL would ask each column.)
    whole = f"CAST({name} AS {row}) IS DISTINCT FROM NULL"
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{name}_row CHECK ({whole})")


def _belongs_to_call(column: str, name: str, schema: str | None) -> sa.ForeignKeyConstraint:
    target = f"{schema}.calls.id" if schema else "calls.id"
    return sa.ForeignKeyConstraint([column], [target], name=name, ondelete="CASCADE")


def _partial_index(
    name: str,
    table: str,
    columns: list[str | sa.TextClause],
    where: str,
    schema: str | None,
    *,
    unique: bool = False,
) -> None:
    op.create_index(
        name,
        table,
        columns,
        schema=schema,
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


# ----------------------------------------------------------------------------------------- tables

_KINDS = "'function', 'timer', 'promise', 'signal'"
_COROUTINE_KINDS = "'coroutine', 'all', 'any', 'race', 'task'"
_FUTURE_KINDS = "'all', 'any', 'race', 'spawn', 'task'"
_PHASES = "'queued', 'running', 'suspended', 'done'"
_COROUTINE_PHASES = "'suspended', 'done'"
_STATUSES = (
    "'UNSPECIFIED', 'OK', 'TIMEOUT', 'THROTTLED', 'INVALID_ARGUMENT', 'INVALID_RESPONSE',"
    " 'TEMPORARY_ERROR', 'PERMANENT_ERROR', 'INCOMPATIBLE_STATE', 'DNS_ERROR', 'TCP_ERROR',"
    " 'TLS_ERROR', 'HTTP_ERROR', 'UNAUTHENTICATED', 'PERMISSION_DENIED', 'NOT_FOUND', 'CANCELLED'"
)
_RESOLUTIONS = "'result', 'error', 'poll_error', 'cancelled', 'timeout'"


def _create_calls(schema: str | None, types: _Types) -> None:
    _create_table(
        "calls",
        sa.Column("id", types.id, nullable=False),
        sa.Column("execution_id", types.id),
        sa.Column("run", sa.Integer),
        sa.Column("coroutine_id", sa.Integer),
        sa.Column("seq", sa.Integer),
        sa.Column("call_id", sa.Integer),
        sa.Column("root_id", types.id),
        sa.Column("parent_id", sa.Integer),
        sa.Column("serves", sa.Integer),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("input", types.json, nullable=False),
        sa.Column("asked_function", sa.Text),
        sa.Column("asked_input", types.json),
        sa.Column("options", types.json),
        sa.Column("key", sa.Text),
        sa.Column("token", sa.Text),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("status", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("claim", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("current_run", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due", types.moment),
        sa.Column("parked", sa.Boolean),
        sa.Column("deadline", types.moment),
        sa.Column("worker", types.id),
        sa.Column("lease_expires", types.moment),
        sa.Column("details", types.json),
        sa.Column("cancelling", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("output", types.json),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_traceback", sa.Text),
        sa.Column("created_round", sa.Integer),
        sa.Column("arrived", sa.BigInteger),
        sa.Column("delivered_round", sa.Integer),
        sa.Column("resolution", sa.Text),
        sa.Column("resolved_at", types.moment),
        sa.Column("decided_by", sa.Integer),
        sa.Column("source_file", sa.Text),
        sa.Column("source_line", sa.Integer),
        sa.Column("await_stack", sa.Text),
        sa.Column("created_at", types.moment, nullable=False),
        sa.Column("started_at", types.moment),
        sa.Column("first_failed_at", types.moment),
        sa.Column("finished_at", types.moment),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
        _belongs_to_call("execution_id", "fk_calls_execution", schema),
        _one_of("ck_calls_kind", "kind", _KINDS),
        _one_of("ck_calls_phase", "phase", _PHASES),
        _one_of("ck_calls_status", "status", _STATUSES),
        _one_of("ck_calls_resolution", "resolution", _RESOLUTIONS),
        sa.CheckConstraint("length(function) BETWEEN 1 AND 200", name="ck_calls_function"),
        sa.CheckConstraint(
            "attempt >= 0 AND claim >= 0 AND current_run >= 0", name="ck_calls_counters"
        ),
        sa.CheckConstraint(
            "(execution_id IS NULL AND run IS NULL AND coroutine_id IS NULL AND seq IS NULL"
            " AND call_id IS NULL AND root_id IS NULL)"
            " OR (execution_id IS NOT NULL AND run IS NOT NULL AND coroutine_id IS NOT NULL"
            " AND seq IS NOT NULL AND call_id IS NOT NULL AND root_id IS NOT NULL)",
            name="ck_calls_caller",
        ),
        sa.CheckConstraint("(parent_id IS NULL) = (serves IS NULL)", name="ck_calls_member"),
        sa.CheckConstraint(
            "(phase = 'running') = (worker IS NOT NULL)"
            " AND (worker IS NULL) = (lease_expires IS NULL)",
            name="ck_calls_lease",
        ),
        sa.CheckConstraint(
            "(phase = 'queued' OR due IS NULL)"
            " AND (phase <> 'queued' OR due IS NOT NULL OR COALESCE(parked, false)"
            " OR kind IN ('promise', 'signal'))",
            name="ck_calls_due",
        ),
        sa.CheckConstraint(
            "NOT COALESCE(parked, false) OR (phase = 'queued' AND due IS NULL)",
            name="ck_calls_parked",
        ),
        sa.CheckConstraint("(kind = 'promise') = (token IS NOT NULL)", name="ck_calls_token"),
        sa.CheckConstraint(
            "key IS NULL OR (execution_id IS NULL AND length(key) BETWEEN 1 AND 200)",
            name="ck_calls_key",
        ),
        sa.CheckConstraint(
            "(phase = 'done') = (finished_at IS NOT NULL)"
            " AND (phase <> 'done' OR status IS NOT NULL)",
            name="ck_calls_done",
        ),
        sa.CheckConstraint(
            "error_type IS NULL OR (status IS NOT NULL AND status <> 'OK')", name="ck_calls_error"
        ),
        sa.CheckConstraint(
            "arrived IS NULL OR (phase = 'done' AND delivered_round IS NULL)",
            name="ck_calls_arrived",
        ),
        sa.CheckConstraint(
            "(delivered_round IS NULL) = (resolution IS NULL)"
            " AND (delivered_round IS NULL) = (resolved_at IS NULL)",
            name="ck_calls_delivered",
        ),
        sa.CheckConstraint(
            "(COALESCE(resolution, '') = 'timeout') = (decided_by IS NOT NULL)",
            name="ck_calls_decided",
        ),
        schema=schema,
        postgresql_with=_HOT,
    )
    _partial_index(
        "uq_calls_call",
        "calls",
        ["execution_id", "run", "call_id"],
        "execution_id IS NOT NULL",
        schema,
        unique=True,
    )
    _partial_index(
        "uq_calls_journal",
        "calls",
        ["execution_id", "run", "coroutine_id", "seq"],
        "execution_id IS NOT NULL",
        schema,
        unique=True,
    )
    _partial_index(
        "ix_calls_due",
        "calls",
        ["function", "due", "id"],
        "due IS NOT NULL AND kind = 'function'",
        schema,
    )
    _partial_index(
        "ix_calls_clock", "calls", ["due", "id"], "due IS NOT NULL AND kind <> 'function'", schema
    )
    _partial_index("ix_calls_worker", "calls", ["worker"], "worker IS NOT NULL", schema)
    _partial_index(
        "ix_calls_arrived",
        "calls",
        ["execution_id", "run", "arrived"],
        "arrived IS NOT NULL",
        schema,
    )
    _partial_index(
        "ix_calls_parked",
        "calls",
        ["execution_id", "run", "parent_id", "serves", "call_id"],
        "parked",
        schema,
    )
    _partial_index(
        "ix_calls_deadline",
        "calls",
        ["deadline"],
        "deadline IS NOT NULL AND finished_at IS NULL",
        schema,
    )
    _partial_index("ix_calls_token", "calls", ["token"], "token IS NOT NULL", schema, unique=True)
    _partial_index(
        "ix_calls_key",
        "calls",
        ["key", sa.text("coalesce(asked_function, function)")],
        "key IS NOT NULL",
        schema,
        unique=True,
    )


def _create_states(schema: str | None, types: _Types) -> None:
    _create_table(
        "states",
        sa.Column("id", types.id, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("seed", sa.Text, nullable=False),
        sa.Column("semantics", sa.Integer, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("next_coroutine_id", sa.Integer, nullable=False),
        sa.Column("next_call_id", sa.Integer, nullable=False),
        sa.Column("outstanding_calls", sa.Integer, nullable=False),
        sa.Column("arrived", sa.BigInteger, nullable=False),
        sa.Column("delivered", sa.BigInteger, nullable=False),
        sa.Column("wake_at", types.moment),
        sa.Column("worker", types.id),
        sa.Column("poll_min_results", sa.Integer, nullable=False),
        sa.Column("poll_max_results", sa.Integer, nullable=False),
        sa.Column("poll_max_wait_seconds", sa.Float),
        sa.Column("running_seconds", sa.Float, nullable=False),
        sa.Column("exit", types.json),
        sa.PrimaryKeyConstraint("id", name="pk_states"),
        _belongs_to_call("id", "fk_states_call", schema),
        sa.CheckConstraint("outstanding_calls >= 0", name="ck_states_outstanding"),
        sa.CheckConstraint(
            "delivered >= 0 AND arrived >= delivered AND arrived - delivered <= outstanding_calls",
            name="ck_states_arrived",
        ),
        sa.CheckConstraint("run >= 0 AND round >= 1", name="ck_states_round"),
        sa.CheckConstraint("worker IS NULL OR wake_at IS NOT NULL", name="ck_states_lease"),
        sa.CheckConstraint(
            "poll_min_results >= 1 AND poll_max_results >= 1", name="ck_states_poll"
        ),
        schema=schema,
        postgresql_with=_HOT,
    )
    _partial_index("ix_states_wake", "states", ["wake_at", "id"], "wake_at IS NOT NULL", schema)


def _create_coroutines(schema: str | None, types: _Types) -> None:
    _create_table(
        "coroutines",
        sa.Column("execution_id", types.id, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("parent_id", sa.Integer),
        sa.Column("serves", sa.Integer),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("input", types.json),
        sa.Column("fingerprint", sa.Text),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("shielded", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("status", sa.Text),
        sa.Column("output", types.json),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_traceback", sa.Text),
        sa.Column("created_at", types.moment, nullable=False),
        sa.Column("finished_at", types.moment),
        sa.PrimaryKeyConstraint("execution_id", "run", "id", name="pk_coroutines"),
        _belongs_to_call("execution_id", "fk_coroutines_execution", schema),
        _one_of("ck_coroutines_kind", "kind", _COROUTINE_KINDS),
        _one_of("ck_coroutines_phase", "phase", _COROUTINE_PHASES),
        _one_of("ck_coroutines_status", "status", _STATUSES),
        sa.CheckConstraint(
            "(id = 0) = (parent_id IS NULL) AND (parent_id IS NULL) = (serves IS NULL)"
            " AND (parent_id IS NULL OR parent_id < id)",
            name="ck_coroutines_tree",
        ),
        sa.CheckConstraint(
            "(phase = 'done') = (status IS NOT NULL)"
            " AND (phase = 'done') = (finished_at IS NOT NULL)",
            name="ck_coroutines_done",
        ),
        schema=schema,
    )


def _create_futures(schema: str | None, types: _Types) -> None:
    _create_table(
        "futures",
        sa.Column("execution_id", types.id, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("coroutine_id", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("first_child", sa.Integer, nullable=False),
        sa.Column("children", sa.Integer, nullable=False),
        sa.Column("pending", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("max_failures", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("max_concurrency", sa.Integer),
        sa.Column("cancel_losers", sa.Boolean, nullable=False),
        sa.Column("created_round", sa.Integer, nullable=False),
        sa.Column("resolution", sa.Text),
        sa.Column("decided_by", sa.Integer),
        sa.Column("source_file", sa.Text),
        sa.Column("source_line", sa.Integer),
        sa.Column("await_stack", sa.Text),
        sa.Column("created_at", types.moment, nullable=False),
        sa.Column("resolved_at", types.moment),
        sa.PrimaryKeyConstraint("execution_id", "run", "coroutine_id", "seq", name="pk_futures"),
        _belongs_to_call("execution_id", "fk_futures_execution", schema),
        _one_of("ck_futures_kind", "kind", _FUTURE_KINDS),
        _one_of("ck_futures_resolution", "resolution", _RESOLUTIONS),
        sa.CheckConstraint("pending BETWEEN 0 AND children", name="ck_futures_pending"),
        sa.CheckConstraint("failed BETWEEN 0 AND children", name="ck_futures_failed"),
        sa.CheckConstraint(
            "max_failures >= 0 AND (max_concurrency IS NULL OR max_concurrency >= 1)",
            name="ck_futures_limits",
        ),
        sa.CheckConstraint(
            "kind = 'task' OR first_child > coroutine_id", name="ck_futures_children"
        ),
        sa.CheckConstraint(
            "(resolution IS NULL) = (resolved_at IS NULL)", name="ck_futures_resolved"
        ),
        sa.CheckConstraint(
            "decided_by IS NULL OR resolution = 'timeout'"
            " OR (decided_by >= first_child AND decided_by < first_child + children)",
            name="ck_futures_decided",
        ),
        schema=schema,
    )
    _partial_index(
        "ix_futures_tasks",
        "futures",
        ["execution_id", "run", "children", "first_child"],
        "kind = 'task' AND resolution IS NULL",
        schema,
    )


def _create_signals(schema: str | None, types: _Types) -> None:
    _create_table(
        "signals",
        sa.Column("execution_id", types.id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", types.json),
        sa.Column("call_id", types.id),
        sa.Column("created_at", types.moment, nullable=False),
        sa.PrimaryKeyConstraint("execution_id", "number", name="pk_signals"),
        _belongs_to_call("execution_id", "fk_signals_execution", schema),
        sa.UniqueConstraint("call_id", name="uq_signals_call"),
        sa.CheckConstraint("number >= 1", name="ck_signals_number"),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 200", name="ck_signals_name"),
        schema=schema,
    )
    _partial_index(
        "ix_signals_queued",
        "signals",
        ["execution_id", "name", "number"],
        "call_id IS NULL",
        schema,
    )


def _create_workers(schema: str | None, types: _Types) -> None:
    _create_table(
        "workers",
        sa.Column("id", types.id, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("functions", types.json, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("started_at", types.moment, nullable=False),
        sa.Column("heartbeat_at", types.moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        schema=schema,
    )


# ------------------------------------------------------------------------------------------ views


def _at(moment: str) -> str:
    """A moment as a person reads it."""
    if _on_postgresql():
        return moment
    return f"strftime('%Y-%m-%d %H:%M:%f', {moment} / 1000000.0, 'unixepoch')"


def _now() -> str:
    # Not clock_timestamp(): one answer has one now, and a volatile function would keep PostgreSQL
    # from looking through the view when it plans.
    if _on_postgresql():
        return "statement_timestamp()"
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


def _seconds(begin: str, end: str) -> str:
    if _on_postgresql():
        return f"CAST(EXTRACT(EPOCH FROM {end} - {begin}) AS DOUBLE PRECISION)"
    return f"({end} - {begin}) / 1000000.0"


def _age(moment: str) -> str:
    """How many seconds ago a moment was, by the database's clock."""
    return _seconds(moment, _now())


def _earliest(one: str, other: str) -> str:
    """The earlier of two moments, or the one that there is."""
    if _on_postgresql():
        return f"LEAST({one}, {other})"
    return f"min(COALESCE({one}, {other}), COALESCE({other}, {one}))"


def _null(type_: str) -> str:
    return f"CAST(NULL AS {type_})"


def _null_id() -> str:
    return _null("UUID" if _on_postgresql() else "TEXT")


def _views(schema: str | None) -> dict[str, str]:
    return {
        "awaits": _awaits(_prefix(schema)),
        "in_flight": _in_flight(_prefix(schema)),
        "outstanding_calls": _outstanding_calls(_prefix(schema)),
        "execution_tree": _execution_tree(_prefix(schema)),
    }


def _awaits(s: str) -> str:
    return f"""
        SELECT k.execution_id, k.run, k.coroutine_id, k.seq, k.kind,
               COALESCE(k.asked_function, k.function) AS waits_for,
               COALESCE(k.resolution, 'pending') AS state,
               k.id AS call_id,
               {_null("INTEGER")} AS first_child, {_null("INTEGER")} AS children,
               {_null("INTEGER")} AS pending,
               k.decided_by,
               k.source_file AS file, k.source_line AS line, k.await_stack,
               {_at("k.created_at")} AS since,
               CASE WHEN k.resolution IS NULL THEN {_age("k.created_at")}
                    ELSE {_seconds("k.created_at", "k.resolved_at")} END AS seconds
        FROM {s}calls k
        WHERE k.execution_id IS NOT NULL
        UNION ALL
        SELECT f.execution_id, f.run, f.coroutine_id, f.seq, f.kind,
               f.function, COALESCE(f.resolution, 'pending'),
               {_null_id()},
               f.first_child, f.children, f.pending,
               f.decided_by,
               f.source_file, f.source_line, f.await_stack,
               {_at("f.created_at")},
               CASE WHEN f.resolution IS NULL THEN {_age("f.created_at")}
                    ELSE {_seconds("f.created_at", "f.resolved_at")} END
        FROM {s}futures f"""


def _in_flight(s: str) -> str:
    # Finished calls stay until retention takes them, so this begins at what only unfinished ones
    # have: a state, a worker, a due time. There is an index on each of the three. To SQLite, which
    # would begin at the coroutines, CROSS JOIN means this order; to PostgreSQL it means nothing.
    left = f"-{_age('x.until')}"
    nobody = f"""{_null_id()}, {_null("TEXT")}, {_null("INTEGER")}"""
    return f"""
        SELECT x.execution_id, x.coroutine_id, x.parent_id, x.execution, x.coroutine,
               'suspended' AS state, x.file, x.line,
               {_at("x.since")} AS since, {_age("x.since")} AS seconds,
               x.kind, x.waits_for, x.pending, x.parked, x.call_id,
               {_at("x.until")} AS until, {left} AS seconds_left,
               x.worker, w.host, w.pid,
               {_at("x.deadline")} AS deadline, x.cancelling, x.cancel_reason
        FROM ({_suspended(s)}) x
        LEFT JOIN {s}workers w ON w.id = x.worker
        UNION ALL
        SELECT {_whole("e.started_at")}, e.worker, w.host, w.pid,
               {_at("e.deadline")}, e.cancelling, e.cancel_reason
        FROM {s}calls e
        LEFT JOIN {s}workers w ON w.id = e.worker
        WHERE e.worker IS NOT NULL
        UNION ALL
        SELECT {_whole("e.created_at")}, {nobody},
               {_at("e.deadline")}, e.cancelling, e.cancel_reason
        FROM {s}calls e
        WHERE e.due IS NOT NULL AND e.kind = 'function'"""


def _suspended(s: str) -> str:
    """The coroutines that wait. A wait for one task that is a call, `t`, shows that call."""
    # A time limit is a timer that the coroutine has begun, in a group of its own.
    limit = f"""(
                       SELECT min(l.due) FROM {s}futures g JOIN {s}calls l
                           ON l.execution_id = g.execution_id AND l.run = g.run
                           AND l.coroutine_id = g.first_child AND l.parent_id = g.coroutine_id
                       WHERE g.execution_id = c.execution_id AND g.run = c.run
                         AND g.coroutine_id = c.id AND g.function = 'spawn(timeout)'
                         AND l.kind = 'timer' AND l.due IS NOT NULL
                   )"""
    clock = "CASE WHEN COALESCE(k.kind, t.kind) <> 'function' THEN COALESCE(k.due, t.due) END"
    parked = f"""(
                       SELECT NULLIF(count(*), 0) FROM {s}calls p
                       WHERE p.execution_id = f.execution_id AND p.run = f.run
                         AND p.coroutine_id >= f.first_child
                         AND p.coroutine_id < f.first_child + f.children AND p.parked
                   )"""
    return f"""
            SELECT e.id AS execution_id, c.id AS coroutine_id, c.parent_id,
                   e.function AS execution, c.function AS coroutine,
                   COALESCE(k.source_file, f.source_file) AS file,
                   COALESCE(k.source_line, f.source_line) AS line,
                   COALESCE(k.created_at, f.created_at) AS since,
                   COALESCE(k.kind, f.kind) AS kind,
                   COALESCE(k.asked_function, k.function, f.function) AS waits_for,
                   f.pending, {parked} AS parked, COALESCE(k.id, t.id) AS call_id,
                   {_earliest(limit, _earliest(clock, "e.deadline"))} AS until,
                   COALESCE(k.worker, t.worker) AS worker,
                   e.deadline, e.cancelling, e.cancel_reason
            FROM {s}states s CROSS JOIN {s}calls e CROSS JOIN {s}coroutines c
            LEFT JOIN {s}calls k ON k.execution_id = c.execution_id AND k.run = c.run
                 AND k.coroutine_id = c.id AND k.resolution IS NULL
            LEFT JOIN {s}futures f ON f.execution_id = c.execution_id AND f.run = c.run
                 AND f.coroutine_id = c.id AND f.resolution IS NULL
            LEFT JOIN {s}calls t ON f.kind = 'task' AND f.children = 1
                 AND t.execution_id = f.execution_id AND t.run = f.run
                 AND t.coroutine_id = f.first_child AND t.parent_id IS NOT NULL
            WHERE e.id = s.id
              AND c.execution_id = e.id AND c.run = e.current_run
              AND c.kind = 'coroutine' AND c.phase = 'suspended'"""


def _whole(since: str) -> str:
    """The columns of a call that has not suspended, down to the clock."""
    number, word = _null("INTEGER"), _null("TEXT")
    return f"""e.id, 0, {number}, e.function, e.function, e.phase, {word}, {number},
               {_at(since)}, {_age(since)},
               {word}, {word}, {number}, {_null("BIGINT")}, {_null_id()},
               {_at("e.deadline")}, -{_age("e.deadline")}"""


def _outstanding_calls(s: str) -> str:
    return f"""
        SELECT k.id, k.function, k.kind, k.phase, k.status, k.attempt, {_at("k.due")} AS due,
               COALESCE(k.parked, false) AS parked, {_at("k.deadline")} AS deadline,
               k.cancelling, k.cancel_reason,
               k.execution_id, k.coroutine_id,
               k.worker, w.host, w.pid, {_at("k.lease_expires")} AS lease_expires,
               {_at("k.created_at")} AS since, {_age("k.created_at")} AS seconds,
               k.error_message AS error
        FROM {s}calls k
        LEFT JOIN {s}workers w ON w.id = k.worker
        WHERE k.phase <> 'done' OR (k.execution_id IS NOT NULL AND k.delivered_round IS NULL)"""


def _execution_tree(s: str) -> str:
    # From each call up to its root, and not from the roots down: a condition on root_id then
    # bounds the work, which no database pushes into a recursion that begins at every root.
    # Numbers are of one width, so that the order of texts is the order of the calls; and "C",
    # because a language's collation may ignore the marks between them.
    collate = ' COLLATE "C"' if _on_postgresql() else ""
    step = (
        "CASE WHEN {0}.execution_id IS NULL THEN CAST({0}.id AS TEXT)"
        " ELSE '/' || substr(CAST(10000000000 + {0}.run AS TEXT), 2)"
        " || '.' || substr(CAST(10000000000 + {0}.call_id AS TEXT), 2) END"
    )
    return f"""
        SELECT t.root_id, length(t.path) - length(replace(t.path, '/', '')) AS depth, t.path,
               t.id, t.execution_id, t.coroutine_id, t.function, t.kind, t.phase, t.status,
               t.attempt, {_at("t.created_at")} AS since, {_at("t.finished_at")} AS finished
        FROM (
            SELECT COALESCE(c.root_id, c.id) AS root_id, c.id, c.execution_id, c.coroutine_id,
                   c.function, c.kind, c.phase, c.status, c.attempt, c.created_at, c.finished_at,
                   (
                       WITH RECURSIVE up (caller, path) AS (
                           SELECT c.execution_id, {step.format("c")}{collate}
                           UNION ALL
                           SELECT p.execution_id, {step.format("p")}{collate} || up.path
                           FROM up JOIN {s}calls p ON p.id = up.caller
                       )
                       SELECT up.path FROM up WHERE up.caller IS NULL
                   ) AS path
            FROM {s}calls c
        ) t"""
