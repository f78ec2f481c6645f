"""robots.txt as RFC 9309 has it, and what it says about AI.

Protego matches paths; which answer means what is decided here:

    2xx                      the first 500 KiB count; HTML instead of rules means no rules
    4xx                      everything is allowed
    5xx, time-out, no answer nothing is allowed (`robots_unavailable`)

Rule for AI opt-outs: a page that we may read, but that a group naming one of AI_TOKENS may not, is opted out of AI use
(`robots:GPTBot`). Only groups that name such a token count; what `*` says holds for us anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protego import Protego

MAX_BYTES = 500 * 1024  # RFC 9309, 2.5
MAX_REDIRECTS = 5  # RFC 9309, 2.3.1.2; beyond it the file counts as missing
_LINE = re.compile(r"^([ \t]*user-?\s?agent[ \t]*:[ \t]*)([a-z_-]+)[^\n]*", re.IGNORECASE | re.MULTILINE)
_TOKEN = re.compile(r"[A-Za-z_-]+")
# Crawlers that gather text to train or ground language models, by the tokens their owners publish.
AI_TOKENS = (
    "GPTBot",
    "CCBot",
    "Google-Extended",
    "ClaudeBot",
    "anthropic-ai",
    "Claude-Web",
    "Applebot-Extended",
    "Bytespider",
    "PerplexityBot",
    "Meta-ExternalAgent",
    "FacebookBot",
    "Amazonbot",
    "cohere-ai",
    "cohere-training-data-crawler",
    "AI2Bot",
    "Diffbot",
    "Omgilibot",
    "ImagesiftBot",
    "Timpibot",
    "PanguBot",
    "DeepSeekBot",
)


def product_token(user_agent: str) -> str:
    """The name that robots.txt knows us by: "prosemill" of "prosemill/1.0 (+https://…)"."""
    match = _TOKEN.match(user_agent)
    return match.group() if match else user_agent


@dataclass(frozen=True)
class Robots:
    """The rules of one origin for us. `unavailable` is "" or why nothing may be asked."""

    token: str  # the group that holds for us: our own, or "*"
    rules: Protego | None = None
    ai_tokens: tuple[str, ...] = ()
    unavailable: str = ""

    @classmethod
    def from_answer(cls, token: str, status: int, body: bytes) -> Robots:
        if status >= 500:
            return cls(token, unavailable=f"http_{status}")
        if not 200 <= status < 300:
            return cls(token)
        return cls.parse(token, body)

    @classmethod
    def parse(cls, token: str, body: bytes) -> Robots:
        text = body[:MAX_BYTES].decode("utf-8-sig", errors="replace").replace("\0", "")
        if text.lstrip()[:1] == "<":  # an error page with status 200
            return cls(token)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        named = {match.group(2).lower() for match in _LINE.finditer(text)}
        rules = Protego.parse(_LINE.sub(r"\1\2", text))  # "prosemill/1.0" names prosemill
        group = token if token.lower() in named else "*"  # Protego alone would let "prose" stand for prosemill
        return cls(group, rules, tuple(name for name in AI_TOKENS if name.lower() in named))

    def allows(self, url: str) -> bool:
        return not self.unavailable and (self.rules is None or bool(self.rules.can_fetch(url, self.token)))

    def opt_out(self, url: str) -> str:
        """ "robots:GPTBot" for the first AI token that may not read `url`, or ""."""
        if self.rules is None:
            return ""
        return next((f"robots:{name}" for name in self.ai_tokens if not self.rules.can_fetch(url, name)), "")

    @property
    def crawl_delay(self) -> float:
        """Seconds; 0 when none is stated."""
        return float(self.rules.crawl_delay(self.token) or 0.0) if self.rules is not None else 0.0
