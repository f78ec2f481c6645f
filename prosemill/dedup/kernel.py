"""One pass from UTF-8 to shingle hashes and signature, compiled by numba: the bits of the Python road.

Hashing shingles is what signing costs, not the permutations; so tokens, shingles and their hashes are made in one go,
without a Python object in between. xxh64: Collet, "xxHash fast digest algorithm" (specification 0.1.1).
"""

from __future__ import annotations

import functools
import re
import threading
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint32]

SEPARATOR, WORD, ALONE, BEYOND = 0, 1, 2, 3  # what a character is; BEYOND: only Python's str.lower() knows
TABLE_SIZE = 0x20000  # both planes that hold letters; above them only ideographs, and what is left to Python
IDEOGRAPHS = (0x20000, 0x3FFFF)
# "İ" becomes two characters, and capital sigma one that depends on its place in the word.
SPECIAL = "\u0130\u03a3"

_room = threading.local()

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@functools.cache
def tables(alone: str) -> tuple[Bytes, NDArray[np.int32]]:
    """For each character its class and its lower case; `alone` is the character class of one-character tokens."""
    is_alone, is_word = re.compile(f"[{alone}]"), re.compile(r"\w")
    kinds, lower = np.zeros(TABLE_SIZE, np.uint8), np.arange(TABLE_SIZE, dtype=np.int32)
    for code in range(TABLE_SIZE):
        small = chr(code).lower()
        if chr(code) in SPECIAL or len(small) != 1:
            kinds[code] = BEYOND
            continue
        lower[code] = ord(small)
        kinds[code] = ALONE if is_alone.match(small) else WORD if is_word.match(small) else SEPARATOR
    return kinds, lower


@njit(nogil=True, cache=True, inline="always")
def _rotate(value, bits):  # type: ignore[no-untyped-def]
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@njit(nogil=True, cache=True, inline="always")
def _word(data, at, size):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for byte in range(size):
        value |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return value


@njit(nogil=True, cache=True, inline="always")
def _round(lane, value):  # type: ignore[no-untyped-def]
    return _rotate(lane + value * _P2, 31) * _P1


@njit(nogil=True, cache=True)
def xxh64(data, start, end):  # type: ignore[no-untyped-def]
    """XXH64 of data[start:end], seed 0."""
    at, size = start, end - start
    if size >= 32:
        one, two, three, four = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 32 <= end:
            one = _round(one, _word(data, at, 8))
            two = _round(two, _word(data, at + 8, 8))
            three = _round(three, _word(data, at + 16, 8))
            four = _round(four, _word(data, at + 24, 8))
            at += 32
        value = _rotate(one, 1) + _rotate(two, 7) + _rotate(three, 12) + _rotate(four, 18)
        for lane in (one, two, three, four):
            value = (value ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        value = _P5
    value += np.uint64(size)
    while at + 8 <= end:
        value = _rotate(value ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        value = _rotate(value ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        value = _rotate(value ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    value = (value ^ (value >> np.uint64(33))) * _P2
    value = (value ^ (value >> np.uint64(29))) * _P3
    return value ^ (value >> np.uint64(32))


@njit(nogil=True, cache=True, inline="always")
def _decode(data, at):  # type: ignore[no-untyped-def]
    """The character at `at`, and where the next one begins. The text is valid UTF-8."""
    first = np.int32(data[at])
    if first < 0x80:
        return first, at + 1
    if first < 0xE0:
        return ((first & 0x1F) << 6) | (data[at + 1] & 0x3F), at + 2
    if first < 0xF0:
        return ((first & 0x0F) << 12) | ((data[at + 1] & 0x3F) << 6) | (data[at + 2] & 0x3F), at + 3
    high = ((first & 0x07) << 18) | ((data[at + 1] & 0x3F) << 12)
    return high | ((data[at + 2] & 0x3F) << 6) | (data[at + 3] & 0x3F), at + 4


@njit(nogil=True, cache=True, inline="always")
def _encode(code, out, at):  # type: ignore[no-untyped-def]
    """Write a character as UTF-8; where the next one goes."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at], out[at + 1] = 0xC0 | (code >> 6), 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x10000:
        out[at], out[at + 1], out[at + 2] = 0xE0 | (code >> 12), 0x80 | ((code >> 6) & 0x3F), 0x80 | (code & 0x3F)
        return at + 3
    out[at], out[at + 1] = 0xF0 | (code >> 18), 0x80 | ((code >> 12) & 0x3F)
    out[at + 2], out[at + 3] = 0x80 | ((code >> 6) & 0x3F), 0x80 | (code & 0x3F)
    return at + 4


@njit(nogil=True, cache=True)
def hash_texts(data, offsets):  # type: ignore[no-untyped-def]
    """`shingles.text_hash` of each text: xxh64 of its bytes, A to Z small, runs of white space one space, none around.

    data: UTF-8 of all texts end to end [bytes]. offsets [texts + 1].
    """
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, int(offsets[text + 1] - offsets[text]))
    out = np.empty(longest + 1, np.uint8)
    found = np.empty(len(offsets) - 1, np.uint64)
    for text in range(len(offsets) - 1):
        size = 0
        between = False
        for at in range(offsets[text], offsets[text + 1]):
            byte = data[at]
            if byte == 32 or 9 <= byte <= 13:
                between = size > 0
                continue
            if between:
                out[size] = 32
                size += 1
                between = False
            out[size] = byte + 32 if 65 <= byte <= 90 else byte
            size += 1
        found[text] = xxh64(out, 0, size)
    return found


@njit(nogil=True, cache=True)
def _tokens(data, start, end, kinds, lower, out, firsts):  # type: ignore[no-untyped-def]
    """Write the lower-cased tokens with single spaces between them; `firsts` gets where each begins.

    The number of tokens, -1 where the text has to be left to Python, and the size of what was written.
    """
    at, size, count = start, 0, 0
    inside = False
    while at < end:
        code, at = _decode(data, at)
        if code < TABLE_SIZE:
            kind, code = kinds[code], lower[code]
        else:
            kind = ALONE if IDEOGRAPHS[0] <= code <= IDEOGRAPHS[1] else BEYOND
        if kind == BEYOND:
            return -1, 0
        if kind == SEPARATOR:
            inside = False
            continue
        if kind == ALONE or not inside:
            if count:
                out[size] = 32
                size += 1
            firsts[count] = size
            count += 1
        size = _encode(code, out, size)
        inside = kind == WORD
    return count, size


@njit(nogil=True, cache=True, inline="always")
def _mix32(value):  # type: ignore[no-untyped-def]
    """MurmurHash3's 32-bit finalizer; numba multiplies in 64 bits, so each product is cut back."""
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32((value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@njit(nogil=True, cache=True)
def _sign(hashes, factors, terms, signature):  # type: ignore[no-untyped-def]
    for each in hashes:
        mixed = _mix32(np.uint32(each & np.uint64(0xFFFFFFFF)))
        for permutation in range(len(factors)):
            value = np.uint32(mixed * factors[permutation] + terms[permutation])
            signature[permutation] = min(signature[permutation], value)


@njit(nogil=True, cache=True)
def _distinct(hashes, spare):  # type: ignore[no-untyped-def]
    """Sort `hashes` in place, each once, and say how many there are; `spare` is as long.

    A bucket for each hash by its highest bits, then insertion: hashes are spread evenly, so hardly one has to move.
    Four times as fast as a general sort on some hundred values.
    """
    number = len(hashes)
    bits = 1
    while (1 << bits) < number:
        bits += 1
    shift = np.uint64(64 - bits)
    ends = np.zeros((1 << bits) + 1, np.int64)
    for each in hashes:
        ends[np.int64(each >> shift) + 1] += 1
    for bucket in range(1 << bits):
        ends[bucket + 1] += ends[bucket]
    for each in hashes:
        mine = np.int64(each >> shift)
        spare[ends[mine]] = each
        ends[mine] += 1
    distinct = 0
    for place in range(number):
        value, at = spare[place], distinct
        while at > 0 and hashes[at - 1] > value:
            at -= 1
        if at > 0 and hashes[at - 1] == value:
            continue
        for later in range(distinct, at, -1):
            hashes[later] = hashes[later - 1]
        hashes[at] = value
        distinct += 1
    return distinct


@njit(nogil=True, cache=True)
def sign_texts(data, offsets, words, kinds, lower, factors, terms, signatures, hashes):  # type: ignore[no-untyped-def]
    """Shingle hashes (distinct, ascending, end to end), how many each text has (-1: left to Python), and signatures.

    hashes: room for them, an element a byte and a text; what is returned is its beginning. data: UTF-8 of all texts end
    to end [bytes]. offsets [texts + 1]. words: tokens a shingle. factors, terms: the permutations [num_perm].
    signatures [texts, num_perm]: all ones before, filled in place.
    """
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, int(offsets[text + 1] - offsets[text]))
    out = np.empty(2 * longest + 16, np.uint8)  # a lower-case letter takes at most half as much again, a token a space
    firsts = np.empty(longest + 1, np.int64)
    spare = np.empty(longest + 1, np.uint64)
    counts = np.zeros(len(offsets) - 1, np.int64)
    total = 0
    for text in range(len(offsets) - 1):
        tokens, size = _tokens(data, offsets[text], offsets[text + 1], kinds, lower, out, firsts)
        if tokens <= 0:
            counts[text] = tokens
            continue
        number = max(1, tokens - words + 1)
        for shingle in range(number):
            after = shingle + words
            end = firsts[after] - 1 if after < tokens else size
            hashes[total + shingle] = xxh64(out, firsts[shingle], end)
        mine = hashes[total : total + number]
        distinct = _distinct(mine, spare)
        _sign(mine[:distinct], factors, terms, signatures[text])
        counts[text] = distinct
        total += distinct
    return hashes[:total], counts


def sign_batch(
    data: Bytes, offsets: NDArray[np.int64], words: int, alone: str, factors: Signatures, terms: Signatures
) -> tuple[Hashes, NDArray[np.int64], Signatures]:
    """`sign_texts` with its tables and arrays. The hashes are good until the same thread signs the next batch.

    Allocated anew for each batch, tens of megabytes that come and go between small arrays that stay would leave the
    heap in pieces: three times the memory.
    """
    size = int(offsets[-1] - offsets[0]) + len(offsets)
    if len(getattr(_room, "hashes", ())) < size:
        _room.hashes = np.empty(size + size // 4, np.uint64)
    signatures = np.full((len(offsets) - 1, len(factors)), 0xFFFFFFFF, np.uint32)
    found: tuple[Any, Any] = sign_texts(data, offsets, words, *tables(alone), factors, terms, signatures, _room.hashes)
    return *found, signatures
