"""The migrations build exactly the model, whole or not at all, and a wrong revision is refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import BigInteger, Constraint, Index, MetaData, Table, event, insert, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from databases import connect, query
from rowtine.errors import DatabaseError, SchemaError
from rowtine.store import schema
from rowtine.store.engine import Database, TransientError
from rowtine.store.rowtypes import check_by_type
from rowtine.store.tables import SCHEMA, calls, metadata
from rowtine.store.types import now

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = "0001"
VIEWS = ["awaits", "execution_tree", "in_flight", "outstanding_calls"]


# ------------------------------------------------------------------------------ what a catalog says


def catalog(url: str, name: str = SCHEMA) -> set[str]:
    """All that a database itself knows of the tables and their indexes, one fact a line."""
    facts = _sqlite_facts(url) if url.startswith("sqlite") else _postgresql_facts(url, name)
    return {fact for fact in facts if not fact.startswith(f"{schema.VERSION_TABLE}:")}


def _postgresql_facts(url: str, name: str) -> Iterator[str]:
    queries = (
        """
        select c.relname, 'column', row_number() over (partition by c.relname order by a.attnum),
               a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               coalesce(pg_get_expr(d.adbin, d.adrelid), 'no default')
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relkind = 'r' and c.relnamespace = cast(:name as text)::regnamespace
        """,
        """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
        from pg_constraint
        where connamespace = cast(:name as text)::regnamespace and conrelid <> 0
        """,
        """
        select c.relname, conname, pg_get_constraintdef(d.oid), convalidated
        from pg_constraint d
        join pg_type t on t.oid = d.contypid
        join pg_class c on c.reltype = t.typbasetype
        where connamespace = cast(:name as text)::regnamespace
        """,
        "select tablename, indexdef from pg_indexes where schemaname = :name",
    )
    with connect(url) as database:
        for facts in queries:
            for table, *fact in database.query(facts, name=name):
                line = f"{table}: {' '.join(str(part) for part in fact)}"
                yield line.replace(f"{name}.", "")


def _sqlite_facts(url: str) -> Iterator[str]:
    rows = query(url, "select type, tbl_name, sql from sqlite_master where sql is not null")
    for kind, table, statement in rows:
        if kind == "index":
            yield f"{table}: {' '.join(statement.split())}"
        elif kind == "table":
            for number, part in enumerate(_parts(statement)):
                place = "" if part.startswith("CONSTRAINT") else f"column {number} "
                yield f"{table}: {place}{part}"


def _parts(statement: str) -> Iterator[str]:
    """The columns and constraints of a CREATE TABLE."""
    depth, quoted, part = 0, False, ""
    body = statement[statement.index("(") + 1 : statement.rindex(")")]
    for character in body:
        quoted ^= character == "'"
        depth += 0 if quoted else {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0 and not quoted:
            yield " ".join(part.split())
            part = ""
        else:
            part += character
    yield " ".join(part.split())


def objects(url: str, name: str = SCHEMA) -> list[str]:
    """The names of everything that stands in the schema, or the file, without the revision."""
    if url.startswith("sqlite"):
        rows = query(url, "select name from sqlite_master") if _exists(url) else []
    else:
        rows = query(
            url,
            "select relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where nspname = :name",
            name=name,
        )
    return sorted(each for (each,) in rows if schema.VERSION_TABLE not in each)


def _exists(url: str) -> bool:
    return Path(str(make_url(url).database)).exists()


def check(url: str, name: str = SCHEMA) -> None:
    """What a worker does before anything else."""
    with closing(Database(url, schema=name)) as database:
        schema.check(database)


def create_model(url: str, model: MetaData = metadata) -> None:
    """Build what the model says, without the migrations."""
    with closing(Database(url)) as database, database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"create schema {SCHEMA}"))
        model.create_all(connection)


def a_copy(model: MetaData) -> MetaData:
    made = MetaData(schema=SCHEMA)
    for table in model.sorted_tables:
        copied = table.to_metadata(made)
        check_by_type(copied)  # which to_metadata forgets
    return made


# --------------------------------------------------------------------------- exactly the model


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_and_empty(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two databases of one kind."""
    kind = request.param
    return request.getfixturevalue(f"{kind}_url"), request.getfixturevalue(f"empty_{kind}_url")


def test_the_migrations_build_exactly_the_model(migrated_and_empty: tuple[str, str]) -> None:
    migrated, empty = migrated_and_empty

    create_model(empty)

    assert catalog(migrated) == catalog(empty)


def test_a_catalog_holds_every_table_column_constraint_and_index(database_url: str) -> None:
    facts = catalog(database_url)

    for table in metadata.tables.values():
        mine = [fact for fact in facts if fact.startswith(f"{table.name}:")]
        assert len([fact for fact in mine if ": column" in fact]) == len(table.columns)
        named = [*table.constraints, *table.indexes]
        for name in (str(each.name) for each in named):
            assert any(re.search(rf"\b{name}\b", fact) for fact in mine), name


def _without(constraint: str) -> Callable[[Table], None]:
    def plant(table: Table) -> None:
        table.constraints.discard(_named(table, constraint))

    return plant


def _named(table: Table, name: str) -> Constraint:
    return next(constraint for constraint in table.constraints if constraint.name == name)


def _other_check(table: Table) -> None:
    _named(table, "ck_calls_due").sqltext = text("due IS NULL OR phase = 'done'")  # type: ignore[attr-defined]


def _not_unique(table: Table) -> None:
    next(index for index in table.indexes if index.name == "uq_calls_call").unique = False


def _misspelt_partial_index(table: Table) -> None:
    """As with a misspelt keyword: there is an index, and it holds every row."""
    wrong = next(index for index in table.indexes if index.name == "ix_calls_due")
    table.indexes.discard(wrong)
    Index("ix_calls_due", *wrong.expressions)


def _turned_index(table: Table) -> None:
    wrong = next(index for index in table.indexes if index.name == "ix_calls_due")
    table.indexes.discard(wrong)
    where = text("due IS NOT NULL")
    Index("ix_calls_due", table.c.id, table.c.due, postgresql_where=where, sqlite_where=where)


def _nullable(table: Table) -> None:
    table.c.input.nullable = True


def _other_type(table: Table) -> None:
    table.c.seq.type = BigInteger()


def _no_default(table: Table) -> None:
    table.c.attempt.server_default = None


def _no_cascade(table: Table) -> None:
    _named(table, "fk_calls_execution").ondelete = None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("plant", "trace"),
    [
        pytest.param(_without("ck_calls_due"), "ck_calls_due", id="a dropped CHECK"),
        pytest.param(_other_check, "ck_calls_due", id="another CHECK of the same name"),
        pytest.param(_not_unique, "uq_calls_call", id="an index that is not unique"),
        pytest.param(_misspelt_partial_index, "ix_calls_due", id="a misspelt partial index"),
        pytest.param(_turned_index, "ix_calls_due", id="an index the other way round"),
        pytest.param(_nullable, "input", id="a nullable column"),
        pytest.param(_other_type, "seq", id="another type"),
        pytest.param(_no_default, "attempt", id="a missing default"),
        pytest.param(_no_cascade, "fk_calls_execution", id="a foreign key that does not cascade"),
    ],
)
def test_the_comparison_sees(
    migrated_and_empty: tuple[str, str], plant: Callable[[Table], None], trace: str
) -> None:
    migrated, empty = migrated_and_empty
    wrong = a_copy(metadata)
    plant(wrong.tables[f"{SCHEMA}.calls"])

    create_model(empty, wrong)

    difference = catalog(migrated) ^ catalog(empty)
    assert difference
    assert all(re.search(rf"\b{trace}\b|\bcalls_{trace}_not_null\b", fact) for fact in difference)


def test_the_comparison_sees_other_words(
    migrated_and_empty: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated, empty = migrated_and_empty
    monkeypatch.setattr(_named(calls, "ck_calls_kind"), "sqltext", text("kind IN ('function')"))

    create_model(empty)

    difference = catalog(migrated) ^ catalog(empty)
    assert len(difference) == 2
    assert all(re.search(r"\bck_calls_kind\b", fact) for fact in difference)


def test_a_table_on_postgresql_has_one_check_which_is_that_of_a_type(postgresql_url: str) -> None:
    """PostgreSQL reads the CHECKs of a table again for each statement."""
    checks = query(
        postgresql_url,
        "select conrelid::regclass::text, conname from pg_constraint"
        " where contype = 'c' and conrelid <> 0 and connamespace = 'rowtine'::regnamespace"
        " order by 2",
    )

    tables = ("calls", "coroutines", "futures", "signals", "states")
    assert checks == [(table, f"ck_{table}_row") for table in tables]


def test_a_column_that_comes_later_leaves_the_checks_as_they_are(postgresql_url: str) -> None:
    a_call(postgresql_url)
    undue = "update rowtine.calls set due = null"

    with connect(postgresql_url) as database:
        database.query("alter table rowtine.calls add column note text not null default ''")
        with pytest.raises(psycopg.errors.CheckViolation, match="ck_calls_due"):
            database.query(undue)
        database.query("alter table rowtine.calls drop column note")
        with pytest.raises(psycopg.errors.CheckViolation, match="ck_calls_due"):
            database.query(undue)


def test_hot_tables_leave_room_on_their_pages_and_are_vacuumed_early(postgresql_url: str) -> None:
    rows = query(
        postgresql_url,
        "select relname, reloptions from pg_class"
        " where reloptions is not null and relnamespace = 'rowtine'::regnamespace order by relname",
    )

    settings = ["fillfactor=80", "autovacuum_vacuum_scale_factor=0.02"]
    assert rows == [("calls", settings), ("states", settings)]


# ------------------------------------------------------------------------------- down and up again


def a_call(url: str, name: str = SCHEMA) -> None:
    """Insert one accepted call."""
    call = insert(calls).values(
        id="01890000-0000-7000-8000-000000000001",
        kind="function",
        function="f",
        input="[]",
        phase="queued",
        due=now(),
        created_at=now(),
    )
    with closing(Database(url, schema=name)) as database, database.writing() as connection:
        connection.execute(call)


def test_downgrade_leaves_nothing_and_upgrade_builds_the_same_again(database_url: str) -> None:
    before, names = catalog(database_url), objects(database_url)
    a_call(database_url)

    schema.downgrade(database_url, "base")

    assert objects(database_url) == []
    assert query(database_url, "select * from rowtine_revision") == []

    schema.migrate(database_url)

    assert catalog(database_url) == before
    assert objects(database_url) == names
    assert set(VIEWS) <= set(names)
    assert query(database_url, "select count(*) from calls") == [(0,)]


def test_to_migrate_again_changes_nothing(database_url: str) -> None:
    before = catalog(database_url)
    a_call(database_url)

    schema.migrate(database_url)

    assert catalog(database_url) == before
    assert query(database_url, "select count(*) from calls") == [(1,)]


def test_an_administrator_may_have_made_the_schema(empty_postgresql_url: str) -> None:
    query(empty_postgresql_url, f"create schema {SCHEMA}")

    schema.migrate(empty_postgresql_url)

    assert set(VIEWS) <= set(objects(empty_postgresql_url))


def test_a_migration_that_does_not_get_its_lock_soon_changes_nothing(postgresql_url: str) -> None:
    before = catalog(postgresql_url)
    with connect(postgresql_url) as reader:
        reader.query("begin")
        reader.query("select * from workers")

        begun = time.monotonic()
        with pytest.raises(TransientError) as refused:
            schema.downgrade(postgresql_url, "base")
        waited = time.monotonic() - begun

    assert isinstance(refused.value.__cause__, DBAPIError)
    assert getattr(refused.value.__cause__.orig, "sqlstate", None) == "55P03"  # lock_not_available
    assert waited < 5  # one second, and what the machine adds; a worker's statements wait for ten

    assert catalog(postgresql_url) == before
    assert query(postgresql_url, "select version_num from rowtine_revision") == [(HEAD,)]


# -------------------------------------------------------------------------- two at once, and death


def start(script: str, url: str) -> subprocess.Popen[str]:
    """A process of its own, which finds the URL in sys.argv[1]."""
    return subprocess.Popen(
        [sys.executable, "-c", script, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **more}


_MIGRATE_AT_A_SIGNAL = """
import sys
from rowtine.store.schema import migrate
print("ready", flush=True)
sys.stdin.readline()
migrate(sys.argv[1])
"""


def test_several_migrators_at_once_all_succeed(migrated_and_empty: tuple[str, str]) -> None:
    migrated, empty = migrated_and_empty
    migrators = [start(_MIGRATE_AT_A_SIGNAL, empty) for _ in range(3)]
    for migrator in migrators:
        assert migrator.stdout is not None
        assert migrator.stdout.readline() == "ready\n"

    for migrator in migrators:
        assert migrator.stdin is not None
        migrator.stdin.write("go\n")
        migrator.stdin.flush()

    for migrator in migrators:
        _, complaint = migrator.communicate(timeout=60)
        assert (migrator.returncode, complaint) == (0, "")
    assert catalog(empty) == catalog(migrated)
    assert query(empty, "select version_num from rowtine_revision") == [(HEAD,)]


_DIE_AT = """
import os, signal, sys
from sqlalchemy import Engine, event
from rowtine.store import schema

def die(): os.kill(os.getpid(), signal.SIGKILL)

if {moment!r} == "COMMIT":
    event.listen(Engine, "commit", lambda connection: die())
else:
    @event.listens_for(Engine, "before_cursor_execute")
    def at(connection, cursor, statement, *more):
        if statement.strip().startswith({moment!r}): die()

{command}
"""


def die(moment: str, command: str, url: str) -> None:
    """Run a command in a process that kills itself when it comes to `moment`."""
    process = start(_DIE_AT.format(moment=moment, command=command), url)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (-signal.SIGKILL, "")


@pytest.mark.parametrize(
    "moment", ["CREATE TABLE", "CREATE INDEX", "CREATE VIEW", "INSERT INTO", "COMMIT"]
)
def test_a_migrator_killed_in_the_middle_leaves_no_half(
    migrated_and_empty: tuple[str, str], moment: str
) -> None:
    migrated, empty = migrated_and_empty

    die(moment, "schema.migrate(sys.argv[1])", empty)

    assert objects(empty) == []
    with pytest.raises(SchemaError, match="no rowtine tables"):
        check(empty)

    schema.migrate(empty)

    assert catalog(empty) == catalog(migrated)


@pytest.mark.parametrize("moment", ["DROP VIEW", "DROP TABLE", "COMMIT"])
def test_a_downgrade_killed_in_the_middle_has_not_begun(database_url: str, moment: str) -> None:
    before, names = catalog(database_url), objects(database_url)
    a_call(database_url)

    die(moment, "schema.downgrade(sys.argv[1], 'base')", database_url)

    assert catalog(database_url) == before
    assert objects(database_url) == names
    assert query(database_url, "select count(*) from calls") == [(1,)]
    check(database_url)


# ------------------------------------------------------------------------------- from a checkout


def alembic(url: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment(ROWTINE_DATABASE_URL=url, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_alembic_upgrades_and_downgrades_from_a_checkout(
    migrated_and_empty: tuple[str, str],
) -> None:
    migrated, empty = migrated_and_empty

    alembic(empty, "upgrade", "head")

    assert catalog(empty) == catalog(migrated)
    assert alembic(empty, "current") == f"{HEAD} (head)\n"
    check(empty)

    alembic(empty, "downgrade", "base")

    assert objects(empty) == []


def test_alembic_takes_the_name_of_the_schema_from_the_environment(
    empty_postgresql_url: str,
) -> None:
    alembic(empty_postgresql_url, "upgrade", "head", ROWTINE_SCHEMA="other")

    check(empty_postgresql_url, "other")
    assert objects(empty_postgresql_url) == []


# ------------------------------------------------------------------------------- beside others


@pytest.mark.peer_case(144)
def test_two_schemas_in_one_database_do_not_see_each_other(postgresql_url: str) -> None:
    schema.migrate(postgresql_url, schema="other")
    assert catalog(postgresql_url, "other") == catalog(postgresql_url)
    assert objects(postgresql_url, "other") == objects(postgresql_url)

    a_call(postgresql_url)

    for table in ("calls", "outstanding_calls", "execution_tree"):
        assert query(postgresql_url, f"select count(*) from rowtine.{table}") == [(1,)]
        assert query(postgresql_url, f"select count(*) from other.{table}") == [(0,)]

    # The same id is another call there.
    a_call(postgresql_url, "other")
    schema.downgrade(postgresql_url, "base", schema="other")

    assert objects(postgresql_url, "other") == []
    assert query(postgresql_url, "select count(*) from rowtine.calls") == [(1,)]
    check(postgresql_url)
    with pytest.raises(SchemaError, match="no rowtine tables"):
        check(postgresql_url, "other")


def test_a_schema_name_that_is_no_plain_identifier_is_refused(database_url: str) -> None:
    with pytest.raises(DatabaseError, match="not a plain identifier"):
        schema.migrate(database_url, schema='x"; drop schema rowtine cascade; --')

    check(database_url)


def users_file(url: str, *statements: str) -> None:
    Path(str(make_url(url).database)).touch()
    with connect(url) as database:
        for statement in statements:
            database.query(statement)


def test_a_file_with_the_users_own_migrations_keeps_them(empty_sqlite_url: str) -> None:
    users_file(
        empty_sqlite_url,
        "create table alembic_version (version_num varchar(32) not null)",
        "insert into alembic_version values ('abc123')",
        "create table orders (id integer primary key)",
        "insert into orders values (7)",
    )

    schema.migrate(empty_sqlite_url)
    check(empty_sqlite_url)
    schema.downgrade(empty_sqlite_url, "base")

    assert objects(empty_sqlite_url) == ["alembic_version", "orders"]
    assert query(empty_sqlite_url, "select * from alembic_version") == [("abc123",)]
    assert query(empty_sqlite_url, "select * from orders") == [(7,)]


def test_a_file_with_a_table_of_the_same_name_is_refused_and_left_as_it_was(
    empty_sqlite_url: str,
) -> None:
    users_file(
        empty_sqlite_url,
        "create table futures (isin text)",
        "insert into futures values ('DE0001')",
    )

    with pytest.raises(DatabaseError, match="table futures already exists"):
        schema.migrate(empty_sqlite_url)

    assert objects(empty_sqlite_url) == ["futures"]
    assert query(empty_sqlite_url, "select * from futures") == [("DE0001",)]


# ------------------------------------------------------------------------------- wrong revisions


def stamp(url: str, revision: str) -> None:
    query(url, "update rowtine_revision set version_num = :revision", revision=revision)


def message(url: str, command: Callable[[], object]) -> str:
    """What a command says when it refuses: one line, which says where, and shows no password."""
    with pytest.raises(SchemaError) as refused:
        command()
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(make_url(url).render_as_string(hide_password=True))
    return said


@pytest.fixture
def newer_rowtine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A rowtine that has one migration more."""
    directory = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "versions" / "0002_more.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0002', '0001'\n"
        "def upgrade(schema): op.execute('select 1')\n"
        "def downgrade(schema): op.execute('select 1')\n"
    )
    schema.head.cache_clear()
    monkeypatch.setattr(schema, "migrations", lambda: directory)
    yield
    schema.head.cache_clear()


def test_the_right_revision_passes(database_url: str) -> None:
    check(database_url)

    assert schema.head() == HEAD


def test_missing_tables_are_refused(empty_database_url: str) -> None:
    said = message(empty_database_url, lambda: check(empty_database_url))

    assert said.endswith("has no rowtine tables: run `rowtine migrate --database URL`")
    assert objects(empty_database_url) == []


def test_tables_that_were_taken_down_are_missing(database_url: str) -> None:
    schema.downgrade(database_url, "base")

    said = message(database_url, lambda: check(database_url))

    assert "has no rowtine tables" in said


def test_a_database_that_a_worker_has_checked_is_not_asked_again_by_a_start(
    database_url: str,
) -> None:
    asked = []
    with closing(Database(database_url)) as database:
        event.listen(database.engine, "before_cursor_execute", lambda *seen: asked.append(seen[2]))

        schema.check(database)
        schema.check_once(database)

    assert len([text for text in asked if schema.VERSION_TABLE in text]) == 1


@pytest.mark.usefixtures("newer_rowtine")
@pytest.mark.peer_case(133)
def test_an_older_revision_is_refused_until_it_is_migrated(database_url: str) -> None:
    stamp(database_url, "0001")

    said = message(database_url, lambda: check(database_url))

    assert said.endswith(
        "stands at revision 0001, this rowtine needs 0002: run `rowtine migrate --database URL`"
    )

    schema.migrate(database_url)

    check(database_url)


@pytest.mark.peer_case(133)
def test_a_newer_revision_is_refused_by_worker_and_migrator_alike(database_url: str) -> None:
    before = catalog(database_url)
    stamp(database_url, "9999")

    commands: list[Callable[[], object]] = [
        lambda: check(database_url),
        lambda: schema.migrate(database_url),
        lambda: schema.downgrade(database_url, "base"),
    ]

    for command in commands:
        assert message(database_url, command).endswith(
            "stands at revision 9999, which this rowtine (0001) does not know: "
            "install a newer rowtine"
        )
    assert catalog(database_url) == before
    assert query(database_url, "select version_num from rowtine_revision") == [("9999",)]


def test_an_unknown_target_is_refused_in_one_line(database_url: str) -> None:
    said = message(database_url, lambda: schema.migrate(database_url, revision="9999"))

    assert "9999" in said
    check(database_url)


def test_no_message_and_no_traceback_holds_the_password(empty_postgresql_url: str) -> None:
    parsed = make_url(empty_postgresql_url)
    password = parsed.password or "opensesame"
    url = parsed.set(username=parsed.username or "postgres", password=password).render_as_string(
        hide_password=False
    )
    unreachable = f"postgresql://somebody:{password}@127.0.0.1:1/nothing"

    refusals = [
        (SchemaError, lambda: check(url)),
        (SchemaError, lambda: schema.migrate(url, revision="9999")),
        (DatabaseError, lambda: schema.migrate(unreachable)),
        (DatabaseError, lambda: check(unreachable)),
    ]

    for kind, command in refusals:
        with pytest.raises(kind) as refused:
            command()
        assert ":***@" in str(refused.value)
        whole = "".join(traceback.format_exception(refused.value))
        assert f":{password}@" not in whole
