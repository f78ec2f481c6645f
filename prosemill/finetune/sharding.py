"""FSDP: of weights, gradients and optimizer state each process keeps a share (Zhao et al. 2023; torch's `fully_shard`).

The learner is the outermost unit and each block of the model one within it, so that the head, which the loss reads as a
plain tensor, is whole while a step is computed. Files are written whole: a checkpoint fits any number of processes.
torch.distributed.tensor takes .4 s to import; it is imported where something is sharded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prosemill.finetune.loss_wrapper import SummedLoss


def shard(learner: SummedLoss) -> None:
    """From now on keep a share of the parameters. Every process has to call it, and everything else here, alike."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = next(learner.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for blocks in [module for module in learner.backbone().modules() if isinstance(module, nn.ModuleList)][:1]:
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(learner, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(learner, "measure")
    vars(learner)["is_distributed_loading_by_transformers"] = True  # tells the Trainer to add no DDP of its own


def whole(tensor: Any) -> Any:
    """All of a tensor of which this process may have a share."""
    return tensor.full_tensor().cpu() if _is_sharded(tensor) else tensor


def share_of(value: torch.Tensor, like: Any) -> torch.Tensor:
    """`value`, or the share of it that this process has of `like`, where that is sharded and of the same shape."""
    if not _is_sharded(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _is_sharded(tensor: Any) -> bool:
    return hasattr(tensor, "device_mesh")  # as a DTensor has
