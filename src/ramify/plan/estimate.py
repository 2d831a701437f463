"""How long a run will take, from the steps that were measured: seconds = a + b · packed tokens, by least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.base.config import RunConfig
from ramify.plan.measured import Drawing, Measured, StepRun

_LEAST_ERROR = 0.1
"""Relative: machines are not steadier than that."""
_UNSEEN_ERROR = 0.3
"""Relative, where whole steps were not taken or their number is not known."""


@dataclass(frozen=True)
class Duration:
    """Seconds of a whole run, and of its parts.

    Attributes:
        parts: by name: starting, rows, model, sampling, reference, steps, evaluations, checkpoints.
        error: relative; the time is expected within it in 19 of 20 runs on a machine as busy as it was.
        busy: seconds of processor time, of all threads: what a machine without other programs can be planned by.
    """

    parts: dict[str, float]
    error: float
    busy: float

    @property
    def seconds(self) -> float:
        """The estimate."""
        return sum(self.parts.values())

    @property
    def low(self) -> float:
        """Lower end of the range."""
        return self.seconds * max(0.0, 1 - self.error)

    @property
    def high(self) -> float:
        """Upper end of the range."""
        return self.seconds * (1 + self.error)


@dataclass(frozen=True)
class Line:
    """seconds = start + rate · packed tokens.

    Attributes:
        spread: standard deviation of single steps around it, in seconds.
        steps: how many it was drawn through.
    """

    start: float
    rate: float
    spread: float
    steps: int

    @classmethod
    def through(cls, steps: Sequence[StepRun]) -> Line:
        """The line through measured steps, the first left out where there are others: it warms up.

        Where the steps are too alike to tell start from rate, or either would be negative, it is a mean of seconds a
        token.
        """
        seen = [each for each in steps[1:] if each.whole]
        if len(seen) < 3:
            seen = list(steps[1:]) or list(steps)
        tokens = np.array([each.computed for each in seen], np.float64)
        seconds = np.array([each.seconds for each in seen], np.float64)
        start, rate = 0.0, float(seconds.sum() / max(tokens.sum(), 1.0))
        if len(seen) > 2 and tokens.std() > 0.05 * tokens.mean():
            steep, offset = (float(each) for each in np.polyfit(tokens, seconds, 1))
            if steep > 0 and offset > 0:
                start, rate = offset, steep
        left = seconds - (start + rate * tokens)
        spread = math.sqrt(float((left**2).sum()) / max(1, len(seen) - 1))
        return cls(start, rate, spread, len(seen))

    def total(self, steps: int, tokens: float) -> float:
        """Seconds of so many steps that have so many packed tokens together."""
        return steps * self.start + tokens * self.rate

    def error(self, steps: int, tokens: float) -> float:
        """Twice the standard error of `total`, relative to it."""
        single = self.spread * math.sqrt(steps + steps**2 / max(1, self.steps))
        return 2 * single / max(self.total(steps, tokens), 1e-9)


def duration(config: RunConfig, measured: Measured, samples: int = 0) -> Duration:
    """How long a run will take on a machine as fast and as busy as it was while steps were measured.

    Args:
        samples: completions that will be drawn.
    """
    line, size = Line.through(measured.steps), measured.size
    parts = {
        "starting": measured.starting,
        "rows": measured.rendering,
        "model": measured.loading,
        "steps": line.total(size.steps, size.computed),
        "checkpoints": size.checkpoints * measured.saving + measured.copying,
    }
    if measured.evaluation is not None:
        parts["evaluations"] = size.evaluations * measured.evaluation.estimate
    if measured.reference is not None:
        parts["reference"] = measured.reference.estimate
    error = line.error(size.steps, size.computed) * parts["steps"] / sum(parts.values())
    if measured.drawing is not None:
        parts = {name: each if name == "starting" else each * config.select.rounds for name, each in parts.items()}
        parts["sampling"] = sampling_seconds(measured.drawing, samples)
    is_sure = measured.drawing is None and sum(each.whole for each in measured.steps) > 2
    before = sum(parts[name] for name in ("starting", "rows", "model"))
    busy = measured.busy + (sum(parts.values()) - before) * measured.share
    return Duration(parts, max(error, _LEAST_ERROR if is_sure else _UNSEEN_ERROR), busy)


def sampling_seconds(drawing: Drawing, samples: int) -> float:
    """Seconds to draw so many samples, as long as those that ended were, at the rate of full slots."""
    return samples * drawing.mean * drawing.seconds / max(drawing.tokens, 1)
