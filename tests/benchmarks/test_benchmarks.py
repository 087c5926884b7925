"""That the benchmarks run. How fast is no test's business."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from databases import PostgresServer
from rowtine.store.engine import Database
from rowtine.store.laws import check

ROOT = Path(__file__).resolve().parent.parent.parent


def benchmarks(directory: Path, *arguments: str) -> dict[str, Any]:
    """The figures that a run writes down; what it shows is under `shown`."""
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "benchmarks", *arguments),
            *("--json", str(directory / "figures.json")),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=250,
    )
    assert ran.returncode == 0, ran.stderr
    return {"shown": ran.stdout, **json.loads((directory / "figures.json").read_text())}


@pytest.mark.slow
def test_the_benchmarks_run_on_both_databases(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    urls = [f"sqlite:///{tmp_path / 'bench.db'}", postgres_server.url]

    figures = benchmarks(
        tmp_path,
        *(part for url in urls for part in ("--url", url)),
        *(part for engine in ("rowtine", "floor") for part in ("--engine", engine)),
        *("--workload", "ten-steps", "--case", '{"workflows": 3, "steps": 2}'),
    )

    measured = {(each["engine"], each["database"]): each for each in figures["results"]}
    assert set(measured) == {
        ("rowtine", "sqlite"),
        ("rowtine", "postgresql"),
        ("floor", "postgresql"),
    }
    for result in measured.values():
        assert result["errors"] == []
        assert [run["rate"] > 0 for run in result["runs"]] == [True]
    assert not list(tmp_path.glob("bench.db*"))


@pytest.mark.slow
def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    figures = benchmarks(
        tmp_path, "--engine", "dbos", "--workload", "crash", "--database", "sqlite"
    )

    if "dbos" in figures["absent"]:
        assert "dbos was not measured: not installed: dbos" in figures["shown"]
    else:
        assert figures["results"]


@pytest.mark.slow
def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    figures = benchmarks(
        tmp_path,
        *("--engine", "rowtine", "--workload", "ten-steps", "--database", "sqlite"),
        *("--case", '{"steps": 2}'),
    )

    (result,) = figures["results"]
    assert result["runs"] == [{}]
    assert result["errors"][0].endswith("KeyError: 'workflows'")
    assert "rowtine failed once at ten-steps (2 steps), sqlite: KeyError" in figures["shown"]


def test_rows_made_by_moves_keep_the_laws(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    url = importlib.import_module("benchmarks.databases").plain(postgresql_url)
    suspended = importlib.import_module("benchmarks.alone.suspended")
    floor = importlib.import_module("benchmarks.engines.floor")
    protocol = importlib.import_module("benchmarks.engines.protocol")

    floor.Floor(url).run(protocol.Program(protocol.Shape.STEPS, 3), 4)
    suspended.store_suspended(url, 5)

    database = Database(postgresql_url)
    with database.reading() as connection:
        assert list(check(connection)) == []
        phases = connection.execute(
            text("SELECT phase, count(*) FROM rowtine.calls WHERE execution_id IS NULL GROUP BY 1")
        ).all()
    database.close()
    assert sorted(map(tuple, phases)) == [("done", 5), ("suspended", 5)]
