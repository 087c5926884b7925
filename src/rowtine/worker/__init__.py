"""A process that claims due calls and executions and runs them."""

from rowtine.worker.loop import Worker

__all__ = ["Worker"]
