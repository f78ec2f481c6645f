"""Chunks on disk: Arrow streams, memory-mapped, two bytes a token; nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prosemill.finetune.batches import Row


class Chunks:
    """Rows of Arrow files, in `order` (one may come more than once)."""

    def __init__(self, files: Sequence[str], order: npt.NDArray[np.int64] | None = None) -> None:
        tables = [pa.ipc.open_stream(pa.memory_map(file)).read_all() for file in files]
        self._batches = [batch for table in tables for batch in table.to_batches() if batch.num_rows]
        self._ends = np.cumsum([batch.num_rows for batch in self._batches])
        self.order = np.arange(int(self._ends[-1]) if len(self._ends) else 0) if order is None else order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Row:
        number = int(self.order[index])
        at = int(np.searchsorted(self._ends, number, side="right"))
        batch = self._batches[at]
        row = number - (int(self._ends[at]) - batch.num_rows)
        ids, starts = batch.column("input_ids"), batch.column("starts")
        return {
            "input_ids": ids[row].values.to_numpy(zero_copy_only=True),
            "starts": starts[row].values.to_numpy(zero_copy_only=True),
            "num_tokens": batch.column("num_tokens")[row].as_py(),
        }

    def num_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens (without padding) of each row, in order."""
        return self._column("num_tokens")[self.order]

    def num_documents(self) -> int:
        """The most documents that a chunk holds, padding counted as one."""
        return max((int(np.diff(batch.column("starts").offsets).max()) for batch in self._batches), default=0) + 1

    def _column(self, name: str) -> npt.NDArray[np.int64]:
        parts = [batch.column(name).to_numpy().astype(np.int64) for batch in self._batches]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])
