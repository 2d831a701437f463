"""AdamW with fp32 masters: equal to torch's in fp32, no rounding lost in bf16, and fp16 overflow is survived."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import nn
from train_setup import Watcher

from ramify.base.config import RunConfig, Train
from ramify.base.errors import TrainingError
from ramify.base.runs import create_run
from ramify.base.types import TokenSequence
from ramify.train.loop import Job, Loop
from ramify.train.objective import Supervised
from ramify.train.optimizer import LossScale, MasterAdamW


def layers(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)).to(dtype)


def step(network: nn.Module, optimizer: MasterAdamW, x: torch.Tensor, lr: float = 0.01) -> None:
    optimizer.zero()
    network(x).square().sum().backward()
    optimizer.gather()
    optimizer.step(lr)


def inputs(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(5, 4, generator=generator) for _ in range(steps)]


def test_fp32_is_torch_s_adamw_with_decay_on_matrices_only() -> None:
    ours, theirs = layers(), layers()
    optimizer = MasterAdamW(dict(ours.named_parameters()), weight_decay=0.1)
    matrices = [each for each in theirs.parameters() if each.ndim == 2]
    vectors = [each for each in theirs.parameters() if each.ndim == 1]
    reference = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], weight_decay=0.1)
    for rate, x in zip((0.01, 0.02, 0.005), inputs(3), strict=True):
        step(ours, optimizer, x, rate)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.zero_grad()
        theirs(x).square().sum().backward()
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_bf16_weights_move_by_less_than_their_spacing() -> None:
    """500 updates of 1e-5 on a weight of 1: bf16 alone (spacing 0.0078) would never move."""
    weight = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = MasterAdamW({"w": weight}, weight_decay=0.0)
    for _ in range(500):
        weight.grad = torch.ones_like(weight)
        optimizer.gather()
        optimizer.step(1e-5)
    torch.testing.assert_close(optimizer.masters["w"].detach(), torch.full((4, 4), 0.995), rtol=1e-5, atol=1e-5)
    assert torch.equal(weight.detach(), torch.full((4, 4), 0.995).bfloat16())


def test_gradients_are_summed_in_fp32() -> None:
    """1 + 256 times 1/512: in bf16 every addition would be lost."""
    weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
    optimizer = MasterAdamW({"w": weight}, weight_decay=0.0)
    for size in (1.0, *([1 / 512] * 256)):
        weight.grad = torch.full_like(weight, size)
        optimizer.gather()
    assert float(optimizer.norm()) == pytest.approx(1.5 * 2)
    optimizer.multiply(0.5)
    assert float(optimizer.norm()) == pytest.approx(1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_round_trip_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    straight = layers(dtype=dtype)
    optimizer = MasterAdamW(dict(straight.named_parameters()), 0.1)
    batches = [x.to(dtype) for x in inputs(4)]
    for x in batches[:2]:
        step(straight, optimizer, x)
    again = copy.deepcopy(straight)
    state = {name: each.clone() for name, each in optimizer.state().items()}
    resumed = MasterAdamW(dict(again.named_parameters()), 0.1)
    resumed.load(state)
    for x in batches[2:]:
        step(straight, optimizer, x)
        step(again, resumed, x)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_state_of_another_model_is_refused() -> None:
    network = layers()
    first = MasterAdamW(dict(network.named_parameters()), 0.0)
    step(network, first, inputs(1)[0])
    for other in (nn.Linear(4, 8), layers(dtype=torch.bfloat16), nn.Sequential(nn.Linear(4, 9))):
        with pytest.raises(TrainingError, match="belongs to other parameters"):
            MasterAdamW(dict(other.named_parameters()), 0.0).load(first.state())


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(TrainingError, match="no trainable parameter"):
        MasterAdamW({}, 0.0)


def test_loss_scale_halves_doubles_and_gives_up() -> None:
    scale = LossScale(True)
    assert scale.value == 65536 and scale.overflowed() and scale.value == 32768
    for _ in range(2000):
        scale.succeeded()
    assert scale.value == 65536
    while scale.overflowed():
        pass
    assert scale.value < 2**-9
    assert not LossScale(False).overflowed() and LossScale(False).value == 1.0


def fp16_job(folder: Path, network: Any) -> Job:
    sequences = [TokenSequence.of((5, 6, 7), (8, 9, 2)), TokenSequence.of((5, 6), (10, 2))]
    settings = Train(lr=1e-3, batch_size=2, max_steps=6, warmup=0, tensorboard=False)
    run = create_run(folder, RunConfig(train=settings))
    return Job(network, Supervised(sequences, [(0,), (1,)]), None, settings, 0, run, lambda path: None)


def test_fp16_training_follows_fp32(tmp_path: Path) -> None:
    losses = {}
    for dtype in (torch.float32, torch.float16):
        network = tiny_model("llama").to(dtype).requires_grad_(True)
        made = fp16_job(tmp_path / str(dtype), network)
        Loop(made, None, Watcher()).run()
        losses[dtype] = [row["loss"] for row in made.run.metrics("train")]
    assert losses[torch.float16] == pytest.approx(losses[torch.float32], rel=0.02)
    assert losses[torch.float16][-1] < 0.9 * losses[torch.float16][0]


def test_fp16_overflow_lowers_the_scale_and_takes_the_same_step_again(tmp_path: Path) -> None:
    network = tiny_model("llama").half().requires_grad_(True)
    made = fp16_job(tmp_path / "run", network)
    loop = Loop(made, None, Watcher())
    loop.scale.value = 2.0**30
    state = loop.run()
    assert 1 <= state.scale < 2.0**30
    assert [row["step"] for row in made.run.metrics("train")] == [1, 2, 3, 4, 5, 6]
