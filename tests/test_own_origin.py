"""Who may ask a Prefect server that prosemill started: its own pages and programs that have its login."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from starlette.responses import PlainTextResponse
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from flows.support.own_origin import LOGIN_PATH, OwnOrigin
from prosemill.config import environment
from tests.programs import chromium
from tests.serving import ROOT, Stack, clean_environment

# --- the layer alone -----------------------------------------------------------------------------------------------


def status(headers: list[tuple[str, str]], path: str = "/api/flows", allowed: str = "") -> int:
    """Of a GET with these headers and no others, of an application that answers 200 to everybody."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": raw, "http_version": "1.1"}
    asyncio.run(OwnOrigin(PlainTextResponse("secret"), allowed.split(","))(scope, receive, send))
    answered = sent[0]
    assert (b"x-frame-options", b"DENY") in answered["headers"] or answered["status"] == 403
    return int(answered["status"])


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "LOCALHOST:8080", "[::1]:4200", "127.0.0.1"])
def test_loopback_is_answered_on_any_port(host: str) -> None:
    assert status([("Host", host)]) == 200
    assert status([("Host", host), ("Origin", f"http://{host.lower()}")]) == 200


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:4200", "127.0.0.1.evil.example:4200", "localhost.evil.example", "localhost.",
        "evil.example@127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1:4200/evil", "127.0.0.1:port", "127.1", "0.0.0.0",
        "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "[::1", "192.168.0.7:4200", "127.0.0.1, evil.example",
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused(host: str) -> None:
    assert status([("Host", host)]) == 403


def test_a_host_is_named_once() -> None:
    assert status([]) == 403
    assert status([("Host", "127.0.0.1:4200"), ("Host", "evil.example")]) == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", "http://127.0.0.1:9999", "http://localhost:4200", "file://",
        "http://127.0.0.1:4200.evil.example", "http://127.0.0.1:4200/", "chrome-extension://abc", "127.0.0.1:4200",
    ],
)  # fmt: skip
def test_a_foreign_origin_is_refused(origin: str) -> None:
    assert status([("Host", "127.0.0.1:4200"), ("Origin", origin)]) == 403
    assert status([("Host", "127.0.0.1:4200"), ("Origin", origin)], path=LOGIN_PATH) == 403


def test_an_origin_that_the_operator_names_is_answered() -> None:
    headers = [("Host", "127.0.0.1:4200"), ("Origin", "https://tools.example")]
    assert status(headers, allowed="https://tools.example") == 200
    assert status(headers, allowed="*") == 403


# --- the server of `prosemill up` ----------------------------------------------------------------------------------


def attempt(stack: Stack, *, login: bool, **headers: str) -> tuple[int, str]:
    """Start a run that would leave a file, as somebody who sends these headers."""
    auth = stack.login if login else None
    read = httpx.post(f"{stack.api}/deployments/filter", json={}, headers=headers, auth=auth, timeout=60)
    name = "retrain/stories"
    body = {"state": {"type": "SCHEDULED"}, "job_variables": {"command": f"touch {stack.home}/owned"}}
    deployment = stack.deployment(name)["id"]
    url = f"{stack.api}/deployments/{deployment}/create_flow_run"
    started = httpx.post(url, json=body, headers=headers, auth=auth, timeout=60)
    assert started.status_code == read.status_code
    return read.status_code, read.text


def all_runs(stack: Stack) -> int:
    return int(stack.post("/flow_runs/count"))


def test_strangers_get_nothing(stack: Stack) -> None:
    before = all_runs(stack)
    assert attempt(stack, login=False) == (401, '{"exception_message":"Unauthorized"}')
    assert attempt(stack, login=False, Authorization="Basic cHJvc2VtaWxsOg==")[0] == 401
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        refused, text = attempt(stack, login=True, **headers)
        assert refused == 403
        assert text.startswith("prosemill: ")
        assert text.count("\n") == 1
    assert all_runs(stack) == before
    assert not (stack.home / "owned").exists()


def test_strangers_hear_no_events(stack: Stack) -> None:
    address = f"{stack.api.replace('http', 'ws', 1)}/events/out"
    with pytest.raises(InvalidStatus, match="403"), connect(address, origin="http://evil.example"):  # type: ignore[arg-type]
        pass
    # Without an Origin it is a program: Prefect asks for its login first.
    with connect(address, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "auth", "token": "guess"}))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=60)


def test_only_its_owner_reads_the_login(stack: Stack) -> None:
    home = stack.store / "prefect"
    assert [(home / name).stat().st_mode & 0o777 for name in ("login", "server.json")] == [0o600, 0o600]
    assert len(stack.login[1]) >= 32


def test_commands_find_the_login_by_themselves(stack: Stack) -> None:
    assert not any("AUTH" in name for name in stack.environment)
    done = stack.prosemill("deploy", str(stack.recipe))
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout


PAGE = """<!doctype html><title>evil</title><script>
const api = "API", body = JSON.stringify({state: {type: "SCHEDULED"}, job_variables: {command: "touch OWNED"}});
const start = `${api}/deployments/DEPLOYMENT/create_flow_run`;
const attempts = {
  read: () => fetch(`${api}/flows/filter`, {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}}),
  health: () => fetch(`${api}/health`),
  simple: () => fetch(start, {method: "POST", body}),
  opaque: () => fetch(start, {method: "POST", body, mode: "no-cors", credentials: "include"}),
  login: () => fetch(start, {method: "POST", body, headers: {"Authorization": "Basic TOKEN"}}),
  socket: () => new Promise((good, bad) => {
    const socket = new WebSocket(`${api.replace("http", "ws")}/events/in`);
    socket.onopen = good; socket.onerror = () => bad("refused");
  }),
  frame: () => new Promise((good, bad) => {
    const frame = document.createElement("iframe");
    frame.src = "UI/"; document.body.append(frame);
    frame.onload = () => { try { good(frame.contentDocument ? "" : "other origin") } catch (error) { bad(error) } };
  }),
};
async function all() {
  const came = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { const answer = await attempt(); came[name] = answer.type === "opaque" ? "opaque" : `${await answer.text()}` }
    catch (error) { came[name] = "nothing" }
  }
  return came;
}
</script><body>"""


@pytest.fixture
def evil(stack: Stack) -> Iterator[str]:
    """The address of a web server of another origin, whose page knows everything: deployments, and even the login."""
    import base64

    token = base64.b64encode(":".join(stack.login).encode()).decode()
    deployment = stack.deployment("retrain/stories")["id"]
    facts = {"API": stack.api, "DEPLOYMENT": deployment, "OWNED": f"{stack.home}/owned", "TOKEN": token, "UI": stack.ui}
    page = PAGE
    for name, value in facts.items():
        page = page.replace(name, value)

    class RedirectHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), RedirectHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def test_a_page_of_another_origin_gets_nothing_in_a_browser_that_is_logged_in(stack: Stack, evil: str) -> None:
    before = all_runs(stack)
    with chromium("--host-resolver-rules=MAP rebound.example 127.0.0.1") as browser:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(stack.link)
        expect(page.get_by_role("link", name="Runs")).to_be_visible(timeout=120_000)
        assert page.evaluate("location.hash") == "", "the login is not left in the address bar"

        page.goto(evil)
        came = page.evaluate("all()")
        assert came.pop("opaque") == "opaque", "sent, and refused: a page cannot read what was answered"
        framed = page.frames[-1]
        assert (framed.url, came.pop("frame")) == ("chrome-error://chromewebdata/", "nothing")
        assert came == dict.fromkeys(came, "nothing")

        answer = page.goto(stack.ui.replace("127.0.0.1", "rebound.example"))
        assert answer is not None
        assert (answer.status, "refused" in answer.text() or "loopback only" in answer.text()) == (403, True)
    assert all_runs(stack) == before
    assert not (stack.home / "owned").exists()


def test_the_browser_is_asked_for_the_login(stack: Stack) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{stack.ui}/v2/dashboard")
        field = page.get_by_role("textbox").first
        expect(field).to_be_visible(timeout=120_000)
        field.fill(":".join(stack.login))
        field.press("Enter")
        expect(page.get_by_role("link", name="Runs")).to_be_visible(timeout=120_000)


# --- the server of a run without one, and the login ----------------------------------------------------------------

TEMPORARY = """
import sys
from prosemill.config import environment
environment.prepare(sys.argv[1])
from flows.support import local_server
local_server.start_if_none_is_named()
import httpx
api, (user, _, password) = environment.api_url(), environment.server_login().partition(":")
for auth, headers in ((None, {}), ((user, password), {"Host": "evil.example"}), ((user, password), {})):
    print(httpx.post(f"{api}/flows/filter", json={}, auth=auth, headers=headers, timeout=60).status_code)
from prefect import flow
@flow
def greet():
    return 1
print(greet())
"""


def test_the_server_of_one_run_asks_for_the_login_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TEMPORARY, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT,
        env=clean_environment(), timeout=240,
    )  # fmt: skip
    assert done.stdout.split() == ["401", "403", "200", "1"], done.stderr


def test_a_login_is_made_once_a_store(tmp_path: Path) -> None:
    ours = {"PROSEMILL_STORE": str(tmp_path)}
    login = environment.server_login(ours)
    assert environment.server_login(ours) == login != environment.server_login({"PROSEMILL_STORE": str(tmp_path / "b")})
    assert environment.server_login(ours | {"PREFECT_SERVER_API_AUTH_STRING": "ada:secret"}) == "ada:secret"
    assert environment.of_server(4200, ours)["PREFECT_SERVER_API_AUTH_STRING"] == login


def test_the_login_goes_to_no_other_server(tmp_path: Path) -> None:
    """One that another user starts on the port after `prosemill up` was killed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HealthyServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_address[1]}/api"
        ours = {"PROSEMILL_STORE": str(tmp_path)}
        note = environment.announce_server(str(tmp_path), api, ours)
        assert environment.running_server(note.parent) == (api, environment.server_login(ours))
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": ended.pid}))
        assert environment.running_server(note.parent) == ("", "")
        server.shutdown()


class HealthyServer(BaseHTTPRequestHandler):
    """Says that it is well, as a Prefect server does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("set_by_hand", "expected"),
    [
        ({}, ("API", "LOGIN")),
        ({"PREFECT_API_URL": "API"}, ("API", "LOGIN")),
        ({"PREFECT_API_URL": "API/", "PREFECT_API_AUTH_STRING": "ada:secret"}, ("API", "ada:secret")),
        ({"PREFECT_API_URL": "https://prefect.example/api"}, ("https://prefect.example/api", None)),
    ],
)
def test_which_login_a_command_uses(
    tmp_path: Path, set_by_hand: dict[str, str], expected: tuple[str, str | None]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), HealthyServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api, ours = f"http://127.0.0.1:{server.server_address[1]}/api", {"PROSEMILL_STORE": str(tmp_path)}
        environment.announce_server(str(tmp_path), api, ours)
        environ = {name: value.replace("API", api) for name, value in set_by_hand.items()}
        environment.prepare(str(tmp_path), environ=environ)
        names = {"API": api, "LOGIN": environment.server_login(ours)}
        wanted = tuple(names.get(value, value) if value else None for value in expected)
        assert (environ["PREFECT_API_URL"], environ.get("PREFECT_API_AUTH_STRING")) == wanted
        server.shutdown()
