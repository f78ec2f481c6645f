"""Text to ids by looking up its words: GPT-2's way of splitting, compiled by numba, over a table of words seen before.

Most of the time of a byte-level BPE goes into finding the next word with a regular expression, 0.3 µs each. Here a word
is found by a table of characters and its ids in a hash table; tiktoken is asked for a word once. The classes of
characters are those of tiktoken's own expressions, whatever version of Unicode it knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
CLASSES = ((LETTER, r"\p{L}"), (NUMBER, r"\p{N}"), (SPACE, r"\s"))
PLANES = 0x40000  # of Unicode: the others hold no letter, number or space
SLOTS = 1 << 18  # of the table, which begins anew when half of them are used: 130,000 words, some 10 MB
MOST_BYTES = 1 << 26  # of the words in a table
GROUP_BYTES = 1 << 22  # of text looked at in one go, which takes four times as much memory
# Where more of the words than this are new, as in scripts that put no spaces between words, the table is of no use.
NEW_SHARE, ENOUGH_WORDS = 0.3, 100_000
PIECE_AT, PIECE_SIZE, IDS_AT, IDS_SIZE = 0, 1, 2, 3
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)

EncodePiece = Callable[[bytes], list[int]]
Ids = NDArray[np.uint32]


def character_kinds(encoding_of: Callable[..., Any]) -> NDArray[np.uint8]:
    """The class of each code point, by `encoding_of`(pat_str=…, mergeable_ranks=…), which makes a tiktoken.Encoding.

    An encoding leaves out what its expression does not match: of a text of all characters, those of a class are left.
    """
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, PLANES))))
    kinds = np.full(0x110000, OTHER, np.uint8)
    for kind, pattern in CLASSES:
        ids = encoding_of(pat_str=pattern, mergeable_ranks=single_bytes).encode_to_numpy(every)
        found = ids.astype(np.uint8).tobytes().decode("utf-8")
        kinds[np.frombuffer(found.encode("utf-32-le"), np.uint32)] = kind
    return kinds


class WordTable:
    """Words and their ids. Not for several threads at once."""

    def __init__(self, encode_piece: EncodePiece, kinds: NDArray[np.uint8]) -> None:
        self._encode_piece, self._kinds = encode_piece, kinds
        self._hashes, self._entries = np.zeros(SLOTS, np.uint64), np.zeros((SLOTS, 4), np.int32)
        self._pieces, self._ids = np.empty(0, np.uint8), np.empty(0, np.uint32)
        self._used = np.zeros(2, np.int64)  # words, bytes of pieces
        self._seen = self._new = 0  # words

    @property
    def is_of_use(self) -> bool:
        return self._seen < ENOUGH_WORDS or self._new < NEW_SHARE * self._seen

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        """The ids of each UTF-8 text."""
        found: list[Ids] = []
        first, size = 0, 0
        for number, text in enumerate(texts):
            if size and size + len(text) > GROUP_BYTES:
                found += self._encode(texts[first:number])
                first, size = number, 0
            size += len(text)
        return found + self._encode(texts[first:])

    def _encode(self, texts: Sequence[bytes]) -> list[Ids]:
        data = np.frombuffer(b"".join(texts), np.uint8)
        ends = np.cumsum([len(text) for text in texts])
        found, sizes = [np.empty(0, np.uint32)], np.zeros(len(texts), np.int64)
        state = np.zeros(3, np.int64)  # bytes read, texts read, words found
        slots = np.empty(len(data), np.int32)  # no word is shorter than a byte
        while state[1] < len(texts):
            if self._used[0] >= SLOTS // 2 or self._used[1] > MOST_BYTES:
                self._hashes[:], self._used[:] = 0, 0
                self._ids = self._ids[:0]
            room = self._used[1] + len(data) - state[0]
            if room > len(self._pieces):
                self._pieces = np.resize(self._pieces, room + (room >> 1))
            new = np.empty(SLOTS // 2 + 1, np.int32)
            before, state[2] = self._used[0], 0
            counts = np.zeros(len(texts), np.int64)  # words of each text
            table = (self._hashes, self._entries, self._pieces, self._used)
            _find_words(data, ends, self._kinds, *table, new, slots, counts, state)
            self._learn(new[: self._used[0] - before])
            self._seen += int(state[2])
            self._new += int(self._used[0] - before)
            found.append(_ids_of(slots[: state[2]], counts, self._entries, self._ids, sizes))
        return np.split(np.concatenate(found), np.cumsum(sizes)[:-1]) if len(texts) else []

    def _learn(self, slots: NDArray[np.int32]) -> None:
        """Have the words in these slots encoded."""
        if not len(slots):
            return
        starts, sizes = self._entries[slots, PIECE_AT], self._entries[slots, PIECE_SIZE]
        first = int(starts[0])  # new words lie one behind the other
        pieces = self._pieces[first : self._used[1]].tobytes()
        places = zip((starts - first).tolist(), sizes.tolist(), strict=True)
        ids = [self._encode_piece(pieces[at : at + size]) for at, size in places]
        sizes = np.array([len(each) for each in ids], np.int32)
        self._entries[slots, IDS_AT] = len(self._ids) + np.cumsum(sizes) - sizes
        self._entries[slots, IDS_SIZE] = sizes
        self._ids = np.concatenate([self._ids, np.fromiter(itertools.chain.from_iterable(ids), np.uint32)])


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
def _end_of_run(data, at, kinds, kind):  # type: ignore[no-untyped-def]
    """Where characters of `kind` from `at` on end, and where the last of them begins."""
    last = at
    while at < len(data):
        code, after = _character(data, at)
        if kinds[code] != kind:
            break
        last, at = at, after
    return at, last


@njit(nogil=True, cache=True)
def _end_of_word(data, at, kinds):  # type: ignore[no-untyped-def]
    """Where the word that begins at `at` ends, as engine.GPT2_PATTERN has it."""
    code, after = _character(data, at)
    if code == 39 and after < len(data):  # 's 'd 'm 't 'll 've 're
        one = data[after]
        if one in (115, 100, 109, 116):
            return after + 1
        if after + 1 < len(data):
            two = data[after + 1]
            if (one == 108 and two == 108) or (one in (118, 114) and two == 101):
                return after + 2
    kind = kinds[code]
    if code == 32 and after < len(data):
        follower, _ = _character(data, after)
        if kinds[follower] != SPACE:
            return _end_of_run(data, after, kinds, kinds[follower])[0]
    end, last = _end_of_run(data, at, kinds, kind)
    if kind == SPACE and end < len(data) and last > at:
        return last  # the last space belongs to the word behind it
    return end


@njit(nogil=True, cache=True)
def _hash(data, start, end):  # type: ignore[no-untyped-def]
    """FNV-1a (Fowler, Noll, Vo), mixed so that its low bits tell; never 0, which is an empty slot."""
    value = _FNV_OFFSET
    for at in range(start, end):
        value = (value ^ np.uint64(data[at])) * _FNV_PRIME
    value = (value ^ (value >> np.uint64(32))) * _MIX
    return value ^ (value >> np.uint64(29)) | np.uint64(1)


@njit(nogil=True, cache=True)
def _find_words(  # type: ignore[no-untyped-def]
    data, ends, kinds, hashes, entries, pieces, used, new, slots, counts, state
):
    """The slot of each word, new ones put into the table, until the end or until the table is full."""
    at, text, words = state[0], state[1], state[2]
    mask, num_new = np.uint64(len(hashes) - 1), 0
    while text < len(ends):
        of_text = data[: ends[text]]
        while at < len(of_text):
            if used[0] >= len(hashes) // 2:
                state[0], state[1], state[2] = at, text, words
                return
            end = _end_of_word(of_text, at, kinds)
            key = _hash(data, at, end)
            slot = np.int64((key >> np.uint64(1)) & mask)
            while hashes[slot] != 0:
                if hashes[slot] == key and _is_same(data, at, end, entries[slot], pieces):
                    break
                slot = (slot + 1) & np.int64(mask)
            if hashes[slot] == 0:
                hashes[slot] = key
                entries[slot, PIECE_AT], entries[slot, PIECE_SIZE] = used[1], end - at
                pieces[used[1] : used[1] + end - at] = data[at:end]
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
def _is_same(data, start, end, entry, pieces):  # type: ignore[no-untyped-def]
    if entry[PIECE_SIZE] != end - start:
        return False
    for byte in range(end - start):  # noqa: SIM110 - numba compiles no generator expression
        if pieces[entry[PIECE_AT] + byte] != data[start + byte]:
            return False
    return True


@njit(nogil=True, cache=True)
def _ids_of(slots, counts, entries, ids, sizes):  # type: ignore[no-untyped-def]
    """The ids of the words in `slots`, of which each text has `counts`; adds to the `sizes` of the texts."""
    total = 0
    for slot in slots:
        total += entries[slot, IDS_SIZE]
    found = np.empty(total, np.uint32)
    word, written = 0, 0
    for text in range(len(counts)):
        before = written
        for slot in slots[word : word + counts[text]]:
            first = entries[slot, IDS_AT]
            for number in range(entries[slot, IDS_SIZE]):
                found[written] = ids[first + number]
                written += 1
        word += counts[text]
        sizes[text] += written - before
    return found
