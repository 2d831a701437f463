"""What goes wrong quietly in preference optimisation, read off its metrics; each is said once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

_FALL = 0.1
"""In units of the reward: how far the chosen side falls, and the margin grows, before it is worth a word."""
_PATIENCE = 3
"""Lines of metrics in a row that must show it: one batch alone says little."""
_APART = 0.25
"""Difference of the mean lengths, as a share of the longer one."""
_FOLLOWS = 0.8
"""Share of the margin that lies on the side that is longer (or shorter) throughout."""


class PreferenceWatch:
    """Looks at lines of training metrics, in order.

    Args:
        rows: the lines that were written before (a resumed run); nothing is said about them again.
    """

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        self._first: Mapping[str, float] | None = None
        self._seen = {"falling": 0, "lengths": 0}
        for row in rows:
            list(self(row))

    def __call__(self, row: Mapping[str, float]) -> Iterator[str]:
        """What the user should know after this line."""
        first = self._first = row if self._first is None else self._first
        if self._lasts("falling", _chosen_falls(first, row)):
            yield (
                f"chosen completions become less likely while the margin grows (reward {first['reward_chosen']:.2f} → "
                f"{row['reward_chosen']:.2f}, margin {first['margin']:.2f} → {row['margin']:.2f}): the rejected ones "
                "only fall faster; a lower train.lr, a higher dpo.beta or dpo.sft_weight holds them"
            )
        if self._lasts("lengths", _follows_length(row)):
            yield (
                f"chosen completions have {row['length_chosen']:.0f} tokens on average, rejected ones "
                f"{row['length_rejected']:.0f}, and the margin follows the length: it may be length that is learnt"
            )

    def _lasts(self, name: str, shows: bool) -> bool:
        """Whether it has now shown for the first time in so many lines running."""
        before = self._seen[name]
        if before < _PATIENCE:
            self._seen[name] = before + 1 if shows else 0
        return before == _PATIENCE - 1 and shows


def _chosen_falls(first: Mapping[str, float], row: Mapping[str, float]) -> bool:
    fall, growth = first["reward_chosen"] - row["reward_chosen"], row["margin"] - first["margin"]
    return fall > _FALL and growth > _FALL


def _follows_length(row: Mapping[str, float]) -> bool:
    lengths = row["length_chosen"], row["length_rejected"]
    apart = abs(lengths[0] - lengths[1]) > _APART * max(lengths)
    return apart and row["margin"] > _FALL and abs(row["margin_of_longer"]) > _FOLLOWS * row["margin"]
