"""What to change where a run does not fit, or is too short for its own schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ramify.base.config import LoRA, RunConfig
from ramify.plan.footprint import Footprint, footprint
from ramify.plan.measured import Measured, StepRun

_GROWTH = 1.05
"""By how much the memory of a long run grows beyond that of a few of its steps."""
_ROOM = 0.9
"""Share of the memory that a proposal aims at."""
_STEP = 64
"""Packed tokens that proposals are multiples of."""


@dataclass(frozen=True)
class Need:
    """Memory that a run needs, and has.

    Attributes:
        bytes: needed at most; None where it is not known, as the run could not be tried out.
        room: bytes that are free for it.
        part: what needs most: loading, training, evaluation, reference or sampling.
        reached: whether that was measured; else it lies on a line through smaller steps.
    """

    bytes: int | None
    room: float
    part: str
    reached: bool

    @property
    def fits(self) -> bool:
        """Whether there is room, a little to spare."""
        return self.bytes is not None and _GROWTH * self.bytes <= self.room


def need(measured: Measured, room: float) -> Need:
    """The largest memory of a run, from what was measured of it.

    A process never has a smaller peak than it had before, so that parts are in the order they were tried in: the first
    one that reaches the largest memory is the one that needs it.
    """
    peaks = {
        "sampling": None if measured.drawing is None else measured.drawing.peak,
        "loading": measured.loaded,
        "training": foreseen_peak(measured.steps, measured.size.largest),
        "evaluation": None if measured.evaluation is None else measured.evaluation.peak,
        "reference": None if measured.reference is None else measured.reference.peak,
    }
    parts = {name: float(peak) for name, peak in peaks.items() if peak is not None}
    part = max(parts, key=lambda name: parts[name])
    return Need(round(parts[part]), room, part, measured.reached)


def foreseen_peak(steps: Sequence[StepRun], largest: int) -> float:
    """Bytes at a micro-batch of so many packed tokens: a straight line through the two largest that were measured."""
    reached: dict[int, int] = {}
    for each in steps:
        reached[each.largest] = max(each.peak, reached.get(each.largest, 0))
    known = sorted(reached)[-2:]
    if len(known) < 2 or largest <= known[-1]:
        return float(max(reached.values(), default=0))
    low, high = known
    return reached[high] + (reached[high] - reached[low]) / (high - low) * (largest - high)


def tokens_that_fit(steps: Sequence[StepRun], room: float) -> int:
    """Packed tokens of a micro-batch that stays in the room, on the line through the smallest and the largest one."""
    ordered = sorted(steps, key=lambda each: each.largest)
    low, high = ordered[0], ordered[-1]
    slope = (high.peak - low.peak) / max(1, high.largest - low.largest)
    if slope <= 0:
        return 0
    return int((low.largest + (_ROOM * room - low.peak) / slope) // _STEP * _STEP)


def memory_changes(config: RunConfig, found: Footprint, measured: Measured | None, longest: int, has: Need) -> str:
    """The setting to change first for a run that does not fit.

    Args:
        found: what it takes without activations.
        measured: None: the trial itself found no room, or was not begun.
        longest: packed tokens of the largest row, which is never cut.
        has: what it needs, and the room there is.
    """
    settings = config.train
    if has.part == "sampling" and config.sample.live > 1:
        return f"sample.live={config.sample.live // 2} (the result stays the same)"
    if has.part in ("sampling", "loading"):
        return smaller_model(config, found, has.room)
    if measured is not None and found.memory < has.room:
        tokens = tokens_that_fit(measured.steps, has.room)
        if longest <= tokens < measured.size.largest:
            return f"train.micro_tokens={tokens} (the result stays the same)"
    if measured is None and found.memory < has.room and settings.micro_tokens > 2 * longest:
        return f"train.micro_tokens={max(longest, settings.micro_tokens // 4)} (the result stays the same)"
    if not settings.checkpointing and found.memory < has.room:
        return "train.checkpointing=true (the result stays the same, a third slower)"
    return smaller_model(config, found, has.room)


def smaller_model(config: RunConfig, found: Footprint, room: float) -> str:
    """What makes weights and optimizer state small enough for the room: settings, one after the other."""
    said: list[str] = []
    for setting, changed in _smaller(config, found):
        said.append(setting)
        if footprint(changed).memory <= _ROOM * room:
            return " ".join(said)
    return "a smaller model"


def _smaller(config: RunConfig, found: Footprint) -> Iterator[tuple[str, RunConfig]]:
    """Settings that take less, each on top of those before it."""
    if config.lora is None:
        config = config.model_copy(update={"lora": LoRA()})
        yield f"lora={{r: {LoRA().r}}}", config
    if found.dtype == "fp32":
        config = config.model_copy(update={"train": config.train.model_copy(update={"dtype": "bf16"})})
        yield "train.dtype=bf16", config
    if found.on_cuda and config.train.quantize is None:
        config = config.model_copy(update={"train": config.train.model_copy(update={"quantize": "nf4"})})
        yield "train.quantize=nf4", config
    if config.lora is not None and config.lora.r > 4:
        yield "lora.r=4", config.model_copy(update={"lora": config.lora.model_copy(update={"r": 4})})
