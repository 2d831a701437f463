"""What was measured of a run before it: records that travel from the process that tried it to the one that plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ramify.plan.counts import RunSize


@dataclass(frozen=True)
class StepRun:
    """One optimizer step that was taken to be measured.

    Attributes:
        computed: packed tokens.
        largest: packed tokens of its largest micro-batch.
        seconds: it took, everything that follows a step included.
        peak: largest memory of the process so far, in bytes.
        whole: whether it is a step of the run; else it is a part of one.
    """

    computed: int
    largest: int
    seconds: float
    peak: int
    whole: bool


@dataclass(frozen=True)
class Reading:
    """Forward passes without gradient: an evaluation, or a reference's log-probabilities.

    Attributes:
        total: packed tokens of all of it.
        computed: packed tokens of what was measured, the largest part among it.
        seconds: of what was measured.
        cutting: seconds to cut all of it into micro-batches.
        peak: largest memory of the process so far, in bytes.
    """

    total: int
    computed: int
    seconds: float
    cutting: float
    peak: int

    @property
    def estimate(self) -> float:
        """Seconds of all of it."""
        return self.cutting + self.seconds * self.total / max(self.computed, 1)


@dataclass(frozen=True)
class Drawing:
    """A small draw from the start model.

    Attributes:
        samples: that were asked for, `finished` those of them that ended in time, and `cut` those that ended because
            they were as long as is allowed.
        tokens: drawn in `seconds`.
        mean: tokens of a finished sample; of the longest allowed where none finished.
        peak: largest memory of the process so far, in bytes.
    """

    samples: int
    finished: int
    cut: int
    tokens: int
    seconds: float
    mean: float
    peak: int


@dataclass(frozen=True)
class Measured:
    """What a process found that did what a run does.

    Attributes:
        size: how much the run will compute.
        device: where it computed.
        starting: seconds until its modules were imported.
        rendering: seconds to read and render the rows.
        loading: seconds to load the model and put the adapter on.
        loaded: largest memory up to the first step, in bytes.
        steps: in the order they were taken; the first one warms up.
        saving: seconds to write a checkpoint, and `copying` to copy its weights for the result.
        checkpoint: bytes of a checkpoint on disk, and `result` of the weights in it.
        evaluation: of the validation rows, or None.
        reference: of the pairs, or None.
        drawing: of a method that samples, or None.
        busy: seconds of processor time up to the first step, of all threads.
        share: of processor time a second while steps were taken: how much of the machine the process had.
        reached: whether the step that needs most memory was taken.
    """

    size: RunSize
    device: str
    starting: float
    rendering: float
    loading: float
    loaded: int
    steps: tuple[StepRun, ...]
    saving: float
    copying: float
    checkpoint: int
    result: int
    evaluation: Reading | None
    reference: Reading | None
    drawing: Drawing | None
    busy: float
    share: float
    reached: bool

    @property
    def peak(self) -> int:
        """Largest memory of all that was done, in bytes."""
        parts = (*self.steps, self.evaluation, self.reference, self.drawing)
        return max(self.loaded, *(each.peak for each in parts if each is not None))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Measured:
        """From what `dataclasses.asdict` made, as JSON keeps it."""
        kinds = {"evaluation": Reading, "reference": Reading, "drawing": Drawing}
        parts = {name: kind(**values[name]) if values[name] is not None else None for name, kind in kinds.items()}
        steps = tuple(StepRun(**each) for each in values["steps"])
        return cls(**{**values, **parts, "steps": steps, "size": RunSize(**values["size"])})
