"""Everything that prosemill reads from or puts into the environment; no other module does.

PROSEMILL_STORE       where snapshots live: a folder or fsspec URL (default: data/store below the current folder)
PROSEMILL_CACHE       where files of a remote store, and an empty MLflow database to copy, are kept on this machine
                      (default: ~/.cache/prosemill)
PROSEMILL_CACHE_GB    how large that may become before what was used longest ago goes (default: 50)
PROSEMILL_RETRY_SECONDS   pause before a source that cannot be reached is asked again, then twice as long (default: 5)
PROSEMILL_PLUGINS     modules to import before a recipe is read, with commas between (see prosemill/config/plugins.py)
PROSEMILL_TASK_RUNNER where the corpus stages' tasks run: threads (default), processes, dask, ray, dask:ADDRESS …
PROSEMILL_DEDUP_ENGINE   what signs documents, to the same bits: numba or datasketch (default: numba where it works)
PROSEMILL_TRACKER     what keeps models in the place of MLflow, "module:class" (see prosemill/registry/tracker.py)
MLFLOW_TRACKING_URI   an MLflow server (default: an SQLite file in the store)
MLFLOW_BACKEND_STORE_URI, MLFLOW_ARTIFACTS_DESTINATION   what that server was started with, for `prosemill backup`
PREFECT_SERVER_DATABASE_CONNECTION_URL                   the same of the Prefect server
PREFECT_API_SSL_CERT_FILE   certificates to trust, where the Prefect server has one of your own
PREFECT_API_URL       a Prefect server (default: the one that `prosemill up` started, else one for this run alone)
PREFECT_API_AUTH_STRING   its login, user:password (default: for those two the login in the store)
PREFECT_SERVER_API_AUTH_STRING, PREFECT_SERVER_CORS_ALLOWED_ORIGINS   for those two: another login; origins to answer
PROSEMILL_ALERT_BLOCK   a Prefect block that alerts go to: "slack-webhook/ops", "webhook/pager" … (default: no alerts)
HF_HOME, HF_TOKEN, HF_HUB_OFFLINE   as in huggingface_hub
OPENLINEAGE_URL, _API_KEY, _CONFIG, OPENLINEAGE__TRANSPORT__…   a server for lineage events, as in openlineage-python
OPENLINEAGE_NAMESPACE   of the jobs in them (default: prosemill); OPENLINEAGE_DISABLED=true: no events at all
PYTHONPATH, PYTHONSAFEPATH   as in Python; the second is set for all that prosemill starts
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import ssl
import tempfile
import urllib.request
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Literal

import psutil

from prosemill.errors import BackupError, ProsemillError, StoreError

CODE = Path(__file__).resolve().parents[2]  # the folder that holds our packages
DEFAULT_STORE = "data/store"
DedupEngine = Literal["numba", "datasketch"]
RESULTS_BLOCK = "remote-file-system/prosemill-results"  # `prosemill deploy` makes it where the store is a URL

# Nobody is told that prosemill runs, and no screen gets another program's advertisements.
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is the command's own
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
}
# Idle OpenMP threads spin before they sleep (libgomp: 300,000 rounds). On a machine with other work that starves the
# very threads they wait for: training a small model on two busy cores went from 9,800 to 220 tokens a second.
_THREADS = {"GOMP_SPINCOUNT": "10000"}
# Python puts the current folder, where a user may have a `flows/`, a `tasks.py` or a `types.py`, before all else
# (`python -m`, `python -c`); with this it and every Python that it starts do not.
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}
SILENT = "CRITICAL"  # the level of logs that shows hardly any
_PREFECT = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "prosemill",  # the core's log lines reach the run's page
    "PREFECT_CLIENT_MAX_RETRIES": "7",  # waits of 2, 4, … 128 s: a run outlives its server by four minutes (5: by one)
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; less is not to be had. deployments.crash_safety listens
    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",  # also of runs whose process is only just starting
}


def task_runner(environ: MutableMapping[str, str] = os.environ) -> str:
    """Where the tasks of a flow run, as `flows.support.task_runners` understands it."""
    return environ.get("PROSEMILL_TASK_RUNNER", "").strip() or "threads"


def plugins(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """PROSEMILL_PLUGINS: modules that register source kinds, filters and gate slices."""
    return [name.strip() for name in environ.get("PROSEMILL_PLUGINS", "").split(",") if name.strip()]


def dedup_engine(environ: MutableMapping[str, str] = os.environ) -> str:
    """What signs documents, as `prosemill.dedup.minhash.signer` understands it, or ""."""
    return environ.get("PROSEMILL_DEDUP_ENGINE", "").strip()


def store_url(url: str = "", environ: MutableMapping[str, str] = os.environ) -> str:
    """The store: what was given, else PROSEMILL_STORE, else data/store; a local folder as an absolute path."""
    url = url or environ.get("PROSEMILL_STORE", "") or DEFAULT_STORE
    return url.rstrip("/") if "://" in url else str(Path(url).expanduser().absolute())


def tracking_uri(environ: MutableMapping[str, str] = os.environ) -> str:
    """MLFLOW_TRACKING_URI, or "" for the SQLite file in the store."""
    return environ.get("MLFLOW_TRACKING_URI", "")


def tracker(environ: MutableMapping[str, str] = os.environ) -> str:
    """PROSEMILL_TRACKER, "module:class" of what keeps models in the place of MLflow; "" for MLflow."""
    return environ.get("PROSEMILL_TRACKER", "")


def databases(store: str, environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """URLs of the databases to save, by name: mlflow and, where Prefect has one within reach, prefect."""
    urls = {"mlflow": tracking_uri(environ) or f"sqlite:///{store}/mlflow.db"}
    if urls["mlflow"].startswith("http"):
        urls["mlflow"] = environ.get("MLFLOW_BACKEND_STORE_URI", "")
    names = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    local = prefect_home(environ) / "prefect.db"
    urls["prefect"] = next((environ[name] for name in names if environ.get(name)), "")
    if not urls["prefect"] and (local.is_file() or not api_url(environ)):
        urls["prefect"] = f"sqlite:///{local}"
    for name, variable in (("mlflow", "MLFLOW_BACKEND_STORE_URI"), ("prefect", names[0])):
        if not urls[name]:
            raise BackupError(
                f"{name} is on a server, and {variable} does not say where its database is; set it as for that server, "
                "or save the store alone with --store-only"
            )
    return urls


def artifacts(environ: MutableMapping[str, str] = os.environ) -> str:
    """Where an MLflow server keeps artifacts; "" without one: they are in the store then."""
    if not tracking_uri(environ).startswith("http"):
        return ""
    if destination := environ.get("MLFLOW_ARTIFACTS_DESTINATION", ""):
        return destination
    raise BackupError(
        "MLFLOW_ARTIFACTS_DESTINATION does not say where the MLflow server keeps artifacts; set it as for that server, "
        "or save the store alone with --store-only"
    )


def alert_block(environ: MutableMapping[str, str] = os.environ) -> str:
    """ "block-type/name" of the notification or webhook block that alerts go to, or ""; its secret is in the block."""
    return environ.get("PROSEMILL_ALERT_BLOCK", "").strip()


def lineage_is_on(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether stages tell of themselves in OpenLineage events."""
    return environ.get("OPENLINEAGE_DISABLED", "").strip().lower() != "true"


def lineage_namespace(environ: MutableMapping[str, str] = os.environ) -> str:
    """The namespace of the jobs in OpenLineage events."""
    return environ.get("OPENLINEAGE_NAMESPACE", "").strip() or "prosemill"


def lineage_server(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether the openlineage client would find a server (or other transport) to send events to."""
    if any(environ.get(name) for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")):
        return True
    if any(name.startswith("OPENLINEAGE__TRANSPORT") for name in environ):
        return True
    home = environ.get("HOME", "")
    return any(
        folder and (Path(folder) / "openlineage.yml").is_file() for folder in (".", home and f"{home}/.openlineage")
    )


@contextlib.contextmanager
def unchanged(prefix: str, environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Take out what the block adds to variables of that prefix: the openlineage client sets some to talk to itself."""
    before = {name for name in environ if name.startswith(prefix)}
    try:
        yield
    finally:
        for name in [name for name in environ if name.startswith(prefix) and name not in before]:
            del environ[name]


def cache_folder(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Where files of remote stores, and the checkpoints of trainings for them, are kept on this machine."""
    folder = environ.get("PROSEMILL_CACHE", "")
    if folder:
        return Path(folder).expanduser().absolute()
    try:
        return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prosemill"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"prosemill-{os.getuid()}"


def cache_limit_bytes(environ: MutableMapping[str, str] = os.environ) -> int:
    """How large that may become."""
    text = environ.get("PROSEMILL_CACHE_GB", "50")
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise StoreError(f"PROSEMILL_CACHE_GB = {text!r}: is not a number of gigabytes; set for example 50") from None


def retry_seconds(environ: MutableMapping[str, str] = os.environ) -> float:
    """How long to wait before a source that could not be reached is asked for the second time."""
    text = environ.get("PROSEMILL_RETRY_SECONDS", "5")
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) <= 3600:
            return seconds
    raise ProsemillError(f"PROSEMILL_RETRY_SECONDS = {text!r}: is not a number from 0 to 3600; set for example 5")


def hub_token(environ: MutableMapping[str, str] = os.environ) -> str:
    """HF_TOKEN, "" when it is not set."""
    return environ.get("HF_TOKEN", "")


def prepare(store: str, *, verbose: bool = False, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what Prefect, MLflow and transformers read when they are imported; what the person has set stays."""
    home = _local_home(store)
    defaults = dict(_QUIET)
    defaults |= _THREADS | _PREFECT
    defaults["PREFECT_HOME"] = str(home)
    defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO" if verbose else SILENT  # the run's page has it all
    defaults["PREFECT_LOCAL_STORAGE_PATH"] = str(home / "results")
    defaults["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "3"  # a person waits; runs of deployments keep MLflow's own 7
    for name, value in defaults.items():
        environ.setdefault(name, value)
    environ["PROSEMILL_STORE"] = store
    environ.update(_SAFE_PATH)
    api_url, login = running_server(home)
    if api_url and environ.get("PREFECT_API_URL", api_url).rstrip("/") == api_url:
        use_server(api_url, environ.get("PREFECT_API_AUTH_STRING", login), environ)


def of_child(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a child process: this one's, and what spares it other programs' surprises.

    It imports prosemill from where this process does, also where that is a checkout that is not installed: then the
    checkout is the last entry of PYTHONPATH.
    """
    child = _QUIET | _THREADS | dict(environ) | _SAFE_PATH
    if CODE.name not in ("site-packages", "dist-packages"):  # Python looks there by itself, and should do so last
        entries = [entry for entry in [environ.get("PYTHONPATH", "")] if entry]
        child["PYTHONPATH"] = os.pathsep.join([*entries, str(CODE)])
    return child


def of_job(store: str, environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """What a run needs on whichever worker it lands; stored with its deployment for all to read, so without secrets.

    Results go where the other pool's runs find them: into the store, through the block RESULTS_BLOCK where that is a
    URL.
    """
    job = {"PROSEMILL_STORE": store} | _QUIET | _THREADS | _PREFECT | _SAFE_PATH
    job = {name: value for name, value in job.items() if not name.startswith(("PREFECT_SERVER_", "PREFECT_WORKER_"))}
    if "://" in store:
        job["PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"] = RESULTS_BLOCK
    else:
        job["PREFECT_LOCAL_STORAGE_PATH"] = str(_local_home(store) / "results")
    if names := plugins(environ):
        job["PROSEMILL_PLUGINS"] = ",".join(names)
    if tracking := tracking_uri(environ):
        if "@" in tracking:
            raise StoreError(
                "MLFLOW_TRACKING_URI holds a password, and deployments are stored in plain text; give it to the "
                "workers as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        job["MLFLOW_TRACKING_URI"] = tracking
    return job


def visible_cards(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """CUDA_VISIBLE_DEVICES: the cards that this process may use, None for all of them."""
    return environ.get("CUDA_VISIBLE_DEVICES")


def refresh_cache(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let every task of this process run again although its result is cached."""
    environ["PREFECT_TASKS_REFRESH_CACHE"] = "true"


def use_server(api_url: str, login: str = "", environ: MutableMapping[str, str] = os.environ) -> None:
    """Let this process and its children talk to the Prefect server at `api_url`; "" for none in particular."""
    for name, value in (("PREFECT_API_URL", api_url), ("PREFECT_API_AUTH_STRING", login)):
        environ.pop(name, None)
        if value:
            environ[name] = value


def use_own_server(port: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """The same for a server of ours on this machine."""
    use_server(f"http://127.0.0.1:{port}/api", server_login(environ), environ)


def of_server(port: int, environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """What a Prefect server of ours needs beside the environment of a child: who may ask it, and with which login."""
    own = f"http://127.0.0.1:{port},http://localhost:{port}"
    return {
        "PREFECT_SERVER_API_AUTH_STRING": server_login(environ),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": environ.get("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", own),
        "PREFECT_UI_API_URL": "/api",  # of whatever address the browser uses: to it, another one is foreign
    }


def server_login(environ: MutableMapping[str, str] = os.environ) -> str:
    """user:password of the Prefect servers that prosemill starts, after `prepare`; made once a store.

    It stands in `login` beside Prefect's own files, which only its owner may read.
    """
    if login := environ.get("PREFECT_SERVER_API_AUTH_STRING", ""):
        return login
    home = _local_home(environ["PROSEMILL_STORE"])
    home.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        return (home / "login").read_text(encoding="utf-8")
    _write_private(home / "login", f"prosemill:{secrets.token_urlsafe(24)}", replace=False)
    return (home / "login").read_text(encoding="utf-8")


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


def announce_server(store: str, api_url: str, environ: MutableMapping[str, str] = os.environ) -> Path:
    """Leave a note in the store that a Prefect server runs here; returns the note, to be removed with the server."""
    note = _local_home(store) / "server.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"api_url": api_url, "login": server_login(environ), "pid": os.getpid()})
    _write_private(note, text, replace=True)
    return note


def running_server(home: Path) -> tuple[str, str]:
    """API URL and login of the server that `prosemill up` announced, if it still answers; else ("", "").

    The login goes to nobody else who listens on that port after `up` was killed: the note names its process.
    """
    try:
        note = json.loads((home / "server.json").read_text(encoding="utf-8"))
        api_url, login, pid = str(note["api_url"]), str(note["login"]), int(note["pid"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or one of another user
        return "", ""
    return (api_url, login) if psutil.pid_exists(pid) and answers(api_url) else ("", "")


def _write_private(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner may read, whole; without `replace`, one that exists stays.

    Not storage.atomic's, which stands above this module and shares its files with whoever may read the folder.
    """
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        if replace:
            os.replace(aside, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
    finally:
        Path(aside).unlink(missing_ok=True)


def answers(api_url: str, environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether a Prefect server is in good health at `api_url`: it says so without a login.

    With https, its certificate is checked as Prefect's own client does (PREFECT_API_SSL_CERT_FILE for one of yours).
    """
    try:
        trusted = environ.get("PREFECT_API_SSL_CERT_FILE") or None
        context = ssl.create_default_context(cafile=trusted) if api_url.startswith("https") else None
        with urllib.request.urlopen(f"{api_url}/health", timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _local_home(store: str) -> Path:
    """Prefect's own files: in a local store; beside the current folder's data for a remote one."""
    return (Path(store) if "://" not in store else Path(DEFAULT_STORE).absolute()) / "prefect"
