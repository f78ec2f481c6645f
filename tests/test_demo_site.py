"""The demo site: the same bytes each time, weeks that only add, honest HTTP, and nuisances that are what they claim."""

import json
import re
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prosemill.config.recipe import load_recipe
from prosemill.demo import WEEKS, DemoServer, DemoSite, data_folder, expectations, load_messages, render_site, serve
from prosemill.demo.chinese import render_classics
from prosemill.demo.messages import week_of
from prosemill.demo.planted import DOUBLED, MOVED, OWN_PAGES, PRINTED, SYNDICATED, reword
from prosemill.errors import DemoError

UNTIL = 1799


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> DemoSite:
    return render_site(tmp_path_factory.mktemp("site"), until_year=UNTIL)


@pytest.fixture(scope="module")
def server(site: DemoSite):  # type: ignore[no-untyped-def]
    with serve(site.folder, 0) as server:
        yield server


def ask(server: DemoServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower-case names) and body; redirects are not followed."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, headers=names, method=method)
    opener = urllib.request.build_opener(NoRedirect)
    try:
        answer = opener.open(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class OpenElements(HTMLParser):
    """Which elements are open at the end, and where links go."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name == "href" and value and tag == "a"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def outline(body: bytes, charset: str = "utf-8") -> OpenElements:
    parser = OpenElements()
    parser.feed(body.decode(charset))
    return parser


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


# --- the messages ---------------------------------------------------------------------------------------


def test_one_message_a_year_from_1790() -> None:
    years = [message.year for message in load_messages()]
    assert years[0] == 1790
    assert years == sorted(set(years))
    assert len(years) >= 225
    assert {1933, 1989} & set(years) == set()  # years without a message
    assert all(len(" ".join(message.paragraphs).split()) > 900 for message in load_messages())


def test_of_several_messages_the_earliest_is_taken() -> None:
    by_year = {message.year: message for message in load_messages()}
    assert by_year[1953].president == "Harry S. Truman"
    assert by_year[1972].spoken


def test_every_year_has_its_week() -> None:
    assert [week_of(message.year).as_of for message in load_messages()] == sorted(
        week_of(message.year).as_of for message in load_messages()
    )
    assert week_of(1790) == WEEKS[1]
    assert week_of(WEEKS[1].until_year + 1) == WEEKS[2]


# --- rendering ---------------------------------------------------------------------------------------


def test_the_same_bytes_each_time(site: DemoSite, tmp_path: Path) -> None:
    again = render_site(tmp_path, until_year=UNTIL)
    assert again.pages == site.pages
    assert {page.path: again.body(page.path) for page in again.pages if page.file} == {
        page.path: site.body(page.path) for page in site.pages if page.file
    }


def test_a_week_adds_pages_and_changes_only_the_front_page(tmp_path: Path) -> None:
    first = render_site(tmp_path / "1", until_year=WEEKS[1].until_year)
    second = render_site(tmp_path / "2", until_year=WEEKS[2].until_year)
    before = {page.path: (page, first.body(page.path)) for page in first.pages if page.file}
    after = {page.path: (page, second.body(page.path)) for page in second.pages if page.file}
    assert [path for path, answer in before.items() if after[path] != answer] == ["/"]
    assert len([path for path in after.keys() - before.keys() if re.fullmatch(r"/messages/\d{4}\.html", path)]) == 10
    assert all(after[path][0].last_modified == WEEKS[2].as_of for path in after.keys() - before.keys())


def test_rendering_again_leaves_no_old_page(tmp_path: Path) -> None:
    render_site(tmp_path, until_year=1795)
    render_site(tmp_path, until_year=1792)
    assert not (tmp_path / "pages/messages/1795.html").exists()
    with pytest.raises(DemoError, match="1790 or later"):
        render_site(tmp_path, until_year=1789)


def test_pages_are_well_formed_and_links_lead_somewhere(site: DemoSite) -> None:
    paths = {page.path for page in site.pages} | {"/sitemap.xml"}
    dead = set()
    for page in site.pages:
        if page.content_type.startswith("text/html") and page.file and page.path != "/files/catalogue.html":
            charset = "utf-8" if "utf-8" in page.content_type else "gbk"
            parsed = outline(site.body(page.path), charset)
            assert (page.path, parsed.wrong, parsed.open) == (page.path, [], [])
            links = {re.split(r"[?#]", link)[0] for link in parsed.links if link.startswith("/")}
            dead |= links - paths
    assert dead == {"/messages/1789.html"}


def test_every_page_has_what_real_sites_have(site: DemoSite) -> None:
    body = site.body("/messages/1799.html").decode()
    for part in ('<nav aria-label="Site">', "cookie-notice", "Read also", '<footer class="site-footer">'):
        assert part in body
    assert '<time datetime="1799-12-03">3 December 1799</time>' in body


def test_reprints_are_near_copies() -> None:
    for message in load_messages():
        if message.year in SYNDICATED:
            copy = shingles(" ".join(reword(message.paragraphs)))
            original = shingles(" ".join(message.paragraphs))
            assert 0.85 < len(copy & original) / len(copy | original) < 0.96


def test_twins_are_twins(site: DemoSite) -> None:
    (doubled,), (moved,) = DOUBLED, MOVED
    assert site.body(f"/messages/{doubled}/index.html") == site.body(f"/messages/{doubled}.html")
    old = site.body(f"/archive/{moved}.html")
    assert f'<link rel="canonical" href="/messages/{moved}.html">'.encode() in old
    assert PRINTED.isdisjoint(SYNDICATED)


def test_the_gbk_pages_name_their_charset_only_in_the_page(site: DemoSite) -> None:
    for own in (own for own in OWN_PAGES if own.charset == "gbk"):
        body = site.body(own.path)
        assert site.page(own.path).content_type == "text/html"
        assert b'<meta charset="gbk">' in body
        with pytest.raises(UnicodeDecodeError):
            body.decode("utf-8")
    assert len(re.findall("[\u4e00-\u9fff]", site.body("/notices/zh.html").decode("gbk"))) >= 150


# --- serving ---------------------------------------------------------------------------------------


def test_an_unchanged_page_is_not_sent_twice(server: DemoServer) -> None:
    status, headers, body = ask(server, "/messages/1790.html")
    assert (status, headers["content-length"]) == (200, str(len(body)))
    assert headers["last-modified"] == "Mon, 05 Jan 2026 06:00:00 GMT"
    etag, date = headers["etag"], headers["last-modified"]
    assert ask(server, "/messages/1790.html", if_none_match=f'"other", W/{etag}')[::2] == (304, b"")
    assert ask(server, "/messages/1790.html", if_modified_since=date)[::2] == (304, b"")
    assert ask(server, "/messages/1790.html", if_none_match='"other"', if_modified_since=date)[0] == 200
    assert ask(server, "/messages/1790.html", if_modified_since="yesterday")[0] == 200


def test_head_has_the_headers_of_get(server: DemoServer) -> None:
    _, full, body = ask(server, "/about.html")
    status, head, nothing = ask(server, "/about.html", "HEAD")
    assert (status, nothing) == (200, b"")
    assert body
    assert {**head, "date": ""} == {**full, "date": ""}


@pytest.mark.parametrize(
    ("path", "status", "header", "value"),
    [
        ("/", 200, "content-type", "text/html; charset=utf-8"),
        ("/notices/zh.html", 200, "content-type", "text/html"),
        ("/style.css", 200, "content-type", "text/css; charset=utf-8"),
        ("/files/guide.pdf", 200, "content-type", "application/pdf"),
        ("/files/lengths.png", 200, "content-type", "image/png"),
        ("/guests/lecture.html", 200, "x-robots-tag", "noai"),
        ("/guests/memoir.html", 200, "tdm-reservation", "1"),
        ("/home", 301, "location", "/"),
        ("/messages/1796/", 200, "content-type", "text/html; charset=utf-8"),
        ("/messages/1789.html", 404, "content-type", "text/html; charset=utf-8"),
        ("/../site.json", 404, "content-type", "text/html; charset=utf-8"),
    ],
)
def test_answers(server: DemoServer, path: str, status: int, header: str, value: str) -> None:
    got, headers, _ = ask(server, path)
    assert (got, headers[header]) == (status, value)


def test_robots_and_sitemap_name_this_server(server: DemoServer) -> None:
    robots = ask(server, "/robots.txt")[2].decode()
    assert f"Sitemap: {server.url}/sitemap.xml" in robots
    listed = re.findall("<loc>(.*?)</loc>", ask(server, "/sitemap.xml")[2].decode())
    assert f"{server.url}/messages/1799.html" in listed
    assert not [url for url in listed if "/private/" in url or "/print/" in url]


def test_the_calendar_never_ends(server: DemoServer) -> None:
    path = "/calendar.html"
    for _ in range(14):
        body = ask(server, path)[2]
        path = re.findall(r'rel="next" href="([^"]+)"', body.decode())[0]
    assert path == "/calendar.html?month=1791-03"
    assert b"@" not in ask(server, "/calendar.html?day=1862-12-01")[2]


def test_requests_are_remembered(site: DemoSite) -> None:
    with serve(site.folder, 0) as server:
        ask(server, "/about.html?x=1")
        ask(server, "/nothing")
        assert server.requests == [("/about.html?x=1", 200), ("/nothing", 404)]


def test_the_next_week_is_served_without_a_restart(tmp_path: Path) -> None:
    render_site(tmp_path, until_year=1790)
    with serve(tmp_path, 0) as server:
        assert ask(server, "/messages/1791.html")[0] == 404
        render_site(tmp_path, until_year=1791)
        server.reload(tmp_path)
        assert ask(server, "/messages/1791.html")[0] == 200


def test_a_taken_port_is_one_clear_line(site: DemoSite, server: DemoServer) -> None:
    with pytest.raises(DemoError, match=rf"127\.0\.0\.1:{server.port}: the port is in use.*--port") as caught:  # noqa: SIM117
        with serve(site.folder, server.port):
            pass
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_site_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="no rendered site here"), serve(tmp_path, 0):
        pass


# --- what goes with it ---------------------------------------------------------------------------------------


def test_every_planted_page_is_there(site: DemoSite, server: DemoServer) -> None:
    paths = [expectation.path for expectation in expectations(UNTIL) if expectation.path.startswith("/")]
    assert len(paths) == len(set(paths))
    linked = set()
    for page in site.pages:
        if page.content_type.startswith("text/html") and page.file:
            linked |= set(outline(site.body(page.path), "gbk" if page.content_type == "text/html" else "utf-8").links)
    assert set(paths) - linked - {"/"} == set()
    assert [path for path in paths if ask(server, path)[0] == 404] == ["/messages/1789.html"]


def test_the_recipes_are_valid() -> None:
    recipe = load_recipe(data_folder() / "recipe.toml")
    assert recipe.sources[0].urls == ["http://127.0.0.1:8423/"]
    assert load_recipe(data_folder() / "chinese.toml").language == "zh"


def test_the_classics_become_a_site_of_chapters(tmp_path: Path) -> None:
    book = [{"chapter": "春", "paragraphs": ["今天下雨，我们在家里读书。", "明天天晴，再去山上走走。"]}]
    anthology = {
        "title": "集",
        "content": [{"title": "卷一", "content": [{"chapter": "记", "author": "某人", "paragraphs": ["<一>"]}]}],
    }
    for name, content in (("lunyu/lunyu.json", book), ("mengxue/guwenguanzhi.json", anthology)):
        path = tmp_path / "dist" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    site = render_classics(tmp_path / "dist", tmp_path / "out")
    assert [page.path for page in site.pages] == ["/", "/guwenguanzhi/001.html", "/lunyu/001.html"]
    assert (
        '<h1>卷一 · 记</h1><p class="byline">某人</p>\n<p>&lt;一&gt;</p>'
        in site.body("/guwenguanzhi/001.html").decode()
    )
    assert outline(site.body("/")).links == ["/", "/lunyu/001.html", "/guwenguanzhi/001.html"]
    with serve(tmp_path / "out", 0) as server:
        assert ask(server, "/lunyu/001.html")[0] == 200
    with pytest.raises(DemoError, match="npm pack chinese-poetry"):
        render_classics(tmp_path, tmp_path / "none")
