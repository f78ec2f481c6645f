"""GPT-2's way of splitting text into words, and a hash table of words, compiled by numba: what `words` works with.

Nothing is allocated here, and no array is sliced or asked for its length: see prosemill.runtime.kernel_cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SPACE = 3  # the class of a character, as words.CLASSES has it
PIECE_AT, PIECE_SIZE, IDS_AT, IDS_SIZE = 0, 1, 2, 3  # of an entry: four numbers
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True, cache=True)
def _character(data, at):  # type: ignore[no-untyped-def]
    """Code point at `at`, and where the next one begins; `data` is valid UTF-8."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, at + 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, at + 2
    if first < 0xF0:
        middle = (np.int64(data[at + 1]) & 0x3F) << 6
        return (first & 0x0F) << 12 | middle | np.int64(data[at + 2]) & 0x3F, at + 3
    upper = (np.int64(data[at + 1]) & 0x3F) << 12 | (np.int64(data[at + 2]) & 0x3F) << 6
    return (first & 0x07) << 18 | upper | np.int64(data[at + 3]) & 0x3F, at + 4


@njit(nogil=True, cache=True)
def _end_of_run(data, at, stop, kinds, kind):  # type: ignore[no-untyped-def]
    """Where characters of `kind` from `at` on end, and where the last of them begins."""
    last = at
    while at < stop:
        code, after = _character(data, at)
        if kinds[code] != kind:
            break
        last, at = at, after
    return at, last


@njit(nogil=True, cache=True)
def _end_of_word(data, at, stop, kinds):  # type: ignore[no-untyped-def]
    """Where the word that begins at `at` ends, as engine.GPT2_PATTERN has it; the text ends at `stop`."""
    code, after = _character(data, at)
    if code == 39 and after < stop:  # 's 'd 'm 't 'll 've 're
        one = data[after]
        if one in (115, 100, 109, 116):
            return after + 1
        if after + 1 < stop:
            two = data[after + 1]
            if (one == 108 and two == 108) or (one in (118, 114) and two == 101):
                return after + 2
    kind = kinds[code]
    if code == 32 and after < stop:
        follower, _ = _character(data, after)
        if kinds[follower] != SPACE:
            return _end_of_run(data, after, stop, kinds, kinds[follower])[0]
    end, last = _end_of_run(data, at, stop, kinds, kind)
    if kind == SPACE and end < stop and last > at:
        return last  # the last space belongs to the word behind it
    return end


@njit(nogil=True, cache=True)
def _hash(data, start, end):  # type: ignore[no-untyped-def]
    """FNV-1a (Fowler, Noll, Vo), mixed so that its low bits vary; never 0, which is an empty slot."""
    value = _FNV_OFFSET
    for at in range(start, end):
        value = (value ^ np.uint64(data[at])) * _FNV_PRIME
    value = (value ^ (value >> np.uint64(32))) * _MIX
    return value ^ (value >> np.uint64(29)) | np.uint64(1)


@njit(nogil=True, cache=True)
def _is_same(data, start, end, pieces, piece, size):  # type: ignore[no-untyped-def]
    if size != end - start:
        return False
    for byte in range(end - start):  # noqa: SIM110 - numba compiles no generator expression
        if pieces[piece + byte] != data[start + byte]:
            return False
    return True


@njit(nogil=True, cache=True)
def find_words(  # type: ignore[no-untyped-def]
    data, ends, texts, kinds, hashes, size, entries, pieces, used, new, slots, counts, state
):
    """The slot of each word, new ones put into the table, until the end or until the table is full.

    data: UTF-8 of all texts end to end. ends [texts]. kinds: class of each code point. hashes [size], entries [4 size],
    pieces: the table, of which `used` says how many words and bytes of pieces it has. Written: slots of new words, of
    all words, words of each text; state: bytes, texts and words done.
    """
    at, text, words = state[0], state[1], state[2]
    mask, num_new = np.uint64(size - 1), 0
    while text < texts:
        stop = ends[text]
        while at < stop:
            if used[0] >= size // 2:
                state[0], state[1], state[2] = at, text, words
                return
            end = _end_of_word(data, at, stop, kinds)
            key = _hash(data, at, end)
            slot = np.int64((key >> np.uint64(1)) & mask)
            while hashes[slot] != 0:
                entry = 4 * slot
                if hashes[slot] == key and _is_same(
                    data, at, end, pieces, entries[entry + PIECE_AT], entries[entry + PIECE_SIZE]
                ):
                    break
                slot = (slot + 1) & np.int64(mask)
            if hashes[slot] == 0:
                hashes[slot] = key
                entries[4 * slot + PIECE_AT], entries[4 * slot + PIECE_SIZE] = used[1], end - at
                for byte in range(end - at):
                    pieces[used[1] + byte] = data[at + byte]
                new[num_new] = slot
                num_new += 1
                used[0] += 1
                used[1] += end - at
            slots[words] = slot
            words += 1
            counts[text] += 1
            at = end
        text += 1
    state[0], state[1], state[2] = at, text, words


@njit(nogil=True, cache=True)
def ids_of(slots, counts, texts, entries, ids, sizes, out):  # type: ignore[no-untyped-def]
    """Write to `out` the ids of the words in `slots`, of which each text has `counts`; add to the texts' `sizes`."""
    word, written = 0, 0
    for text in range(texts):
        before = written
        for _ in range(counts[text]):
            entry = 4 * np.int64(slots[word])
            first = entries[entry + IDS_AT]
            for number in range(entries[entry + IDS_SIZE]):
                out[written] = ids[first + number]
                written += 1
            word += 1
        sizes[text] += written - before
