"""One write for a list of rows, on either database.

PostgreSQL gets all rows as one JSON document, and a batch of such writes as one statement: a
lone step costs few round trips, a hundred steps hardly more. (Arrays cost psycopg ten times the
Python time for each value, and one statement for each row costs the server far more than that.)
SQLite has no round trips: there it is `executemany`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from rowtine.store.dialect import in_one_statement
from rowtine.store.prepared import Prepared
from rowtine.store.types import JsonText, moment_read, now

__all__ = [
    "Delete",
    "Each",
    "Field",
    "Given",
    "Insert",
    "Update",
    "as_document",
    "fit_into_one",
    "in_document",
    "moment",
    "parameters",
    "write",
]

Field = Column[Any] | TypeEngine[Any] | type[TypeEngine[Any]]
"""What a value of a row is: like a column, or of a type."""

Given = Any
"""The row that is written: `given.name` is its value of that name, as an expression."""

Rows = Sequence[Mapping[str, Any]]


class Each(ABC):
    """A write that is made for each of a list of rows. `fields` are the values that a row has."""

    def __init__(self, name: str, fields: Mapping[str, Field]) -> None:
        self.name = name
        self.types = {field: _type(of) for field, of in fields.items()}

    def __repr__(self) -> str:
        return f"<each {self.name}>"

    @cached_property
    def for_one(self) -> Prepared:
        """For one row, whose values are parameters."""
        return Prepared(self._statement(parameters(self.types)))

    @cached_property
    def for_all(self) -> Any:
        """For all rows, which are one parameter, ``{name}_rows``."""
        return self._from_all(self._document())

    @property
    def parameter(self) -> str:
        return f"{self.name}_rows"

    @abstractmethod
    def _statement(self, given: Given) -> Any:
        """The write, where `given` is one row or stands for all of them."""

    def guarded(self, condition: ColumnElement[bool]) -> Any:
        """For all rows, or for none where the condition does not hold."""
        return self._from_all(self._document()).where(condition)

    def alone(self, condition: ColumnElement[bool]) -> Any:
        """For one row, whose values are parameters (`as_parameters`), or for none where the
        condition does not hold."""
        return self._statement(_Parameters(self.types, self._own)).where(condition)

    def as_parameters(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a row, by names that are only this write's."""
        own = self._own
        return {own[name]: value for name, value in row.items()}

    @cached_property
    def _own(self) -> dict[str, str]:
        return {name: f"{self.name}_{name}" for name in self.types}

    def _from_all(self, given: Given) -> Any:
        return self._statement(given)

    def _document(self) -> Given:
        columns = (column(name, _in_document(type_)) for name, type_ in self.types.items())
        return _Document(in_document(self.parameter, *columns), self.types)


class Insert(Each):
    """Insert rows. `values` are those of the columns, of which `fields` have the same names."""

    def __init__(
        self,
        name: str,
        table: Table,
        fields: Mapping[str, Field],
        values: Callable[[Given], Mapping[str, Any]],
    ) -> None:
        super().__init__(name, fields)
        self._table = table
        self._values = values

    def _statement(self, given: Given) -> Any:
        return insert(self._table).values(dict(self._values(given)))

    def guarded(self, condition: ColumnElement[bool]) -> Any:
        return self._selected(self._document(), condition)

    def alone(self, condition: ColumnElement[bool]) -> Any:
        return self._selected(_Parameters(self.types, self._own), condition)

    def _from_all(self, given: Given) -> Any:
        return self._selected(given)

    def _selected(self, given: Given, *conditions: ColumnElement[bool]) -> Any:
        values = self._values(given)
        chosen = [_as(self._table.c[name], value) for name, value in values.items()]
        rows = select(*chosen).select_from(*given()).where(*conditions)
        return insert(self._table).from_select(list(values), rows)


class Update(Each):
    """Update the rows that `where` finds."""

    def __init__(
        self,
        name: str,
        table: Table,
        fields: Mapping[str, Field],
        where: Callable[[Given], ColumnElement[bool]],
        values: Callable[[Given], Mapping[str, Any]],
    ) -> None:
        super().__init__(name, fields)
        self._table = table
        self._where = where
        self._values = values

    def _statement(self, given: Given) -> Any:
        return update(self._table).where(self._where(given)).values(dict(self._values(given)))


class Delete(Each):
    """Delete the rows that `where` finds."""

    def __init__(
        self,
        name: str,
        table: Table,
        fields: Mapping[str, Field],
        where: Callable[[Given], ColumnElement[bool]],
    ) -> None:
        super().__init__(name, fields)
        self._table = table
        self._where = where

    def _statement(self, given: Given) -> Any:
        return delete(self._table).where(self._where(given))


def write(connection: Connection, *batches: Mapping[Each, Rows]) -> datetime:
    """Make these writes; the database's time after them.

    The batches come one after the other. On PostgreSQL those of one batch are one statement, so
    that no two of them may touch the same row, or see what another did; more of them where there
    are so many rows that one statement might take longer than it is given.
    """
    at: Any = None
    together = in_one_statement(connection)
    for batch in batches:
        chosen = {each: rows for each, rows in batch.items() if rows}
        if together:
            for part in _parts(chosen):
                documents = {each.parameter: as_document(rows) for each, rows in part.items()}
                at = _together(tuple(part)).execute(connection, documents).scalar_one()
        else:
            for each, rows in chosen.items():
                each.for_one.execute(connection, rows)
    return moment(connection) if at is None else moment_read(at)


AT_ONCE = 5_000
"""Rows that a statement makes of one write: a second or less, where it is given twenty."""


def fit_into_one(batch: Mapping[Each, Rows]) -> bool:
    """Whether these writes are not too many for one statement."""
    return all(len(rows) <= AT_ONCE for rows in batch.values())


def _parts(batch: Mapping[Each, Rows]) -> Iterator[Mapping[Each, Rows]]:
    if fit_into_one(batch):
        yield from [batch] if batch else []
        return
    for first in range(0, max(map(len, batch.values())), AT_ONCE):
        yield {
            each: rows[first : first + AT_ONCE] for each, rows in batch.items() if len(rows) > first
        }


def moment(connection: Connection) -> datetime:
    """The database's time."""
    return moment_read(_NOW.execute(connection, {}).scalar_one())


_NOW = Prepared(select(now()))


@lru_cache(maxsize=1024)
def _together(chosen: tuple[Each, ...]) -> Prepared:
    """One statement that makes all of these writes, and says when."""
    whole: Select[Any] = select(now())
    for each in chosen:
        made: Any = each.for_all
        whole = whole.add_cte(made.cte(each.name))
    return Prepared(whole)


def as_document(rows: Rows) -> str:
    """Rows as one parameter."""
    return msgspec.json.encode(rows).decode()


def _type(of: Field) -> TypeEngine[Any]:
    type_ = of.type if isinstance(of, Column) else of
    if isinstance(type_, Text):
        return Text()  # whatever words a column may hold: that is for the column to see
    return type_ if isinstance(type_, TypeEngine) else type_()


def _in_document(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    # Payloads are strings in the document, and so come out byte for byte.
    return Text() if isinstance(type_, JsonText) else type_


def parameters(types: Mapping[str, TypeEngine[Any]]) -> Given:
    """One row, whose values are parameters of these names and types."""
    return _Parameters(types, {})


def in_document(parameter: str, *columns: Any) -> Any:
    """The rows of a parameter, as a table."""
    document = cast(bindparam(parameter, type_=Text()), JsonText())
    rows = func.json_to_recordset(document).table_valued(*columns)
    return rows.render_derived(f"each_{parameter}", with_types=True)


def _as(column: Column[Any], value: Any) -> ColumnElement[Any]:
    """A value in the select of an insert, where nothing else tells its type."""
    if isinstance(value, ColumnElement):
        return value  # pyright: ignore[reportUnknownVariableType]
    return cast(literal(value), column.type)


class _Parameters:
    """One row, whose values are parameters of the statement: of the same names, or of others."""

    def __init__(self, types: Mapping[str, TypeEngine[Any]], names: Mapping[str, str]) -> None:
        self._types = types
        self._names = names

    def __call__(self) -> tuple[Any, ...]:
        return ()

    def __getattr__(self, name: str) -> ColumnElement[Any]:
        return bindparam(self._names.get(name, name), type_=self._types[name])


class _Document:
    """All rows, as a table that is made of one JSON document."""

    def __init__(self, rows: Any, types: Mapping[str, TypeEngine[Any]]) -> None:
        self._rows = rows
        self._types = types

    def __call__(self) -> tuple[Any, ...]:
        """What it is selected from."""
        return (self._rows,)

    def __getattr__(self, name: str) -> ColumnElement[Any]:
        found: ColumnElement[Any] = self._rows.c[name]
        type_ = self._types[name]
        return cast(found, type_) if isinstance(type_, JsonText) else found
