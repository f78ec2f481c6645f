"""Text to ids by looking up its words: GPT-2's way of splitting, compiled, over a table of words seen before.

Most of the time of a byte-level BPE goes into finding the next word with a regular expression, 0.3 µs each. Here a word
is found by a table of characters and its ids in a hash table (prosemill.chunk.kernel); tiktoken is asked for a word
once. The classes of characters are those of tiktoken's own expressions, whatever version of Unicode it knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosemill.runtime.kernel_cache import Kernel, function

OTHER, LETTER, NUMBER = 0, 1, 2
PLANES = 0x40000  # of Unicode: the others hold no letter, number or space
SLOTS = 1 << 18  # of the table, which begins anew when half of them are used: 130,000 words, some 10 MB
MOST_BYTES = 1 << 26  # of the words in a table
GROUP_BYTES = 1 << 22  # of text looked at in one go, which takes four times as much memory
# Where more of the words than this are new, as in scripts that put no spaces between words, the table is of no use.
NEW_SHARE, ENOUGH_WORDS = 0.3, 100_000
# As prosemill.chunk.kernel has them, which imports numba.
SPACE, PIECE_AT, PIECE_SIZE, IDS_AT, IDS_SIZE = 3, 0, 1, 2, 3
CLASSES = ((LETTER, r"\p{L}"), (NUMBER, r"\p{N}"), (SPACE, r"\s"))
HERE = Path(__file__).parent
FIND_WORDS = Kernel(
    "prosemill.chunk.kernel",
    "find_words",
    "uint8* int64* int64 uint8* uint64* int64 int32* uint8* int64* int32* int32* int64* int64*",
    (HERE / "kernel.py",),
)
IDS_OF = Kernel(
    "prosemill.chunk.kernel",
    "ids_of",
    "int32* int64* int64 int32* uint32* int64* uint32*",
    (HERE / "kernel.py",),
)

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
        members = ids.astype(np.uint8).tobytes().decode("utf-8")
        kinds[np.frombuffer(members.encode("utf-32-le"), np.uint32)] = kind
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
        encoded: list[Ids] = []
        first, size = 0, 0
        for number, text in enumerate(texts):
            if size and size + len(text) > GROUP_BYTES:
                encoded += self._encode(texts[first:number])
                first, size = number, 0
            size += len(text)
        return encoded + self._encode(texts[first:])

    def _encode(self, texts: Sequence[bytes]) -> list[Ids]:
        data = np.frombuffer(b"".join(texts), np.uint8)
        ends = np.cumsum([len(text) for text in texts])
        parts, sizes = [np.empty(0, np.uint32)], np.zeros(len(texts), np.int64)
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
            table = (self._hashes, len(self._hashes), self._entries.ravel(), self._pieces, self._used)
            function(FIND_WORDS)(data, ends, len(ends), self._kinds, *table, new, slots, counts, state)
            self._learn(new[: self._used[0] - before])
            self._seen += int(state[2])
            self._new += int(self._used[0] - before)
            parts.append(np.empty(int(self._entries[slots[: state[2]], IDS_SIZE].sum(dtype=np.int64)), np.uint32))
            function(IDS_OF)(slots, counts, len(counts), self._entries.ravel(), self._ids, sizes, parts[-1])
        return np.split(np.concatenate(parts), np.cumsum(sizes)[:-1]) if len(texts) else []

    def _learn(self, slots: NDArray[np.int32]) -> None:
        """Have the words in these slots encoded."""
        if not len(slots):
            return
        starts, sizes = self._entries[slots, PIECE_AT], self._entries[slots, PIECE_SIZE]
        first = int(starts[0])  # new words lie one behind the other
        pieces = self._pieces[first : self._used[1]].tobytes()
        places = zip((starts - first).tolist(), sizes.tolist(), strict=True)
        ids = [self._encode_piece(pieces[at : at + size]) for at, size in places]
        sizes = np.array([len(word_ids) for word_ids in ids], np.int32)
        self._entries[slots, IDS_AT] = len(self._ids) + np.cumsum(sizes) - sizes
        self._entries[slots, IDS_SIZE] = sizes
        self._ids = np.concatenate([self._ids, np.fromiter(itertools.chain.from_iterable(ids), np.uint32)])
