"""Near-duplicates, by MinHash signatures of word triples (Broder 1997) from rensa, and locality-sensitive hashing.

Two rows are near-duplicates when the estimated Jaccard similarity of their sets of word triples, system turns left
out, is at least the threshold. A signature has 64 slots in 16 bands of 4: the estimate, the share of equal slots, has a
standard deviation of at most 0.06; rows are compared when they agree in a band, which a pair at similarity 0.8 does
with probability 0.9998 (at 0.5: 0.64), and with at most 64 rows of a band, so that rows of one template do not make it
quadratic. Memory: 320 bytes a row, so that millions fit.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ramify.base.errors import ConfigError

SLOTS, BANDS, SHINGLE = 64, 16, 3
COMPARED = 64
"""Rows of one band, the first that stay, that a row is compared with."""
_AT_ONCE = 1024
_SEED = 42
"""Of the hash functions: fixed, so that the seed of a mix does not change what resembles what."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"\w+")
Signatures = npt.NDArray[np.uint32]


def first_of_its_like(texts: Iterable[str], similarity: float) -> npt.NDArray[np.bool_]:
    """Of each text, in order, whether it resembles none of the earlier ones that stay.

    Raises:
        ConfigError: rensa is not installed.
    """
    found = signatures(texts)
    groups = _groups(found)
    stays = np.ones(len(found), np.bool_)
    there: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero((groups >= 0).any(axis=1)):
        own = [int(group) for group in groups[row] if group >= 0]
        others = sorted({other for group in own for other in there[group]})
        if others and bool(((found[others] == found[row]).mean(axis=1) >= similarity).any()):
            stays[row] = False
        else:
            for group in own:
                if len(there[group]) < COMPARED:
                    there[group].append(int(row))
    return stays


def signatures(texts: Iterable[str]) -> Signatures:
    """[texts, SLOTS]: the MinHash signature of each text.

    Raises:
        ConfigError: rensa is not installed.
    """
    rensa, waiting, found = require(), iter(texts), array("I")  # it grows without a second copy
    while some := list(islice(waiting, _AT_ONCE)):
        matrix = rensa.RMinHash.digest_matrix_from_token_sets([shingles(text) for text in some], SLOTS, _SEED)
        found.frombytes(np.array(matrix.to_rows(), np.uint32).tobytes())
    return np.frombuffer(found, np.uint32).reshape(-1, SLOTS)


def shingles(text: str) -> list[str]:
    """The word triples of a text, case folded; a shorter text is one shingle."""
    words = _WORD.findall(text.casefold())
    if len(words) < SHINGLE:
        return [" ".join(words) or text.strip()]
    return [" ".join(each) for each in zip(*(words[start:] for start in range(SHINGLE)), strict=False)]


def require() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module("rensa")
    except ImportError:
        hint = "pip install 'ramify[dedup]'"
        raise ConfigError("finding near-duplicates needs rensa, which is not installed", hint=hint) from None


def _groups(found: Signatures) -> npt.NDArray[np.int32]:
    """[rows, BANDS]: rows of one number agree in a band; -1 where a row agrees with no other."""
    groups = np.empty((len(found), BANDS), np.int32)
    width, number = SLOTS // BANDS, 0
    for band in range(BANDS):
        keys = np.zeros(len(found), np.uint64)
        for slot in range(band * width, (band + 1) * width):
            keys = (keys + found[:, slot]) * _MIX  # rows whose keys are equal by chance are told apart by signature
        _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        groups[:, band] = np.where(sizes[group] > 1, group + number, -1)
        number += len(sizes)
    return groups
