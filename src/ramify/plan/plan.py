"""What a run will take, before it: counted from its rows, measured on a few of its steps, and judged in one line.

plan = make_plan(config)
plan.verdict        go: about 3 min (2.7 to 3.3 min), 0.64 of 15.80 GB of memory, 24 MB of disk
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ramify.base.config import RunConfig
from ramify.model.load import choose_device
from ramify.plan.advice import Need, memory_changes, need, smaller_model
from ramify.plan.amounts import clock, gigabytes
from ramify.plan.beforehand import disk_shortage, memory_shortage
from ramify.plan.counts import RunSize, answer_lengths, packed, row_lengths, sequences_of, step_sizes
from ramify.plan.draws import most_rows
from ramify.plan.estimate import Duration, duration
from ramify.plan.footprint import Footprint, footprint
from ramify.plan.measure import measure
from ramify.plan.measured import Measured
from ramify.plan.peak import resident_memory
from ramify.sample.weights import free_memory
from ramify.train.dryrun import Course, DryRun, dry_run

_CROWDED = 0.75
"""Processor seconds a second that a process on the CPU has at least, where no other program takes its place."""
_LONGEST = 64
"""Rows among which the one with most packed tokens is looked for."""
_CUT = 0.1
"""Share of drawn answers, cut off at the longest length allowed, from which on it is said."""


@dataclass(frozen=True)
class Plan:
    """A run, planned.

    Attributes:
        config: its settings.
        counts: of its rows.
        size: what it computes; of method rft if every question gives all the rows it can; None: not known.
        footprint: what it takes at least.
        memory: what it needs and has.
        measured: None: there was no room to try it.
        duration: None likewise.
        notes: what the user should know.
        changes: what has to be changed; none: go.
    """

    config: RunConfig
    counts: DryRun
    size: RunSize | None
    footprint: Footprint
    memory: Need
    measured: Measured | None
    duration: Duration | None
    notes: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def goes(self) -> bool:
        """Whether nothing has to be changed."""
        return not self.changes

    @property
    def disk(self) -> int:
        """Bytes that lie in the run folder at once."""
        return self.footprint.disk

    @property
    def verdict(self) -> str:
        """One line: go, or what to change."""
        if self.changes:
            return f"change {'; '.join(self.changes)}"
        assert self.duration is not None and self.memory.bytes is not None
        room = "" if self.memory.room == float("inf") else f" of {gigabytes(self.memory.room)}"
        return (
            f"go: about {clock(self.duration.seconds)} ({clock(self.duration.low)} to {clock(self.duration.high)}), "
            f"{gigabytes(self.memory.bytes)}{room} of memory, {gigabytes(self.disk)} of disk"
        )

    def as_plain(self) -> dict[str, Any]:
        """The plan as JSON keeps it; bytes, seconds and tokens. Memory's room is null where the system does not say."""
        counted = {name: value for name, value in vars(self.counts).items() if name not in ("course", "notes")}
        return {
            "verdict": self.verdict,
            "goes": self.goes,
            "changes": list(self.changes),
            "notes": list(self.notes),
            "counts": counted,
            "size": None if self.size is None else {**asdict(self.size), "saved": self.size.saved},
            "footprint": asdict(self.footprint),
            "memory": {**asdict(self.memory), "room": None if self.memory.room == float("inf") else self.memory.room},
            "measured": None if self.measured is None else asdict(self.measured),
            "duration": None if self.duration is None else {**asdict(self.duration), "seconds": self.duration.seconds},
            "config": self.config.model_dump(mode="json"),
        }


def make_plan(config: RunConfig, *, overwrite: bool = False) -> Plan:
    """Check, count and measure a run; nothing is trained, and no run folder is made.

    Args:
        overwrite: whether the run would replace one that is in its folder.

    Raises:
        RamifyError: what the run itself would refuse before its first step.
    """
    counts = dry_run(config, overwrite=overwrite)
    least = footprint(config)
    device = choose_device(config.train.device)
    own = resident_memory() if device.type == "cpu" else 0  # this process will have ended when the run begins
    room = free_memory(device) + own
    shortage = memory_shortage(config, least, room)
    if shortage is not None:
        has = Need(least.memory, room, "weights and optimizer", reached=False)
        change = f"{smaller_model(config, least, room)}: {shortage}"
        return _plan(config, counts, least, has, None, (change,))
    measured = measure(_alone(config), room)
    has = Need(None, room, "training", reached=False) if measured is None else need(measured, room)
    changes = () if has.fits else (_for_memory(config, counts, least, measured, has),)
    return _plan(config, counts, least, has, measured, changes)


def _plan(
    config: RunConfig,
    counts: DryRun,
    least: Footprint,
    has: Need,
    measured: Measured | None,
    changes: tuple[str, ...],
) -> Plan:
    size = _size(config, counts.course) if measured is None else measured.size
    took = None if measured is None else duration(config, measured, counts.samples)
    shortage = disk_shortage(config, least.disk)
    changes += () if shortage is None else (f"train.keep or out, {shortage}",)
    changes += _for_lengths(config, counts)
    too_short = _for_schedule(config, size)
    notes = _notes(config, counts, measured, is_short=bool(too_short))
    return Plan(config, counts, size, least, has, measured, took, notes, changes + too_short)


def _size(config: RunConfig, course: Course | None) -> RunSize | None:
    return None if course is None else RunSize.of(config, course, step_sizes(course, config.train.micro_tokens))


def _alone(config: RunConfig) -> RunConfig:
    """As one process runs it, with the whole model."""
    return config.model_copy(update={"train": config.train.model_copy(update={"shard": "none"})})


def _for_memory(config: RunConfig, counts: DryRun, least: Footprint, measured: Measured | None, has: Need) -> str:
    """The setting to change, and why."""
    change = memory_changes(config, least, measured, _largest_row(counts), has)
    seen = "more than there is" if has.bytes is None else gigabytes(has.bytes)
    return f"{change}: {has.part} needs {seen}, and {gigabytes(has.room)} of memory are free"


def _largest_row(counts: DryRun) -> int:
    """Packed tokens of the largest row: no micro-batch is smaller."""
    if counts.course is None:
        return counts.longest
    train = counts.course.train
    longest = row_lengths(train).argsort()[-_LONGEST:]
    return max(packed(sequences_of(train, [int(index)])) for index in longest)


def _for_lengths(config: RunConfig, counts: DryRun) -> tuple[str, ...]:
    """A run that leaves out more than it trains on."""
    left = 0 if counts.course is None else len(row_lengths(counts.course.train))
    if counts.course is None or counts.too_long <= left:
        return ()
    setting = "data.train, or a model for longer rows" if config.data.max_length is None else "data.max_length"
    unit = "pairs" if config.method == "dpo" else "sequences"
    return (f"{setting}: {counts.too_long:,} of {counts.too_long + left:,} {unit} are too long and left out",)


def _for_schedule(config: RunConfig, size: RunSize | None) -> tuple[str, ...]:
    """A run that is too short for its own schedule."""
    if size is None or size.warmup * 2 <= size.steps:
        return ()
    reached = "never" if size.warmup >= size.steps else "hardly"
    length = "epochs" if config.train.max_steps is None else "max_steps"  # which goes before epochs
    return (
        f"train.warmup or train.{length}: {size.warmup} of {size.steps} steps are warm-up, and the learning rate "
        f"{reached} reaches {config.train.lr:g}",
    )


def _notes(config: RunConfig, counts: DryRun, measured: Measured | None, is_short: bool) -> tuple[str, ...]:
    """What the user should know, save for a short schedule that is among the changes already."""
    said = counts.course.schedule.warning() if is_short and counts.course is not None else None
    found = [note for note in counts.notes if note != said]
    found += _of_answers(config, counts)
    if measured is None:
        return tuple(found)
    if config.train.shard != "none":
        found.append(f"train.shard = {config.train.shard}: measured is one process that has the whole model")
    if not measured.reached:
        found.append("the largest step was not taken: its memory lies on a line through smaller ones")
    if measured.device == "cpu" and measured.share < _CROWDED:
        found.append(
            f"the machine was busy: the process had {measured.share:.0%} of a core, and with one to itself the run "
            f"takes about {clock(duration(config, measured, counts.samples).busy)}"
        )
    if measured.drawing is not None:
        found += _of_drawing(config, counts, measured)
    return tuple(found)


def _of_answers(config: RunConfig, counts: DryRun) -> list[str]:
    """Answers that are learned and that an evaluation of the run would cut off."""
    if counts.course is None or config.data.as_text or config.evaluate.scoring == "options":
        return []
    allowed, lengths = config.sample.max_new_tokens, answer_lengths(counts.course.train)
    longer = int((lengths > allowed).sum())
    if not longer:
        return []
    return [
        f"{longer:,} of {len(lengths):,} answers that are trained have more than sample.max_new_tokens = {allowed} "
        f"tokens (the longest {int(lengths.max()):,}): an evaluation of the run would cut such answers off"
    ]


def _of_drawing(config: RunConfig, counts: DryRun, measured: Measured) -> list[str]:
    """What a method that samples cannot know beforehand."""
    drawn = measured.drawing
    assert drawn is not None
    found = [
        f"how many answers will be selected is not known: training is planned for at most "
        f"{most_rows(config, counts.rows):,} rows"
    ]
    if not drawn.finished:
        found.append("no answer ended while it was watched: drawing is planned for the longest, training for short")
    elif drawn.cut > _CUT * drawn.finished:
        found.append(
            f"{drawn.cut} of {drawn.finished} drawn answers were cut off at sample.max_new_tokens = "
            f"{config.sample.max_new_tokens}"
        )
    return found
