"""The small corpus of the tests of whole runs: forty short stories, a two-layer GPT-2, settings that fit both."""

from pathlib import Path

from tests.tiny import sentences

FOLDER = """
[[sources]]
name = "texts"
kind = "folder"
path = "texts"
"""

_SETTINGS = """
[strip]
languages = ["*"]
[dedup]
boilerplate_pages = 1000
[split]
test_share = 0.2
validation_share = 0.1
[chunk]
chunk_tokens = 64
[evaluate]
stride = 32
sample_tokens = 8
other_kilobytes = 2
[gate]
known_margin = 0
[finetune]
base = "base"
learning_rate = 3e-3
precision = "fp32"
"""


def recipe_text(sources: str = FOLDER, finetune: str = "epochs = 4\nevals = 2\n", more: str = "") -> str:
    """A recipe named stories, as TOML; `finetune` and `more` are lines of it."""
    return f'name = "stories"\n{sources}{_SETTINGS}{finetune}{more}'


def write_corpus(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    source = sentences(1000, seed=7)
    for number in numbers:
        paragraphs = [" ".join(source[number * 12 + start : number * 12 + start + 4]) for start in (0, 4, 8)]
        (folder / f"story-{number:03}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
