"""Programs that some tests need beside Python: a database, a cache, a proxy, a browser."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

# Where Debian puts what is not on everybody's PATH.
_ELSEWHERE = ("/usr/sbin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin")
_PACKAGES = {
    "initdb": "postgresql", "pg_ctl": "postgresql", "pg_dump": "postgresql",
    "nginx": "nginx-light", "systemd-analyze": "systemd",
}  # fmt: skip


def need(name: str) -> Path:
    """The program of that name. Without it the test is skipped here, and fails in CI: `.ci/run` installs them all."""
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_ELSEWHERE))
    if path:
        return Path(path).absolute()  # not resolved: redis-server and pg_dump go by the name they are called by
    why = f"{name} is not installed (Debian: apt install {_PACKAGES.get(name, name)})"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A headless browser that is left alone with the servers of this machine: no profile, no updates, no GPU."""
    own = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *arguments]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(need("chromium")), args=own)
        yield browser
        browser.close()
