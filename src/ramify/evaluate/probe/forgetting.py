"""Does a tuned model still do what its base did? The base's own answers to general prompts, read by both.

The base answers each prompt greedily. Both models then read prompt and answer, on one prefix tree each, and at every
token of the answer their distributions p (base) and q (tuned) of the next token are compared:

    kl     KL(p ‖ q), in nats (Kullback and Leibler 1951): 0 when nothing changed
    top1   whether both find the same token likeliest
    drop   log p(token) - log q(token) of the base's own token: how much less the tuned model would say the same

Means are over tokens, intervals over prompts. What was meant to change changes these figures too: prompts that the
training is about belong into an evaluation, not here. A run with an adapter needs one copy of the weights: the base is
the same network with the adapter off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor

from ramify.base.config import Prompting, Sampling
from ramify.base.errors import DataError, ModelError
from ramify.base.progress import SILENT, Progress
from ramify.base.types import Conversation, Sample, TokenSequence
from ramify.evaluate.probe.likelihood import check_lengths, mean_per_token
from ramify.evaluate.scores import Rate, rate_of
from ramify.model.load import LoadedModel
from ramify.model.logprobs import Network, hidden_states, logits, without_dropout
from ramify.model.lora import fit_template
from ramify.prompts.renderer import Renderer
from ramify.sample.engine import TreeSampler
from ramify.sample.sampler import PromptTokens
from ramify.tree.pack import Batch, micro_batches, pack

_ROWS = 256
"""Positions whose logits are computed at once: two rows of a large vocabulary each."""


@dataclass(frozen=True, slots=True)
class Retold:
    """One general prompt.

    Attributes:
        base, tuned: what each answers by itself, greedily.
        tokens: of the base's answer, its stop token included.
        kl, drop: means over these tokens, in nats; top1: share.
    """

    prompt: str
    base: str
    tuned: str
    tokens: int
    kl: float
    top1: float
    drop: float


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What is left of the base's behaviour, over all tokens of its answers.

    Attributes:
        kl, drop: means per token in nats, top1: share of tokens; with 95 % intervals over prompts.
        same: share of prompts that both answer with the same text.
        answers: prompt by prompt, the most changed first.
    """

    prompts: int
    tokens: int
    kl: Rate
    top1: Rate
    drop: Rate
    same: Rate
    answers: tuple[Retold, ...]


@dataclass(frozen=True)
class Couple:
    """A tuned model and its base.

    Attributes:
        other: the base where it is a model of its own; None: it is the tuned one with its adapter off.
    """

    tuned: LoadedModel
    other: LoadedModel | None = None

    @classmethod
    def of(cls, tuned: LoadedModel, base: LoadedModel | None, prompting: Prompting) -> tuple[Couple, Renderer]:
        """The two, fitted to one chat template, and what renders for both.

        Raises:
            ModelError: the model has no adapter that could be switched off, and no base was given, or the two do not
                speak of the same tokens.
        """
        fitted, renderer, _ = fit_template(tuned, prompting)
        if base is None:
            if not isinstance(tuned.network, PeftModel):
                raise ModelError(
                    f"{tuned.name}: has no adapter that could be switched off, so its base must be named",
                    hint="--base MODEL",
                )
            return cls(fitted), renderer
        other, theirs, _ = fit_template(base, prompting)
        if theirs.tokenizer.get_vocab() != renderer.tokenizer.get_vocab():
            raise ModelError(f"{base.name} and {tuned.name} have different tokenizers, so no token can be compared")
        return cls(fitted, other), renderer

    def base_answers(self, prompts: Sequence[PromptTokens], settings: Sampling) -> list[Sample]:
        """What the base answers, greedily."""
        sampler = TreeSampler(self.tuned, adapter=False) if self.other is None else TreeSampler(self.other)
        return [each[0] for each in sampler.sample(prompts, settings, seed=0)]

    def tuned_answers(self, prompts: Sequence[PromptTokens], settings: Sampling) -> list[Sample]:
        """What the tuned model answers, greedily."""
        return [each[0] for each in TreeSampler(self.tuned).sample(prompts, settings, seed=0)]

    def as_base(self) -> tuple[Network, AbstractContextManager[None]]:
        """The base's network, and the block in which it is one."""
        if self.other is None:
            return self.tuned.network, self.tuned.without_adapter()
        return self.other.network, nullcontext()


def forgetting(
    couple: Couple,
    renderer: Renderer,
    prompts: Sequence[Conversation],
    *,
    max_new_tokens: int,
    micro_tokens: int,
    progress: Progress = SILENT,
) -> Forgetting:
    """Compare a tuned model with its base on the base's own answers.

    Raises:
        DataError: there are no prompts.
        LengthError: a prompt leaves no room for an answer.
    """
    if not prompts:
        raise DataError("there are no prompts to ask")
    asked = [PromptTokens(str(index), renderer.prompt_ids(prompt)) for index, prompt in enumerate(prompts)]
    settings = Sampling(max_new_tokens=max_new_tokens)
    progress.start("probe", 3)
    theirs = couple.base_answers(asked, settings)
    progress.update(1)
    ours = couple.tuned_answers(asked, settings)
    progress.update(2)
    sequences = [TokenSequence.of(p.ids, s.token_ids) for p, s in zip(asked, theirs, strict=True)]
    check_lengths(couple.tuned, sequences)
    figures: list[Tensor] = [torch.empty(0, 3)] * len(sequences)
    for group in micro_batches(sequences, micro_tokens):
        for index, found in zip(group, _compared(couple, [sequences[each] for each in group]), strict=True):
            figures[index] = found
    progress.update(3)
    progress.close()
    return _summary(prompts, theirs, ours, figures)


def _compared(couple: Couple, sequences: Sequence[TokenSequence]) -> Iterator[Tensor]:
    """[answer tokens, 3] of each sequence: kl, whether the likeliest token is the same, drop."""
    batch = pack(sequences).to(couple.tuned.device)
    tuned = couple.tuned.network
    base, block = couple.as_base()
    with without_dropout(tuned), without_dropout(base):
        with block:
            expected = hidden_states(base, batch)[batch.rows]
        found = hidden_states(tuned, batch)[batch.rows]
        parts = [
            _figures(couple, expected[at : at + _ROWS], found[at : at + _ROWS], batch.targets[at : at + _ROWS])
            for at in range(0, len(batch.rows), _ROWS)
        ]
    yield from _by_sequence(torch.cat(parts), batch)


def _figures(couple: Couple, expected: Tensor, found: Tensor, targets: Tensor) -> Tensor:
    """[rows, 3] of hidden states [rows, H] of base and tuned model; logits and sums in fp32."""
    base, block = couple.as_base()
    with block:
        theirs = logits(base, expected).float()
    ours = logits(couple.tuned.network, found).float()
    common = min(theirs.shape[-1], ours.shape[-1])  # embeddings may be filled up with rows that no token has
    p, q = (each[:, :common].log_softmax(-1) for each in (theirs, ours))
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    same = (p.argmax(-1) == q.argmax(-1)).float()
    drop = (p - q).gather(-1, targets[:, None])[:, 0]
    return torch.stack([kl, same, drop], dim=-1).cpu()


def _by_sequence(figures: Tensor, batch: Batch) -> Iterator[Tensor]:
    counts = torch.bincount(batch.sequence.cpu(), minlength=batch.n_sequences).tolist()
    yield from torch.split(figures, counts)


def _summary(
    prompts: Sequence[Conversation], theirs: Sequence[Sample], ours: Sequence[Sample], figures: Sequence[Tensor]
) -> Forgetting:
    told = [
        Retold(prompt[-1].content, base.text, tuned.text, len(found), *found.double().mean(0).tolist())
        for prompt, base, tuned, found in zip(prompts, theirs, ours, figures, strict=True)
    ]
    tokens = [each.tokens for each in told]
    kl, top1, drop = (
        mean_per_token([float(found[:, column].double().sum()) for found in figures], tokens, name)
        for column, name in enumerate(("kl", "top1", "drop"))
    )
    return Forgetting(
        prompts=len(told),
        tokens=sum(tokens),
        kl=kl,
        top1=top1,
        drop=drop,
        same=rate_of([[each.base == each.tuned] for each in told]),
        answers=tuple(sorted(told, key=lambda each: -each.kl)),
    )
