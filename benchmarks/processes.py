"""Workers in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

from benchmarks.serve import READY

TO_STOP = 20
"""Seconds that a worker has for it."""


@contextmanager
def serving(engine: str, url: str, **environment: str) -> Generator[subprocess.Popen[str]]:
    """A worker, which has begun to work; it is stopped at the end, unless it has ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", engine, url],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline().strip() != READY:
            raise RuntimeError(f"a worker of {engine} ended before it began")
        yield process
    finally:
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            process.communicate(timeout=TO_STOP)
        process.kill()
        process.wait()
