"""Preference pairs as token ids, the same for every side: one long prompt with short answers, and rubric pairs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.rubric import TextPair, students
from benchmarks.setting import VOCABULARY

EOS, PAD = 0, 1
"""Ids that no text holds; every completion ends in `EOS`."""
PROMPT, COMPLETION = 800, 40
PAIRS_OF_A_STUDENT = 12
SEED = 1
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ids:
    """One pair; both completions end in `EOS`."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Of both sequences, each counted by itself."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


Steps = list[list[Ids]]
"""The pairs of each optimizer step."""


def long_prompts(steps: int, pairs: int, completions: int) -> Steps:
    """Random ids: prompts of 800 tokens, each with `completions` answers of 40 that are paired two by two."""
    draws = random.Random(SEED)

    def drawn(length: int) -> tuple[int, ...]:
        return tuple(draws.randrange(2, VOCABULARY) for _ in range(length))

    def of_a_prompt() -> list[Ids]:
        prompt = drawn(PROMPT)
        sides = [(*drawn(COMPLETION - 1), EOS) for _ in range(completions)]
        return [Ids(prompt, sides[at], sides[at + 1]) for at in range(0, completions, 2)]

    return [[pair for _ in range(2 * pairs // completions) for pair in of_a_prompt()] for _ in range(steps)]


def rubric_pairs(steps: int, per_step: int, data: Path, tokenizer: Path) -> Steps:
    """Pairs of real programs, so many students a step, tokenised and mapped into the vocabulary of the shapes.

    Raises:
        SystemExit: the file has too few students.
    """
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    graded = list(islice(students(data), steps * per_step))
    if len(graded) < steps * per_step:
        raise SystemExit(f"{data}: {steps * per_step} students are needed, found {len(graded)}")
    found = [[_tokenised(encoder, pair) for pair in pairs] for pairs in graded]
    return [[pair for one in found[at : at + per_step] for pair in one] for at in range(0, len(found), per_step)]


def _tokenised(encoder: Any, pair: TextPair) -> Ids:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(2 + each % (VOCABULARY - 2) for each in encoder.encode(text, add_special_tokens=False).ids)

    return Ids(ids(pair.prompt), (*ids(pair.chosen), EOS), (*ids(pair.rejected), EOS))


def shared_folder() -> Path:
    """Where data sets and tokenizers that are not part of the project are looked for."""
    return Path(os.environ.get("RAMIFY_SHARED", _ROOT.parent / "shared"))


def default_data() -> Path:
    """The labs of real programs, when they are there."""
    return shared_folder() / "data" / "itsp_c" / "labs.jsonl"


def default_tokenizer() -> Path:
    """That of SmolLM2, whose vocabulary the shapes have, when it is there; else the embedded model's."""
    from ramify import nano

    found = shared_folder() / "models" / "smollm2_tokenizer"
    return found if found.is_dir() else nano.path()


def shared_tokens(pairs: Sequence[Ids]) -> tuple[int, int]:
    """Tokens of the sequences each counted by itself, and of their prefix tree."""
    from ramify.base.types import TokenSequence
    from ramify.tree.tree import grow

    tree = grow([TokenSequence.of(pair.prompt, side) for pair in pairs for side in sides(pair)])
    return tree.n_unshared, len(tree.ids)


def sides(pair: Ids) -> Iterator[tuple[int, ...]]:
    """Chosen, then rejected."""
    yield pair.chosen
    yield pair.rejected
