"""One pass from UTF-8 to shingle hashes and signature, compiled by numba: the same bits as in Python.

Hashing shingles is what signing costs, not the permutations; so tokens, shingles and their hashes are made in one go,
without a Python object in between. xxh64: Collet, "xxHash fast digest algorithm" (specification 0.1.1).

Nothing is allocated here, no array is sliced or asked for its length: so the functions take bare pointers, too, and
what is compiled for these needs nothing of numba's when it runs (runtime.kernel_cache). `signing` hands in the room.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from prosemill.text.scripts import ALONE, LETTER, MARK, SEPARATOR
from prosemill.text.tables import LEFT

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


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
def _hash_text(data, start, end, out):  # type: ignore[no-untyped-def]
    """`shingles.text_hash`: xxh64 of the bytes, A to Z small, runs of white space one space, none around."""
    size = 0
    between = False
    for at in range(start, end):
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
    return xxh64(out, 0, size)


@njit(nogil=True, cache=True)
def _tokens(data, start, end, kinds, lower, out, firsts):  # type: ignore[no-untyped-def]
    """Write the lower-cased tokens with single spaces between them; `firsts` gets where each begins.

    The number of tokens, -1 where the text has to be left to Python, and the size of what was written.
    """
    at, size, count = start, 0, 0
    in_word = takes_marks = False
    while at < end:
        code, at = _decode(data, at)
        kind = kinds[code]
        if kind == SEPARATOR:
            in_word = takes_marks = False
            continue
        if kind > ALONE:  # MARK, IGNORED, LEFT: three comparisons less for a letter
            if kind == LEFT:
                return -1, 0
            if kind == MARK and takes_marks:
                size = _encode(lower[code], out, size)
            continue
        if kind == ALONE or not in_word:
            if count:
                out[size] = 32
                size += 1
            firsts[count] = size
            count += 1
            in_word, takes_marks = kind == LETTER, True
        size = _encode(lower[code], out, size)
    return count, size


@njit(nogil=True, cache=True, inline="always")
def _mix32(value):  # type: ignore[no-untyped-def]
    """MurmurHash3's 32-bit finalizer; numba multiplies in 64 bits, so each product is cut back."""
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32((value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@njit(nogil=True, cache=True)
def _sign(hashes, start, end, factors, terms, num_perm, signatures, first):  # type: ignore[no-untyped-def]
    for place in range(start, end):
        mixed = _mix32(np.uint32(hashes[place] & np.uint64(0xFFFFFFFF)))
        for permutation in range(num_perm):
            value = np.uint32(mixed * factors[permutation] + terms[permutation])
            signatures[first + permutation] = min(signatures[first + permutation], value)


@njit(nogil=True, cache=True)
def _distinct(hashes, start, number, spare, ends):  # type: ignore[no-untyped-def]
    """Sort hashes[start : start + number] in place, each once, and say how many there are. spare, ends: room.

    A bucket for each hash by its highest bits, then insertion: hashes are spread evenly, so hardly one has to move.
    Four times as fast as a general sort on some hundred values.
    """
    bits = 1
    while (1 << bits) < number:
        bits += 1
    shift = np.uint64(64 - bits)
    for bucket in range((1 << bits) + 1):
        ends[bucket] = 0
    for place in range(start, start + number):
        ends[np.int64(hashes[place] >> shift) + 1] += 1
    for bucket in range(1 << bits):
        ends[bucket + 1] += ends[bucket]
    for place in range(start, start + number):
        mine = np.int64(hashes[place] >> shift)
        spare[ends[mine]] = hashes[place]
        ends[mine] += 1
    last = start
    for place in range(number):
        value, at = spare[place], last
        while at > start and hashes[at - 1] > value:
            at -= 1
        if at > start and hashes[at - 1] == value:
            continue
        for later in range(last, at, -1):
            hashes[later] = hashes[later - 1]
        hashes[at] = value
        last += 1
    return last - start


@njit(nogil=True, cache=True)
def sign_texts(  # type: ignore[no-untyped-def]
    data, offsets, texts, words, kinds, lower, factors, terms, num_perm,
    out, firsts, spare, ends, whole, hashes, counts, signatures,
):  # fmt: skip
    """Hashes of whole texts; shingle hashes, distinct and ascending, end to end; how many of these each text has (-1:
    left to Python); signatures. All are filled in place.

    data: UTF-8 of all texts end to end [bytes]. offsets [texts + 1]. words: tokens a shingle. kinds, lower: of each
    character. factors, terms: the permutations [num_perm]. out, firsts, spare, ends: room, see `signing`. whole
    [texts]. hashes: room for them, an element a byte and a text. counts [texts]. signatures [texts x num_perm]: all
    ones before.
    """
    total = 0
    for text in range(texts):
        start, stop = offsets[text], offsets[text + 1]
        whole[text] = _hash_text(data, start, stop, out)
        tokens, size = _tokens(data, start, stop, kinds, lower, out, firsts)
        counts[text] = tokens
        if tokens <= 0:
            continue
        number = max(1, tokens - words + 1)
        for shingle in range(number):
            after = shingle + words
            end = firsts[after] - 1 if after < tokens else size
            hashes[total + shingle] = xxh64(out, firsts[shingle], end)
        distinct = _distinct(hashes, total, number, spare, ends)
        _sign(hashes, total, total + distinct, factors, terms, num_perm, signatures, text * num_perm)
        counts[text] = distinct
        total += distinct
