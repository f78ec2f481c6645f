"""MinHash signatures by datasketch 2.0 or, to the same bits, by a kernel; and the bands that make candidates of them.

Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", ch. 3. A signature equals `datasketch.MinHash(num_perm, seed=1, scheme="affine32", hashfunc=low 32 bits of
xxh64)` over the shingles. The kernel signs in a thirteenth of the CPU time (shingles and their hashes included).
"""

from __future__ import annotations

import functools
import itertools
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prosemill.config import environment
from prosemill.config.environment import DedupEngine
from prosemill.config.settings import Dedup
from prosemill.dedup.shingles import Hashes, ShingleSets, hash_set, mapped, text_hash
from prosemill.errors import RecipeError
from prosemill.runtime.progress import report
from prosemill.text.ngrams import shingles_of

log = logging.getLogger(__name__)

Signatures = NDArray[np.uint32]

SEED = 1  # datasketch's default
INDEX_VERSION = 3  # raise when tokens, shingles, signatures, band keys or files change: old segments are then made anew
MIN_FOUND = 0.995  # probability with which a pair exactly at the loose threshold becomes a candidate
BATCH_TEXTS = 512  # some megabytes
BLOCK_SHINGLES = 256  # x 128 permutations x 4 bytes = 128 KB: a long text whole takes half as long again, and 1 GB


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


def sign(
    texts: Iterable[str], parameters: Parameters, spill: BinaryIO | None = None, *, engine: DedupEngine | None = None
) -> SignedDocuments:
    """Hash, shingle and sign documents.

    `spill`: an empty file, open for reading and writing, that holds the shingle hashes (eight bytes each) instead of
    memory; they are most of what there is to hold, and only those of candidates are ever looked at again. `engine`: see
    `signer`.
    """
    batches = (pa.array(batch, pa.large_string()) for batch in _batches(texts))
    return sign_arrays(batches, parameters, spill, engine=engine)


def sign_arrays(
    arrays: Iterable[pa.LargeStringArray],
    parameters: Parameters,
    spill: BinaryIO | None = None,
    *,
    engine: DedupEngine | None = None,
) -> SignedDocuments:
    """`sign` for texts as they come out of a file, without null; at most some megabytes an array."""
    sign_batch = signer(engine)
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


def signer(engine: str | None = None) -> SignBatch:
    """What signs a batch: `engine`, else PROSEMILL_DEDUP_ENGINE, else numba where it works and datasketch elsewhere.

    Both give the same bits, so that a store may be made by one and go on with the other. RecipeError for another name,
    and for numba where it does not work.
    """
    named = engine or environment.dedup_engine()
    if named == "datasketch":
        return sign_by_datasketch
    if named not in ("", "numba"):
        raise RecipeError(f"dedup engine {named!r}: no such engine; numba or datasketch")
    by_numba, problem = compiled()
    if by_numba is not None:
        return by_numba
    if named:
        raise RecipeError(f"dedup engine numba: {problem}; use datasketch, which gives the same result more slowly")
    log.info("signing documents by datasketch, 13 times as slow: %s", problem)
    return sign_by_datasketch


def sign_by_datasketch(array: pa.LargeStringArray, parameters: Parameters) -> Batch:
    """Python shingles, datasketch signs. Its import takes half a second, for the SciPy that its index brings."""
    from datasketch import MinHash

    texts = array.to_pylist()
    sets = [hash_set(shingles_of(text, parameters.shingle_words)) for text in texts]
    sketch = MinHash(parameters.num_perm, SEED, hashfunc=int, scheme="affine32")
    signatures = np.empty((len(sets), parameters.num_perm), np.uint32)
    for row, hashes in enumerate(sets):
        sketch.clear()
        low = hashes.astype(np.uint32)
        for start in range(0, len(low), BLOCK_SHINGLES):
            sketch.update_batch(low[start : start + BLOCK_SHINGLES].tolist())
        signatures[row] = sketch.hashvalues
    sizes = np.array([len(hashes) for hashes in sets], np.int64)
    whole = np.fromiter(map(text_hash, texts), np.uint64, len(texts))
    return whole, np.concatenate([NO_HASHES, *sets]), sizes, signatures


@functools.cache
def compiled() -> tuple[SignBatch | None, str]:
    """The same by the kernel; None and the reason where numba is not installed or does not work here."""
    try:
        from prosemill.dedup import signing
        from prosemill.runtime.kernel_cache import function

        function(signing.SIGN_TEXTS)
    except Exception as error:  # noqa: BLE001 - LLVM and numba raise many kinds of errors
        return None, str(error) or type(error).__name__

    def run(array: pa.LargeStringArray, parameters: Parameters, *, is_nfc: bool) -> Batch:
        _, ends, data = array.buffers()
        offsets = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
        utf8 = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        permutations = _permutations(parameters.num_perm)
        return signing.sign_batch(utf8, offsets, parameters.shingle_words, *permutations, is_nfc=is_nfc)

    def sign_normalized(array: pa.LargeStringArray, parameters: Parameters) -> Batch:
        texts = pa.array([unicodedata.normalize("NFC", text) for text in array.to_pylist()], pa.large_string())
        return _completed(texts, parameters, run(texts, parameters, is_nfc=True), sign_by_datasketch)

    def sign_batch(array: pa.LargeStringArray, parameters: Parameters) -> Batch:
        return _completed(array, parameters, run(array, parameters, is_nfc=False), sign_normalized)

    return sign_batch, ""


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


@functools.cache
def _permutations(num_perm: int) -> tuple[Signatures, Signatures]:
    """Factors and terms of `datasketch.MinHash(num_perm, SEED, scheme="affine32")`, drawn as it draws them.

    Importing it for them would cost half a second of a run of the kernel.
    """
    draw = np.random.RandomState(SEED)
    factors = draw.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, draw.randint(0, 1 << 32, num_perm, dtype=np.uint32)


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
