"""That the benchmarks run. How fast is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from databases import PostgresServer

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_benchmarks_run_on_both_databases(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    urls = [f"sqlite:///{tmp_path / 'bench.db'}", postgres_server.url]

    ran = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "benchmarks", "--quick"),
            *(part for url in urls for part in ("--url", url)),
            *("--json", str(tmp_path / "figures.json")),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=250,
    )

    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert [result["database"] for result in results] == ["sqlite", "postgresql"] * 4
    assert not list(tmp_path.glob("bench.db*"))
