"""How far an export may be from what it was made of. What is beyond is a defect, not rounding.

Measured on models of nine families with random weights: f16 stays below 3e-7, q8_0 below 1e-3. Forgotten permutation
of queries and keys gives 0.33, a norm that is off by one 0.83, ignored scaling of rotary positions 0.011 (and only on
long prompts). So the limits of f32, f16 and q8_0 separate rounding from defects; below 8 bits they only say when a
quantisation has cost more than usual, and the f16 file it was made from, which is always tried too, finds the defect.
"""

from __future__ import annotations

KL: dict[str, float] = {
    "fp32": 1e-6,
    "f32": 1e-6,
    "fp16": 1e-5,
    "f16": 1e-5,
    "bf16": 2e-3,
    "q8_0": 2e-3,
    "q6_k": 1e-2,
    "q5_k_m": 3e-2,
    "q5_k_s": 3e-2,
    "q5_1": 3e-2,
    "q5_0": 4e-2,
    "q4_k_m": 0.15,
    "q4_k_s": 0.15,
    "q4_1": 0.15,
    "q4_0": 0.2,
    "q3_k_m": 0.5,
}
"""Largest mean KL divergence from the reference, in nats, by kind; a kind that is not listed is shown, not judged."""

REFERENCE = {"bf16": 4e-3}
"""What is added to a limit where the reference itself was rounded to this kind: its error, twice."""

EXACT = frozenset({"fp32", "f32", "fp16", "f16"})
"""Kinds whose greedy tokens must be those of the reference, wherever its choice is not nearly a tie."""

TIE = 0.05
"""Logits: where the likeliest token is less ahead of the second, either of them is right."""


def widened(kind: str, reference: str) -> float | None:
    """The largest mean KL divergence of a kind from a reference that was computed in another; None: not judged."""
    limit = KL.get(kind)
    return None if limit is None else limit + REFERENCE.get(reference, 0.0)
