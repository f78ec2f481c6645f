"""Mutated pages through strip: nothing may raise, hang or eat the memory.

    python -m benchmarks.strip_fuzz [--pages 6000] [--seed 0] [--out benchmarks/results/strip_fuzz.json]

Each page is a made one after one to three of the mutations below. Measured: exceptions, the slowest page, the largest
memory of the process above its memory before the first page. What came out by reason is counted, so that a mutation
that turns everything away is seen.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fixtures import made_pages
from prosemill.strip import strip_html

SLOWEST_SECONDS = 5.0  # of processor time: the machine may be busy with something else
MOST_MEGABYTES = 1500

Mutation = Callable[[random.Random, bytes], bytes]


def truncated(rng: random.Random, page: bytes) -> bytes:
    return page[: rng.randrange(len(page) + 1)]


def deep(rng: random.Random, page: bytes) -> bytes:
    tag = rng.choice([b"div", b"span", b"table><tr><td", b"ul><li", b"blockquote", b"b", b"a", b"font", b"svg"])
    levels = rng.choice([300, 3_000, 100_000])
    return page.replace(b"<main>", b"<main>" + (b"<" + tag + b">") * levels, 1)


def random_bytes(rng: random.Random, page: bytes) -> bytes:
    mutated = bytearray(page)
    for _ in range(rng.randint(1, max(1, len(mutated) // 20))):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    return bytes(mutated)


def nuls(rng: random.Random, page: bytes) -> bytes:
    at = rng.randrange(len(page) + 1)
    return page[:at] + b"\0" * rng.choice([1, 100, 10_000]) + page[at:]


def wrong_charset(rng: random.Random, page: bytes) -> bytes:
    text = page.decode("utf-8", "replace").replace("e", rng.choice("éжは漢ß"), 400)
    codec = rng.choice(["utf-16", "utf-16-be", "gb18030", "shift_jis", "koi8-r", "cp1252", "utf-7", "utf-32", "big5"])
    charset = rng.choice([b"utf-8", b"gbk", b"iso-2022-kr", b"hz", b"x-user-defined", b"nonsense", b"\xff"])
    return text.encode(codec, "replace").replace(b'charset="utf-8"', b'charset="' + charset + b'"')


def huge_attribute(rng: random.Random, page: bytes) -> bytes:
    size = rng.choice([10_000, 1_000_000, 4_000_000])
    name = rng.choice([b"class", b"style", b"href", b"data-x", b"onclick"])
    return page.replace(b"<main", b"<main " + name + b'="' + b"a " * (size // 2) + b'"', 1)


def many_attributes(rng: random.Random, page: bytes) -> bytes:
    names = b" ".join(b"a%d=%d" % (number, number) for number in range(rng.choice([100, 20_000])))
    return page.replace(b"<p>", b"<p " + names + b">", 1)


def entities(rng: random.Random, page: bytes) -> bytes:
    entity = rng.choice([b"&amp;", b"&#0;", b"&#xD800;", b"&#x110000;", b"&#99999999999;", b"&lt;script&gt;", b"&"])
    return page.replace(b" ", entity, rng.choice([10, 2_000]))


def unclosed(rng: random.Random, page: bytes) -> bytes:
    tag = rng.choice(
        [b"<!--", b"<script>", b"<style>", b"<textarea>", b"<title>", b"<![CDATA[", b"<pre>", b"<noscript>"]
    )
    at = rng.randrange(len(page) + 1)
    return page[:at] + tag + page[at:]


def wide(rng: random.Random, page: bytes) -> bytes:
    cell = rng.choice([b"<tr><td>x</td></tr>", b"<li>x", b"<p>x", b"<br>", b"<option>x", b'<td colspan="10000">x</td>'])
    return page.replace(b"</main>", b"<table>" + cell * rng.choice([1_000, 50_000]) + b"</table></main>", 1)


def one_line(rng: random.Random, page: bytes) -> bytes:
    return page.replace(b"</p>", b" ").replace(b"<p>", b" ") * rng.choice([1, 20])


def shuffled(rng: random.Random, page: bytes) -> bytes:
    parts = page.split(b"<")
    rng.shuffle(parts)
    return b"<".join(parts)


MUTATIONS: list[Mutation] = [
    truncated, deep, random_bytes, nuls, wrong_charset, huge_attribute, many_attributes, entities, unclosed, wide,
    one_line, shuffled,
]  # fmt: skip


MADE = made_pages(40)


def mutated(number: int, seed: int) -> tuple[str, bytes]:
    """The page of that number, and what was done to it."""
    rng = random.Random(f"{seed} {number}")
    body, mutations = rng.choice(MADE).body, rng.choices(MUTATIONS, k=rng.randint(1, 3))
    for mutate in mutations:
        body = mutate(rng, body) if body else body
    return "+".join(mutate.__name__ for mutate in mutations), body


@dataclass(frozen=True)
class FuzzedPage:
    reason: str  # "kept", a reason, or the exception
    raised: bool
    cpu_seconds: float
    name: str
    grown_megabytes: int  # of the process, since before its first page


def strip_one(number: int, seed: int) -> FuzzedPage:
    names, body = mutated(number, seed)
    started, raised = time.process_time(), False
    try:
        reason = strip_html(body).reason or "kept"
    except Exception as error:  # noqa: BLE001 - that there is none is what is measured
        reason, raised = f"{type(error).__name__}: {error}", True
    seconds = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - _before) // 1024
    return FuzzedPage(reason, raised, round(seconds, 2), f"page {number} ({names}), {len(body):,} bytes", grown)


_before = 0


def _begin() -> None:
    global _before
    strip_html(MADE[0].body)  # models are loaded, expressions compiled
    _before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(pages: int, seed: int, jobs: int) -> dict[str, Any]:
    results = []
    with multiprocessing.get_context("spawn").Pool(jobs, _begin) as pool:
        for page in pool.imap_unordered(functools.partial(strip_one, seed=seed), range(pages), chunksize=10):
            results.append(page)
            if len(results) % 500 == 0:
                print(f"{len(results)} pages", file=sys.stderr, flush=True)
    slowest = sorted(results, key=lambda result: -result.cpu_seconds)[:5]
    return {
        "pages": pages,
        "seed": seed,
        "exceptions": [f"{result.name}: {result.reason}" for result in results if result.raised],
        "slowest_cpu_seconds": slowest[0].cpu_seconds,
        "slowest": [f"{result.cpu_seconds} s: {result.name}" for result in slowest],
        "memory_grown_megabytes": max(result.grown_megabytes for result in results),
        "reasons": dict(Counter(result.reason for result in results if not result.raised).most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = fuzz(arguments.pages, arguments.seed, arguments.jobs)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    too_slow = figures["slowest_cpu_seconds"] > SLOWEST_SECONDS
    sys.exit(bool(figures["exceptions"] or too_slow or figures["memory_grown_megabytes"] > MOST_MEGABYTES))


if __name__ == "__main__":
    main()
