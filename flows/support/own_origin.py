"""What stands before a Prefect server of ours: requests of its own pages and of programs pass, other web pages' do not.

A browser sends what any page asks for to loopback, too. Prefect answers every Host, so that a page whose name is
rebound to 127.0.0.1 (DNS rebinding) is of the server's origin for the browser, and its CORS setting only decides who
may read an answer, not who may ask. So a request passes only if

- its Host names loopback (any port: `ssh -L` forwards another one), and
- its Origin, which browsers send with everything but plain reads, is that host or one that
  PREFECT_SERVER_CORS_ALLOWED_ORIGINS names.

Whoever passes still needs the login (Prefect's own check), except for the page at LOGIN_PATH: it puts the login that
stands behind the # of its address, which browsers send to no server, where Prefect's UI looks for it.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.support.compat import UI_LOGIN_KEY

LOGIN_PATH = "/prosemill-login"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_LOGIN_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Prefect</title>
<p>Opening Prefect …</p>
<noscript>Prefect's UI needs JavaScript.</noscript>
<script>
  const login = decodeURIComponent(location.hash.slice(1));
  if (login) localStorage.setItem("UI_LOGIN_KEY", btoa(login));
  location.replace("/");
</script>
""".replace("UI_LOGIN_KEY", UI_LOGIN_KEY)


class OwnOrigin:
    """ASGI middleware: 403 for a foreign Host or Origin, HTTP and WebSocket; no page of ours in a foreign frame."""

    def __init__(self, app: ASGIApp, allowed_origins: Collection[str] = ()) -> None:
        self.app = app
        self.allowed_origins = {origin.strip() for origin in allowed_origins} - {"", "*"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(Headers(scope=scope)):
            await _refuse(refusal)(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == LOGIN_PATH:
            await HTMLResponse(_LOGIN_PAGE, headers={"Cache-Control": "no-store"})(scope, receive, _unframed(send))
            return
        await self.app(scope, receive, _unframed(send) if scope["type"] == "http" else send)

    def _refusal(self, headers: Headers) -> str:
        """Why this request is refused; "" if it is not."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or _hostname(hosts[0]) not in LOOPBACK:
            return f"Host {', '.join(hosts) or 'missing'}: this server answers on loopback only, as 127.0.0.1"
        own = {f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"}
        for origin in origins:
            if origin.lower() not in own and origin not in self.allowed_origins:
                return f"Origin {origin}: only this server's own pages may ask it"
        return ""


def _hostname(host: str) -> str:
    """Of a Host header, without port and brackets; "" where it is none."""
    try:
        split = urlsplit(f"//{host}")
        _ = split.port  # ValueError where it is not a number
    except ValueError:
        return ""
    return "" if split.username or split.path or split.query or split.fragment else (split.hostname or "")


def _refuse(reason: str) -> Response:
    return PlainTextResponse(f"prosemill: {reason}\n", status_code=403)


def _unframed(send: Send) -> Send:
    """A page of another site cannot lay ours under its own buttons."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Frame-Options"] = "DENY"
            headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        await send(message)

    return sending
