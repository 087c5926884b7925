"""How many transactions it took."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, event

from benchmarks.databases import POSTGRESQL, Reader, backend
from rowtine.store.dialect import only_reads


class Commits:
    """Counts the transactions of a block, in up to three ways.

    All connections of what is measured have to be closed at the end of the block: a backend reports
    its transactions to pg_stat_database at the latest when it ends.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._sqlalchemy = 0
        self._before: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._before = self._server()
        event.listen(Engine, "commit", self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        event.remove(Engine, "commit", self._count)
        self._counts = {name: count - self._before[name] for name, count in self._server().items()}

    def per_more(self, fewer: Commits, steps: int) -> dict[str, float]:
        """Transactions for each of so many more steps than in the other block.

        `writing`: transactions that were given a number, which reading ones never are (of the
        whole server). `transactions`: all of this database, reading ones and the few of this
        program included. `sqlalchemy`: writing commits by SQLAlchemy in this process, if any.
        """
        before = fewer.counts()
        return {name: (count - before[name]) / steps for name, count in self.counts().items()}

    def counts(self) -> dict[str, int]:
        counts = dict(self._counts)
        if self._sqlalchemy:
            counts["sqlalchemy"] = self._sqlalchemy
        return counts

    def _count(self, connection: Connection) -> None:
        self._sqlalchemy += not only_reads(connection)

    def _server(self) -> dict[str, int]:
        if backend(self._url) != POSTGRESQL:
            return {}
        reader = Reader(self._url)
        writing = reader.number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        transactions = reader.number(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database"
            " WHERE datname = current_database()"
        )
        reader.close()
        return {"writing": writing, "transactions": transactions}
