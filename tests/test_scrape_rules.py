"""The rules of crawling without a network: addresses, robots.txt, opt-outs, bodies."""

from __future__ import annotations

import gzip
import time
import zlib
from datetime import UTC, datetime

import pytest

from prosemill.config import environment
from prosemill.errors import ProsemillError
from prosemill.scrape import answers, optouts, urls
from prosemill.scrape.links import MAX_LINKS, outline
from prosemill.scrape.robots import Robots, product_token


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("HTTP://Site.Example:80/a/../b/./c?b=2&a=1&utm_source=x#part", "http://site.example/b/c?a=1&b=2"),
        ("https://site.example", "https://site.example/"),
        ("https://site.example:443/%7ewriter/%e4%b8%ad", "https://site.example/~writer/%E4%B8%AD"),
        ("http://site.example/中文", "http://site.example/%E4%B8%AD%E6%96%87"),
        ("http://site.example/a;jsessionid=1F?PHPSESSID=2&sid=3", "http://site.example/a"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://name:secret@site.example/", "http://site.example/"),
        (" http://site.example/a b ", "http://site.example/a%20b"),
    ],
)
def test_one_page_has_one_address(address: str, wanted: str) -> None:
    assert urls.canonical(address) == wanted
    assert urls.canonical(wanted) == wanted


@pytest.mark.parametrize(
    "address", ["ftp://x/", "file:///etc/passwd", "javascript:go()", "http://", "http://x:99999/", "x"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        urls.canonical(address)


def test_traps_and_private_hosts() -> None:
    assert urls.is_trap("http://x/a/a/a/")
    assert urls.is_trap("http://x/" + "y" * 3000)
    assert not urls.is_trap("http://x/2024/01/01/a-long-story")
    private = [
        "127.0.0.1",
        "10.0.0.8",
        "169.254.169.254",
        "[::1]",
        "::ffff:192.168.0.1",
        "localhost",
        "0.0.0.0",
        "fe80::1",
    ]
    assert [host for host in private if not urls.is_private(host)] == []
    assert not urls.is_private("93.184.215.14")
    assert not urls.is_private("site.example")


ROBOTS = b"""
# the paths of this site
User-agent: prosemill
User-agent: other
Crawl-delay: 2.5
Disallow: /drafts
Allow: /drafts/open$

User-agent: *
Disallow: /

User-agent: gptbot
Disallow: /essays
"""


def test_robots_rules_are_those_of_our_group() -> None:
    robots = Robots.from_answer("prosemill", 200, ROBOTS)
    assert robots.crawl_delay == 2.5
    assert [robots.allows(f"http://x{path}") for path in ("/", "/drafts/1", "/drafts/open", "/drafts/open/2")] == [
        True,
        False,
        True,
        False,
    ]
    assert robots.opt_out("http://x/essays/1") == "robots:GPTBot"
    assert robots.opt_out("http://x/novels/1") == ""
    assert not Robots.from_answer("stranger", 200, ROBOTS).allows("http://x/")


def test_groups_are_named_by_whole_tokens() -> None:
    rules = b"User-agent: prose\rDisallow: /\r\rUser-agent: Prosemill/2.0 (the mill)\rDisallow: /mill\r"
    robots = Robots.from_answer("prosemill", 200, rules)
    assert robots.allows("http://x/other")
    assert not robots.allows("http://x/mill")
    assert Robots.from_answer("prosemiller", 200, rules).allows("http://x/mill")


def test_answers_for_robots_as_rfc_9309_has_them() -> None:
    forbid = b"User-agent: *\nDisallow: /"
    page = "http://x/page"
    assert not Robots.from_answer("me", 200, b"\xef\xbb\xbf" + forbid).allows(page)
    assert Robots.from_answer("me", 200, b"<!doctype html><p>" + forbid).allows(page)
    assert Robots.from_answer("me", 404, forbid).allows(page)
    assert Robots.from_answer("me", 403, forbid).allows(page)
    assert Robots.from_answer("me", 503, b"").unavailable == "http_503"
    assert not Robots.from_answer("me", 503, b"").allows(page)
    late = b"# long\n" * 80_000 + forbid  # beyond 500 KiB
    assert Robots.from_answer("me", 200, late).allows(page)


def test_the_token_is_what_comes_before_version_and_address() -> None:
    assert product_token("prosemill/0.1 (+https://site.example)") == "prosemill"


def decide(
    obey: bool = True, robots: str = "", tdmrep: bytes = b"", ai_txt: bytes = b"", **signals: list[str]
) -> tuple[str, str]:
    headers = {name[2:].replace("_", "-"): values for name, values in signals.items() if name.startswith("h_")}
    meta = {name[2:].replace("_", "-"): values for name, values in signals.items() if name.startswith("m_")}
    site = optouts.SiteOptOuts.parse(tdmrep, ai_txt)
    decision = optouts.decide(
        "http://x/essays/one", robots=robots, site=site, headers=headers, meta=meta, token="prosemill", obey=obey
    )
    return decision.opt_out, decision.reason


def test_opt_outs_become_one_decision() -> None:
    assert decide() == ("", "")
    assert decide(m_robots=["index, follow, noimageai"]) == ("", "")
    assert decide(m_robots=["NOAI, noindex"]) == ("meta:noai,meta:noindex", "ai_opt_out")
    assert decide(m_robots=["none"]) == ("meta:noindex", "noindex")
    assert decide(m_prosemill=["noindex"]) == ("meta:noindex", "noindex")
    assert decide(h_x_robots_tag=["googlebot: noindex"]) == ("", "")
    assert decide(h_x_robots_tag=["prosemill: noai"]) == ("header:noai", "ai_opt_out")
    assert decide(h_x_robots_tag=["noindex", "noai"]) == ("header:noai,header:noindex", "ai_opt_out")
    assert decide(robots="robots:CCBot") == ("robots:CCBot", "ai_opt_out")
    assert decide(obey=False, m_robots=["noai"]) == ("meta:noai", "")


def test_tdm_reservation_and_ai_txt() -> None:
    reserved = b'[{"location": "/essays/free*", "tdm-reservation": 0}, {"location": "/essays", "tdm-reservation": 1}]'
    assert decide(tdmrep=reserved) == ("tdmrep", "ai_opt_out")
    assert decide(tdmrep=reserved, h_tdm_reservation=["0"]) == ("", "")
    assert decide(h_tdm_reservation=["1"], m_tdm_reservation=["0"]) == ("", "")
    assert decide(tdmrep=b"<html>no such file</html>", ai_txt=b"<html>no such file</html>") == ("", "")
    assert decide(ai_txt=b"User-Agent: *\nDisallow: /essays/\n") == ("ai.txt", "ai_opt_out")
    assert decide(ai_txt=b"User-Agent: *\nDisallow: /photos/\n") == ("", "")


def test_links_in_page_order_each_once() -> None:
    body = b"""<html><head><base href="/deep/"><link rel="Canonical" href="/one">
    <meta http-equiv="refresh" content="5; url='next'">
    </head><body><a href="b">1</a><a href="/a">2</a><a href=" b ">3</a><a href="mailto:x@y.example">4</a>
    <area href="//other.example/c"><a>5</a><a href="http://[bad">6</a><a href="#top">7</a>
    <a href="b#two">8</a>"""
    page = outline(body, "http://x/start")
    assert page.links == ("http://x/deep/next", "http://x/deep/b", "http://x/a", "http://other.example/c")
    assert page.canonical == "http://x/one"


def test_hostile_html_is_bounded() -> None:
    started = time.monotonic()
    assert outline(b"<div>" * 100_000 + b"<a href=/x>x</a>", "http://x/").links in ((), ("http://x/x",))
    many = b"".join(b'<a href="/%d">x</a>' % number for number in range(20_000))
    page = outline(many, "http://x/")
    assert (len(page.links), page.links_left_out) == (MAX_LINKS, 20_000 - MAX_LINKS)
    assert outline(b"\0\0<a\0 href='/y'>", "http://x/", "no-such-charset").links == ("http://x/y",)
    assert outline(b"", "http://x/").links == ()
    assert time.monotonic() - started < 10


def test_encodings_are_undone_within_bounds() -> None:
    text = b"words, words. " * 50
    assert answers.inflate(gzip.compress(text), ["gzip"], 1000) == text
    assert answers.inflate(gzip.compress(gzip.compress(text)), ["gzip", "gzip"], 1000) == text
    assert answers.inflate(zlib.compress(text), ["deflate"], 1000) == text
    assert answers.inflate(zlib.compress(text)[2:-4], ["deflate"], 1000) == text
    assert answers.inflate(text, ["gzip"], 1000) == text  # a server that lies
    assert answers.inflate(gzip.compress(text) + b"garbage", ["x-gzip"], 1000) == text
    for body, encodings, reason in [
        (gzip.compress(b"0" * 10**7), ["gzip"], "too_large"),
        (gzip.compress(text)[:-20], ["gzip"], "truncated"),
        (b"\x1f\x8bnonsense", ["gzip"], "bad_encoding"),
        (text, ["br"], "bad_encoding"),
        (text, ["gzip", "gzip", "gzip"], "bad_encoding"),
    ]:
        with pytest.raises(answers.UnusableBody, match=reason):
            answers.inflate(body, encodings, 1000)


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("text/html", b"<p>words</p>", ""),
        ("", b"<p>words</p>", ""),
        ("text/plain; charset=utf-16", "words".encode("utf-16"), ""),
        ("application/xhtml+xml", b"<p/>", ""),
        ("application/json", b"{}", "non_html"),
        ("text/html", b"\x89PNG\r\n", "non_html"),
        ("text/html", b"a\0" * 100, "non_html"),
        ("text/html", b" \r\n\t", "empty"),
    ],
)
def test_what_is_a_page_is_judged_by_its_bytes_too(content_type: str, body: bytes, reason: str) -> None:
    if not reason:
        answers.check_page(content_type, body)
        return
    with pytest.raises(answers.UnusableBody, match=reason):
        answers.check_page(content_type, body)


def test_retry_after_in_every_spelling() -> None:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    assert answers.retry_after("120", now) == 120
    assert answers.retry_after("Sat, 21 Nov 2026 12:00:30 GMT", now) == 30
    assert answers.retry_after("Fri, 20 Nov 2026 12:00:00 GMT", now) == 0
    assert answers.retry_after("soon", now) is None
    assert answers.retry_after("9" * 400, now) == float("9" * 12)


def test_how_long_an_unreachable_source_is_left_alone() -> None:
    assert environment.retry_seconds({}) == 5
    assert environment.retry_seconds({"PROSEMILL_RETRY_SECONDS": "0.5"}) == 0.5
    for wrong in ("soon", "-1", "nan", "inf"):
        with pytest.raises(ProsemillError, match=f"PROSEMILL_RETRY_SECONDS = '{wrong}': is not a number from 0"):
            environment.retry_seconds({"PROSEMILL_RETRY_SECONDS": wrong})
