"""What has to hold for each row of a table, as a type of its rows: on PostgreSQL only."""

from __future__ import annotations

import re

from sqlalchemy import CheckConstraint, Connection, Table, event, text

__all__ = ["check_by_type"]


def check_by_type(table: Table) -> None:
    """Let PostgreSQL check the rows of a table by a domain over them, `calls_row` say, that has the
    CHECKs of the table under their names.

    For each statement PostgreSQL reads the CHECKs of a table anew from what it has stored of them,
    and again for each part of the statement that writes to it: half of what it took to insert one
    call. Those of a type it reads once for a connection. The price: who adds a CHECK alters a
    domain, which does not look at the rows that are there; and no other table inherits them.
    """
    for check in _checks(table):
        check.ddl_if(dialect="sqlite")
    event.listen(table, "after_create", _create_type)


def _checks(table: Table) -> list[CheckConstraint]:
    checks = [each for each in table.constraints if isinstance(each, CheckConstraint)]
    return sorted(checks, key=lambda check: str(check.name))


def _create_type(table: Table, connection: Connection, **_: object) -> None:
    if connection.dialect.name != "postgresql" or not (checks := _checks(table)):
        return
    schema = connection.get_execution_options()["schema_translate_map"][table.schema]
    name = f'"{schema}".{table.name}'
    type_name = f"{name}_row"
    # A word that is a column, and does not stand in quotation marks.
    column = re.compile(rf"('[^']*')|\b({'|'.join(table.columns.keys())})\b")

    def of_value(check: CheckConstraint) -> str:
        return column.sub(lambda found: found[1] or f"(VALUE).{found[2]}", str(check.sqltext))

    holds = " ".join(f"CONSTRAINT {check.name} CHECK ({of_value(check)})" for check in checks)
    connection.execute(text(f"CREATE DOMAIN {type_name} AS {name} {holds}"))
    # Always true of what the type lets through. (IS NOT NULL would ask each column.)
    whole = f"CAST({table.name} AS {type_name}) IS DISTINCT FROM NULL"
    connection.execute(
        text(f"ALTER TABLE {name} ADD CONSTRAINT ck_{table.name}_row CHECK ({whole})")
    )
