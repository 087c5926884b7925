"""The revision of the tables: bringing it up, and refusing to work on another one."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, exc, inspect, text

from rowtine.errors import SchemaError
from rowtine.store.engine import Database
from rowtine.store.tables import SCHEMA

__all__ = [
    "VERSION_TABLE",
    "check",
    "check_once",
    "config",
    "downgrade",
    "head",
    "migrate",
    "revision",
]

VERSION_TABLE = "rowtine_revision"
"""Not Alembic's usual name, so that a SQLite file may also hold the user's own migrations."""


def migrations() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent.parent / "migrations"


def config(database: Database) -> Config:
    """Alembic's configuration for this database."""
    made = Config()
    made.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    made.attributes["database"] = database
    return made


def migrate(url: str, *, schema: str = SCHEMA, revision: str = "head") -> None:
    """Bring the tables up to `revision`. Several may try at once; one does it.

    DatabaseError if the database cannot be reached or refuses it, SchemaError if its tables are
    of a newer rowtine.
    """
    with _commanded(url, schema) as configuration:
        command.upgrade(configuration, revision)


def downgrade(url: str, revision: str, *, schema: str = SCHEMA) -> None:
    """Take the tables back to `revision` ("base": none)."""
    with _commanded(url, schema) as configuration:
        command.downgrade(configuration, revision)


@contextlib.contextmanager
def _commanded(url: str, schema: str) -> Generator[Config, None, None]:
    """The configuration for one command of Alembic's, whose complaints become ours."""
    database = Database(url, schema=schema)
    try:
        yield config(database)
    except CommandError as error:
        _refuse_unknown(database, _found(database))
        raise SchemaError(f"{database.name}: {error}") from error
    finally:
        database.close()


@cache
def head() -> str:
    """The revision that this rowtine needs."""
    found = _scripts().get_current_head()
    if found is None:
        raise SchemaError(f"rowtine's migrations are missing from {migrations()}")
    return found


def revision(connection: Connection) -> str | None:
    """The revision at which the database stands; None without tables."""
    found = inspect(connection).has_table(VERSION_TABLE, schema=_schema(connection))
    return _version(connection) if found else None


def _version(connection: Connection) -> str | None:
    schema = _schema(connection)
    table = f'"{schema}".{VERSION_TABLE}' if schema else VERSION_TABLE
    return connection.execute(text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608


def _schema(connection: Connection) -> str | None:
    schema: str | None = connection.get_execution_options()["schema_translate_map"][SCHEMA]
    return schema


def check(database: Database) -> None:
    """Refuse to work on tables of another revision.

    SchemaError names both revisions and says what to do.
    """
    if _stands_at_head(database):
        database.checked = True
        return
    found = _found(database)
    if found is None:
        raise SchemaError(
            f"{database.name} has no rowtine tables: run `rowtine migrate --database URL`"
        )
    _refuse_unknown(database, found)
    raise SchemaError(
        f"{database.name} stands at revision {found}, this rowtine needs {head()}: "
        "run `rowtine migrate --database URL`"
    )


def _stands_at_head(database: Database) -> bool:
    """Whether the tables are those of this rowtine, which they nearly always are: to ask first
    whether there are any takes longer than all the rest."""
    with database.reading() as connection:
        try:
            return _version(connection) == head()
        except exc.DBAPIError as error:  # there are none, say
            if error.connection_invalidated:
                raise
            return False


def _found(database: Database) -> str | None:
    with database.reading() as connection:
        return revision(connection)


def _refuse_unknown(database: Database, found: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(
            f"{database.name} stands at revision {found}, which this rowtine ({head()}) does not "
            "know: install a newer rowtine"
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(migrations()))


def check_once(database: Database) -> None:
    """`check`, unless this database has passed it before."""
    if not database.checked:
        check(database)
