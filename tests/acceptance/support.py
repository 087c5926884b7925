"""What tests of running workers share: the laws, the rows of every table, and waiting on rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import UUID

from databases import query
from rowtine.store import Database
from rowtine.store.laws import check

T = TypeVar("T")

TABLES = ("calls", "states", "coroutines", "futures", "signals", "workers")


def assert_lawful(url: str) -> None:
    """Every law holds, in one snapshot of the database."""
    database = Database(url)
    try:
        with database.reading() as connection:
            broken = check(connection)
    finally:
        database.close()
    assert not broken, "\n".join(map(str, broken))


def wait_until(condition: Callable[[], T], timeout: float = 60) -> T:
    """Look until `condition` comes to something, and return that.

    For what another process does; within this one, tests wait on events.
    """
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come about within {timeout} s")
        time.sleep(0.01)
    return found


def rows(url: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in no particular order."""
    names = columns(url, table)
    found = query(url, f"select {', '.join(names)} from {table}")
    return [
        {
            name: str(value) if isinstance(value, UUID) else value
            for name, value in zip(names, row, strict=True)
        }
        for row in found
    ]


def columns(url: str, table: str) -> list[str]:
    if url.startswith("sqlite"):
        return [row[0] for row in query(url, f"select name from pragma_table_info('{table}')")]
    return [
        row[0]
        for row in query(
            url,
            "select column_name from information_schema.columns"
            " where table_schema = 'rowtine' and table_name = :name",
            name=table,
        )
    ]


def everything(url: str, *, without: Iterable[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, in a stable order, for a comparison of before and after."""
    left_out = set(without)
    return {
        table: sorted(
            (
                {name: value for name, value in row.items() if name not in left_out}
                for row in rows(url, table)
            ),
            key=repr,
        )
        for table in TABLES
    }


def past(url: str) -> str:
    """A moment long ago, as SQL."""
    return "1" if url.startswith("sqlite") else "to_timestamp(0)"


def blocked(url: str) -> bool:
    """Whether some connection to this PostgreSQL database waits for another one."""
    waiting = """
        select 1 from pg_stat_activity
        where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0
    """
    return query(url, waiting) != []


def end_leases(url: str, pid: int | None = None) -> None:
    """Let the time pass after which others may take over what the dead (None: all) have held."""
    held = "worker is not null"
    if pid is not None:
        held = f"worker in (select id from workers where pid = {pid})"
    query(url, f"update calls set lease_expires = {past(url)} where {held}")
    query(url, f"update states set wake_at = {past(url)} where {held}")
    _tell(url)


def let_it_be_due(url: str, id: str | None = None) -> None:
    """Let the time pass for which calls (None: all) wait for the clock or for another attempt."""
    which = "" if id is None else f" and id = '{id}'"
    query(url, f"update calls set due = {past(url)} where due is not null{which}")
    _tell(url)


def _tell(url: str) -> None:
    """Have the workers look, as whoever changes rows by hand should: where they hear notices, they
    look by themselves every five seconds only."""
    if url.startswith("postgresql"):
        query(url, "notify rowtine_rowtine")
