"""The databases of MLflow and Prefect, saved and brought back whole: SQLite by its backup API, PostgreSQL by pg_dump.

Both give a consistent picture of one moment while others go on writing.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prosemill.config import environment
from prosemill.errors import BackupError
from prosemill.storage import atomic

if TYPE_CHECKING:
    from sqlalchemy import URL

_LIBPQ = {"host": "PGHOST", "port": "PGPORT", "username": "PGUSER", "password": "PGPASSWORD", "database": "PGDATABASE"}
_TABLES = "select count(*) from pg_tables where schemaname = 'public'"
_EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


@dataclass(frozen=True)
class Database:
    """`name` is prefect or mlflow; `url` is one of SQLAlchemy's, with or without a driver."""

    name: str
    url: str

    @property
    def is_sqlite(self) -> bool:
        return self._parsed().get_backend_name() == "sqlite"

    def exists(self) -> bool:
        """Whether there is anything to save, or to overwrite."""
        if self.is_sqlite:
            return self._file().is_file()
        return int(self._run("psql", ["-X", "-t", "-A", "-c", _TABLES]) or 0) > 0

    def save(self, to: Path) -> None:
        """Write the whole database into the file `to`."""
        if self.is_sqlite:
            with closing(sqlite3.connect(f"{self._file().as_uri()}?mode=ro", uri=True)) as source:  # noqa: SIM117
                with closing(sqlite3.connect(to)) as target:
                    source.backup(target)
        else:
            self._run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={to}"])

    def bring_back(self, saved: Path) -> None:
        """Make the database what `saved` holds; whatever it held before is gone."""
        if self.is_sqlite:
            self._replace_file(saved)
            return
        self._run("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-c", _EMPTY])
        name = self._parsed().database or ""
        options = ["--no-owner", "--no-privileges", "--no-comments", "--exit-on-error", "--single-transaction"]
        self._run("pg_restore", [*options, f"--dbname={name}", str(saved)])

    def _replace_file(self, saved: Path) -> None:
        file = self._file()
        with atomic.new_file(file) as copy:
            shutil.copyfile(saved, copy)
            for left in ("-wal", "-shm"):  # of the old one: they would be replayed into the new
                file.with_name(file.name + left).unlink(missing_ok=True)

    def _parsed(self) -> URL:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(self.url)
        except (ArgumentError, ValueError):
            raise BackupError(f"the database of {self.name}: its URL cannot be read; compare postgresql://…") from None
        if url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
            raise BackupError(
                f"the database of {self.name}: {url.get_backend_name()} is neither sqlite nor postgresql with a "
                "database's name; save it with its own tools, and use --store-only"
            )
        return url

    def _file(self) -> Path:
        return Path(self._parsed().database or "").absolute()

    def _run(self, program: str, arguments: Sequence[str]) -> str:
        """What the program prints. The login goes through its environment: arguments can be read by everybody."""
        url = self._parsed()
        parts = {name: getattr(url, field) for field, name in _LIBPQ.items()}
        parts |= {f"PG{name.upper()}": value for name, value in url.query.items() if name.startswith("ssl")}
        login = {name: str(value) for name, value in parts.items() if value is not None}
        if shutil.which(program) is None:
            raise BackupError(f"{program} is not installed; apt install postgresql-client (of the server's version)")
        done = subprocess.run(
            [program, *arguments], env=environment.of_child() | login, capture_output=True, text=True, check=False
        )
        if done.returncode:
            message = " ".join((done.stderr or done.stdout).split())[:300]
            raise BackupError(f"{program}, {self.name} at {url.host}: {message or done.returncode}")
        return done.stdout.strip()
