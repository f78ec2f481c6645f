"""URLs: one spelling for one page, what belongs to a source, and what is a trap."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit, urlunsplit

from w3lib.url import canonicalize_url

from prosemill.errors import RecipeError

_PORTS = {"http": 80, "https": 443}
# Parameters that say who came and from where, not which page: analytics and session ids.
_NOISE = re.compile(
    r"utm_\w+|gclid|dclid|fbclid|msclkid|yclid|igshid|mc_[ce]id|_ga|_gl|phpsessid|jsessionid|aspsessionid\w*|"
    r"sessionid|session_id|sid|cfid|cftoken",
    re.IGNORECASE,
)
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/?#]*", re.IGNORECASE)

MAX_URL_LENGTH = 2000  # longer ones come from programs
MAX_SEGMENTS = 16  # of a path
MAX_REPEATS = 2  # /a/b/a/b/ may exist, /a/a/a/ is a relative link gone wrong
MAX_QUERIES = 200  # of one path: a calendar or a filter, not an archive


def canonical(url: str, base: str = "") -> str:
    """The one spelling of an http(s) URL; ValueError for anything else.

    Without fragment, default port, tracking and session parameters; scheme and host in lower case, dot segments
    resolved, percent-encoding normal, parameters sorted.
    """
    joined = urljoin(base, url.strip()) if base else url.strip()
    parts = urlsplit(joined)
    if parts.scheme.lower() not in _PORTS:
        raise ValueError(f"not an http(s) address: {url[:200]}")
    netloc = _netloc(parts.scheme.lower(), parts.hostname or "", parts.port)
    path = _PATH_SESSION.sub("", urlsplit(urljoin(joined, parts.path or "/")).path) or "/"
    query = parts.query
    if query and _NOISE.search(query):
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if not _NOISE.fullmatch(name)])
    return str(canonicalize_url(urlunsplit((parts.scheme.lower(), netloc, path, query, ""))))


def _netloc(scheme: str, host: str, port: int | None) -> str:
    host = host.rstrip(".").lower()
    if not host or not re.fullmatch(r"[^\s/\\@<>\"]+", host):
        raise ValueError("no host name in the address")
    if not host.isascii():
        host = host.encode("idna").decode()
    if ":" in host:
        host = f"[{host}]"
    return host if port in (None, _PORTS[scheme]) else f"{host}:{port}"


def origin(url: str) -> str:
    """ "https://host:port", the thing that has a robots.txt."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def scope_of(url: str) -> str:
    """Host and port, with www. taken as the same site."""
    return urlsplit(url).netloc.removeprefix("www.")


def is_trap(url: str) -> bool:
    """Longer, deeper or more repetitive than what people publish."""
    segments = [segment for segment in urlsplit(url).path.split("/") if segment]
    if len(url) > MAX_URL_LENGTH or len(segments) > MAX_SEGMENTS:
        return True
    return any(segments.count(segment) > MAX_REPEATS for segment in set(segments))


def is_private(host: str) -> bool:
    """A literal address that is not of the public internet: loopback, private, link-local, reserved."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global or (mapped or address).is_multicast


@dataclass(frozen=True)
class UrlFilter:
    """A source's `include` and `exclude`, compiled."""

    include: tuple[re.Pattern[str], ...]
    exclude: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, source: str, include: Sequence[str], exclude: Sequence[str]) -> UrlFilter:
        return cls(_compile(source, "include", include), _compile(source, "exclude", exclude))

    def reason(self, name: str) -> str:
        """ "" when `name` may be read, else not_included or excluded. Percent-encoded names match either way."""
        spellings = (name, unquote(name))
        if any(pattern.search(text) for pattern in self.exclude for text in spellings):
            return "excluded"
        if self.include and not any(pattern.search(text) for pattern in self.include for text in spellings):
            return "not_included"
        return ""


def _compile(source: str, field: str, patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise RecipeError(
                f"source {source}: {field} {pattern!r} is not a regular expression ({error}); correct it in the recipe"
            ) from error
    return tuple(compiled)
