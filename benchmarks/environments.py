"""Peers' environments, made when they are first needed: `pip install` of what each peer asks for, beside ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS: dict[str, list[str]] = {
    "datasketch": ["datasketch==2.0.0", "pyarrow"],
    "rensa": ["rensa==0.5.0", "pyarrow"],
    "text-dedup": ["datasets<4", "click", "click-option-group", "ftfy", "regex", "numpy", "scipy", "xxhash", "rich"],
    "datatrove": [
        "dill", "fsspec", "humanize", "huggingface_hub", "loguru", "multiprocess", "numpy", "tqdm", "xxhash", "regex",
        "pyarrow", "spacy", "orjson", "rich",
    ],
    "extractors": ["trafilatura==2.3.1", "chardet", "cssselect", "beautifulsoup4==4.15.0"],
    "run_clm": ["datasets==5.2.0", "transformers==5.23.0", "tokenizers==0.23.3"],
}  # fmt: skip
# Of their many dependencies only those of what is measured are installed, by the lists above.
WITHOUT_DEPENDENCIES = {
    "text-dedup": ["text-dedup==0.4.0"],
    "datatrove": ["datatrove==0.10.1"],
    "extractors": ["readability-lxml==0.9", "lxml_html_clean"],  # pip trips over two spellings of an extra of lxml
}


def python_of(peer: str, cache: Path) -> Path:
    """The interpreter of a peer's environment below `cache`; the environment is made if it is not there."""
    folder = cache / "peers" / peer
    done = folder / "installed"
    if not done.exists():
        print(f"installing {peer} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS[peer]], check=True)
        if peer in WITHOUT_DEPENDENCIES:
            subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES[peer]], check=True)
        done.touch()
    return folder / "bin" / "python"
