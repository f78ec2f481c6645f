"""The stages of the corpus half one by one, for people who want only that: files in, files out, no store."""

from __future__ import annotations

import getpass
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import screen
from flows.cli.options import JsonOption, OverwriteOption, StoreOption, open_store
from prosemill.config.environment import DedupEngine
from prosemill.config.recipe import load_recipe
from prosemill.config.settings import Dedup, Strip
from prosemill.errors import EXIT_PARTIAL, EXIT_REFUSED, RecipeError
from prosemill.storage.disk import disk_errors


def add_to(app: typer.Typer) -> None:
    """Put the commands of this module on the `prosemill` command."""
    app.command()(strip)
    app.command()(dedup)
    app.command()(chunk)
    app.command()(sample)
    app.command()(why)


def strip(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="HTML, text or Markdown; - is standard input.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Filter and scrub as [strip] of this recipe says. Default: neither.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """HTML in, main text out. A file that gives none is named on standard error, with the reason.

    With --json one object a line: file, text, title, date, language, charset, reason ("" where it is kept), detail.
    """
    from prosemill.strip import strip_html

    settings, language = _how(recipe)
    printed = 0
    for path in files:
        body = _body(path)
        if body is None:
            continue
        document = strip_html(body, settings=settings, language=language)
        if as_json:
            print(json.dumps({"file": str(path), **asdict(document)}, ensure_ascii=False))
        elif document.reason:
            why = f"{document.reason} ({document.detail})" if document.detail else document.reason
            screen.errors.print(f"prosemill: {path}: dropped, {why}", markup=False)
        else:
            print(f"\n---\n\n{document.text}" if printed else document.text)
        printed += not document.reason
    if printed < len(files):
        raise typer.Exit(EXIT_PARTIAL if printed else EXIT_REFUSED)


def _how(recipe: Path | None) -> tuple[Strip, str]:
    """Settings and language; without a recipe, nothing is filtered and nothing is scrubbed."""
    if recipe is not None:
        loaded = load_recipe(recipe)
        return loaded.strip, loaded.language
    no_filter = {"min_words": 0, "languages": ["*"], "max_symbol_share": 1, "max_repetition": 1}
    no_scrub = {name: False for name in Strip.model_fields if name.startswith("scrub_")}
    return Strip.model_validate(no_filter | no_scrub), "en"


def _body(path: Path) -> bytes | None:
    """What the file holds; None, after one line, for one that cannot be read: the others are still stripped."""
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        screen.errors.print(f"prosemill: {path}: {error.strerror or error}; give a file", markup=False)
        return None


def dedup(
    source: Annotated[Path, typer.Argument(metavar="IN.parquet", help="Rows with a column text, and id if you like.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The rows that stay.")],
    threshold: Annotated[float, typer.Option(min=0.5, max=1, help="Jaccard similarity that makes a copy.")] = 0.8,
    shingle_words: Annotated[int, typer.Option(min=1, max=20, help="Words (CJK: characters) a shingle.")] = 5,
    engine: Annotated[
        DedupEngine | None, typer.Option(help="What signs the texts; same result. Default: numba where it works.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove exact and near-copies, keeping the first of each; beside OUT, removed.parquet says of whom."""
    from prosemill.dedup import dedup_file

    loose = min(Dedup().loose_threshold, threshold)
    settings = Dedup(threshold=threshold, loose_threshold=loose, shingle_words=shingle_words)
    written = dedup_file(source, target, settings, overwrite=overwrite, engine=engine)
    counts = asdict(written.counts)
    if as_json:
        print(json.dumps({"kept": str(written.kept), "removed": str(written.removed), **counts}))
        return
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in written.counts.dropped.items()) or "none"
    kept, seen = written.counts.kept, written.counts.seen
    screen.output.print(f"{kept:,} of {seen:,} rows kept: {written.kept}\nremoved: {reasons}: {written.removed}")


def chunk(
    source: Annotated[
        Path, typer.Argument(metavar="IN.parquet", help="Rows with a column text; id and url if you like.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; a new one.")],
    tokenizer: Annotated[str, typer.Option(metavar="NAME", help="demo, a folder, or a Hugging Face name: gpt2 …")],
    chunk_tokens: Annotated[int, typer.Option(min=32, max=131_072, help="Token ids a chunk.")] = 1024,
    as_json: JsonOption = False,
) -> None:
    """Tokenise and pack text into chunks of one length: OUT/chunks.arrow for `datasets`, and which text is where."""
    from prosemill.chunk import chunk_file

    chunked = chunk_file(source, tokenizer, target, chunk_tokens=chunk_tokens)
    if as_json:
        print(json.dumps(asdict(chunked)))
        return
    screen.output.print(
        f"{chunked.documents:,} texts, {chunked.tokens:,} tokens in {chunked.chunks:,} chunks "
        f"of {chunked.chunk_tokens:,} ({chunked.padding_share:.2%} padding): {chunked.folder}"
    )


def sample(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A strip or dedup snapshot, or NAME: its newest corpus.")],
    number: Annotated[int, typer.Option(min=1, max=1000, help="How many kept, and how many dropped.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same documents.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The page to write. Default: sample-WHAT.html.")] = None,
    overwrite: OverwriteOption = False,
    store: StoreOption = "",
) -> None:
    """Random kept and dropped documents of a snapshot, as a page to skim; removed copies stand beside their keeper."""
    from prosemill.lineage import sampling
    from prosemill.reporting.sample_page import page

    _, opened = open_store(store)
    runs = opened.runs(what)
    if not runs and not opened.has(what):
        known = ", ".join(opened.corpora()) or "none yet"
        raise RecipeError(f"{what!r}: no snapshot and no corpus of {opened.url}; corpora: {known}")
    snapshots = [runs[max(runs)][stage] for stage in ("strip", "dedup")] if runs else [what]
    target = out or Path(f"sample-{what}.html")
    if out and not overwrite and os.path.lexists(target):
        raise RecipeError(f"{target}: exists already; give another --out, or say --overwrite")
    samples = [sampling.sample(opened, snapshot, number, seed) for snapshot in snapshots]
    with disk_errors(str(target)):
        target.write_text(page(*samples), encoding="utf-8")
    for drawn in samples:
        screen.output.print(
            f"{target}: {drawn.snapshot}: {len(drawn.kept)} of {drawn.num_kept:,} kept, "
            f"{len(drawn.dropped)} of {drawn.num_dropped:,} dropped"
        )


def why(
    url: Annotated[str, typer.Argument(metavar="URL", help="The page, as `prosemill trace` shows it.")],
    corpus: Annotated[str, typer.Option(metavar="NAME", help="Only in this corpus.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Keep it from the next run on, though it is a copy.")] = False,
    who: Annotated[str, typer.Option(help="Who takes it back. Default: the user of this machine.")] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """What happened to a page at every stage, and why; a copy stands beside the page that was kept."""
    from prosemill.dedup import overrides
    from prosemill.lineage.page_history import why as fates_of

    _, opened = open_store(store)
    fates = fates_of(opened, url, corpus)
    if undo:
        copies = [fate for fate in fates if fate.removed]
        if not copies:
            raise RecipeError(
                f"{url}: was not removed as a copy, so there is nothing to undo; without --undo it says why"
            )
        for fate in copies:
            overrides.undo(opened, fate.corpus, fate.removed, who or getpass.getuser())
        fates = fates_of(opened, url, corpus)
    if as_json:
        print(json.dumps([fate.as_dict() for fate in fates], ensure_ascii=False))
        return
    for fate in fates:
        screen.show_page_history(fate)
