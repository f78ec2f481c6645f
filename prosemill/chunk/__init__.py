"""Training examples: documents as token ids, packed into chunks of one length, with the map back."""

from prosemill.chunk.files import Chunked, chunk_file
from prosemill.chunk.packing import Piece, pack, pieces_of
from prosemill.chunk.stage import check_length, chunk

__all__ = ["Chunked", "Piece", "check_length", "chunk", "chunk_file", "pack", "pieces_of"]
