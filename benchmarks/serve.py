"""A worker in a process of its own: `python -m benchmarks.serve ENGINE URL`.

It says when it works, and ends when its input does: with whoever started it, however that ends.
"""

from __future__ import annotations

import os
import sys

from benchmarks.engines import load

READY = "ready"


def main() -> None:
    engine, url = sys.argv[1:]
    with load(engine)(url).working():
        print(READY, flush=True)
        sys.stdin.read()
    os._exit(0)  # see benchmarks.child


if __name__ == "__main__":
    main()
