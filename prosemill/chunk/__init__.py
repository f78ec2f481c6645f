"""Training examples: documents as token ids, packed into chunks of one length, with the map back."""

from prosemill.chunk.files import ChunkedFile, chunk_file
from prosemill.chunk.packing import DocumentPart, pack, pieces_of
from prosemill.chunk.stage import check_length, chunk

__all__ = ["ChunkedFile", "DocumentPart", "check_length", "chunk", "chunk_file", "pack", "pieces_of"]
