"""The Prefect server of `prosemill up` and of runs without one: its own pages and logins only, on a SQLite that waits.

    python -m flows.support.server_app --port PORT

Prefect 3.8.8 opens transactions as SQLite's DEFERRED ones, which take the write lock when they first write. If they
have read before, and another connection wrote in between, SQLite refuses at once, whatever the time-out
(SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/rescode.html). A request is then answered by 503, which a browser does not
send again. An event is delivered again, up to three times, to all automations, and then put aside: one crash was
counted as several, and a run could be taken for one that never began. A transaction that begins with the write lock
waits for it. PostgreSQL has no such trouble.
"""

from __future__ import annotations

import argparse

import uvicorn
from prefect.settings import get_current_settings

from flows.support.compat import server_application
from flows.support.own_origin import OwnOrigin


def app() -> OwnOrigin:
    """Prefect's application with its database and what stands before it."""
    settings = get_current_settings().server.api
    if settings.auth_string is None:
        raise SystemExit("PREFECT_SERVER_API_AUTH_STRING is not set: whoever reaches the server could run commands")
    return OwnOrigin(server_application(), settings.cors_allowed_origins.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description="A Prefect server on loopback.")
    parser.add_argument("--port", type=int, required=True)
    server = get_current_settings().server
    uvicorn.run(
        app(),
        host="127.0.0.1",
        port=parser.parse_args().port,
        log_level=server.logging_level.lower(),
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
    )


if __name__ == "__main__":
    main()
