"""The rows: the only package that imports SQLAlchemy."""

from sqlalchemy import Connection

from rowtine.store.engine import BlockedError, Database, RejectedError, TransientError, Writer
from rowtine.store.transaction import run_round

__all__ = [
    "BlockedError",
    "Connection",
    "Database",
    "RejectedError",
    "TransientError",
    "Writer",
    "run_round",
]
