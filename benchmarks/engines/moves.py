"""What changes in rowtine's tables, as statements that make the same change for many executions."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import psycopg
from psycopg import sql

SCHEMA = "rowtine"

TABLES = ("calls", "states", "coroutines", "futures", "signals")
"""The tables of executions, those first to which the others refer."""

Row = Mapping[str, str | None]
"""A row, each value as PostgreSQL's text."""


class Key(NamedTuple):
    table: str
    values: tuple[str, ...]


Picture = dict[Key, Row]
"""Every row of the tables."""

Ids = Mapping[str, str]
"""For each id in the pictures, the one that stands for it in another execution."""


@dataclass(frozen=True, slots=True)
class Move:
    """The change of one row, for any number of executions at once."""

    statement: sql.Composed
    constants: Row
    """Parameters that are the same for every execution."""
    ids: Mapping[str, str]
    """The others: the id in the pictures that each stands for."""

    def parameters(self, executions: Sequence[Ids]) -> dict[str, str | list[str] | None]:
        return {
            **self.constants,
            **{name: [ids[old] for ids in executions] for name, old in self.ids.items()},
        }


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    types: Mapping[str, str]
    """The type of each column, as SQL writes it."""
    key: tuple[str, ...]


class Album:
    """Pictures of the tables, one after the other. Nobody else may write in between."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._tables = {name: _table(connection, name) for name in TABLES}
        self._pictures: list[Picture] = []

    def take_picture(self) -> None:
        rows: dict[Key, Row] = {}
        with self._connection.transaction():
            # One snapshot for all tables: a worker may commit between two of them.
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for table in self._tables.values():
                rows |= self._rows(table)
        self._pictures.append(rows)

    def _rows(self, table: Table) -> Picture:
        texts = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.types]
        query = sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(texts), sql.Identifier(SCHEMA, table.name)
        )
        rows = [
            dict(zip(table.types, values, strict=True))
            for values in self._connection.execute(query)
        ]
        return {Key(table.name, tuple(row[name] for name in table.key)): row for row in rows}

    def moves(self) -> list[list[Move]]:
        """What makes each picture out of the one before it."""
        return [self._between(before, after) for before, after in pairwise(self._pictures)]

    def _between(self, before: Picture, after: Picture) -> list[Move]:
        ids = {key.values[0] for key in (*before, *after) if key.table == "calls"}
        order = sorted({*before, *after}, key=lambda key: (TABLES.index(key.table), key.values))
        made = []
        for key in order:
            writer = _Writer(self._tables[key.table], ids)
            if key not in before:
                made.append(writer.insert(after[key]))
            elif key not in after:
                made.append(writer.delete(before[key]))
            elif before[key] != after[key]:
                made.append(writer.update(before[key], after[key]))
        return made


@dataclass(slots=True)
class _Writer:
    """Writes one statement, and keeps its parameters, which are named by their columns."""

    table: Table
    ids: set[str]
    constants: dict[str, str | None] = field(default_factory=dict)
    varying: dict[str, str] = field(default_factory=dict)

    def insert(self, row: Row) -> Move:
        """One row for each execution, without the columns that are null."""
        filled = {name: value for name, value in row.items() if value is not None}
        values = sql.SQL(", ").join([self._value(name, value) for name, value in filled.items()])
        arrays = sql.SQL(", ").join([self._array(name) for name in self.varying])
        return self._move(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS new ({})").format(
                self._name(), _names(filled), values, arrays, _names(self.varying)
            )
        )

    def update(self, before: Row, after: Row) -> Move:
        changes = []
        for name, value in after.items():
            if value == before[name]:
                continue
            if value in self.ids:
                raise ValueError(f"{self.table.name}.{name} comes to refer to another row")
            changes.append(
                sql.SQL("{} = {}").format(sql.Identifier(name), self._value(name, value))
            )
        where = self._where(before)
        return self._move(
            sql.SQL("UPDATE {} SET {} WHERE {}").format(
                self._name(), sql.SQL(", ").join(changes), where
            )
        )

    def delete(self, row: Row) -> Move:
        return self._move(sql.SQL("DELETE FROM {} WHERE {}").format(self._name(), self._where(row)))

    def _where(self, row: Row) -> sql.Composed:
        conditions = []
        for name in self.table.key:
            value = self._value(name, row[name])
            if name in self.varying:
                value = sql.SQL("ANY({})").format(self._array(name))
            conditions.append(sql.SQL("{} = {}").format(sql.Identifier(name), value))
        return sql.SQL(" AND ").join(conditions)

    def _value(self, name: str, value: str | None) -> sql.Composable:
        if value in self.ids:
            self.varying[name] = value
            return sql.Identifier("new", name)
        self.constants[name] = value
        return sql.SQL("{}::{}").format(sql.Placeholder(name), sql.SQL(self.table.types[name]))

    def _array(self, name: str) -> sql.Composed:
        return sql.SQL("{}::uuid[]").format(sql.Placeholder(name))

    def _name(self) -> sql.Identifier:
        return sql.Identifier(SCHEMA, self.table.name)

    def _move(self, statement: sql.Composed) -> Move:
        return Move(statement, self.constants, self.varying)


def _names(columns: Mapping[str, object]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _table(connection: psycopg.Connection, name: str) -> Table:
    found = connection.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnum = ANY(i.indkey)"
        " FROM pg_attribute a JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum",
        [f"{SCHEMA}.{name}"],
    ).fetchall()
    return Table(
        name,
        {column: type_name for column, type_name, _ in found},
        tuple(column for column, _, in_key in found if in_key),
    )


def make(
    connection: psycopg.Connection,
    wanted: Sequence[Sequence[Move]],
    executions: Sequence[Ids],
    at_once: int = 100,
) -> None:
    """Make the moves for these executions, so many in one transaction."""
    batches = [executions[i : i + at_once] for i in range(0, len(executions), at_once)]
    for together in wanted:
        for batch in batches:
            with connection.transaction(), connection.pipeline():
                for move in together:
                    connection.execute(move.statement, move.parameters(batch))


class _FreshIds(dict[str, str]):
    def __missing__(self, old: str) -> str:
        self[old] = _new_id()
        return self[old]


def fresh_ids() -> Ids:
    """The ids of one more execution, each made when it is first asked for."""
    return _FreshIds()


def _new_id() -> str:
    """A UUIDv7, as rowtine's own are: random ones would cost more in every index."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(raw)))
