"""MinHash signatures, bit for bit those of datasketch 2.0, and the bands that turn them into candidates.

Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", ch. 3. A signature equals `datasketch.MinHash(num_perm, seed=1, scheme="affine32", hashfunc=low 32 bits of
xxh64)` over the shingles.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prosemill.config.settings import Dedup
from prosemill.dedup.shingles import Hashes, ShingleSets, hash_set, mapped, text_hash
from prosemill.runtime.progress import report
from prosemill.text.ngrams import shingles_of

Signatures = NDArray[np.uint32]

SEED = 1  # datasketch's default
INDEX_VERSION = 3  # raise when tokens, shingles, signatures, band keys or files change: old segments are then made anew
MIN_FOUND = 0.995  # probability with which a pair exactly at the loose threshold becomes a candidate
BATCH_TEXTS = 512  # some megabytes
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
class SignedDocuments:
    """Documents ready to be compared; row i of every array is document i."""

    texts: Hashes  # hash of the normalised text
    shingles: ShingleSets
    signatures: Signatures  # [documents, num_perm]
    keys: Hashes  # [documents, bands]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[Any], spill: BinaryIO) -> SignedDocuments:
        """The documents of `rows`, their shingles in the file `spill`."""
        return SignedDocuments(
            self.texts[rows], self.shingles.take(rows, spill), self.signatures[rows], self.keys[rows]
        )


def sign(texts: Iterable[str], parameters: Parameters, spill: BinaryIO | None = None) -> SignedDocuments:
    """Hash, shingle and sign documents: compiled where numba is installed, else in Python, to the same bits.

    `spill`: an empty file, open for reading and writing, that holds the shingle hashes (eight bytes each) instead of
    memory; they are most of what there is to hold, and only those of candidates are ever looked at again.
    """
    return sign_arrays((pa.array(batch, pa.large_string()) for batch in _batches(texts)), parameters, spill)


def sign_arrays(
    arrays: Iterable[pa.LargeStringArray], parameters: Parameters, spill: BinaryIO | None = None
) -> SignedDocuments:
    """`sign` for texts as they come out of a file, without null; at most some megabytes an array."""
    sign_batch = compiled() or sign_in_python
    parts: list[tuple[Hashes, NDArray[np.int64], Signatures, Hashes]] = []
    in_memory: list[Hashes] = []
    done = 0
    for array in arrays:
        report("signing documents", done)
        done += len(array)
        whole, hashes, sizes, signatures = sign_batch(array, parameters)
        if spill is None:
            in_memory.append(hashes.copy())  # the next batch is signed in the same room
        else:
            spill.write(hashes.data)
        parts.append((whole, sizes, signatures, band_keys(signatures, parameters)))
    if not parts:
        parts.append((NO_HASHES, np.empty(0, np.int64), *_nothing(parameters)))
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    whole, sizes, signatures, keys = (_concatenated(column) for column in columns)
    flat = np.concatenate([NO_HASHES, *in_memory]) if spill is None else mapped(spill)
    return SignedDocuments(whole, ShingleSets(flat, np.cumsum([0, *sizes])), signatures, keys)


# Hashes of whole texts; shingle hashes end to end, how many each text has; signatures.
Batch = tuple[Hashes, Hashes, NDArray[np.int64], Signatures]
SignBatch = Callable[[pa.LargeStringArray, Parameters], Batch]
NO_HASHES: Hashes = np.empty(0, np.uint64)


def _concatenated(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """All parts in one array; the list is empty afterwards, so that nothing is held twice for long."""
    joined: NDArray[Any] = np.concatenate(parts)
    parts.clear()
    return joined


def _nothing(parameters: Parameters) -> tuple[Signatures, Hashes]:
    return np.empty((0, parameters.num_perm), np.uint32), np.empty((0, parameters.bands), np.uint64)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while batch := list(itertools.islice(remaining, BATCH_TEXTS)):
        yield batch


def sign_in_python(array: pa.LargeStringArray, parameters: Parameters) -> Batch:
    """The reference: what the kernel has to equal."""
    texts = array.to_pylist()
    scratch = np.empty((BLOCK_SHINGLES, parameters.num_perm), np.uint32)
    sets = [hash_set(shingles_of(text, parameters.shingle_words)) for text in texts]
    signatures = np.array([signature_of(hashes, parameters.num_perm, scratch) for hashes in sets], np.uint32)
    sizes = np.array([len(hashes) for hashes in sets], np.int64)
    whole = np.fromiter(map(text_hash, texts), np.uint64, len(texts))
    return whole, np.concatenate([NO_HASHES, *sets]), sizes, signatures.reshape(-1, parameters.num_perm)


@functools.cache
def compiled() -> SignBatch | None:
    """The same by the kernel; None where numba is not installed."""
    try:
        from prosemill.dedup import signing
        from prosemill.runtime.kernel_cache import function

        function(signing.SIGN_TEXTS)
    except ImportError:
        return None

    def run(array: pa.LargeStringArray, parameters: Parameters, *, is_nfc: bool) -> Batch:
        _, ends, data = array.buffers()
        offsets = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
        utf8 = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        permutations = _permutations(parameters.num_perm)
        return signing.sign_batch(utf8, offsets, parameters.shingle_words, *permutations, is_nfc=is_nfc)

    def sign_normalized(array: pa.LargeStringArray, parameters: Parameters) -> Batch:
        texts = pa.array([unicodedata.normalize("NFC", text) for text in array.to_pylist()], pa.large_string())
        return _completed(texts, parameters, run(texts, parameters, is_nfc=True), sign_in_python)

    def sign_batch(array: pa.LargeStringArray, parameters: Parameters) -> Batch:
        return _completed(array, parameters, run(array, parameters, is_nfc=False), sign_normalized)

    return sign_batch


def _completed(array: pa.LargeStringArray, parameters: Parameters, batch: Batch, sign_left: SignBatch) -> Batch:
    """With those texts that the kernel left: some may not be in NFC; some have letters whose lower case depends on more
    than themselves, which only Python knows."""
    whole, hashes, sizes, signatures = batch
    left = np.flatnonzero(sizes < 0)
    if not len(left):
        return batch
    hashes = hashes.copy()  # the kernel's room is used again
    _, again, again_sizes, signatures[left] = sign_left(array.take(pa.array(left)), parameters)
    done = np.split(hashes, np.cumsum(np.maximum(sizes, 0))[:-1])
    for row, one in zip(left.tolist(), np.split(again, np.cumsum(again_sizes)[:-1]), strict=True):
        done[row] = one
    sizes[left] = again_sizes
    return whole, np.concatenate(done), sizes, signatures


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
    """Factors and terms of `datasketch.MinHash(num_perm, SEED, scheme="affine32")`, drawn as it draws them.

    Importing it for them would cost 1.3 s, for the SciPy that its index brings.
    """
    draw = np.random.RandomState(SEED)
    factors = draw.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, draw.randint(0, 1 << 32, num_perm, dtype=np.uint32)


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
