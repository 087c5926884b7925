"""One measurement in a process of its own: `benchmarks.child WORKLOAD ENGINE URL CASE`."""

from __future__ import annotations

import json
import os
import sys

from benchmarks.workloads import WORKLOADS


def main() -> None:
    workload, engine, url, case = sys.argv[1:]
    figures = WORKLOADS[workload].measure(engine, url, json.loads(case))
    print(json.dumps(figures), flush=True)
    # Threads that a library leaves behind are of no interest, and some would never end.
    os._exit(0)


if __name__ == "__main__":
    main()
