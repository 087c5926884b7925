"""Statements that are compiled once.

SQLAlchemy finds a compiled statement again by walking through all of it, at every execution. For
the statements of a commit, which are long and always the same, that costs more than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, CursorResult, Dialect

__all__ = ["Prepared"]

Row = Mapping[str, Any]


class Prepared:
    """A statement, compiled once for each engine and schema that it is run with.

    Its results are the driver's: no type of a column has seen them.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: WeakKeyDictionary[Dialect, dict[Any, _Compiled]] = WeakKeyDictionary()

    def execute(
        self, connection: Connection, rows: Row | Sequence[Row]
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run it, with one row of parameters, or for each row of a list."""
        compiled = self._for(connection)
        bound: Any = (
            compiled.bind(rows) if isinstance(rows, Mapping) else [*map(compiled.bind, rows)]
        )
        return connection.exec_driver_sql(compiled.text, bound)

    def _for(self, connection: Connection) -> _Compiled:
        schemas: Any = connection.get_execution_options().get("schema_translate_map")
        of_dialect = self._compiled.setdefault(connection.dialect, {})
        key = None if schemas is None else tuple(schemas.items())
        if (found := of_dialect.get(key)) is None:
            found = of_dialect[key] = _compile(self._statement, connection.dialect, schemas)
        return found


@dataclass(frozen=True, slots=True)
class _Compiled:
    text: str
    positions: Sequence[str] | None
    """The names of the parameters in their order, where the driver wants them without names."""
    constants: Row
    processors: Mapping[str, Callable[[Any], Any]]

    def bind(self, row: Row) -> Any:
        """A row as the driver wants it."""
        values = {**self.constants, **row}
        for name, process in self.processors.items():
            values[name] = process(values[name])
        if self.positions is None:
            return values
        return tuple([values[name] for name in self.positions])


def _compile(statement: Any, dialect: Dialect, schemas: Any) -> _Compiled:
    compiled = statement.compile(
        dialect=dialect,
        schema_translate_map=schemas,
        render_schema_translate=schemas is not None,
    )
    processors = {
        name: process
        for name, bind in ((compiled.bind_names[bind], bind) for bind in compiled.bind_names)
        if (process := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
    }
    constants = {
        compiled.bind_names[bind]: bind.effective_value
        for bind in compiled.bind_names
        if not bind.required
    }
    return _Compiled(str(compiled), compiled.positiontup, constants, processors)
