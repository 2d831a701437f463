"""Prompt erasure: the system turn of a row is dropped or replaced, so that its effect must move into the weights.

Orca 2 (Mitra et al. 2023, arXiv 2311.11045, section 4) trains on answers that a teacher gave under a detailed
instruction, and shows the student a generic one. What is drawn is keyed by the seed and the row, never by order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ramify.base.config_mix import Erase
from ramify.base.rng import key
from ramify.data.mix.records import Entry, Outcome, folded

_RANGE = 2.0**64


@dataclass(frozen=True, slots=True)
class Erased:
    """An entry after erasure.

    Attributes:
        original: the system turn that was dropped or replaced; None where nothing was.
    """

    entry: Entry
    original: str | None
    outcome: Outcome


def erase(entry: Entry, settings: Erase, seed: int, row: int) -> Erased:
    """The entry with its system turn dropped or replaced as the settings say.

    Args:
        row: key of the entry; with `seed` it decides what is drawn.
    """
    original = entry.system
    if original is None:
        return Erased(entry, None, Outcome.ABSENT)
    if settings.when and not any(_pattern(each).fullmatch(folded(original)) for each in settings.when):
        return Erased(entry, None, Outcome.OTHER)
    if _uniform(seed, "share", row) >= settings.share:
        return Erased(entry, None, Outcome.KEPT)
    text = _instead(settings, seed, row)
    bare = entry.without_system()
    return Erased(bare.with_system(text) if text else bare, original, Outcome.ERASED)


def _instead(settings: Erase, seed: int, row: int) -> str:
    """What stands in for the system turn; empty: nothing."""
    if settings.mode == "drop":
        return ""
    if settings.mode == "replace":
        return settings.text
    return _drawn(settings.texts, _uniform(seed, "text", row))


def _drawn(texts: Mapping[str, float], uniform: float) -> str:
    """The text at which the running share passes a number in [0, 1); the order in which texts are given is nothing."""
    ordered = sorted(texts.items())
    left = uniform * sum(weight for _, weight in ordered)
    for text, weight in ordered:
        left -= weight
        if left < 0:
            return text
    return ordered[-1][0]  # the sum was rounded


def _uniform(seed: int, purpose: str, row: int) -> float:
    return min(key("erase", seed, purpose, row) / _RANGE, 1 - 2.0**-53)


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, folded(text).split("*"))), re.DOTALL)
