"""The engines by name, and whether they are here. None is imported before it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from benchmarks import programs
from benchmarks.engines.protocol import Adapter

PGBENCH = "pgbench"
"""No engine, and it runs no programs; it stands beside them in the tables."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an adapter is, and what it needs."""

    module: str
    adapter: str
    distribution: str
    """Whose version is written down."""
    needs: tuple[str, ...] = ()
    """Modules that have to be importable."""


_ABSURD = ("absurd_sdk", "absurdctl")
_RESTATE = ("restate", "hypercorn", "aiohttp")

ENGINES = {
    "rowtine": Entry("rowtine_engine", "Rowtine", "rowtine"),
    "rowtine-sync": Entry("rowtine_engine", "RowtineSync", "rowtine"),
    "rowtine-normal": Entry("rowtine_engine", "Rowtine", "rowtine"),
    "floor": Entry("floor", "Floor", "psycopg"),
    "dbos": Entry("dbos_engine", "Dbos", "dbos", ("dbos",)),
    "dbos-sync": Entry("dbos_engine", "DbosSync", "dbos", ("dbos",)),
    "dbos-10ms": Entry("dbos_engine", "DbosPollingFast", "dbos", ("dbos",)),
    "absurd": Entry("absurd_engine", "AbsurdEngine", "absurd-sdk", _ABSURD),
    "procrastinate": Entry(
        "procrastinate_engine", "Procrastinate", "procrastinate", ("procrastinate",)
    ),
    "pgqueuer": Entry("pgqueuer_engine", "PgQueuer", "pgqueuer", ("pgqueuer", "asyncpg")),
    "restate": Entry("restate_engine", "Restate", "restate-sdk", _RESTATE),
}


def load(name: str) -> type[Adapter]:
    entry = ENGINES[name]
    adapter: type[Adapter] = getattr(
        importlib.import_module(f"benchmarks.engines.{entry.module}"), entry.adapter
    )
    return adapter


def why_absent(name: str) -> str | None:
    """Why this cannot be measured here; None if it can."""
    if name == PGBENCH:
        return None if programs.pgbench() else "there is no pgbench on the path"
    absent = [module for module in ENGINES[name].needs if find_spec(module) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return programs.why_no_restate_server() if name == "restate" else None


def versions(names: Iterable[str]) -> dict[str, str]:
    """The version of each distribution that these stand for, by its name."""
    found = {}
    for distribution in {ENGINES[name].distribution: None for name in names if name in ENGINES}:
        with suppress(metadata.PackageNotFoundError):
            found[distribution] = metadata.version(distribution)
    if "restate" in names:
        found["restate-server"] = programs.version_of_restate_server()
    return found
