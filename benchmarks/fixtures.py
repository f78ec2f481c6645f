"""Text made on the spot, the same each time: no word of anybody else's has to be committed to measure by."""

from __future__ import annotations

import random
from dataclasses import dataclass

_ONSETS = [
    "b",
    "br",
    "c",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
_CODAS = ["", "", "n", "r", "l", "s", "t", "nd", "rk", "m"]


def vocabulary(size: int, seed: int = 0) -> list[str]:
    """`size` different pronounceable words that are in no dictionary."""
    draw = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < size:
        parts = (draw.choice(_ONSETS) + draw.choice(_VOWELS) + draw.choice(_CODAS) for _ in range(draw.randint(1, 3)))
        words["".join(parts)] = None
    return list(words)


def paragraph(draw: random.Random, words: list[str], length: int) -> str:
    """A paragraph of sentences; frequent words are frequent, as in language (Zipf)."""
    picked = [words[min(int(draw.paretovariate(0.9)) - 1, len(words) - 1)] for _ in range(length)]
    sentences = [picked[start : start + 12] for start in range(0, length, 12)]
    return " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)


@dataclass(frozen=True)
class PlantedCopies:
    """Documents in which near-copies were planted."""

    texts: list[str]


def planted_copies(clusters: int, seed: int = 0) -> PlantedCopies:
    """`clusters` originals, each with 0 to 4 copies in which up to a fifth of the words were changed, shuffled."""
    draw, words = random.Random(seed), vocabulary(4000, seed)
    texts = []
    for _ in range(clusters):
        original = paragraph(draw, words, draw.randint(40, 300)).split()
        texts.append(" ".join(original))
        for _ in range(draw.randint(0, 4)):
            changed = list(original)
            for _ in range(draw.randint(0, len(changed) // 12)):
                changed[draw.randrange(len(changed))] = draw.choice(words)
            texts.append(" ".join(changed))
    draw.shuffle(texts)
    return PlantedCopies(texts)


@dataclass(frozen=True)
class MadePage:
    """A page as a site would serve it, and what an extractor must and must not return of it."""

    body: bytes
    wanted: list[str]
    unwanted: list[str]


def made_pages(count: int, seed: int = 0) -> list[MadePage]:
    """Articles and documentation pages with navigation, teasers, cookie notice, lists, tables and code."""
    draw, words = random.Random(seed), vocabulary(2000, seed)
    return [_page(draw, words, number) for number in range(count)]


def _page(draw: random.Random, words: list[str], number: int) -> MadePage:
    wanted = [paragraph(draw, words, draw.randint(30, 90)) for _ in range(draw.randint(4, 9))]
    items = [paragraph(draw, words, 9) for _ in range(3)]
    cells = [draw.choice(words) + str(draw.randint(100, 999)) for _ in range(4)]
    unwanted = [paragraph(draw, words, draw.randint(5, 12)) for _ in range(6)]
    title = paragraph(draw, words, 5).rstrip(".")
    body = [f"<h1>{title}</h1>", *(f"<p>{text}</p>" for text in wanted)]
    body.insert(3, "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")
    body.insert(
        5,
        f"<table><tr><td>{cells[0]}</td><td>{cells[1]}</td></tr><tr><td>{cells[2]}</td><td>{cells[3]}</td></tr></table>",
    )
    menu = "".join(f'<li><a href="/{index}">{text}</a></li>' for index, text in enumerate(unwanted[:3]))
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} | The Mill</title></head><body>
<div class="cookie-banner" role="dialog"><p>{unwanted[3]}</p><button>OK</button></div>
<header><nav><ul>{menu}</ul></nav></header><main><{"article" if number % 2 else "div class='content'"}>{"".join(body)}
</{"article" if number % 2 else "div"}></main>
<aside class="related"><h2>Read also</h2><p><a href="/next">{unwanted[4]}</a></p></aside>
<footer><p>{unwanted[5]}</p></footer></body></html>"""
    return MadePage(page.encode(), [*wanted, *items, *cells], unwanted)
