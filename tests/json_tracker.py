"""A tracker in one JSON file: what another one than MLflow has to do, in one file."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prosemill.registry.tracker import Metric, TrackedVersion
from prosemill.storage.store import Store


class JsonTracker:
    def __init__(self, store: Store) -> None:
        self.path = Path(store.root, "tracker.json")

    @contextmanager
    def _kept(self) -> Iterator[dict[str, Any]]:
        kept = json.loads(self.path.read_text()) if self.path.exists() else {"models": {}, "runs": {}}
        yield kept
        self.path.write_text(json.dumps(kept))

    def list_models(self) -> list[str]:
        with self._kept() as kept:
            return list(kept["models"])

    def list_versions(self, name: str) -> list[TrackedVersion]:
        with self._kept() as kept:
            model = kept["models"].get(name, {"versions": [], "aliases": {}})
        named = [tuple(alias for alias, of in model["aliases"].items() if of == number + 1) for number in range(99)]
        return [TrackedVersion(number + 1, *fields, named[number]) for number, fields in enumerate(model["versions"])]

    def add_version(self, name: str, snapshot: str, run: str, tags: Mapping[str, str], description: str) -> int:
        with self._kept() as kept:
            model = kept["models"].setdefault(name, {"versions": [], "aliases": {}})
            model["versions"].append([run, dict(tags)])
            return len(model["versions"])

    def change_version(self, name: str, version: int, tags: Mapping[str, str], description: str = "") -> None:
        with self._kept() as kept:
            kept["models"][name]["versions"][version - 1][1].update(tags)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        with self._kept() as kept:
            kept["models"][name]["aliases"][alias] = version

    def find_run(self, name: str, tag: str, value: str) -> str:
        with self._kept() as kept:
            runs = kept["runs"].items()
        return next((id for id, run in runs if (run["name"], run["tags"].get(tag)) == (name, value)), "")

    def open_run(self, name: str, title: str, tags: Mapping[str, str]) -> str:
        with self._kept() as kept:
            id = str(len(kept["runs"]))
            kept["runs"][id] = {"name": name, "tags": dict(tags), "metrics": [], "files": {}}
            return id

    def describe_run(self, run: str, title: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        with self._kept() as kept:
            kept["runs"][run]["tags"].update(tags)

    def add_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        with self._kept() as kept:
            kept["runs"][run]["metrics"] += metrics

    def steps(self, run: str, names: Collection[str]) -> set[tuple[str, int]]:
        with self._kept() as kept:
            return {(name, step) for name, _, _, step in kept["runs"][run]["metrics"] if name in names}

    def add_file(self, run: str, name: str, text: str) -> None:
        with self._kept() as kept:
            kept["runs"][run]["files"][name] = text

    def close_run(self, run: str, status: str, tags: Mapping[str, str]) -> None:
        self.describe_run(run, "", {}, {**tags, "status": status})

    def machine(self, run: str, *, resumes: bool) -> Callable[[], Sequence[Metric]]:
        return list
