"""Column types, and the two expressions of time. Each means the same on both databases."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Dialect, Float, Text, bindparam, cast, func
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import BigInteger, TypeDecorator, TypeEngine, UserDefinedType

__all__ = [
    "Id",
    "JsonText",
    "Many",
    "Timestamp",
    "after",
    "among",
    "among_those",
    "as_array",
    "as_text",
    "moment",
    "moment_read",
    "moment_values",
    "now",
    "seconds_since",
    "soon_on_disk",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Id(TypeDecorator[str]):
    """A UUID: `uuid` in PostgreSQL, its usual text in SQLite; `str` in Python."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=False))
        return dialect.type_descriptor(Text())


class Timestamp(TypeDecorator[datetime]):
    """A moment in UTC: `timestamptz` in PostgreSQL, integer microseconds since 1970 in SQLite.

    SQLite has no type for time, and mixed texts and reals would compare wrongly; one integer
    column, written by one expression, cannot.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return _moment(value)


class JsonText(UserDefinedType[str]):
    """JSON kept byte for byte: `json` in PostgreSQL, TEXT in SQLite; the text itself in Python.

    `jsonb` would reorder keys, and SQLite's JSON affinity turns 2**70 into a float.
    """

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "JSON"

    def bind_expression(self, bindvalue: Any) -> Any:
        return cast(bindvalue, JsonText())

    def column_expression(self, colexpr: Any) -> Any:
        return cast(colexpr, Text())


@compiles(JsonText, "sqlite")
def _json_text_sqlite(type_: JsonText, compiler: Any, **kw: Any) -> str:
    return "TEXT"


class Many(TypeDecorator[Collection[Any]]):
    """Any number of values as one parameter."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Collection[Any] | None, dialect: Dialect) -> Any:
        values = sorted(value or ())
        text = msgspec.json.encode(values).decode()
        if dialect.name != "postgresql":
            return text
        if "\\" in text:
            return "{" + ",".join(map(_element, values)) + "}"
        return "{" + text[1:-1] + "}"  # without escapes both write the same


def _element(value: str | int) -> str:
    """A value as it stands in the text of an array."""
    if isinstance(value, int):
        return str(value)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


class _Among(FunctionElement[bool]):
    inherit_cache = True


def among(column: ColumnElement[Any], name: str = "ids") -> ColumnElement[bool]:
    """Whether a value (an id, a number, a name) is one of those in a parameter.

    However many there are, the statement is the same: SQLAlchemy and the database prepare it once.
    """
    return _Among(column, bindparam(name, type_=Many()))


class _AmongThose(FunctionElement[bool]):
    inherit_cache = True


def among_those(column: ColumnElement[Any], those: Any) -> ColumnElement[bool]:
    """Whether a value is one of those that a select finds. They are found first: as a join, the
    planner might begin at the other end."""
    return _AmongThose(column, those.scalar_subquery())


def as_text(column: ColumnElement[str]) -> ColumnElement[str]:
    """An id as its usual text, also where no type sees what the driver gives."""
    return cast(column, Text())


class as_array(FunctionElement[str]):  # noqa: N801
    """The text of a JSON array of some values: several columns where one is allowed."""

    type = Text()
    inherit_cache = True


@compiles(as_array, "postgresql")
def _as_array_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"CAST(json_build_array({compiler.process(element.clauses, **kw)}) AS TEXT)"


@compiles(as_array, "sqlite")
def _as_array_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return f"json_array({compiler.process(element.clauses, **kw)})"


@compiles(_Among, "postgresql")
def _among_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, values = (compiler.process(each, **kw) for each in element.clauses)
    type_ = compiler.dialect.type_compiler_instance.process(next(iter(element.clauses)).type)
    # The cast is parsed once: outside a subquery it would be parsed again for each row.
    return f"{column} = ANY ((SELECT CAST({values} AS {type_}[]))::{type_}[])"


@compiles(_Among, "sqlite")
def _among_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    column, values = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608


@compiles(_AmongThose, "postgresql")
def _among_those_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, those = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} = ANY (ARRAY{those})"


@compiles(_AmongThose, "sqlite")
def _among_those_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    column, those = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} IN {those}"


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL it stands for
    """The database's clock at this statement, not at the start of the transaction."""

    type = Timestamp()
    inherit_cache = True


class after(FunctionElement[datetime]):  # noqa: N801
    """The database's clock plus a number of seconds."""

    type = Timestamp()
    inherit_cache = True


class seconds_since(FunctionElement[float]):  # noqa: N801
    """How many seconds ago a moment was, by the database's clock."""

    inherit_cache = True


class soon_on_disk(FunctionElement[bool]):  # noqa: N801
    """True. On PostgreSQL the statement that asks does not wait for the disk when it commits.

    All see at once what it has written; a crash of the server within the next half second may
    forget it, unless a later commit has waited for the disk, which then has this one as well.
    """

    inherit_cache = True


def moment(name: str) -> ColumnElement[datetime]:
    """A parameter that is a moment, or seconds from now by the database's clock, or nothing: its
    `moment_values` say which."""
    return func.coalesce(
        bindparam(f"{name}_at", type_=Timestamp()), after(bindparam(f"{name}_in", type_=Float()))
    )


def moment_read(value: Any) -> datetime:
    """A moment as the driver gives it."""
    return value.astimezone(UTC) if isinstance(value, datetime) else _moment(value)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def moment_values(name: str, value: datetime | float | None) -> dict[str, Any]:
    """The values for a `moment`."""
    if isinstance(value, datetime):
        return {f"{name}_at": value, f"{name}_in": None}
    return {f"{name}_at": None, f"{name}_in": value}


_SQLITE_NOW = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    # A bare clock_timestamp() is volatile: no index can be searched for what is due by it, and a
    # claim would walk over every timer of next year. A subquery is read once for a statement.
    return "(SELECT clock_timestamp())"


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return _SQLITE_NOW


@compiles(after, "postgresql")
def _after_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + make_interval(secs => CAST({seconds} AS DOUBLE PRECISION)))"


@compiles(after, "sqlite")
def _after_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"({_SQLITE_NOW} + CAST({seconds} * 1000000 AS INTEGER))"


@compiles(soon_on_disk, "postgresql")
def _soon_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    # In a subquery it is set once, and not for each row.
    return "(SELECT set_config('synchronous_commit', 'off', true)) = 'off'"


@compiles(soon_on_disk, "sqlite")
def _soon_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "1"


@compiles(seconds_since, "postgresql")
def _since_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    moment = compiler.process(element.clauses, **kw)
    return f"EXTRACT(EPOCH FROM clock_timestamp() - {moment})::double precision"


@compiles(seconds_since, "sqlite")
def _since_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    moment = compiler.process(element.clauses, **kw)
    return f"(({_SQLITE_NOW} - {moment}) / 1000000.0)"
