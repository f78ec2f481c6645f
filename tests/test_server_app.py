"""A server on SQLite: what reads and then writes waits for its turn, and is not refused."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from prefect.server.database import provide_database_interface
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from sqlalchemy.exc import OperationalError

from flows.support.compat import locking_sqlite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "counts.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE bucket (count INTEGER)")
        connection.execute("INSERT INTO bucket VALUES (0)")
    return tmp_path / "counts.db"


async def count_twice_at_once(config: AioSqliteConfiguration) -> None:
    """Two that read the count, let the other one read it, and write it back plus one."""

    async def count() -> None:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            count = (await session.execute(sqlalchemy.text("SELECT count FROM bucket"))).scalar_one()
            await asyncio.sleep(0.1)
            await session.execute(sqlalchemy.text(f"UPDATE bucket SET count = {count + 1}"))

    with temporary_database_config(config):
        await asyncio.gather(count(), count())


def counted(file: Path) -> int:
    with sqlite3.connect(file) as connection:
        return int(connection.execute("SELECT count FROM bucket").fetchone()[0])


def test_two_that_count_at_once_both_count(file: Path) -> None:
    asyncio.run(count_twice_at_once(locking_sqlite(f"sqlite+aiosqlite:///{file}")))
    assert counted(file) == 2


def test_prefects_own_way_refuses_one_of_them(file: Path) -> None:
    """Once this fails, Prefect has mended it, and ours can go."""
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(count_twice_at_once(AioSqliteConfiguration(f"sqlite+aiosqlite:///{file}")))
    assert counted(file) == 1
