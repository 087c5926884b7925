"""The rows: the only package that imports SQLAlchemy."""

from sqlalchemy import Connection

from rowtine.store.engine import Database, RejectedError, TransientError, Writer
from rowtine.store.transaction import run_round

__all__ = [
    "Connection",
    "Database",
    "RejectedError",
    "TransientError",
    "Writer",
    "run_round",
]
