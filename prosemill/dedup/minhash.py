"""MinHash signatures, bit for bit those of datasketch 2.0, and the bands that turn them into candidates.

Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", ch. 3. A signature equals `datasketch.MinHash(num_perm, seed=1, scheme="affine32", hashfunc=low 32 bits of
xxh64)` over the shingles.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosemill.dedup.shingles import Hashes, ShingleSets, hash_set, shingles_of, text_hash
from prosemill.progress import report
from prosemill.settings import Dedup

Signatures = NDArray[np.uint32]

SEED = 1  # datasketch's default
INDEX_VERSION = 1  # raise when tokens, shingles, signatures or band keys change: old segments are then made anew
MIN_FOUND = 0.995  # probability with which a pair exactly at the loose threshold becomes a candidate
REPORT_EVERY = 1000
BLOCK_SHINGLES = 256  # x 128 permutations x 4 bytes = 128 KB, which stays in the second-level cache


@dataclass(frozen=True)
class Parameters:
    """What two documents must have in common to be comparable; the header of every index segment."""

    num_perm: int
    shingle_words: int
    bands: int
    rows: int
    seed: int = SEED
    version: int = INDEX_VERSION

    @classmethod
    def of(cls, settings: Dedup) -> Parameters:
        bands, rows = bands_for(settings.num_perm, settings.loose_threshold)
        return cls(settings.num_perm, settings.shingle_words, bands, rows)

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def bands_for(num_perm: int, loose_threshold: float) -> tuple[int, int]:
    """Bands and rows a band: as many rows as still find a pair at `loose_threshold` with p >= MIN_FOUND.

    More rows mean fewer false candidates. For 128 and .65 that is 32 bands of 4: 1 - (1 - .65^4)^32 = .998; with 5
    rows it would be .954. datasketch's own choice for .8 (9 bands of 13) finds a pair at .8 with p = .40.
    """
    fitting = (
        rows for rows in range(num_perm, 1, -1) if 1 - (1 - loose_threshold**rows) ** (num_perm // rows) >= MIN_FOUND
    )
    rows = next(fitting, 1)
    return num_perm // rows, rows


@dataclass(frozen=True)
class Signed:
    """Documents ready to be compared; row i of every array is document i."""

    texts: Hashes  # hash of the normalised text
    shingles: ShingleSets
    signatures: Signatures  # [documents, num_perm]
    keys: Hashes  # [documents, bands]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[Any]) -> Signed:
        return Signed(self.texts[rows], self.shingles.take(rows), self.signatures[rows], self.keys[rows])


def sign(texts: Iterable[str], parameters: Parameters) -> Signed:
    """Hash, shingle and sign documents."""
    whole: list[int] = []
    sets: list[Hashes] = []
    signatures: list[Signatures] = []
    scratch = np.empty((BLOCK_SHINGLES, parameters.num_perm), np.uint32)
    for number, text in enumerate(texts):
        if number % REPORT_EVERY == 0:
            report("signing documents", number)
        hashes = hash_set(shingles_of(text, parameters.shingle_words))
        whole.append(text_hash(text))
        sets.append(hashes)
        signatures.append(signature_of(hashes, parameters.num_perm, scratch))
    signed = np.array(signatures, np.uint32).reshape(-1, parameters.num_perm)
    return Signed(np.array(whole, np.uint64), ShingleSets.of(sets), signed, band_keys(signed, parameters))


def signature_of(hashes: Hashes, num_perm: int, scratch: Signatures | None = None) -> Signatures:
    """The smallest value of each permutation over the set; all ones for the empty set.

    `scratch` [BLOCK_SHINGLES, num_perm] spares a large allocation, and its page faults, a document.
    """
    if scratch is None:
        scratch = np.empty((BLOCK_SHINGLES, num_perm), np.uint32)
    factors, terms = _permutations(num_perm)
    smallest = np.full(num_perm, 0xFFFFFFFF, np.uint32)
    mixed = _mix32(hashes.astype(np.uint32))[:, None]  # the low 32 bits
    for start in range(0, len(mixed), BLOCK_SHINGLES):
        block = mixed[start : start + BLOCK_SHINGLES]
        permuted = np.multiply(block, factors, out=scratch[: len(block)])
        permuted += terms
        np.minimum(smallest, permuted.min(axis=0), out=smallest)
    return smallest


@functools.cache
def _permutations(num_perm: int) -> tuple[Signatures, Signatures]:
    from datasketch import MinHash

    factors, terms = MinHash(num_perm=num_perm, seed=SEED, scheme="affine32").permutations
    return factors, terms


def _mix32(values: Signatures) -> Signatures:
    """MurmurHash3's 32-bit finalizer, as datasketch applies it before the permutations."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def band_keys(signatures: Signatures, parameters: Parameters) -> Hashes:
    """One 64-bit key for each document and band [documents, bands]; bands are salted, so they never meet by chance."""
    used = signatures[:, : parameters.bands * parameters.rows]
    values = used.reshape(-1, parameters.bands, parameters.rows).astype(np.uint64)
    keys = np.broadcast_to(_mix64(np.arange(1, parameters.bands + 1, dtype=np.uint64)), values.shape[:2])
    for row in range(parameters.rows):
        keys = _mix64(keys ^ values[:, :, row])
    return np.ascontiguousarray(keys)


def _mix64(values: Hashes) -> Hashes:
    """splitmix64's step (Steele, Lea, Flood 2014); a bijection that spreads every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
