"""Worker processes: what their main function is, and the probes that kill them.

Run as a program, this file is a worker whose app the environment describes, in an interpreter of
its own; forked from the nursery it starts at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rowtine
from acceptance import program

VARIABLE = "ROWTINE_TEST_WORKER"


class Killer:
    """A probe that kills its own process when a moment has come for the n-th time."""

    def __init__(self, moment: str, times: int) -> None:
        self.moment = moment
        self.left = times
        self._lock = threading.Lock()  # moments come from several threads

    def __call__(self, moment: str, call_id: str | None = None) -> None:
        if moment != self.moment:
            return
        with self._lock:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def work(url: str, kill: tuple[str, int] | None = None, **options: Any) -> int:
    """Be a worker until a signal comes; 0, as a command would exit."""
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(message)s", force=True)
    app = program.build(url, **options)
    worker = app.worker(probe=Killer(*kill)) if kill else app.worker()
    worker.run_until_signalled()
    app.close()
    return 0


def ask(url: str, id: str) -> int:
    """Be a client that waits for a call which somebody else has started."""
    app = program.build(url)
    try:
        program.effect(f"{id} came to {app.handle(id).result(timeout=60)}")
    except Exception as error:
        program.effect(f"{id} failed: {error!r}")
    app.close()
    return 0


def run_elsewhere(url: str, number: int) -> int:
    """Be a client that starts a call which somebody else runs."""
    app = program.build(url)
    program.effect(f"it came to {app.start(rowtine.call('double', number)).result(timeout=60)}")
    app.close()
    return 0


def start_keyed(url: str, threads: int) -> int:
    """Be a client whose threads all start the same call with the same key."""
    app = program.build(url)
    call = app.registry.function("double").options(key="the same")(1)
    with ThreadPoolExecutor(threads) as pool:
        for handle in pool.map(lambda _: app.start(call), range(threads)):
            program.effect(f"started {handle.id}")
    app.close()
    return 0


if __name__ == "__main__":
    sys.exit(work(**json.loads(os.environ[VARIABLE])))
