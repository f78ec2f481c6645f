"""Checkpoints: everything that a run needs to go on as if it had never stopped, in files without code.

    checkpoint-<step>/   model.safetensors (what is trained: all weights, or LoRA's), optimizer.safetensors,
                         schedule.json, random.json, trainer_state.json
    saving/              being written; renamed when it is complete, so every checkpoint-* is

The Trainer would keep optimizer and random state in pickles.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from prosemill.finetune.sharding import share_of, whole
from prosemill.storage.disk import sync_path

Tensors = dict[str, torch.Tensor]

PREFIX = "checkpoint-"
KEPT = 2  # the newest and, should the disk have lost that, the one before


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints below `folder`, oldest first."""
    folders = [path for path in folder.glob(f"{PREFIX}*") if (path / "trainer_state.json").exists()]
    return sorted(folders, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def new_aside(folder: Path) -> Path:
    """An empty folder to write the next checkpoint into; what a killed run left there goes."""
    aside = folder / "saving"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def commit(aside: Path, step: int, best_step: int | None) -> Path:
    """Make `aside` the checkpoint of `step`, then remove those that are neither new nor the best."""
    for path in [*aside.iterdir(), aside]:
        sync_path(path)
    target = aside.parent / f"{PREFIX}{step}"
    shutil.rmtree(target, ignore_errors=True)
    os.rename(aside, target)
    sync_path(target.parent)
    for old in complete(target.parent)[:-KEPT]:
        if step_of(old) != best_step:
            shutil.rmtree(old, ignore_errors=True)
    return target


def weights_of(model: torch.nn.Module) -> Tensors:
    """The parameters that are trained, whole; tied ones once."""
    trained = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: whole(weight).contiguous() for name, weight in trained.items()}


def set_weights(model: torch.nn.Module, weights: Tensors) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(share_of(weights[name], weight))


def load_weights(folder: Path, model: torch.nn.Module) -> None:
    set_weights(model, load_file(folder / "model.safetensors"))


def optimizer_state_of(optimizer: Any) -> tuple[Tensors, list[Any]]:
    """What the optimizer remembers, whole, as `<number of the parameter>.<name>`; and its groups of parameters."""
    state = optimizer.state_dict()
    return {
        f"{number}.{name}": whole(value) for number, entry in state["state"].items() for name, value in entry.items()
    }, state["param_groups"]


def save(folder: Path, weights: Tensors, optimizer: tuple[Tensors, list[Any]], scheduler: Any) -> None:
    tensors, groups = optimizer
    save_file(weights, folder / "model.safetensors")
    save_file(tensors, folder / "optimizer.safetensors")
    schedule = {"groups": groups, "scheduler": scheduler.state_dict()}
    (folder / "schedule.json").write_text(json.dumps(schedule), encoding="utf-8")


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    schedule = json.loads((folder / "schedule.json").read_text(encoding="utf-8"))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tensors] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = share_of(value, parameters[int(number)])
    optimizer.load_state_dict({"state": state, "param_groups": schedule["groups"]})
    scheduler.load_state_dict(schedule["scheduler"])


def save_random(folder: Path) -> None:
    kind, keys, *rest = np.random.get_state(legacy=True)
    states = {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [state.numpy().tobytes().hex() for state in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }
    (folder / "random.json").write_text(json.dumps(states), encoding="utf-8")


def load_random(folder: Path) -> None:
    states = json.loads((folder / "random.json").read_text(encoding="utf-8"))
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, numbers, *rest = states["numpy"]
    np.random.set_state((kind, np.array(numbers, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes(states["torch"]))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(state) for state in states["cuda"]])


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
