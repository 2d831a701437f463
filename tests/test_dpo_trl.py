"""Preference optimisation equals TRL's trainers on the same ids and weights: losses, metrics, gradients, steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_setup import Watcher, make_config, model_folder, preferences_file
from transformers import AutoTokenizer

from ramify.base.config import DPO
from ramify.model.load import load_model
from ramify.model.lora import add_adapter
from ramify.prompts.renderer import Renderer
from ramify.train.losses import LOSSES, REFERENCE_FREE, PairLogprobs
from ramify.train.pairs import PairSet, read_preferences, render_pairs
from ramify.train.preference import Preference
from ramify.train.reference import compute_references

pytest.importorskip("trl", reason="make bench-deps installs it")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own

__all__ = ["model_folder"]
RATE = 0.02
METRICS = {
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "logprob_chosen": "logps/chosen",
    "logprob_rejected": "logps/rejected",
}


@pytest.fixture(scope="module")
def pairs(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    folder = tmp_path_factory.mktemp("pairs")
    config = make_config(model_folder, preferences_file(folder / "t.jsonl", 3), folder / "run", method="dpo")
    renderer = Renderer(AutoTokenizer.from_pretrained(str(model_folder)), config.prompt)
    return render_pairs(config, renderer, 512, read_preferences(config, "train"), ()).train


def network(model_folder: Path, *, adapter: bool, seed: int | None = None) -> Any:
    """The tiny model, or with an adapter whose B is not 0; `seed` moves what is trained."""
    loaded = load_model(str(model_folder), dtype="fp32", device="cpu")
    if adapter:
        config = make_config(model_folder, "task", Path("unused"))
        assert config.lora is not None
        made: Any = add_adapter(loaded, config.lora, seed=1).network
    else:
        made = loaded.network.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed or 0)
    with torch.no_grad():
        for name, weight in trained(made).items():
            if seed is not None or "lora_B" in name:
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return made.train()


def trained(network: Any) -> dict[str, torch.nn.Parameter]:
    return {name: each for name, each in network.named_parameters() if each.requires_grad}


def move(network: Any) -> dict[str, Tensor]:
    """One step of plain SGD; the gradients it used."""
    found = {}
    with torch.no_grad():
        for name, each in trained(network).items():
            assert each.grad is not None
            found[name] = each.grad
            each -= RATE * each.grad
            each.grad = None
    return found


def our_step(network: Any, objective: Preference) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    """One step in micro-batches of a third of the pairs' tokens."""
    n, loss = len(objective.pairs), 0.0
    metrics = dict.fromkeys(METRICS, 0.0)
    parts = objective.micro_batches(range(n), 90)
    assert len(parts) > 1
    for part in parts:
        share = objective.share(network, part, n)
        share.loss.backward()
        loss += share.loss.item()
        metrics = {name: metrics[name] + float(share.metrics[name]) for name in METRICS}
    return loss, metrics, move(network)


class Theirs:
    """TRL's trainer around a network, fed with the same ids."""

    def __init__(self, model_folder: Path, folder: Path, network: Any, reference: Any, settings: DPO) -> None:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        self.trainer = DPOTrainer(
            model=network,
            ref_model=reference,
            args=DPOConfig(
                output_dir=str(folder),
                use_cpu=True,
                bf16=False,
                report_to=[],
                gradient_checkpointing=False,
                max_length=None,
                beta=settings.beta,
                label_smoothing=settings.label_smoothing,
                loss_type=settings.loss,
            ),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=AutoTokenizer.from_pretrained(str(model_folder)),
        )

    def step(self, pairs: PairSet) -> tuple[float, dict[str, float], dict[str, Tensor]]:
        batch = self.trainer.data_collator(
            [
                {
                    "prompt_ids": pairs.prompts[pairs.prompt_of[pair]].tolist(),
                    "chosen_ids": pairs.chosen[pair].tolist(),
                    "rejected_ids": pairs.rejected[pair].tolist(),
                }
                for pair in range(len(pairs))
            ]
        )
        self.trainer.model.train()
        loss = self.trainer.compute_loss(self.trainer.model, batch)
        loss.backward()
        logged = self.trainer._metrics["train"]
        metrics = {ours: float(logged[name][-1]) for ours, name in METRICS.items()}
        return loss.item(), metrics, move(self.trainer.model)


def assert_equal_gradients(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name, gradient in theirs.items():
        error = float((ours[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-12))
        assert error <= 1e-4, f"{name}: {error:.2e}"


@pytest.mark.parametrize("adapter", [True, False])
def test_three_steps_equal_those_of_trl(adapter: bool, pairs: PairSet, model_folder: Path, tmp_path: Path) -> None:
    """The reference is what training starts from: an adapter that was trained before, or the full weights."""
    settings = DPO(beta=0.2)
    mine, other = (network(model_folder, adapter=adapter) for _ in range(2))
    objective = Preference(pairs, compute_references(mine, pairs, None, 8192, Watcher()).train, settings)
    theirs = Theirs(model_folder, tmp_path, other, None if adapter else copy.deepcopy(other), settings)
    losses = []
    for step in range(3):
        loss, metrics, gradients = our_step(mine, objective)
        their_loss, their_metrics, their_gradients = theirs.step(pairs)
        assert loss == pytest.approx(their_loss, rel=1e-4)
        if step == 0:  # margins are 0 but for rounding, whose sign is nobody's
            assert their_loss == pytest.approx(0.693147, abs=1e-5)
            del metrics["accuracy"], their_metrics["accuracy"]
        assert metrics == pytest.approx(their_metrics, rel=1e-4, abs=1e-5)
        assert_equal_gradients(gradients, {name: their_gradients[name] for name in gradients})
        losses.append(loss)
    assert losses[2] < losses[1] < losses[0] - 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        DPO(loss="sigmoid"),
        DPO(loss="hinge", beta=0.2),
        DPO(loss="ipo"),
        DPO(loss="ipo", beta=0.5),
        DPO(loss="robust", label_smoothing=0.2),
    ],
    ids=lambda each: f"{each.loss}-{each.beta}",
)
def test_first_loss_and_gradient_equal_those_of_trl(
    settings: DPO, pairs: PairSet, model_folder: Path, tmp_path: Path
) -> None:
    """Against a reference of other weights, so that margins are far from 0."""
    mine, other = (network(model_folder, adapter=False, seed=1) for _ in range(2))
    reference = network(model_folder, adapter=False, seed=2)
    objective = Preference(pairs, compute_references(reference, pairs, None, 8192, Watcher()).train, settings)
    loss, metrics, gradients = our_step(mine, objective)
    unmoved = network(model_folder, adapter=False, seed=2)
    their_loss, their_metrics, their_gradients = Theirs(model_folder, tmp_path, other, unmoved, settings).step(pairs)
    assert abs(metrics["margin"]) > 0.1
    assert loss == pytest.approx(their_loss, rel=1e-4)
    assert metrics == pytest.approx(their_metrics, rel=1e-4)
    assert_equal_gradients(gradients, their_gradients)


def logprobs(seed: int, n: int = 6) -> PairLogprobs:
    """Means around -1 nat a token, lengths from 3 to 40."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(3, 40, (n,), generator=generator).float() for _ in range(2)]
    sums = [-each * (0.2 + torch.rand(n, generator=generator)) for each in tokens]
    chosen, rejected = (each.requires_grad_() for each in sums)
    return PairLogprobs(chosen, rejected, *tokens, torch.zeros(n), torch.zeros(n))


@pytest.mark.parametrize("name", sorted(REFERENCE_FREE))
def test_losses_without_a_reference_equal_those_of_trl(name: str, model_folder: Path, tmp_path: Path) -> None:
    """TRL's functions of mean log-probabilities; its likelihood term of ORPO is added as the paper has it."""
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    settings = DPO(loss="simpo" if name == "simpo" else "orpo", beta=0.7, gamma=0.4)
    common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": [], "beta": settings.beta}
    rest: Any = {
        "model": load_model(str(model_folder), dtype="fp32", device="cpu").network,
        "train_dataset": Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        "processing_class": AutoTokenizer.from_pretrained(str(model_folder)),
    }
    ours, theirs = logprobs(3), logprobs(3)
    loss = LOSSES[name](ours, settings)
    if name == "simpo":
        made = CPOConfig(**common, loss_type="simpo", simpo_gamma=settings.gamma, cpo_alpha=0.0)
        found = CPOTrainer(args=made, **rest).cpo_loss(theirs.chosen_mean, theirs.rejected_mean)[0]
    else:
        trainer = ORPOTrainer(args=ORPOConfig(**common), **rest)
        found = -theirs.chosen_mean - trainer.odds_ratio_loss(theirs.chosen_mean, theirs.rejected_mean)[0]
    torch.testing.assert_close(loss, found, rtol=1e-5, atol=1e-6)
    for mine, other in ((ours.chosen, theirs.chosen), (ours.rejected, theirs.rejected)):
        [gradient] = torch.autograd.grad(loss.sum(), mine, retain_graph=True)
        [expected] = torch.autograd.grad(found.sum(), other, retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
