"""The servers of a production on loopback: PostgreSQL, Redis, S3, MLflow, Prefect and its services, nginx with TLS.

They get their settings from deployments/production/env.example, and nginx its configuration from nginx.conf there, with
other ports, folders and passwords: what is tested is what an operator is told to write.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.programs import need

ROOT = Path(__file__).parent.parent
FILES = ROOT / "deployments" / "production"
PASSWORD = "s3cret/with+odd:signs"  # as a generator of passwords makes them
QUOTED = "s3cret%2Fwith%2Bodd%3Asigns"
PATIENCE_SECONDS = 600


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pg(name: str) -> Path:
    """A program of PostgreSQL, past Debian's wrapper, which goes by the name that it is called by."""
    return need("initdb").resolve().parent / name


def read_env(path: Path) -> dict[str, str]:
    """The settings of an environment file as systemd and compose read it."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# Started again five seconds after it ended, as systemd does with Restart=always.
SUPERVISED = ["bash", "-c", 'while true; do "$@"; sleep 5; done', "supervised"]


class Production:
    """`start` and `stop` in any order; the data of PostgreSQL is in `folder`, that of S3 dies with its process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, dict[str, subprocess.Popen[bytes]]()
        names = ("postgres", "redis", "s3", "prefect", "mlflow", "https")
        self.ports = {name: free_port() for name in names}
        self.owner = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}

    @property
    def environment(self) -> dict[str, str]:
        """What env.example says, with the ports and secrets of this test."""
        ports = self.ports
        hosts = {
            "CHANGE@127.0.0.1:5432": f"{QUOTED}@127.0.0.1:{ports['postgres']}",
            "127.0.0.1:6379": f"127.0.0.1:{ports['redis']}",
            "127.0.0.1:9000": f"127.0.0.1:{ports['s3']}",
            "https://prefect.example.org": f"https://localhost:{ports['https']}",
            "https://mlflow.example.org": f"https://127.0.0.1:{ports['https']}",
            "mlflow.example.org,": "127.0.0.1,",
            "/etc/prosemill/tls": str(self.folder),
            "/var/cache/prosemill": str(self.folder / "cache"),
            "/var/lib/prosemill": str(self.folder),
            "CHANGE": PASSWORD,
        }
        settings = read_env(FILES / "env.example")
        for old, new in hosts.items():
            settings = {name: value.replace(old, new) for name, value in settings.items()}
        settings["PREFECT_WORKER_QUERY_SECONDS"] = "2"  # a test waits for every question that a worker asks
        settings["AWS_ACCESS_KEY_ID"] = "operator"  # a name, as Amazon's and MinIO's are
        own = ("PREFECT_", "PROSEMILL_", "MLFLOW_", "AWS_")
        base = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return base | settings

    def start_all(self, *, fresh: bool = False) -> None:
        self.start_data(fresh=fresh)
        self.start_nginx()
        self.start_prefect_and_mlflow(fresh=fresh)

    def start_data(self, *, fresh: bool = False) -> None:
        """What holds the data; `fresh`: with databases and a bucket that are empty."""
        (self.folder / "prefect").mkdir(exist_ok=True)
        self.start_postgres()
        self.start_redis()
        self.start_s3()
        if fresh:
            self.make_databases()
            self.make_bucket()

    def start_postgres(self) -> None:
        data = self.folder / "pg"
        if not data.exists():
            data.mkdir(mode=0o700)
            secret = self.folder / "pg.password"
            secret.write_text(PASSWORD)
            for path in (data, secret):
                if self.owner:
                    shutil.chown(path, "postgres", "postgres")
            self.call(need("initdb"), "-D", data, "-U", "operator", "-A", "scram-sha-256", "--pwfile", secret, "-N",
                      **self.owner)  # fmt: skip
        port = str(self.ports["postgres"])
        options = ["-p", port, "-k", "", "-h", "127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off"]
        self.start("postgres", [str(pg("postgres")), "-D", str(data), *options], **self.owner)
        self.wait("PostgreSQL", lambda: self.call(pg("pg_isready"), "-h", "127.0.0.1", "-p", port))

    def make_databases(self) -> None:
        """As the guide has them made: a role and a database each for Prefect and MLflow."""
        for name in ("prefect", "mlflow"):
            self.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
            self.sql(f"CREATE DATABASE {name} OWNER {name}")

    def sql(self, statement: str, database: str = "postgres") -> str:
        url = f"postgresql://operator:{QUOTED}@127.0.0.1:{self.ports['postgres']}/{database}"
        return self.call(pg("psql"), url, "-tAc", statement)

    def start_redis(self) -> None:
        port = str(self.ports["redis"])
        command = [str(need("redis-server")), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.start("redis", command, cwd=self.folder)
        self.wait("Redis", lambda: socket.create_connection(("127.0.0.1", int(port)), 2).close())

    def start_s3(self) -> None:
        port = str(self.ports["s3"])
        self.start("s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port])
        self.wait("S3", lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close())

    def make_bucket(self) -> None:
        import boto3

        keys = self.environment
        client = boto3.client(
            "s3", endpoint_url=keys["AWS_ENDPOINT_URL"], region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"], aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        client.create_bucket(Bucket="prosemill")

    def start_nginx(self) -> None:
        """nginx.conf as it is, but for names, port and folders; a certificate of our own."""
        nginx, folder = need("nginx"), self.folder
        if not (folder / "server.crt").exists():
            self.call(
                need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-addext", "basicConstraints=critical,CA:TRUE",
                "-keyout", folder / "server.key", "-out", folder / "server.crt",
            )  # fmt: skip
            shutil.copy(folder / "server.crt", folder / "ca.crt")
            hashed = self.call(need("openssl"), "passwd", "-apr1", PASSWORD).strip()
            (folder / "mlflow.htpasswd").write_text(f"prosemill:{hashed}\n")
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.ports['https']} ssl",
            "prefect.example.org": "localhost", "mlflow.example.org": "127.0.0.1",
            "/etc/prosemill/tls": str(folder), "/etc/prosemill/mlflow.htpasswd": str(folder / "mlflow.htpasswd"),
            "127.0.0.1:4200": f"127.0.0.1:{self.ports['prefect']}",
            "127.0.0.1:5000": f"127.0.0.1:{self.ports['mlflow']}",
        }  # fmt: skip
        text = (FILES / "upstreams-machine.conf").read_text() + (FILES / "nginx.conf").read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        temporary = "".join(f"{kind}_temp_path {folder}/nginx-{kind};" for kind in ("client_body", "proxy"))
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}}\n"
            f"http {{ access_log off; {temporary}\n{text}}}\n"
        )
        folder.chmod(0o755)
        self.call(nginx, "-t", "-c", folder / "nginx.conf")
        self.start("nginx", [str(nginx), "-c", str(folder / "nginx.conf")])

    def start_prefect_and_mlflow(self, *, fresh: bool = False) -> None:
        """As the systemd units do: the databases upgraded first, then API, services and MLflow each on their own."""
        own = self.environment
        self.start("mlflow", self.unit("prosemill-mlflow"), env=own)
        self.start_prefect(fresh=fresh)
        self.start("services", self.unit("prosemill-services"), env=own)
        self.wait("MLflow", lambda: self.https("127.0.0.1", "/health"))

    def start_prefect(self, *, fresh: bool = False) -> None:
        """The API alone, on an upgraded database."""
        own = self.environment
        self.call(*self.unit("prosemill-prefect", "ExecStartPre"), env=own, cwd=ROOT)
        self.start("prefect", [*SUPERVISED, *self.unit("prosemill-prefect")], env=own)
        self.wait("Prefect", self.is_steady if fresh else lambda: self.https("localhost", "/api/health"))

    def is_steady(self) -> None:
        """Eight seconds of good health: at the very first start one of two API processes may end, and all with it."""
        for _ in range(16):
            self.https("localhost", "/api/health")
            time.sleep(0.5)

    def start_workers(self) -> None:
        for name in ("prosemill-worker-cpu", "prosemill-worker-gpu@"):
            self.start(name.removeprefix("prosemill-").rstrip("@"), self.unit(name), env=self.environment)

    def unit(self, name: str, key: str = "ExecStart") -> list[str]:
        """The command of a systemd unit, on the ports of this test."""
        lines = (FILES / "systemd" / f"{name}.service").read_text(encoding="utf-8").splitlines()
        (command,) = [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]
        ports = {"4200": str(self.ports["prefect"]), "5000": str(self.ports["mlflow"])}
        program, *arguments = shlex.split(command.replace("%H", "here").replace("%i", "0"))
        return [sys.executable, "-m", Path(program).name, *(ports.get(argument, argument) for argument in arguments)]

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, name: str, command: list[str], **more: Any) -> None:
        if name in self.running:
            return
        with (self.folder / f"{name}.log").open("ab") as log:
            more = {"env": os.environ, "cwd": ROOT} | more
            # Workers end by an interrupt that they send to themselves; in the background a shell has it ignored.
            command = ["env", "--default-signal=INT", *command]
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more
            )

    def stop(self, *names: str) -> None:
        """These servers, or all of them, the last one started first, and workers side by side."""
        for name in names or self.running:
            if name.startswith("worker") and name in self.running:
                self.running[name].send_signal(signal.SIGTERM)
        for name in names or tuple(reversed(self.running)):
            process = self.running.pop(name, None)
            if process is None:
                continue
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, what: str, answers: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answers()
                return
            except (OSError, AssertionError) as error:
                dead = [name for name, process in self.running.items() if process.poll() is not None]
                if dead or time.monotonic() > deadline:
                    raise AssertionError(f"{what} does not answer ({error}); dead: {dead}\n{self.logs()}") from error
                time.sleep(0.5)

    def https(self, host: str, path: str) -> bytes:
        """GET through nginx, trusting our certificate alone."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        url = f"https://{host}:{self.ports['https']}{path}"
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            return bytes(answer.read())

    def call(self, *command: object, **more: Any) -> str:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def prosemill(self, *arguments: str, status: int = 0, more: Mapping[str, str] | None = None) -> str:
        """Standard output of the command, as an operator with the environment file types it; "then" parts several."""
        program = (
            "import itertools, sys; from flows.cli import run\n"
            "parts = [list(part) for is_word, part in itertools.groupby(sys.argv[1:], lambda word: word == 'then')"
            " if not is_word]\n"
            "sys.exit(next((status for part in parts if (status := run(part))), 0))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True, text=True, cwd=ROOT, env=self.environment | dict(more or {}), check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == status, f"prosemill {arguments}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    def logs(self) -> str:
        """The end of every log, for the message of a test that failed."""
        tails = {path.name: path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log"))}
        return "\n".join(f"--- {name}\n{tail}" for name, tail in tails.items())


@contextlib.contextmanager
def production() -> Iterator[Production]:
    """A folder that PostgreSQL's own user may enter, which pytest's are not, and nothing left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="prosemill-production-"))
    folder.chmod(0o755)
    servers = Production(folder)
    try:
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)
