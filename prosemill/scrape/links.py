"""What a crawler reads in an HTML page: links in page order, base, canonical address, meta fields."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urljoin

from lxml import etree

from prosemill.scrape.compat import Element
from prosemill.storage.charsets import codec_of

MAX_LINKS = 5000  # of one page; the rest is counted, not followed
_REFRESH = re.compile(r"^\s*[\d.]+\s*[;,]\s*url\s*=\s*['\"]?([^'\"]+)", re.IGNORECASE)
_QUIET_SCHEMES = ("mailto:", "javascript:", "tel:", "data:", "sms:", "about:", "blob:", "#")


@dataclass(frozen=True)
class PageOutline:
    """`links` are absolute, not yet canonical, in page order, each once; `meta` maps lower-case names to values."""

    links: tuple[str, ...] = ()
    links_left_out: int = 0
    canonical: str = ""
    meta: dict[str, list[str]] = field(default_factory=dict)


def outline(body: bytes, url: str, charset: str = "") -> PageOutline:
    """Read one page, in the charset that a label of the web names; a page that cannot be parsed has no links."""
    root = _parse(body, charset)
    if root is None:
        return PageOutline()
    base, canonical_link = url, ""
    hrefs: dict[str, None] = {}
    meta: dict[str, list[str]] = {}
    for element in root.iter("a", "area", "base", "link", "meta"):
        href = (element.get("href") or "").strip()
        if element.tag == "meta":
            _read_meta(element, meta, hrefs)
        elif element.tag == "base":
            base = urljoin(url, href) if href and base == url else base
        elif element.tag == "link":
            if "canonical" in (element.get("rel") or "").lower().split() and not canonical_link:
                canonical_link = href
        elif href and not href.lower().startswith(_QUIET_SCHEMES):
            hrefs[href] = None
    links = dict.fromkeys(filter(None, (_join(base, href) for href in hrefs)))
    kept = tuple(links)[:MAX_LINKS]
    return PageOutline(kept, len(links) - len(kept), _join(base, canonical_link) if canonical_link else "", meta)


def _parse(body: bytes, charset: str) -> Element | None:
    codec = codec_of(charset)
    name = "utf-16" if codec.startswith("utf-16") else codec.replace("_", "-")  # as libxml2 has it
    try:
        parser = etree.HTMLParser(encoding=name or None, no_network=True, remove_comments=True)
    except LookupError:  # a charset of which libxml2 does not know
        parser = etree.HTMLParser(no_network=True, remove_comments=True)
    try:
        return etree.fromstring(body.replace(b"\0", b""), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _read_meta(element: Element, meta: dict[str, list[str]], hrefs: dict[str, None]) -> None:
    content = element.get("content") or ""
    if (element.get("http-equiv") or "").lower() == "refresh":
        match = _REFRESH.match(content)
        if match:
            hrefs[match.group(1).strip()] = None
    name = (element.get("name") or element.get("http-equiv") or "").lower()
    if name:
        meta.setdefault(name, []).append(content)


def _join(base: str, href: str) -> str:
    """Absolute and without its fragment: an index has a thousand links into one page."""
    try:
        return urljoin(base, href).partition("#")[0]
    except ValueError:  # "http://[": not an address
        return ""
