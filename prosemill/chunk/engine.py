"""Text to ids by the faster of two engines that give the same ids.

A byte-level BPE (GPT-2's kind) is also what tiktoken's engine computes, several times as fast; it is taken where the
tokenizer is of that kind and gave the same ids on a sample, and each batch holds a document that is checked again.
tiktoken merges any neighbours whose joint bytes are a token, the tokenizer only pairs that its merges list: so they
can differ for some vocabularies, and then the tokenizer itself is used. Of much text in GPT-2's way of splitting, the
words are looked up (prosemill.chunk.words), which takes a third of tiktoken's time.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from prosemill.chunk.compat import piece_encoder

if TYPE_CHECKING:
    from tiktoken import Encoding

    from prosemill.chunk.words import WordTable

Ids = NDArray[np.uint32]
Encode = Callable[[Sequence[str]], list[Ids]]

# GPT-2's own expression (Radford et al. 2019, encoder.py), which `ByteLevel(use_regex=True)` applies.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PLAIN_SPLIT = {"invert": False, "behavior": "Isolated"}

SAMPLE = [
    "The mill's wheel turned; it'll turn again, they've said, 1,024 times.\n\n\tIndented:  two  spaces.   \n",
    "naïve café Größe Ærøskøbing łódź İstanbul ΟΔΟΣ Привет мир مرحبا שלום नमस्ते 한국어 日本語のテキスト 漢字，標點。",
    "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": None}  # <|endoftext|> &amp; https://example.org/?q=1&r=2\r\n",
    "😀👩‍👩‍👧‍👦 ½²٣ \u200b\ufeff\u00a0\u3000 e\u0301 ﬁ \U0001d400 \x00\x7f ---- ==== aaaaaaaaaaaaaaaa        end",
    "",
]


def engine_for(tokenizer: Tokenizer, threads: int | None = None) -> Encode:
    """A function from texts to their ids, special tokens read as text and none added; on all processors by default."""
    slow = _tokenizers(tokenizer)
    fast = _tiktoken(tokenizer, threads or len(os.sched_getaffinity(0)))
    if fast is None or not _agree(fast(SAMPLE), slow(SAMPLE)):
        return slow

    def encode(texts: Sequence[str]) -> list[Ids]:
        ids = fast(texts)
        probe = min(range(len(texts)), key=lambda text: abs(len(texts[text]) - PROBE_CHARACTERS), default=None)
        if probe is None or _agree([ids[probe]], slow([texts[probe]])):
            return ids
        logging.getLogger(__name__).warning("tiktoken gave other ids than the tokenizer; the tokenizer is used instead")
        return slow(texts)

    return encode


WORTH_CHARACTERS = 2_000_000  # finding the classes of all characters takes the time that 4 million characters save
SLICES = 4  # of a batch for each thread: few hand-overs, and no thread waits long for another that has longer texts
PROBE_CHARACTERS = 400  # of the document of a batch that is encoded twice: enough to show a difference, at little cost


def is_fast(tokenizer: Tokenizer) -> bool:
    """Whether `engine_for` found that tiktoken gives this tokenizer's ids."""
    fast = _tiktoken(tokenizer, 1)
    return fast is not None and _agree(fast(SAMPLE), _tokenizers(tokenizer)(SAMPLE))


def _agree(one: Sequence[Ids], other: Sequence[Ids]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _tokenizers(tokenizer: Tokenizer) -> Encode:
    def encode(texts: Sequence[str]) -> list[Ids]:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    return encode


def _tiktoken(tokenizer: Tokenizer, threads: int) -> Encode | None:
    """tiktoken's engine on the tokenizer's vocabulary; None where it is not installed or cannot express it."""
    try:
        from tiktoken import Encoding
    except ImportError:
        return None
    parts = json.loads(tokenizer.to_str())
    ranks, pattern = _ranks(parts), _pattern(parts.get("pre_tokenizer"))
    if ranks is None or pattern is None:
        return None
    encoding = Encoding("prosemill", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    words = _Words(encoding, threads) if pattern == GPT2_PATTERN else None

    def encode_all(texts: Sequence[str]) -> list[Ids]:
        ids = words.encode(texts) if words else None
        return [encoding.encode_to_numpy(text) for text in texts] if ids is None else ids

    if threads == 1:
        return encode_all
    pool = ThreadPoolExecutor(threads)  # the engine lets go of the interpreter's lock while it works

    def encode(texts: Sequence[str]) -> list[Ids]:
        size = max(1, -(-len(texts) // (SLICES * threads)))
        slices = [texts[first : first + size] for first in range(0, len(texts), size)]
        return [ids for encoded in pool.map(encode_all, slices) for ids in encoded]

    return encode


class _Words:
    """Tables of words, one for each thread, once there was enough text to make them worth their start."""

    def __init__(self, encoding: Encoding, threads: int) -> None:
        self._encoding, self._threads = encoding, threads
        self._characters = 0  # encoded without
        self._idle: queue.SimpleQueue[WordTable] | None = None
        self._making = threading.Lock()

    def encode(self, texts: Sequence[str]) -> list[Ids] | None:
        """None where this text is not for a table."""
        with self._making:
            if self._idle is None:
                self._characters += sum(map(len, texts))
                if self._characters < WORTH_CHARACTERS:
                    return None
                self._idle = self._new_tables()
        try:
            table = self._idle.get_nowait()
        except queue.Empty:
            return None
        ids = table.encode([text.encode() for text in texts])
        if table.is_of_use:
            self._idle.put(table)
        return ids

    def _new_tables(self) -> queue.SimpleQueue[WordTable]:
        idle: queue.SimpleQueue[WordTable] = queue.SimpleQueue()
        try:
            from prosemill.chunk.words import FIND_WORDS, WordTable, character_kinds
            from prosemill.runtime.kernel_cache import function

            function(FIND_WORDS)
        except ImportError:  # numba: not on every platform
            return idle
        encode_piece = piece_encoder(self._encoding)
        kinds = character_kinds(functools.partial(type(self._encoding), "kinds", special_tokens={}))
        for _ in range(self._threads):
            idle.put(WordTable(encode_piece, kinds))
        return idle


def _ranks(parts: Mapping[str, Any]) -> dict[bytes, int] | None:
    """Token bytes to ids, if ids alone say which merge comes first; None for a tokenizer of another kind."""
    model = parts["model"]
    plain = model.get("type") == "BPE" and not any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    )
    if not plain or parts.get("normalizer") or not all(token["special"] for token in parts.get("added_tokens", [])):
        return None
    special = {token["content"] for token in parts.get("added_tokens", [])}
    byte_of = _bytes_of_letters()
    try:
        ranks = {
            bytes(byte_of[letter] for letter in token): rank
            for token, rank in model["vocab"].items()
            if token not in special
        }
    except KeyError:
        return None
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    order = [model["vocab"]["".join(pair)] for pair in pairs]
    in_order = all(one < other for one, other in itertools.pairwise(order))
    has_all_bytes = all(bytes([byte]) in ranks for byte in range(256))
    all_merged = {rank for token, rank in ranks.items() if len(token) > 1} == set(order)
    return ranks if in_order and has_all_bytes and all_merged else None


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """The expression that splits text into words; None for a way of splitting that one expression does not say."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, **how},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if how == PLAIN_SPLIT:
            return pattern
    return None


def _bytes_of_letters() -> dict[str, int]:
    """The letter by which a byte-level vocabulary writes each byte (GPT-2's `bytes_to_unicode`), inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
