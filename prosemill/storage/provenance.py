"""Which code and libraries made a snapshot."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
from pathlib import Path

from prosemill.config import environment

# The libraries whose version can change what a stage writes.
_RECORDED = (
    "scrapy",
    "protego",
    "fastwarc",
    "trafilatura",
    "faust-cchardet",
    "lingua-language-detector",
    "ftfy",
    "lxml",
    "beautifulsoup4",
    "datasketch",
    "xxhash",
    "numpy",
    "pyarrow",
    "tokenizers",
    "transformers",
    "torch",
    "accelerate",
    "peft",
    "datasets",
    "mlflow",
    "prefect",
)


@functools.cache
def library_versions() -> dict[str, str]:
    versions = {}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def code_commit() -> str:
    """The commit this code was checked out from, with "+" when files differ from it; "" outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return environment.code_commit_override()
    git = ["git", "-C", str(here)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    ).stdout
    return f"{commit}+" if changed.strip() else commit


def version() -> str:
    """prosemill's own."""
    try:
        return importlib.metadata.version("prosemill")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0"


@functools.cache
def code_url() -> str:
    """Where this code is from: the checkout's origin, without user and password, else the folder it lies in."""
    here = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(here), "remote", "get-url", "origin"]
    origin = ""
    if (here / ".git").exists():
        origin = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return as_url(origin) or here.as_uri()


def as_url(origin: str) -> str:
    """A git remote as a URL that holds no user and no password; "" for none."""
    if "://" in origin:
        return re.sub(r"://[^/@]*@", "://", origin)
    if match := re.fullmatch(r"(?:[^/@:]+@)?(?P<host>[^/:]+):(?P<path>.+)", origin):  # git@host:group/name.git
        return f"ssh://{match['host']}/{match['path'].lstrip('/')}"
    return Path(origin).absolute().as_uri() if origin else ""
