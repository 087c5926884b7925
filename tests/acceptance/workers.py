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
from pathlib import Path
from typing import Any

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


def work(
    url: str,
    kill: tuple[str, int] | None = None,
    app: str = "acceptance.program:build",
    **options: Any,
) -> int:
    """Be a worker until a signal comes; 0, as a command would exit."""
    import importlib  # noqa: PLC0415

    logging.basicConfig(level=logging.WARNING, format="%(process)d %(message)s", force=True)
    module, _, name = app.partition(":")
    made = getattr(importlib.import_module(module), name)(url, **options)
    worker = made.worker(probe=Killer(*kill)) if kill else made.worker()
    worker.run_until_signalled()
    made.database.close()
    return 0


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.exit(work(**json.loads(os.environ[VARIABLE])))
