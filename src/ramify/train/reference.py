"""Log-probabilities under the reference: computed once for all pairs of a run, on trees of all its data, and kept.

    reference.npz   train_chosen, train_rejected [n] fp32, valid_… where there is validation, and `key`: digests of
                    weights and data, and the layout, type and device they were computed with

In reduced precision the layout of a batch moves log-probabilities by rounding, so that another layout is another key.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramify.base.progress import Progress
from ramify.base.records import write_bytes
from ramify.base.types import TokenSequence
from ramify.model.logprobs import sequence_logprobs, without_dropout
from ramify.train.pairs import PairSet
from ramify.train.preference import Floats, Reference
from ramify.train.ranks import ALONE, Ranks
from ramify.tree.pack import micro_batches, pack

Key = Mapping[str, Any]
FILE = "reference.npz"
_SORTED = 16 << 20
"""Tokens of the sequences that are sorted at once, four bytes each."""


@dataclass(frozen=True)
class References:
    """What was computed under the reference, and what it took (`seconds` 0: read from the run folder)."""

    train: Reference
    valid: Reference | None
    seconds: float = 0.0
    tokens: int = 0
    computed_tokens: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says about it."""
        return {
            "seconds": round(self.seconds, 3),
            "tokens": self.tokens,
            "computed_tokens": self.computed_tokens,
            "saved_tokens": self.tokens - self.computed_tokens,
        }


def compute_references(
    network: Any,
    train: PairSet,
    valid: PairSet | None,
    micro_tokens: int,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> References:
    """Log-probabilities of all completions under a network as it stands, dropout off.

    All sequences are sorted and packed into trees of at most `micro_tokens` tokens; each is scored once, by one of the
    processes.
    """
    began, sets = time.perf_counter(), [train] if valid is None else [train, valid]
    values = torch.zeros(sum(each.n_sequences for each in sets), device=network.device)
    tokens = computed = 0
    parts = _parts(sets, micro_tokens)[ranks.rank :: ranks.size]  # nearly all are as large as they may be
    progress.start("reference", len(parts))
    try:
        with without_dropout(network):
            for done, part in enumerate(parts, start=1):
                batch = pack([_sequence(sets, number) for number in part]).to(network.device)
                values[part] = sequence_logprobs(network, batch)
                tokens, computed = tokens + batch.n_unshared, computed + len(batch.input_ids)
                progress.update(done, tokens_per_second=tokens / max(time.perf_counter() - began, 1e-9))
    finally:
        progress.close()
    ranks.sum_([values])
    counts = ranks.gather((tokens, computed))
    own, others = np.split(values.cpu().numpy(), [train.n_sequences])
    return References(
        _halves(own),
        None if valid is None else _halves(others),
        time.perf_counter() - began,
        *(sum(each) for each in zip(*counts, strict=True)),
    )


def _parts(sets: Sequence[PairSet], micro_tokens: int) -> list[list[int]]:
    """Numbers of all sequences of the sets taken together, in micro-batches."""
    parts: list[list[int]] = []
    for block in _blocks(sets):
        found = micro_batches((_sequence(sets, number) for number in block), micro_tokens)
        parts += [[block[place] for place in part] for part in found]
    return parts


def _blocks(sets: Sequence[PairSet]) -> Iterator[list[int]]:
    """The same numbers, in blocks of neighbouring prompts that are sorted one at a time: a key is as long as its
    sequence, prompt included, and all of them would be many times the data."""
    prompts = [[ids.astype(">u4").tobytes() for ids in each.prompts] for each in sets]
    keys = [own[prompt] for each, own in zip(sets, prompts, strict=True) for prompt in 2 * each.prompt_of]
    block: list[int] = []
    tokens = 0
    for number in sorted(range(len(keys)), key=keys.__getitem__):
        if tokens > _SORTED:
            yield block
            block, tokens = [], 0
        block.append(number)
        tokens += len(_sequence(sets, number).ids)
    yield block


def _sequence(sets: Sequence[PairSet], number: int) -> TokenSequence:
    """The sequence of that number in the sets taken together."""
    first = sets[0].n_sequences
    return sets[0].sequence(number) if number < first else sets[1].sequence(number - first)


def _halves(values: Floats) -> Reference:
    """The chosen ones come first in `PairSet.sequences`."""
    return Reference(*np.split(values, 2))


def read_references(folder: Path, key: Key) -> References | None:
    """What the run folder keeps under this key; None when there is nothing, something else, or a damaged file."""
    try:
        with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if json.loads(str(kept["key"])) != dict(key):
                return None
            train = Reference(kept["train_chosen"], kept["train_rejected"])
            valid = Reference(kept["valid_chosen"], kept["valid_rejected"]) if "valid_chosen" in kept else None
            return References(train, valid)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # EOFError: an empty file
        return None


def write_references(folder: Path, key: Key, references: References) -> None:
    """Keep them in the run folder, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    arrays: dict[str, Floats] = {"train_chosen": references.train.chosen, "train_rejected": references.train.rejected}
    if references.valid is not None:
        arrays |= {"valid_chosen": references.valid.chosen, "valid_rejected": references.valid.rejected}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, key=np.array(json.dumps(dict(key))), **arrays)
    write_bytes(folder / FILE, content.getvalue())
