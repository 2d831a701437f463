"""Which of many changed answers a report shows in full."""

from __future__ import annotations

from ramify.base.rng import generator
from ramify.evaluate.compare.contrasts import Contrast, Flip, FlipKind

SHOWN = 4
"""Answers of a kind that are shown in full."""


def chosen(contrast: Contrast, kind: FlipKind) -> list[Flip]:
    """A few flips of a kind in their order, drawn at random, the same ones each time."""
    flips = contrast.of_kind(kind)
    draw = generator("report examples", f"{kind.value} {contrast.before.name} {contrast.after.name}")
    return [flips[i] for i in sorted(draw.sample(range(len(flips)), min(SHOWN, len(flips))))]
