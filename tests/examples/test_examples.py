"""Every example runs as its first lines say, on a fresh database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "approval.py": "ada, will you approve invoice 7?\n"
    "grace, will you approve invoice 7?\n"
    "invoice 7: grace says yes\n",
    "checkout.py": "order 1 left shelf 7 with a receipt for 42.0 EUR\n",
    "mirrors.py": "rowtine.tar.gz from flaky, attempt 3\n",
    "newsletter.py": "7 letters, the last one to tony\n",
}


def run(directory: Path, url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "ROWTINE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_no_example_is_left_out() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == SAYS.keys()


@pytest.mark.parametrize("example", SAYS)
def test_an_example_says_what_it_promises_twice_in_a_row(
    example: str, empty_database_url: str, tmp_path: Path
) -> None:
    run(tmp_path, empty_database_url, "-m", "rowtine.cli", "migrate")

    first = run(tmp_path, empty_database_url, str(EXAMPLES / example))
    second = run(tmp_path, empty_database_url, str(EXAMPLES / example))

    assert first == second == SAYS[example]
