"""Alembic's environment: the same for `alembic upgrade head` and for `rowtine migrate`."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, inspect, text

from rowtine.store.dialect import migration_lock
from rowtine.store.engine import Database
from rowtine.store.schema import VERSION_TABLE
from rowtine.store.tables import SCHEMA, metadata


def database() -> Database:
    given = context.config.attributes.get("database")
    if given is not None:
        return given
    url = os.environ.get("ROWTINE_DATABASE_URL") or context.config.get_main_option("sqlalchemy.url")
    schema = os.environ.get("ROWTINE_SCHEMA") or SCHEMA
    return Database(url or "sqlite:///rowtine.db", schema=schema)


def _be_patient(connection: Connection) -> None:
    # The engine's limits are for a worker's statements. A migrator waits for the one before it,
    # however long that takes, and so may its own statements.
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))


def run() -> None:
    target = database()
    with target.writing() as connection:
        schema = target.schema if connection.dialect.name == "postgresql" else None
        if schema:
            _be_patient(connection)
        migration_lock(connection)
        if schema:
            # Whoever waits for a table keeps all who come later from it: workers go on working,
            # and a migration that does not get its turn at once fails whole and can be tried again.
            connection.execute(text("SET LOCAL lock_timeout = '1s'"))
            # IF NOT EXISTS asks for the right to create one also where it exists.
            if not inspect(connection).has_schema(schema):
                connection.execute(text(f'CREATE SCHEMA "{schema}"'))
        context.configure(
            connection=connection,
            target_metadata=metadata,
            version_table=VERSION_TABLE,
            version_table_schema=schema,
            transactional_ddl=True,
        )
        context.run_migrations(schema=schema)


if context.is_offline_mode():
    raise SystemExit("rowtine's migrations need a database: offline mode is not supported")
run()
