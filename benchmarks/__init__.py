"""How fast rowtine is, and what others do on the same machine in the same minutes.

`python -m benchmarks` measures, prints tables and writes the figures down; see `--help`, and
docs/explanation/performance.md for what the figures mean. Nothing here is ever part of a test: a
figure is read by people, on a machine of which they know what else it does.
"""
