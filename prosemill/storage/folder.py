"""A folder or URL to copy from and to: names in it, files of it as local ones, files put there whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosemill.storage import remote
from prosemill.storage.remote import store_errors


class StorageLocation:
    """Paths are relative to `url`, with slashes."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.fs, self.root = remote.open_filesystem(self.url)
        self.is_local = remote.is_local(self.fs)

    def files(self, below: str = "") -> list[str]:
        """All files below a folder of it, sorted."""
        return sorted(self._files_below(below))

    def stamps(self, left_out: Sequence[str] = ()) -> dict[str, str]:
        """{path: stamp} of all files but those below `left_out`; an equal stamp means an unchanged file."""
        with contextlib.suppress(FileNotFoundError), store_errors(self.url):
            top = [str(entry).rsplit("/", 1)[-1] for entry in self.fs.ls(self.root, detail=False)]
            wanted = [name for name in top if not f"{name}/".startswith(tuple(left_out)) and name not in left_out]
            files = {path: info for name in wanted for path, info in self._files_below(name).items()}
            return {path: _stamp(info) for path, info in files.items() if not path.endswith((".tmp", "/lock"))}
        return {}

    def has(self, path: str) -> bool:
        with store_errors(self.url):
            return bool(self.fs.isfile(self._at(path)))

    def read(self, path: str) -> bytes:
        with store_errors(self.url):
            return bytes(self.fs.cat_file(self._at(path)))

    def fetch(self, path: str, to: Path) -> Path:
        """A file as a local path: where it lies, or copied to `to`."""
        if self.is_local:
            here = Path(self._at(path))
            if not here.is_file():
                raise FileNotFoundError(str(here))
            return here
        with store_errors(self.url):
            self.fs.get_file(self._at(path), str(to))
        return to

    def put(self, file: Path, path: str) -> None:
        """Copy a local file to `path`."""
        with store_errors(self.url, writing=True):
            remote.write_whole(self.fs, self._at(path), file)

    def write(self, path: str, content: bytes) -> None:
        """The same with content at hand."""
        with store_errors(self.url, writing=True):
            remote.write_whole(self.fs, self._at(path), content)

    def _files_below(self, below: str) -> dict[str, dict[str, Any]]:
        """{path: what the file system knows of it}; a file may be named instead of a folder."""
        with contextlib.suppress(FileNotFoundError), store_errors(self.url):
            files = self.fs.find(self._at(below), detail=True)
            start = len(self.root) + 1
            return {str(name)[str(name).index(self.root) :][start:]: info for name, info in files.items()}
        return {}

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/")


def _stamp(info: dict[str, Any]) -> str:
    """Size with ETag or time of the last change."""
    return f"{info.get('size')} {info.get('ETag') or info.get('mtime') or info.get('LastModified') or ''}"
