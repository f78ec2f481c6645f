"""transformers' examples/pytorch/language-modeling/run_clm.py: tokenise by `map`, then `group_texts`.

IN.parquet OUT TOKENIZER(folder)
"""

import itertools
import sys

from datasets import load_dataset
from transformers import AutoTokenizer

source, target, folder = sys.argv[1:]
BLOCK = 1024
raw = load_dataset("parquet", data_files=source, split="train", cache_dir=f"{target}.cache")
tokenizer = AutoTokenizer.from_pretrained(folder)


def tokenize(rows):
    return tokenizer(rows["text"])


def group_texts(rows):
    joined = {key: list(itertools.chain(*rows[key])) for key in rows}
    total = len(joined["input_ids"]) // BLOCK * BLOCK
    result = {key: [ids[at : at + BLOCK] for at in range(0, total, BLOCK)] for key, ids in joined.items()}
    result["labels"] = result["input_ids"].copy()
    return result


grouped = raw.map(tokenize, batched=True, remove_columns=raw.column_names).map(group_texts, batched=True)
grouped.save_to_disk(target)
