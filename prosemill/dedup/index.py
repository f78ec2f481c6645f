"""The keepers of earlier runs, on disk, so that a new document is looked up and not compared with all of them.

Segments are never changed; newer ones are merged into larger ones. Each is sorted arrays in .npy files, memory-mapped
and read by binary search. Its header names the parameters it was made with, and the keepers' files whose rows are its
rows, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from prosemill.dedup.minhash import Parameters, Signatures, SignedDocuments, band_keys
from prosemill.dedup.shingles import Hashes, ShingleSets
from prosemill.errors import StoreError
from prosemill.storage import segments
from prosemill.storage.manifest import Manifest
from prosemill.storage.segments import Rows, ascending
from prosemill.storage.store import SnapshotWriter, Store

ROLE = "index"
# One shingle in 16, the same ones in every document (Pierce et al. 2019, "Large-scale sequence comparisons with
# sourmash"): where one text lies within another, its sampled shingles are among those of the other.
SAMPLED = np.uint64(2**60)


@dataclass(frozen=True)
class IndexSegment:
    """Keepers of one run. `keys`, `texts`, `samples` (shingles below SAMPLED) ascend; `…_rows` say whose they are."""

    parameters: Parameters
    keepers: list[str]  # paths of the keepers' files that it covers
    keys: Hashes
    key_rows: NDArray[np.uint32]
    texts: Hashes
    text_rows: NDArray[np.uint32]
    samples: Hashes
    sample_rows: NDArray[np.uint32]
    signatures: Signatures
    shingles: ShingleSets
    path: str = ""  # "<snapshot id>/<name>" of one that was read

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(cls, signed: SignedDocuments, parameters: Parameters, keepers: Sequence[str]) -> IndexSegment:
        keys, key_rows = _banded(signed, parameters)
        texts, text_rows = ascending(signed.texts, np.arange(len(signed), dtype=np.uint32))
        samples, sample_rows = _sampled(signed.shingles)
        return cls(
            parameters=parameters,
            keepers=list(keepers),
            keys=keys,
            key_rows=key_rows,
            texts=texts,
            text_rows=text_rows,
            samples=samples,
            sample_rows=sample_rows,
            signatures=signed.signatures,
            shingles=signed.shingles,
        )

    @classmethod
    def merge(cls, segments: Sequence[IndexSegment], spill: BinaryIO) -> IndexSegment:
        """One segment with the rows of `segments`, in order, its shingles in the file `spill`."""
        if len(segments) == 1:
            return segments[0]
        parameters = segments[0].parameters
        texts = np.concatenate([segment.texts[np.argsort(segment.text_rows)] for segment in segments])
        signatures = np.concatenate([segment.signatures for segment in segments])
        shingles = ShingleSets.joined([segment.shingles for segment in segments], spill)
        signed = SignedDocuments(texts, shingles, signatures, band_keys(signatures, parameters))
        return cls.of(signed, parameters, [path for segment in segments for path in segment.keepers])

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "keys": self.keys,
            "key_rows": self.key_rows,
            "texts": self.texts,
            "text_rows": self.text_rows,
            "samples": self.samples,
            "sample_rows": self.sample_rows,
            "signatures": self.signatures,
            "offsets": self.shingles.offsets,
        }

    def write(self, writer: SnapshotWriter, name: str) -> None:
        """Add the segment to a snapshot as a folder `name`."""
        header = {"parameters": self.parameters.to_dict(), "keepers": self.keepers}
        segments.write(writer, ROLE, name, len(self), header, self.arrays())
        with open(writer.path(f"{name}/shingles.npy"), "wb") as file:  # by blocks: they are most of it
            form = {"descr": "<u8", "fortran_order": False, "shape": (len(self.shingles.hashes),)}
            np.lib.format.write_array_header_1_0(file, form)
            for block in self.shingles.blocks():
                file.write(block.data)
        writer.add(f"{name}/shingles.npy", ROLE, len(self.shingles.hashes))

    @classmethod
    def read(cls, store: Store, path: str, expected: Parameters) -> IndexSegment:
        """The segment in the folder "<snapshot id>/<name>", memory-mapped; StoreError if it was made otherwise."""
        header = segments.read_header(store, path)
        if header["parameters"] != expected.to_dict():
            raise StoreError(
                f"{path}: this index was made with {header['parameters']}, not {expected.to_dict()}; "
                "run dedup without `previous`, or with the settings of then"
            )

        def mapped(part: str) -> NDArray[Any]:
            return np.asarray(segments.read_array(store, path, part))  # sliced in a third of the time

        return cls(
            parameters=expected,
            keepers=list(header["keepers"]),
            keys=mapped("keys"),
            key_rows=mapped("key_rows"),
            texts=mapped("texts"),
            text_rows=mapped("text_rows"),
            samples=mapped("samples"),
            sample_rows=mapped("sample_rows"),
            signatures=mapped("signatures"),
            shingles=ShingleSets(segments.read_array(store, path, "shingles"), mapped("offsets")),
            path=path,
        )


def _banded(signed: SignedDocuments, parameters: Parameters) -> tuple[Hashes, Rows]:
    """All band keys, ascending, and whose each is. A document without words resembles nothing."""
    has_shingles = np.diff(signed.shingles.offsets) > 0
    rows = np.repeat(np.flatnonzero(has_shingles).astype(np.uint32), parameters.bands)
    return ascending((signed.keys if has_shingles.all() else signed.keys[has_shingles]).ravel(), rows)


def _sampled(shingles: ShingleSets) -> tuple[Hashes, Rows]:
    """The shingles below SAMPLED of all sets, ascending, and whose each is."""
    first, hashes, rows = 0, [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
    for block in shingles.blocks():
        places = np.flatnonzero(block < SAMPLED)
        hashes.append(block[places])
        rows.append((np.searchsorted(shingles.offsets, places + first, "right") - 1).astype(np.uint32))
        first += len(block)
    samples, owners = np.concatenate(hashes), np.concatenate(rows)
    hashes.clear()
    rows.clear()
    return ascending(samples, owners)


def segments_of(manifest: Manifest) -> list[str]:
    """Folders "<snapshot id>/<name>" of the index segments of a dedup snapshot, oldest first."""
    return segments.folders(manifest.shards_of(ROLE))


def parameters_of(store: Store, path: str) -> Parameters:
    """What the segment in the folder "<snapshot id>/<name>" was made with."""
    return Parameters(**segments.read_header(store, path)["parameters"])


def is_usable(store: Store, manifest: Manifest, expected: Parameters) -> bool:
    """Whether every segment was made with the parameters of now."""
    headers = (segments.read_header(store, path) for path in segments_of(manifest))
    return all(header["parameters"] == expected.to_dict() for header in headers)


class History:
    """All segments as one: a keeper's ordinal is its row in the first segment, counted on through the others."""

    def __init__(self, segments: Sequence[IndexSegment]) -> None:
        self.segments = list(segments)
        self.firsts = np.cumsum([0, *(len(segment) for segment in segments)])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def exact(self, texts: Hashes) -> NDArray[np.int64]:
        """For each text hash the ordinal of the keeper that has it, -1 where none has."""
        ordinals = np.full(len(texts), -1, np.int64)
        for first, segment in zip(self.firsts[:-1][::-1], self.segments[::-1], strict=True):  # the oldest wins
            if len(segment):
                places = np.minimum(np.searchsorted(segment.texts, texts), len(segment) - 1)
                hits = segment.texts[places] == texts
                ordinals[hits] = first + segment.text_rows[places[hits]]
        return ordinals

    def look_up(self, keys: Hashes) -> Candidates:
        """Where in each segment the band keys [documents, bands] are."""
        if not self.segments:
            return Candidates(self, [], len(keys))
        flat = keys.ravel()
        order = np.argsort(flat)  # ascending queries walk the map once
        spans = []
        for segment in self.segments:
            span = np.empty((2, len(flat)), np.int64)
            span[0, order] = np.searchsorted(segment.keys, flat[order], "left")
            span[1, order] = np.searchsorted(segment.keys, flat[order], "right")
            spans.append(span.reshape(2, *keys.shape))
        return Candidates(self, spans, len(keys))

    def place(self, ordinal: int) -> tuple[IndexSegment, int]:
        which = int(np.searchsorted(self.firsts, ordinal, "right")) - 1
        return self.segments[which], int(ordinal - self.firsts[which])

    def shingles(self, ordinal: int) -> Hashes:
        segment, row = self.place(ordinal)
        return segment.shingles[row]

    def num_shingles(self, ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        which = np.searchsorted(self.firsts, ordinals, "right") - 1
        sizes = np.zeros(len(ordinals), np.int64)
        for number in np.unique(which).tolist():
            mine = which == number
            offsets, rows = self.segments[number].shingles.offsets, ordinals[mine] - self.firsts[number]
            sizes[mine] = offsets[rows + 1] - offsets[rows]
        return sizes

    def signatures(self, ordinals: NDArray[np.int64]) -> Signatures:
        """[ordinals, num_perm]; `ordinals` ascend."""
        parts = []
        bounds = np.searchsorted(ordinals, self.firsts)
        for segment, first, start, end in zip(self.segments, self.firsts, bounds, bounds[1:], strict=False):
            if end > start:
                parts.append(segment.signatures[ordinals[start:end] - first])
        return np.concatenate(parts)


class Candidates:
    """Keepers that share a band key with each of the documents looked up; expanded one document at a time, because a
    bucket may be as large as the corpus."""

    def __init__(self, history: History, spans: list[NDArray[np.int64]], num_documents: int) -> None:
        self.history, self.spans = history, spans
        self.any = np.zeros(num_documents, bool)
        for span in spans:
            self.any |= (span[1] > span[0]).any(axis=1)

    def of(self, document: int) -> NDArray[np.int64]:
        """Ordinals, ascending, each once."""
        if not self.any[document]:
            return np.empty(0, np.int64)
        parts = [
            first + segment.key_rows[start:end].astype(np.int64)
            for segment, first, span in zip(self.history.segments, self.history.firsts[:-1], self.spans, strict=True)
            for start, end in zip(span[0, document], span[1, document], strict=True)
            if end > start
        ]
        return np.unique(np.concatenate(parts))
