"""Random numbers that depend on names, not on order: every draw is keyed, so nothing depends on its neighbours.

`key` hashes what a draw is for (seed, purpose, problem, sample, …) to 64 bits; `uniforms` is the counter-based
generator SplitMix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195) on such keys, in NumPy.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key(*parts: str | int) -> int:
    """A 64-bit key of what a draw is for. Equal parts give equal keys on every machine and Python."""
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: str | int) -> random.Random:
    """A standard-library generator seeded by `key(*parts)`."""
    return random.Random(key(*parts))


def uniforms(keys: npt.NDArray[np.uint64], counter: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """One uniform number in [0, 1) for each (key, counter) pair, elementwise."""
    with np.errstate(over="ignore"):
        z = keys + (counter + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        z = z ^ (z >> np.uint64(31))
    numbers: npt.NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
