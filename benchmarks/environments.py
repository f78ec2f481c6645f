"""Peers' environments, made when they are first needed: `pip install` of what each peer asks for, beside ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS: dict[str, list[str]] = {
    "datasketch": ["datasketch==2.0.0", "pyarrow"],
    "rensa": ["rensa==0.5.0", "pyarrow"],
    # of its many dependencies only those of the command that is measured; later versions of datasets lack what it calls
    "text-dedup": ["--no-deps", "text-dedup==0.4.0"],
    "datatrove": ["datatrove[processing,io]==0.10.1", "spacy", "pyarrow"],
    "extractors": ["trafilatura==2.3.1", "lxml_html_clean", "readability-lxml==0.9", "beautifulsoup4==4.15.0"],
    "run_clm": ["datasets==5.2.0", "transformers==5.23.0", "tokenizers==0.23.3"],
}
ALSO = {
    "text-dedup": ["datasets<4", "click", "click-option-group", "ftfy", "regex", "numpy", "scipy", "xxhash", "rich"]
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
        if peer in ALSO:
            subprocess.run([*pip, *ALSO[peer]], check=True)
        done.touch()
    return folder / "bin" / "python"
