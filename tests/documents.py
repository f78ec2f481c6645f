"""The examples of the README and of docs/: every fenced block, every command in a table, every link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `language` is what stands behind the opening fence."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def iter_blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(str(page.relative_to(ROOT)), line, match[1], match[2])


def commands() -> list[str]:
    """Each command line of the blocks of shell, without its comment, once, in the order of the pages."""
    lines = [line for block in iter_blocks() if block.language == "sh" for line in block.text.splitlines()]
    bare = [re.sub(r"\s+# .*$", "", line).removeprefix(".venv/bin/") for line in lines if line.strip()]
    return list(dict.fromkeys(bare))


def iter_table_commands() -> Iterator[tuple[str, list[str], list[str]]]:
    """(page, names of commands, options) of each row of the tables of commands."""
    for page in PAGES:
        for row in re.findall(r"^\| `prosemill .*$", page.read_text(encoding="utf-8"), re.MULTILINE):
            first = row.split(" | ")[0]
            spans = re.findall(r"`([^`]+)`", first)
            names = [span.removeprefix("prosemill ").split()[0] for span in spans]
            yield page.name, names, re.findall(r"--[a-z-]+", row)


def iter_links() -> Iterator[tuple[Path, str]]:
    """(page, target) of each link that stays in the repository."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                yield page, target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
