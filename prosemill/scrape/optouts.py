"""What a page, its headers and its site say about being used: noindex, noai, the TDM reservation, ai.txt.

- `X-Robots-Tag` and `<meta name="robots">` (or one with our own token): `noindex`, `none`, `noai`, `nofollow`.
  `noimageai` is about pictures and ignored.
- TDM Reservation Protocol: `tdm-reservation` in the page, else in the header, else in /.well-known/tdmrep.json, where
  the first location that matches decides. 1 means reserved.
- ai.txt: the syntax of robots.txt; a URL that `*` may not read is opted out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from protego import Protego

TDMREP_PATH = "/.well-known/tdmrep.json"
AI_TXT_PATH = "/ai.txt"
MAX_BYTES = 500 * 1024  # of either file, as for robots.txt
_DIRECTIVES = ("noindex", "none", "noai", "nofollow")


@dataclass(frozen=True)
class SiteOptOuts:
    """The two files of an origin. Missing, broken or HTML instead: nothing is reserved."""

    tdm_rules: tuple[tuple[re.Pattern[str], bool], ...] = ()
    ai_txt: Protego | None = None

    @classmethod
    def parse(cls, tdmrep: bytes, ai_txt: bytes) -> SiteOptOuts:
        return cls(_tdm_rules(tdmrep), _ai_rules(ai_txt))

    def tdm_reserved(self, url: str) -> bool:
        path = urlsplit(url).path
        return next((reserved for pattern, reserved in self.tdm_rules if pattern.match(path)), False)

    def ai_txt_forbids(self, url: str) -> bool:
        return self.ai_txt is not None and not self.ai_txt.can_fetch(url, "*")


def _tdm_rules(body: bytes) -> tuple[tuple[re.Pattern[str], bool], ...]:
    try:
        entries = json.loads(body[:MAX_BYTES])
    except ValueError:
        return ()
    rules = []
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, dict) and isinstance(entry.get("location"), str):
            reserved = str(entry.get("tdm-reservation", "0")).strip() == "1"
            rules.append((_path_pattern(entry["location"]), reserved))
    return tuple(rules)


def _path_pattern(location: str) -> re.Pattern[str]:
    """As in robots.txt: a prefix in which * stands for anything and a final $ for the end."""
    ends = location.endswith("$")
    body = ".*".join(re.escape(part) for part in location.removesuffix("$").split("*"))
    return re.compile(body + ("$" if ends else ""))


def _ai_rules(body: bytes) -> Protego | None:
    text = body[:MAX_BYTES].decode("utf-8-sig", errors="replace").replace("\0", "")
    return Protego.parse(text) if text.strip() and text.lstrip()[0] != "<" else None


def directives(values: Iterable[str], token: str) -> frozenset[str]:
    """The directives that hold for us in `X-Robots-Tag` headers such as "noai, noindex" and "googlebot: noindex"."""
    held: set[str] = set()
    for value in values:
        agent, colon, rest = value.partition(":")
        names_agent = bool(colon) and not any(word in agent.lower() for word in (*_DIRECTIVES, "unavailable_after"))
        if names_agent and agent.strip().lower() not in (token.lower(), "*", "robots"):
            continue
        words = re.split(r"[\s,;]+", (rest if names_agent else value).lower())
        held.update(word for word in words if word in _DIRECTIVES)
    return frozenset(held | ({"noindex", "nofollow"} if "none" in held else set()))


@dataclass(frozen=True)
class Decision:
    """What was read, comma-separated, and whether the page is kept out: reason "" keeps it."""

    opt_out: str
    reason: str
    follow: bool


def decide(
    url: str,
    *,
    robots: str,
    site: SiteOptOuts,
    headers: Mapping[str, list[str]],
    meta: Mapping[str, list[str]],
    token: str,
    obey: bool,
) -> Decision:
    """One decision for one page. `headers` and `meta` map lower-case names to their values."""
    header_words = directives(headers.get("x-robots-tag", []), token)
    meta_words = directives([*meta.get("robots", []), *meta.get(token.lower(), [])], token)
    read = [robots] if robots else []
    read += [f"header:{word}" for word in ("noai", "noindex") if word in header_words]
    read += [f"meta:{word}" for word in ("noai", "noindex") if word in meta_words]
    if _tdm_reserved(url, site, headers, meta):
        read.append("tdmrep")
    if site.ai_txt_forbids(url):
        read.append("ai.txt")
    against_ai = [what for what in read if not what.endswith(":noindex")]
    reason = "" if not (obey and read) else "ai_opt_out" if against_ai else "noindex"
    return Decision(",".join(read), reason, follow="nofollow" not in header_words | meta_words)


def _tdm_reserved(url: str, site: SiteOptOuts, headers: Mapping[str, list[str]], meta: Mapping[str, list[str]]) -> bool:
    for stated in (meta.get("tdm-reservation"), headers.get("tdm-reservation")):
        if stated:
            return stated[0].strip() == "1"
    return site.tdm_reserved(url)
