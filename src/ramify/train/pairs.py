"""From preference pairs to token ids: each prompt is rendered once, and what cannot be trained on is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError, LengthError
from ramify.base.types import Completion, Conversation, Example, Pair, TokenSequence
from ramify.data.source import training_source
from ramify.data.sources import pairs_of, read_rows, stream_rows
from ramify.prompts.renderer import Renderer
from ramify.train.grouping import group_pairs
from ramify.train.material import RunData
from ramify.train.rows import Split, leaks, length_limit

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class PairSet:
    """Rendered pairs. A prompt is kept once for all pairs that have it; sequences are made when they are asked for.

    Attributes:
        prompts: ids of the distinct prompts.
        prompt_of: for each pair, its place in `prompts`.
        chosen: for each pair, ids of the chosen completion; `rejected` likewise.
        groups: indices of pairs that stay neighbours (see `grouping`).
        too_long: pairs left out because one of their sequences was longer than allowed.
    """

    prompts: tuple[Ids, ...]
    prompt_of: tuple[int, ...]
    chosen: tuple[Ids, ...]
    rejected: tuple[Ids, ...]
    groups: tuple[tuple[int, ...], ...]
    too_long: int = 0

    unit: ClassVar[str] = "pairs"
    trains: ClassVar[str] = "pairs"

    def __len__(self) -> int:
        return len(self.prompt_of)

    @property
    def n_sequences(self) -> int:
        """Two for each pair."""
        return 2 * len(self)

    def chosen_sequence(self, pair: int) -> TokenSequence:
        """Prompt and chosen completion."""
        return self._sequence(pair, self.chosen[pair])

    def rejected_sequence(self, pair: int) -> TokenSequence:
        """Prompt and rejected completion."""
        return self._sequence(pair, self.rejected[pair])

    def sequences(self) -> Iterator[TokenSequence]:
        """All chosen sequences, then all rejected ones, made one at a time."""
        yield from map(self.chosen_sequence, range(len(self)))
        yield from map(self.rejected_sequence, range(len(self)))

    def sequence(self, number: int) -> TokenSequence:
        """The sequence of that number in `sequences`."""
        pair = number % len(self)
        return self.chosen_sequence(pair) if number < len(self) else self.rejected_sequence(pair)

    @cached_property
    def tokens(self) -> int:
        """Tokens of the unshared sequences in one pass."""
        return int(self.trained) + 2 * sum(len(self.prompts[prompt]) for prompt in self.prompt_of)

    @cached_property
    def trained(self) -> float:
        """Completion tokens in one pass."""
        return float(sum(map(len, self.chosen)) + sum(map(len, self.rejected)))

    @cached_property
    def longest(self) -> int:
        """Length of the longest sequence."""
        sides = zip(self.prompt_of, self.chosen, self.rejected, strict=True)
        return max((len(self.prompts[prompt]) + max(len(one), len(other)) for prompt, one, other in sides), default=0)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all ids: data, template and tokenizer in one number."""
        found = hashlib.sha256()
        for prompt, chosen, rejected in zip(self.prompt_of, self.chosen, self.rejected, strict=True):
            for ids in (self.prompts[prompt], chosen, rejected):
                found.update(len(ids).to_bytes(8, "little"))
                found.update(ids.astype("<i4").tobytes())
        return found.hexdigest()

    def _sequence(self, pair: int, completion: Ids) -> TokenSequence:
        return TokenSequence.of(tuple(self.prompts[self.prompt_of[pair]].tolist()), tuple(completion.tolist()))


def read_preferences(config: RunConfig, split: Split) -> list[Pair]:
    """Training or validation pairs: a file, folder or hub data set, or a run with rows.

    Raises:
        ConfigError: no training pairs are named, the task's own rows are asked, which are none, or data.turns is set.
        DataError: the file cannot be used, or holds other rows than pairs.
    """
    if str(config.data.train if split == "train" else config.data.valid) == "task":
        raise ConfigError(
            f"data.{split} = task: the task's own rows are no preference pairs",
            hint=f"data.{split}=FILE with prompt, chosen and rejected",
        )
    if config.data.turns != "all":
        raise ConfigError(
            f"data.turns = {config.data.turns}: a preference pair has one answer a side, which is trained"
        )
    return pairs_of(stream_rows(training_source(config.data, split)))


def render_pairs(
    config: RunConfig, renderer: Renderer, max_length: int, pairs: Sequence[Pair], valid: Sequence[Pair]
) -> RunData[PairSet]:
    """Training and validation pairs as token ids.

    Args:
        max_length: what the model allows.

    Raises:
        LengthError: pairs are longer than allowed.
        DataError: a pair has equal or empty sides, or nothing is left.
    """
    limit = length_limit(config.data, max_length)
    train_set, trained = _render(pairs, renderer, limit, config, "training pairs")
    valid_set, measured = _render(valid, renderer, limit, config, "validation pairs") if valid else (None, [])
    leaked = tuple(pair.source for pair in leaks(trained, measured))
    return RunData(train_set, valid_set, leaked, renderer.separate_count, _also_measured(config, measured))


def _also_measured(config: RunConfig, valid: Sequence[Pair]) -> int:
    """How many validation pairs have the prompt of a problem that `ramify eval` asks."""
    source = config.evaluate.problems
    if not valid or not Path(source).is_file():
        return 0
    return len(leaks(read_rows(source, config.evaluate.limit).problems, valid))


def _render(
    pairs: Sequence[Pair], renderer: Renderer, limit: int, config: RunConfig, name: str
) -> tuple[PairSet, list[Pair]]:
    """Pairs as token ids, and those of them that are used."""
    _refuse_sides(pairs, name)
    places: dict[bytes, int] = {}
    prompts: list[Ids] = []
    rendered: dict[int, tuple[int, Ids, Ids]] = {}
    for conversation, members in _by_prompt(pairs).items():
        prompt, completions = _completions(renderer, conversation, [pairs[index] for index in members])
        place = places.setdefault(prompt.tobytes(), len(prompts))
        if place == len(prompts):
            prompts.append(prompt)
        for index in members:
            rendered[index] = place, completions[pairs[index].chosen], completions[pairs[index].rejected]
    same = [pair for index, pair in enumerate(pairs) if np.array_equal(*rendered[index][1:])]
    _refuse(same, "sides of the same tokens", len(pairs), name)
    lengths = {index: len(prompts[at]) + max(len(one), len(two)) for index, (at, one, two) in rendered.items()}
    long = {index: length for index, length in lengths.items() if length > limit}
    if len(long) == len(pairs) or (long and not config.data.drop_long):
        raise _too_long(long, pairs, limit, name)
    used = [index for index in range(len(pairs)) if index not in long]
    prompt_of, chosen, rejected = zip(*(rendered[index] for index in used), strict=True)
    groups = group_pairs(prompts, prompt_of, config.dpo.group_by, config.train.batch_size)
    return PairSet(tuple(prompts), prompt_of, chosen, rejected, groups, len(long)), [pairs[index] for index in used]


def _refuse_sides(pairs: Sequence[Pair], name: str) -> None:
    """Refuse pairs that state no preference.

    Raises:
        DataError: there is no pair, or sides are empty or equal; says how many and where the first stands.
    """
    if not pairs:
        raise DataError(f"{name}: there are none")
    empty = [pair for pair in pairs if not (pair.chosen.strip() and pair.rejected.strip())]
    equal = [pair for pair in pairs if pair.chosen == pair.rejected]
    for bad, what in ((empty, "an empty side"), (equal, "equal sides")):
        _refuse(bad, what, len(pairs), name)


def _refuse(bad: Sequence[Pair], what: str, n: int, name: str) -> None:
    if bad:
        raise DataError(
            f"{name}: {len(bad)} of {n} have {what} (first: {bad[0].source or 'no source'})",
            hint="remove them; ramify data check lists what else is unusual",
        )


def _by_prompt(pairs: Sequence[Pair]) -> dict[Conversation, list[int]]:
    """Places of the pairs of each prompt."""
    found: dict[Conversation, list[int]] = {}
    for index, pair in enumerate(pairs):
        found.setdefault(pair.prompt, []).append(index)
    return found


def _completions(renderer: Renderer, prompt: Conversation, pairs: Sequence[Pair]) -> tuple[Ids, dict[str, Ids]]:
    """Ids of a prompt, and of each different completion behind it."""
    sources = {text: pair.source for pair in reversed(pairs) for text in (pair.chosen, pair.rejected)}
    try:
        found = renderer.sequences(Example(prompt, tuple(map(Completion, sources))))
    except DataError:
        for text, source in sources.items():  # one of them: its own source belongs into the message
            renderer.sequences(Example(prompt, (Completion(text),), source))
        raise
    sizes = [sum(weight != 0 for weight in sequence.weights) for sequence in found]
    tails = [_ids(each.ids[-size:]) for each, size in zip(found, sizes, strict=True)]
    return _ids(found[0].ids[: -sizes[0]]), dict(zip(sources, tails, strict=True))


def _ids(ids: Sequence[int]) -> Ids:
    return np.array(ids, dtype=np.int32)


def _too_long(long: Mapping[int, int], pairs: Sequence[Pair], limit: int, name: str) -> LengthError:
    worst = max(long, key=long.__getitem__)
    return LengthError(
        f"{name}: {len(long)} of {len(pairs)} are longer than {limit} tokens; "
        f"the longest has {long[worst]} ({pairs[worst].source or 'no source'})",
        hint="data.drop_long=true leaves them out, counted; nothing is ever cut",
    )
