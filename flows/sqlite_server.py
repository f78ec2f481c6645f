"""`prefect …` for a server on SQLite that loses no event, counts none twice, and answers instead of saying 503.

Prefect 3.8.8 opens transactions as SQLite's DEFERRED ones, which take the write lock when they first write. If they
have read before, and another connection wrote in between, SQLite refuses at once, whatever the time-out
(SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/rescode.html). A request is then answered by 503, which a browser does not
send again. An event is delivered again, up to three times, to all automations, and then put aside: one crash was
counted as several, and a run could be taken for one that never began. A transaction that begins with the write lock
waits for it. PostgreSQL has no such trouble.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class LockingFirst(AioSqliteConfiguration):
    """Prefect's SQLite, whose transactions all BEGIN IMMEDIATE."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """As the parent's, whatever `with_for_update` says."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(url).name == "sqlite":
        set_database_config(LockingFirst(url))
    app()


if __name__ == "__main__":
    main()
