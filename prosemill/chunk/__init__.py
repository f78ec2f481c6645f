"""Training examples: documents as token ids, packed into chunks of one length, with the map back."""

from prosemill.chunk.nightly import STAGE, STAGE_VERSION, check_length, chunk
from prosemill.chunk.packing import Piece, pack, pieces_of

__all__ = ["STAGE", "STAGE_VERSION", "Piece", "check_length", "chunk", "pack", "pieces_of"]
