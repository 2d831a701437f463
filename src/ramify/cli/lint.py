"""What `ramify data check` says about preference pairs: flaws, lengths, and how much their sequences share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ramify.data.checks import Ruler
from ramify.data.lint import END_TOKENS, LENGTH_ALONE, Flaw, Lengths, by_length, flaws, too_long

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.base.types import Pair
    from ramify.train.pairs import PairSet

Lines = list[tuple[str, Any]]
"""Rows of a table: what, and how much of it."""
_NO_LIMIT = 2**62
"""Longer than any sequence: what is too long is told, not refused."""
_UNMEASURED = (Flaw.EQUAL, Flaw.EMPTY, Flaw.END_TOKEN)
"""Flaws of pairs that are not rendered: training would refuse them, whatever their lengths."""


class Measure(Ruler):
    """A ruler that comes from the settings."""

    @classmethod
    def of(cls, config: RunConfig) -> Measure | None:
        """With the tokenizer of the model that is named; None when none is named.

        Raises:
            ModelError: it cannot be found or read.
            ConfigError: template or data.max_length cannot be used with it.
        """
        from ramify.model.outline import load_outline
        from ramify.train.checks import renderer_for
        from ramify.train.rows import length_limit

        if "model" not in config.model_fields_set:
            return None
        outline = load_outline(config.model, adapter=config.adapter, revision=config.revision)
        return cls(renderer_for(outline, config.prompt), length_limit(config.data, outline.max_length))

    @property
    def end_tokens(self) -> tuple[str, ...]:
        """The usual ones, and those of the model."""
        found: Any = self.renderer.tokenizer.convert_ids_to_tokens(list(self.renderer.stop_ids))
        return (*END_TOKENS, *found)


def pair_lines(config: RunConfig, split: str, pairs: Sequence[Pair], measure: Measure | None) -> Lines:
    """Everything worth knowing about the pairs of one split.

    Raises:
        DataError: a pair cannot be rendered.
    """
    found = flaws(pairs, END_TOKENS if measure is None else measure.end_tokens)
    unmeasured = {index for flaw in _UNMEASURED for index in found.get(flaw, ())}
    sound = [pair for index, pair in enumerate(pairs) if index not in unmeasured]
    lines: Lines = [("pairs", len(pairs)), ("prompts that differ", len({pair.prompt for pair in pairs}))]
    lines += [(_named(flaw.value, pairs, indices), len(indices)) for flaw, indices in found.items()]
    if measure is None and sound:
        prompts = len({pair.prompt for pair in sound})
        lines += _length_lines([_characters(pair) for pair in sound], prompts, "characters")
    elif measure is not None and sound:
        lines += _token_lines(config, sound, measure)
    return [(f"{split}: {name}", value) for name, value in lines]


def leaked_prompts(train: Sequence[Pair], valid: Sequence[Pair]) -> int:
    """How many validation pairs have a prompt that occurs in training."""
    from ramify.train.rows import leaks

    return len(leaks(train, valid))


def _token_lines(config: RunConfig, pairs: Sequence[Pair], measure: Measure) -> Lines:
    from ramify.train.pairs import render_pairs

    whole = config.data.model_copy(update={"max_length": None})
    rendered = render_pairs(config.model_copy(update={"data": whole}), measure.renderer, _NO_LIMIT, pairs, ()).train
    sides = zip(rendered.prompt_of, rendered.chosen, rendered.rejected, strict=True)
    lengths = [Lengths(len(rendered.prompts[at]), len(chosen), len(rejected)) for at, chosen, rejected in sides]
    long = too_long(lengths, measure.limit)
    lines: Lines = [(f"tokens of the longest sequence ({measure.limit} are allowed)", rendered.longest)]
    lines += [(_named(flaw.value, pairs, indices), len(indices)) for flaw, indices in long.items()]
    lines += _length_lines(lengths, len(rendered.prompts), "tokens")
    return lines + _sharing_lines(config, rendered)


def _length_lines(lengths: Sequence[Lengths], prompts: int, unit: str) -> Lines:
    """Whether length alone tells which answer is the chosen one."""
    from ramify.evaluate.statistics.intervals import wilson

    found = by_length(lengths)
    low, high = wilson(found.share * prompts, prompts)  # pairs of one prompt are not independent
    lines: Lines = [
        (f"mean {unit} of chosen and of rejected answers", f"{found.chosen:.1f}, {found.rejected:.1f}"),
        (
            "pairs whose longer answer is the chosen one, a tie as half (95 % interval over prompts)",
            f"{100 * found.share:.1f} % ({100 * low:.0f}-{100 * high:.0f})",
        ),
    ]
    if low > LENGTH_ALONE or high < 1 - LENGTH_ALONE:
        rule = "longer" if low > LENGTH_ALONE else "shorter"
        lines.append((f"separable by length alone ({rule} wins, interval beyond {100 * LENGTH_ALONE:.0f} %)", "yes"))
    return lines


def _sharing_lines(config: RunConfig, pairs: PairSet) -> Lines:
    """Tokens of one pass, and how many fewer are computed when pairs are grouped: what a step can gain at most."""
    from ramify.train.grouping import group_pairs

    lines: Lines = [("tokens of all sequences", f"{pairs.tokens:,}")]
    for kind in ("none", "prompt", "prefix"):
        groups = group_pairs(pairs.prompts, pairs.prompt_of, kind, config.train.batch_size)
        computed = sum(_tree_tokens(pairs, group) for group in groups)
        fewer = f"{computed:,} ({pairs.tokens / computed:.1f} x fewer)"
        lines.append((f"of them computed with dpo.group_by={kind}, each group at once", fewer))
    return lines


def _tree_tokens(pairs: PairSet, group: Sequence[int]) -> int:
    """Tokens of the prefix tree of these pairs."""
    import numpy as np

    from ramify.tree.tree import shared_prefixes, sorted_order

    sides = [(pair, side[pair]) for pair in group for side in (pairs.chosen, pairs.rejected)]
    ids = [np.concatenate([pairs.prompts[pairs.prompt_of[pair]], side]).astype(np.int64) for pair, side in sides]
    return sum(map(len, ids)) - sum(shared_prefixes(ids, sorted_order(ids)))


def _characters(pair: Pair) -> Lengths:
    return Lengths(sum(len(turn.content) for turn in pair.prompt), len(pair.chosen), len(pair.rejected))


def _named(what: str, pairs: Sequence[Pair], indices: Sequence[int]) -> str:
    """With the first of them, where it says where it stands."""
    first = pairs[indices[0]].source
    return f"{what} (first: {first})" if first else what
