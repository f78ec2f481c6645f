"""Chunking, Parquet to chunks on disk, beside the way of `run_clm`: tokens a second, disk, memory, and what is lost.

The vocabulary is a byte-level BPE, the demo base's or GPT-2's: the same file for both. Start-up (imports: 8 s of
transformers) is taken off by running each on 400 rows, too; what ours starts only for much text (numba) is not.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import environments, measure
from prosemill.models.bases import tokenizer_folder

CHUNK_TOKENS = 1024
SMALL_ROWS = 400
SCRIPT = Path(__file__).parent / "peers" / "chunk_run_clm.py"


def compare(documents: Path, cache: Path, rows: int, tokenizer: str = "demo") -> list[dict[str, Any]]:
    """One row a tool, ours on one thread and on all, of the first `rows` documents; `tokenizer`: demo or a folder."""
    table = pq.read_table(documents, columns=["id", "text"]).slice(0, rows)
    whole, part = cache / f"chunk-{rows}.parquet", cache / f"chunk-{rows}-part.parquet"
    pq.write_table(table, whole)
    pq.write_table(table.slice(0, SMALL_ROWS), part)
    measured = []
    for tool in ("run_clm", "prosemill, one thread", "prosemill"):
        big, target = _measured(tool, whole, cache, tokenizer)
        tokens, facts = _what_is_in(tool, target)
        small, target = _measured(tool, part, cache, tokenizer)
        few, _ = _what_is_in(tool, target)
        seconds = max(0.01, big.cpu_seconds - small.cpu_seconds)
        wall = max(0.01, big.wall_seconds - small.wall_seconds)
        speed = {
            "tokens": tokens,
            "tokens_per_cpu_second": round((tokens - few) / seconds),
            "tokens_per_second": round((tokens - few) / wall),
        }
        described = f"{rows:,} documents, {'demo' if tokenizer == 'demo' else 'gpt2'}"
        measured.append({"input": described, "tool": tool, **speed, **big.as_dict(), **facts})
        print(measured[-1], file=sys.stderr, flush=True)
    return measured


def _measured(tool: str, source: Path, cache: Path, tokenizer: str) -> tuple[measure.Cost, Path]:
    target = cache / "chunks"
    for path in (target, cache / "chunks.cache"):
        shutil.rmtree(path, ignore_errors=True)
    environment = {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    if tool == "run_clm":
        command: list[str | Path] = [environments.python_of("run_clm", cache), SCRIPT, source, target]
        command.append(tokenizer_folder(tokenizer))
    else:
        command = [Path(sys.executable).with_name("prosemill"), "chunk", source, target, "--tokenizer", tokenizer]
        if "one thread" in tool:
            command = ["taskset", "--cpu-list", "0", *command]
    return measure.run(command, cache / "chunk.log", environment), target


def _what_is_in(tool: str, target: Path) -> tuple[int, dict[str, float]]:
    """Tokens, and bytes a token on disk."""
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    if tool == "run_clm":
        rows = 0
        for file in target.glob("data-*.arrow"):
            with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                rows += sum(batch.num_rows for batch in stream)
        tokens = rows * CHUNK_TOKENS
        return tokens, {"bytes_per_token": round(size / tokens, 2), "padding_share": 0.0}
    info = json.loads((target / "info.json").read_text(encoding="utf-8"))
    chunks = (target / "chunks.arrow").stat().st_size
    facts = {"bytes_per_token": round(chunks / info["tokens"], 2), "padding_share": info["padding_share"]}
    return info["tokens"], facts
