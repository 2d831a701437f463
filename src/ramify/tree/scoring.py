"""How scores are made from queries and keys: the settings of attention that vary between model families."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scoring:
    """Settings of one attention layer.

    Attributes:
        scaling: factor on the products of queries and keys.
        softcap: scores become softcap · tanh(score / softcap); None: unchanged (Gemma 2, arXiv 2408.00118).
        window: a key is seen only when fewer than `window` positions behind the query; None: no window.
    """

    scaling: float
    softcap: float | None = None
    window: int | None = None
