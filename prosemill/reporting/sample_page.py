"""The web page of a sample of documents, kept and dropped."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from prosemill.lineage.sampling import Sample, ShownDocument

_STYLE = """
body { font: 16px/1.5 Georgia, "Noto Serif CJK SC", serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1, h2, h3, .note { font-family: system-ui, sans-serif; }
h3 { font-size: 1rem; margin: 0; } .note { color: #555; font-size: .85rem; margin: 0 0 .5rem; }
article { border-top: 1px solid #ccc; padding: 1rem 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; } a { color: #124d8c; overflow-wrap: anywhere; }
@media (max-width: 50rem) { .pair { grid-template-columns: 1fr; } }
@media (prefers-color-scheme: dark) {
  body { background: #16181d; color: #ddd; }
  article { border-color: #444; } .note { color: #999; } a { color: #8ab8f0; }
}
"""


def page(*samples: Sample) -> str:
    """A web page that needs nothing else: no script, no other file; one part for each sample."""
    title = escape(f"{', '.join(sample.snapshot for sample in samples)}, seed {samples[0].seed}")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            *(line for sample in samples for line in _part(sample)),
            "</body></html>\n",
        ]
    )


def _part(sample: Sample) -> Iterator[str]:
    yield f"<h1>{escape(sample.snapshot)}</h1>"
    yield f"<h2>Kept: {len(sample.kept)} of {sample.num_kept:,}</h2>"
    yield from map(_article, sample.kept)
    yield f"<h2>Dropped: {len(sample.dropped)} of {sample.num_dropped:,}</h2>"
    yield from map(_article, sample.dropped)


def _article(document: ShownDocument) -> str:
    if document.beside is None:
        return f"<article>{_inside(document)}</article>"
    return f'<article class="pair"><div>{_inside(document)}</div><div>{_inside(document.beside)}</div></article>'


def _inside(document: ShownDocument) -> str:
    url = escape(document.url, quote=True)
    link = f'<a href="{url}">{url}</a>' if document.url.startswith(("http://", "https://")) else url
    heading = f"<h3>{escape(document.title)}</h3>" if document.title else ""
    text = f'<p class="text">{escape(document.text)}</p>' if document.text else ""
    return f'{heading}<p class="note">{link}<br>{escape(document.note)}</p>{text}'
