"""Everything that prosemill reads from or puts into the environment; no other module does.

PROSEMILL_STORE       where snapshots live: a folder or fsspec URL (default: data/store below the current folder)
MLFLOW_TRACKING_URI   an MLflow server (default: an SQLite file in the store)
PREFECT_API_URL       a Prefect server (default: the one that `prosemill up` started, else one for this run alone)
HF_HOME, HF_TOKEN, HF_HUB_OFFLINE   as in huggingface_hub
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import MutableMapping
from pathlib import Path

DEFAULT_STORE = "data/store"

# Nobody is told that prosemill runs, and no screen gets another program's advertisements.
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
}
# Idle OpenMP threads spin before they sleep (libgomp: 300,000 rounds). On a machine with other work that starves the
# very threads they wait for: training a small model on two busy cores went from 9,800 to 220 tokens a second.
_THREADS = {"GOMP_SPINCOUNT": "10000"}
_PREFECT = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "prosemill",  # the core's log lines reach the run's page
}


def store_url(given: str = "", environ: MutableMapping[str, str] = os.environ) -> str:
    """The store: what was given, else PROSEMILL_STORE, else data/store; a local folder as an absolute path."""
    url = given or environ.get("PROSEMILL_STORE", "") or DEFAULT_STORE
    return url if "://" in url else str(Path(url).expanduser().absolute())


def tracking_uri(environ: MutableMapping[str, str] = os.environ) -> str:
    """MLFLOW_TRACKING_URI, or "" for the SQLite file in the store."""
    return environ.get("MLFLOW_TRACKING_URI", "")


def hub_token(environ: MutableMapping[str, str] = os.environ) -> str:
    """HF_TOKEN, "" when it is not set."""
    return environ.get("HF_TOKEN", "")


def prepare(store: str, *, verbose: bool = False, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what Prefect, MLflow and transformers read when they are imported; what the person has set stays."""
    home = _local_home(store)
    defaults = dict(_QUIET)
    defaults |= _THREADS | _PREFECT
    defaults["PREFECT_HOME"] = str(home)
    defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO" if verbose else "CRITICAL"  # the run's page has it all
    defaults["PREFECT_LOCAL_STORAGE_PATH"] = str(home / "results")
    for name, value in defaults.items():
        environ.setdefault(name, value)
    environ["PROSEMILL_STORE"] = store
    if "PREFECT_API_URL" not in environ and (running := running_server(home)):
        environ["PREFECT_API_URL"] = running


def of_child(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a child process: this one's, and what spares it other programs' surprises."""
    return _QUIET | _THREADS | dict(environ)


def refresh_cache(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let every task of this process run again although its result is cached."""
    environ["PREFECT_TASKS_REFRESH_CACHE"] = "true"


def use_server(api_url: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let this process and its children talk to the Prefect server at `api_url`; "" for none in particular."""
    if api_url:
        environ["PREFECT_API_URL"] = api_url
    else:
        environ.pop("PREFECT_API_URL", None)


def api_url(environ: MutableMapping[str, str] = os.environ) -> str:
    """The Prefect server to talk to, "" if none was named or announced."""
    return environ.get("PREFECT_API_URL", "")


def prefect_home(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Where Prefect keeps its own files, after `prepare`; made if need be, since Prefect does not make its parents."""
    home = Path(environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    return home


def code_commit_override(environ: MutableMapping[str, str] = os.environ) -> str:
    """PROSEMILL_COMMIT names the code where it does not run from a checkout (an image, a wheel)."""
    return environ.get("PROSEMILL_COMMIT", "")


def announce_server(store: str, api_url: str) -> Path:
    """Leave a note in the store that a Prefect server runs here; returns the note, to be removed with the server."""
    note = _local_home(store) / "server.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"api_url": api_url}), encoding="utf-8")
    return note


def running_server(home: Path) -> str:
    """The API URL of the server that `prosemill up` announced, if it still answers; else ""."""
    try:
        api_url = str(json.loads((home / "server.json").read_text(encoding="utf-8"))["api_url"])
    except (OSError, ValueError, KeyError):
        return ""
    return api_url if answers(api_url) else ""


def answers(api_url: str) -> bool:
    """Whether a Prefect server is in good health at `api_url`."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _local_home(store: str) -> Path:
    """Prefect's own files: in a local store; beside the current folder's data for a remote one."""
    return (Path(store) if "://" not in store else Path(DEFAULT_STORE).absolute()) / "prefect"
