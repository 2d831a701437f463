"""Train nano from scratch: `python recipes/nano/train.py --out DIR` makes the tokenizer, the text and the weights.

Two quiet cores take about 40 minutes. Matrices are trained with Muon (Keller Jordan, 2024,
https://kellerjordan.github.io/posts/muon/), embeddings and norms with AdamW; the learning rate falls linearly to zero
over the last part. A short second stage at half the rates teaches how casual questions are answered (see
`corpus`). Tokens of questions count a tenth of tokens of answers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus
from numpy.typing import NDArray
from tokenizer import save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from ramify.base import rng

ROW = 512
MICRO_ROWS = 2
CASUAL_SHARE = 0.8
QUESTION_WEIGHT = 0.1


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train: `tokens`, then `casual_tokens` with casual questions."""

    seed: int
    tokens: int
    casual_tokens: int
    rows: int = 12  # rows of `ROW` tokens in a step
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    warm_up: int = 30
    decay: float = 0.45  # share of the first stage's steps over which the rates fall to zero
    casual_rate: float = 0.5  # where the second stage starts, relative to the peak

    @property
    def first(self) -> int:
        """Optimizer steps of the first stage."""
        return self.tokens // (self.rows * ROW)

    @property
    def steps(self) -> int:
        """Optimizer steps of both stages."""
        return self.first + self.casual_tokens // (self.rows * ROW)

    def rate(self, step: int) -> float:
        """Learning rate of `step` relative to the peak."""
        if step >= self.first:
            return self.casual_rate * (self.steps - step) / (self.steps - self.first)
        return min(1.0, (step + 1) / self.warm_up, (self.first - step) / (self.decay * self.first))


def encode(tokenizer: Tokenizer, segments: list[tuple[str, bool]]) -> tuple[list[int], list[float]]:
    """Ids of one document and the weight of predicting each."""
    ids: list[int] = []
    weights: list[float] = []
    for text, answer in segments:
        piece = tokenizer.encode(text).ids
        ids += piece
        weights += [1.0 if answer else QUESTION_WEIGHT] * len(piece)
    return ids, weights


def batch_of(tokenizer: Tokenizer, budget: Budget, step: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(ids, weights), each [rows, ROW], of one step.

    A row holds whole documents joined by `<|endoftext|>`, the last one cut. Every step has its own generator, so a
    resumed run sees the same text.
    """
    documents = iter(Corpus(rng.key(budget.seed, step), casual=CASUAL_SHARE if step >= budget.first else 0.0))
    ids = np.zeros((budget.rows, ROW), dtype=np.int64)
    weights = np.zeros((budget.rows, ROW), dtype=np.float32)
    for row in range(budget.rows):
        filled = 0
        while filled < ROW:
            more, weight = encode(tokenizer, next(documents).segments())
            room = ROW - filled
            ids[row, filled : filled + len(more)] = more[:room]
            weights[row, filled : filled + len(more)] = weight[:room]
            filled += len(more) + 1  # one <|endoftext|>, id 0, not trained
    return ids, weights


def new_model(vocabulary: int, seed: int) -> LlamaForCausalLM:
    """The untrained network: 3.8 million parameters."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            intermediate_size=512,
            max_position_embeddings=2048,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices of a stack [n, a, b], roughly: five Newton-Schulz steps."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT


class Muon:
    """Momentum orthogonalised per matrix; matrices of one shape are handled as a stack."""

    def __init__(self, matrices: list[nn.Parameter], momentum: float = 0.95) -> None:
        self._groups: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            self._groups.setdefault(matrix.shape, []).append(matrix)
        self.buffers = {shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()}
        self._momentum = momentum

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update from the gradients in place."""
        for shape, group in self._groups.items():
            gradients = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            buffer = self.buffers[shape]
            buffer.lerp_(gradients, 1 - self._momentum)
            update = orthogonalised(gradients.lerp(buffer, self._momentum)) * max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.add_(change, alpha=-lr)


def loss_of(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the cross-entropy of the next token; ids and weights [rows, ROW]."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    losses = nn.functional.cross_entropy(logits.float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum()


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write a complete Transformers folder in bfloat16; an interrupted write leaves the old folder whole."""
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    copy = new_model(model.config.vocab_size, seed=0).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    copy.save_pretrained(fresh)
    save_tokenizer(tokenizer, fresh)
    fresh.chmod(0o755)
    for file in fresh.iterdir():
        out.mkdir(parents=True, exist_ok=True)
        os.replace(file, out / file.name)
    fresh.rmdir()


@dataclass
class Training:
    """Everything that changes while training; `state` and `restore` make a run resumable."""

    model: LlamaForCausalLM
    muon: Muon
    adam: torch.optim.AdamW
    step: int = 0

    @classmethod
    def start(cls, vocabulary: int, budget: Budget) -> Training:
        """Step 0."""
        model = new_model(vocabulary, budget.seed)
        matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
        return cls(model, Muon(matrices), torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0))

    def update(self, budget: Budget) -> None:
        """Apply the gradients and clear them."""
        rate = budget.rate(self.step)
        nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        self.adam.param_groups[0]["lr"] = budget.adam_lr * rate
        self.adam.step()
        self.muon.step(budget.muon_lr * rate)
        self.model.zero_grad()
        self.step += 1

    def save(self, file: Path) -> None:
        """Write the state atomically."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "muon": list(self.muon.buffers.values()),
        }
        torch.save(state, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)

    def restore(self, file: Path) -> None:
        """Read what `save` wrote."""
        state = torch.load(file, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        for buffer, saved in zip(self.muon.buffers.values(), state["muon"], strict=True):
            buffer.copy_(saved)


@dataclass(frozen=True)
class Job:
    """Where a run writes, and how often."""

    out: Path
    save_every: float = 180.0

    @property
    def state(self) -> Path:
        """The file an interrupted run goes on from."""
        return self.out.with_name(self.out.name + ".state")


def gradients(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> float:
    """Add up the gradients of a step, two rows at a time (their activations stay in the cache); returns the loss."""
    whole = 0.0
    weights = weights / weights[:, 1:].sum()
    for few, weight in zip(ids.split(MICRO_ROWS), weights.split(MICRO_ROWS), strict=True):
        loss = loss_of(model, few, weight)
        loss.backward()
        whole += float(loss.detach())
    return whole


def train(budget: Budget, job: Job) -> None:
    """Train into `job.out`, on from `job.state` when that is there.

    The learning rate is constant before it falls, so a run resumed with another number of tokens before the fall
    equals a straight run with that number.
    """
    tokenizer = Tokenizer.from_file(str(job.out / "tokenizer.json"))
    run = Training.start(tokenizer.get_vocab_size(), budget)
    if job.state.exists():
        run.restore(job.state)
    first, start, saved = run.step, time.monotonic(), time.monotonic()
    for step in range(first, budget.steps):
        ids, weights = (torch.from_numpy(part) for part in batch_of(tokenizer, budget, step))
        loss = gradients(run.model, ids, weights)
        run.update(budget)
        now = time.monotonic()
        if run.step % 10 == 0 or run.step == budget.steps:
            rate = round((run.step - first) * budget.rows * ROW / (now - start))
            _log(job, {"step": run.step, "of": budget.steps, "loss": round(loss, 4), "tokens/s": rate})
        if now - saved > job.save_every:
            run.save(job.state)
            save(run.model, tokenizer, job.out)
            saved = now
    save(run.model, tokenizer, job.out)
    job.state.unlink(missing_ok=True)


def _log(job: Job, row: dict[str, float]) -> None:
    with job.out.with_name(job.out.name + ".log").open("a") as log:
        print(json.dumps(row | {"clock": time.strftime("%H:%M:%S")}), file=log)


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--tokens", type=int, default=7_000_000)
    parser.add_argument("--casual-tokens", type=int, default=900_000)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    budget = Budget(a.seed, a.tokens, a.casual_tokens, a.rows, a.muon_lr, a.adam_lr)
    a.out.mkdir(parents=True, exist_ok=True)
    save_tokenizer(train_tokenizer(a.seed), a.out)
    train(budget, Job(a.out))


if __name__ == "__main__":
    main()
