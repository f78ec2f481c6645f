"""A rendered site on disk: `pages/` holds the bodies, `site.json` says how each URL path is answered.

    <folder>/site.json
    <folder>/pages/messages/1790.html …

What a server must add to the bytes (status, headers, dates) is in site.json, so that rendering and serving need not
know each other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prosemill.errors import DemoError

HTML = "text/html; charset=utf-8"
BARE_HTML = "text/html"  # the charset is left to a meta tag
_INDEX = "site.json"


@dataclass(frozen=True)
class SitePage:
    """How one URL path is answered. `file` is relative to `<folder>/pages`; "" where there is no body (a redirect)."""

    path: str
    file: str = ""
    content_type: str = HTML
    last_modified: str = ""  # ISO date of the week in which the page was published
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    listed: bool = True  # in sitemap.xml


@dataclass(frozen=True)
class DemoSite:
    """All pages of a rendered site, sorted by path. `as_of` is the ISO date of its newest week."""

    folder: Path
    as_of: str
    pages: Sequence[SitePage]

    def page(self, path: str) -> SitePage:
        return next(page for page in self.pages if page.path == path)

    def body(self, path: str) -> bytes:
        return (self.folder / "pages" / self.page(path).file).read_bytes()


def save_site(folder: Path, as_of: str, answers: Sequence[tuple[SitePage, bytes]]) -> DemoSite:
    """Write pages and bodies into `folder`, in place of a site that was there before; other files stay."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    for page, body in answers:
        if page.file:
            path = folder / "pages" / page.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    site = DemoSite(folder, as_of, sorted((page for page, _ in answers), key=lambda page: page.path))
    index = {"as_of": as_of, "pages": [asdict(page) for page in site.pages]}
    (folder / _INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")
    return site


def load_site(folder: Path) -> DemoSite:
    """The site that `save_site` wrote into `folder`; DemoError when there is none."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DemoError(f"{folder}: no rendered site here; make one with `prosemill demo`") from None
    return DemoSite(folder, index["as_of"], [SitePage(**page) for page in index["pages"]])


def data_folder() -> Path:
    """data/demo: of the checkout, or inside the package where prosemill is installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "data" / "demo"
    return installed if installed.is_dir() else package.parent / "data" / "demo"
