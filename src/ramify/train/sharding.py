"""A model whose layers are divided among the processes (FSDP2, torch's `fully_shard`).

    Zhao et al. 2023, PyTorch FSDP, arXiv 2304.11277; per-parameter sharding: the documentation of `fully_shard`.

Each process keeps a part of every decoder layer: of its weights, gradients, fp32 masters and moments. A layer is
gathered right before it computes and let go right after. Embeddings, the last norm and the head stay whole on every
process: the loss reads the head's rows itself, outside of any module's forward. What is trained of those is summed as
without sharding.

A sharded parameter is a DTensor. The optimizer works on the part that lies here, as on any tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ramify.base.errors import ModelError
from ramify.model.logprobs import base_network


def shard(network: Any) -> None:
    """Divide the decoder layers among all processes, in place.

    Gradients are summed, not averaged, and in fp32: a loss is divided once, by what all processes count together.

    Raises:
        ModelError: the decoder layers are not found.
    """
    base = base_network(network)
    layers = _decoder_layers(base)
    mesh = init_device_mesh(base.device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    whole = {parameter for parameter in base.base_model.parameters() if id(parameter) not in inside}
    # The body is what `hidden_states` calls, so it is the root that starts and ends each pass over the layers.
    fully_shard(base.base_model, mesh=mesh, mp_policy=policy, ignored_params=whole)
    for module in base.base_model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def is_sharded(network: nn.Module) -> bool:
    """Whether some of its parameters are divided."""
    return any(isinstance(each, DTensor) for each in network.parameters())


@contextmanager
def assembled(network: nn.Module, keep: bool) -> Iterator[None]:
    """Inside the block what is trained is whole, to be saved; nothing changes when nothing is divided.

    All processes have to come here; those with `keep` get the whole parameters, in the memory of their CPU.
    """
    places = [
        (module, name, parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(parameter, DTensor) and parameter.requires_grad
    ]
    for module, name, parameter in places:
        whole = parameter.full_tensor().detach()
        if keep:
            setattr(module, name, nn.Parameter(whole.cpu()))
    try:
        yield
    finally:
        for module, name, parameter in places:
            setattr(module, name, parameter)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies here: of one that is not divided, the tensor itself. Shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What `local` would give of a whole tensor that is divided as `like` is."""
    if not isinstance(like, DTensor):
        return whole
    there = whole.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None).to_local()


def whole_of(part: Tensor, like: Tensor) -> Tensor:
    """The whole tensor of which every process has a part, divided as `like` is; all have to call it."""
    if not isinstance(like, DTensor):
        return part
    made = DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return made.full_tensor()


def _decoder_layers(base: Any) -> list[nn.Module]:
    """The list of equal layers that the body has as one of its children."""
    depth = base.config.num_hidden_layers
    for child in base.base_model.children():
        if isinstance(child, nn.ModuleList) and len(child) == depth:
            return list(child)
    raise ModelError(
        f"the decoder layers of {base.config.model_type} are not found, so it cannot be sharded",
        hint="train.shard=none",
    )
