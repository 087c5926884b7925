"""The public face seen from outside: both type checkers accept the files beside this one, and find
in them each error that is marked. `make lint` checks the same; here it needs the linters too."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_user_sees_the_types_of_their_functions(checker: str) -> None:
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed; make lint runs it")
    # The checkers know of no PYTHONPATH: the package is found in src, or where it is installed.
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    interpreter = ["--pythonpath", sys.executable] if checker == "pyright" else []

    checked = subprocess.run(
        [sys.executable, "-m", checker, *interpreter, str(HERE)],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
