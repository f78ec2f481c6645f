"""What is used of tiktoken beside its documented interface; `tests/test_compat.py` checks each of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding


def piece_encoder(encoding: Encoding) -> Callable[[bytes], list[int]]:
    """A function from the UTF-8 bytes of one word to its ids. `Encoding.encode_single_piece` takes the word as text."""
    encode: Callable[[bytes], list[int]] = encoding._core_bpe.encode_single_piece
    return encode
