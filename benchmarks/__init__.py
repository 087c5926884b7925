"""How many steps a second: the base line that later work is held against. Never part of a test.

`python -m benchmarks` prints a table; see `--help`, and docs/explanation/performance.md for what
the figures mean.
"""
