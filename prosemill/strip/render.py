"""A tree of main text as plain text that keeps its shape.

Paragraphs, headings and code blocks are separated by a blank line, list items begin with `- ` or `1. `, a table has one
row a line with ` | ` between cells. Understands trafilatura's tags (head, list, item, quote, row, cell, lb) and HTML's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from prosemill.strip.compat import Element

_BREAKS = {"lb", "br", "hr"}
_LISTS = {"list", "ul", "ol", "dl", "menu"}
_ITEMS = {"item", "li", "dt", "dd"}
_ROWS = {"row", "tr"}
_CELLS = {"cell", "td", "th"}
_INLINE = {
    *("a", "ref", "hi", "del", "span", "b", "i", "u", "em", "strong", "code", "q", "sub", "sup", "small", "mark"),
    *("font", "abbr", "acronym", "cite", "dfn", "ins", "s", "strike", "tt", "kbd", "samp", "var", "bdi", "bdo", "big"),
    *("time", "label", "data", "nobr", "wbr", "ruby", "rb", "img", "graphic"),
}
_SKIPPED = {"script", "style", "template", "rt", "rp", "done"}
_LAYOUT_CELL = 400  # characters: a longer cell is a column of the page, not a value of a table

# Code is verbatim text that travels through libraries which squeeze white space: while on the way, its white space is
# private-use characters, and two more mark its ends. Pages' own private-use characters (icon fonts) are dropped before.
_CODE_START, _CODE_END = "\ue003", "\ue004"
_HIDE = str.maketrans({"\n": "\ue000", " ": "\ue001", "\t": "\ue002", "\xa0": "\ue001"})
_SHOW = str.maketrans({"\ue000": "\n", "\ue001": " ", "\ue002": "\t"})
_CODE = re.compile(rf"\s*{_CODE_START}([^{_CODE_START}{_CODE_END}]*){_CODE_END}[^\S\n]*")
PARAGRAPH_END = "\ue005"  # a paragraph break within running text
PRIVATE_USE = re.compile("[\ue000-\uf8ff]")


def hide_code(text: str) -> str:
    """`text` so that squeezing white space leaves it as it is; `show_code` undoes it."""
    lines = text.expandtabs(4).split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    body = "\n".join(line.rstrip() for line in lines).rstrip()
    return f"{_CODE_START}{body.translate(_HIDE)}{_CODE_END}" if body else ""


def show_code(text: str) -> str:
    """Hidden code as blocks of their own, a blank line before and after; a single line stays within its sentence."""
    if not PRIVATE_USE.search(text):
        return text.strip("\n")
    visible = _CODE.sub(lambda match: f"\n\n{match[1]}\n\n", text)
    visible = re.sub(r"\n{3,}", "\n\n", visible).strip("\n")
    return PRIVATE_USE.sub("", visible.translate(_SHOW))


def render(body: Element) -> str:
    """The text of `body`, with code still hidden (see `show_code`)."""
    renderer = _Renderer()
    renderer.walk(body)
    renderer.flush()
    return "\n\n".join(block.text for block in renderer.blocks)


@dataclass
class _Block:
    text: str
    is_list: bool = False


@dataclass
class _Renderer:
    blocks: list[_Block] = field(default_factory=list)
    line: list[str] = field(default_factory=list)

    def walk(self, element: Element) -> None:
        self.add(element.text)
        for child in element:
            if isinstance(child.tag, str) and child.tag not in _SKIPPED:
                self.element(child, child.tag)
            self.add(child.tail)

    def element(self, element: Element, tag: str) -> None:
        if tag in _BREAKS:
            self.line.append("\n")
        elif tag in _INLINE:
            self.walk(element)
        else:
            self.flush()
            if tag in _LISTS:
                self.list(element)
            elif tag == "table":
                self.table(element)
            else:
                self.walk(element)
            self.flush()

    def add(self, text: str | None) -> None:
        if text:
            self.line.append(re.sub(r"\s+", " ", text))

    def flush(self) -> None:
        """End the paragraph; two line breaks in a row were meant as its end, too."""
        text = re.sub(r" *\n *", "\n", "".join(self.line).replace(PARAGRAPH_END, "\n\n"))
        self.line.clear()
        for paragraph in re.split(r"\n{2,}", text):
            if tidy := re.sub(r" {2,}", " ", paragraph).strip():
                self.blocks.append(_Block(tidy))

    def list(self, element: Element) -> None:
        lines: list[str] = []
        is_ordered = "ol" in (element.tag, element.get("rend"))
        number = _number(element.get("start"), 1)
        for child in element:
            if not isinstance(child.tag, str):
                continue
            blocks = _blocks_of(child, child.tag in _ITEMS)
            if not blocks:
                continue
            marker = _marker(child, number if is_ordered else 0)
            indent = " " * len(marker)
            text = blocks[0].text
            for block in blocks[1:]:
                text += ("\n" if block.is_list else "\n\n") + block.text
            lines.append(marker + re.sub(r"\n(?!\n)", f"\n{indent}", text))
            number += 1
        if lines:
            self.blocks.append(_Block("\n".join(lines), is_list=True))

    def table(self, element: Element) -> None:
        rows: list[list[list[_Block]]] = []
        for row in _rows(element):
            cells = [_blocks_of(cell) for cell in row if cell.tag in _CELLS]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                rows.append(cells)
        if any(sum(len(block.text) for block in cell) > _LAYOUT_CELL for row in rows for cell in row):
            self.blocks.extend(block for row in rows for cell in row for block in cell)
        elif rows:
            self.blocks.append(_Block("\n".join(" | ".join(_one_line(cell) for cell in row) for row in rows)))


def _blocks_of(element: Element, inside: bool = True) -> list[_Block]:
    """What `element` holds; with inside=False, the element itself (a list directly in a list)."""
    renderer = _Renderer()
    if inside:
        renderer.walk(element)
    else:
        renderer.element(element, str(element.tag))
    renderer.flush()
    return renderer.blocks


def _rows(table: Element) -> list[Element]:
    """Rows of this table, not of one within it; a caption counts as a row of one cell where trafilatura made it one."""
    groups = [table, *(child for child in table if child.tag in ("thead", "tbody", "tfoot"))]
    return [row for group in groups for row in group if row.tag in _ROWS]


def _one_line(cell: list[_Block]) -> str:
    return re.sub(r"\s+", " ", " ".join(block.text for block in cell))


def _marker(item: Element, number: int) -> str:
    kind = item.get("rend") or str(item.tag)
    if kind.startswith("dt"):
        return ""
    if kind.startswith("dd"):
        return "  "
    return f"{number}. " if number else "- "


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 7 else default
