"""Which batch size is fastest for `transformers.generate`: a prompt and a step are timed, the speed follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PROBE_TOKENS = 16
TIMINGS = 3
PATIENCE = 15.0  # seconds after which a timing is not repeated: a long one is not noisy
WORTH_IT = 1.03  # a larger batch must be that much faster for the search to go on
CLOSE = 0.85  # a second size is measured in full when it is at least this share of the fastest

Timings = dict[int, dict[str, list[float]]]
"""Batch size -> seconds of `first` (prompt and one token) and `more` (`PROBE_TOKENS` tokens more), each timed again."""


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the task returned."""
    import torch

    start = time.perf_counter()
    result = task()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def repeated(task: Callable[[], Any]) -> list[float]:
    """Seconds of `TIMINGS` runs after one that warms the shape up; of fewer when one takes longer than `PATIENCE`."""
    taken = [timed(task)[0]]
    if taken[0] > PATIENCE:
        return taken
    taken = [timed(task)[0]]
    while len(taken) < TIMINGS and sum(taken) < PATIENCE:
        taken.append(timed(task)[0])
    return taken


def speeds(timings: Timings, new: int) -> dict[int, float]:
    """New tokens a second at each batch size, by the least of the timings.

    A step of a larger batch takes at least as long as one of the smallest batch: a difference below that is a
    disturbed timing.
    """
    found: dict[int, float] = {}
    floor = 0.0
    for size in sorted(timings):
        first, more = min(timings[size]["first"]), min(timings[size]["more"])
        step = max((more - first) / PROBE_TOKENS, floor)
        floor = floor or step
        found[size] = size * new / (first + (new - 1) * step)
    return found


def pays(timings: Timings, new: int) -> bool:
    """Whether the largest size so far is worth more than those below it."""
    found = speeds(timings, new)
    *smaller, largest = found
    return not smaller or found[largest] > WORTH_IT * max(found[size] for size in smaller)


def best_batches(timings: Timings, new: int) -> list[int]:
    """The size that is fastest at this length, and the second where it comes close."""
    found = speeds(timings, new)
    best, *others = sorted(found, key=lambda size: -found[size])
    return [best, *(size for size in others[:1] if found[size] >= CLOSE * found[best])]
