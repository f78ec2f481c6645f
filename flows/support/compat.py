"""What is used of Prefect beside its documented interface; `tests/test_compat.py` checks each of it.

Prefect is imported where it is needed: who starts a server uses this module before Prefect reads its settings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.server.database.configurations import BaseDatabaseConfiguration
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

# Where Prefect's UIs (3.8: both) keep the login in the browser, in base64; they ask for it where there is none.
UI_LOGIN_KEY = "prefect-password"
# Set for a server that lives as long as one run, without UI and background services, as Prefect does for its own.
EPHEMERAL_VARIABLE = "PREFECT__SERVER_EPHEMERAL"


def response_key(pause: str) -> str:
    """Where Prefect keeps what the form of a run said that was suspended with this key."""
    from prefect.input.run_input import keyset_from_base_key

    return str(keyset_from_base_key(f"suspended-{pause}")["response"])


def locking_sqlite(url: str) -> BaseDatabaseConfiguration:
    """Prefect's database in SQLite, whose transactions all BEGIN IMMEDIATE (flows.support.server_app says why)."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    class LockingFirst(AioSqliteConfiguration):
        @asynccontextmanager
        async def begin_transaction(
            self, session: AsyncSession, with_for_update: bool = False
        ) -> AsyncGenerator[AsyncSessionTransaction, None]:
            """As the parent's, whatever `with_for_update` says."""
            async with super().begin_transaction(session, with_for_update=True) as transaction:
                yield transaction

    return LockingFirst(url)


def server_application() -> Any:
    """The ASGI application of Prefect's server, on the database that the settings name."""
    from prefect.server.api.server import create_app
    from prefect.server.database.dependencies import set_database_config
    from prefect.server.utilities.database import get_dialect
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(url).name == "sqlite":
        set_database_config(locking_sqlite(url))
    return create_app(final=True)
