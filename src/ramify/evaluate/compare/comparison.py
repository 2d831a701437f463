"""A comparison: everything that is known of several evaluations of the same problems, from their folders alone.

    found = compare_runs(["runs/base", "runs/sft", "runs/rft"])
    found.main.verdict                  # "better: +18.0 points, 95 % interval +12.0 to +24.0, n = 500"

Records of findings are in `findings`, `contrasts`, `arms` and `provenance`; what is computed is computed there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.base.errors import ConfigError
from ramify.evaluate.compare.arms import Arm, arms
from ramify.evaluate.compare.contrasts import Contrast, contrasts
from ramify.evaluate.compare.provenance import SettingRow, Training, differing, other_weights, training_of
from ramify.evaluate.stages import Stage, named_stages, pairs_to_compare, same_questions


@dataclass(frozen=True)
class Comparison:
    """Several arms on the same problems.

    Attributes:
        arms: in the order given; the first is what the others are held against.
        contrasts: all pairs of up to five arms; of more, each against the first and against its predecessor.
        notes: what a reader must know: what was corrected, what is not covered, what was left out.
        settings: those in which the arms differ.
        trained: for each arm what was trained, one for each seed; empty where nothing was.
    """

    title: str
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    notes: tuple[str, ...]
    settings: tuple[SettingRow, ...]
    trained: tuple[tuple[Training, ...], ...]

    @property
    def main(self) -> Contrast:
        """The last arm against the first."""
        return next(each for each in self.contrasts if each.before is self.arms[0] and each.after is self.arms[-1])


def compare_runs(paths: Sequence[Path | str], *, title: str | None = None, each: bool = False) -> Comparison:
    """Compare evaluated runs.

    Args:
        paths: of evaluations, or of runs that were evaluated.
        title: None: made of the names.
        each: keep trainings apart that differ in their seed alone; otherwise they are one arm.

    Raises:
        ConfigError: fewer than two arms, or one evaluation twice.
        RunError: one has no finished evaluation.
        DataError: they have no problem in common, or one id means two questions.
    """
    return compare_stages(named_stages([Path(path) for path in paths]), title=title, each=each)


def compare_stages(stages: Sequence[Stage], *, title: str | None = None, each: bool = False) -> Comparison:
    """Compare stages, see `compare_runs`."""
    _refuse_twice(stages)
    found = arms(stages, each=each)
    if len(found) < 2:
        what = "they differ in their training seed alone" if len(stages) > 1 else f"found {len(stages)}"
        raise ConfigError(
            f"two runs are needed to compare, {what}",
            hint="--each compares seeds with each other" if len(stages) > 1 else "ramify compare runs/a runs/b",
        )
    pairs = pairs_to_compare(found)
    for before, after in pairs:
        same_questions(before.stage, after.stage)
    made = contrasts(pairs)
    trainings = tuple(tuple(filter(None, map(training_of, arm.stages))) for arm in found)
    named = title or f"{found[0].name} and {found[-1].name} compared"
    return Comparison(named, found, made, notes(found, made), differing(found), trainings)


def _refuse_twice(stages: Sequence[Stage]) -> None:
    """Refuse an evaluation that is named twice: nothing can be learnt from it, and it would count as a comparison.

    Raises:
        ConfigError: there is one.
    """
    known: dict[str, str] = {}
    for stage in stages:
        folder = os.path.realpath(stage.folder)
        if folder in known:
            raise ConfigError(f"{known[folder]} and {stage.name} are one evaluation: {stage.folder}")
        known[folder] = stage.name


def notes(found: Sequence[Arm], made: Sequence[Contrast]) -> tuple[str, ...]:
    """What a reader must know besides the figures."""
    said = [*_seed_notes(found, made)]
    if len(made) > 1:
        said.append(
            f"{len(made)} comparisons are made; their p-values are corrected for that (Holm), and a difference counts "
            "as shown only where the corrected one is at most 0.05."
        )
    if any(each.categories for each in made):
        said.append("Findings by category are corrected over the categories of their comparison (Holm).")
    left_out = max((each.overall.paired.left_out for each in made), default=0)
    if left_out:
        said.append(
            f"Up to {left_out:,} problems of a comparison are left out: one side has no graded answer to them. The "
            "rates of a single run count all that it has."
        )
    said += [
        f"{stage.name}: the weights there are no longer those that were evaluated; the figures are of the earlier ones "
        "until `ramify eval` is run again."
        for arm in found
        for stage in arm.stages
        if other_weights(stage)
    ]
    errors = sum(arm.scores.errors for arm in found)
    if errors:
        said.append(f"The grader failed on {errors:,} answers; they are in none of the figures.")
    return tuple(said)


def _seed_notes(found: Sequence[Arm], made: Sequence[Contrast]) -> list[str]:
    several = [arm for arm in found if arm.seeds > 1]
    said = [
        f"{arm.name}: {', '.join(stage.name for stage in arm.stages)} differ in their training seed alone and are "
        "compared as one."
        for arm in several
    ]
    if any(each.across_seeds for each in made):
        said.append(
            "Differences between trainings with several seeds: interval and p cover the variance between seeds. "
            "Intervals of a single rate, and those of pass@k, cover the problems alone."
        )
    if any(each.across_seeds and _once(each) for each in made):
        said.append("A training with one seed is taken to vary between seeds as much as those with several.")
    if any(each.seeds_matter and not each.across_seeds for each in made):
        said.append(
            "The variance between training seeds is not covered where each side was trained with one seed: another "
            "seed could give another result. Evaluations of trainings with other seeds are used when they are named."
        )
    return said


def _once(contrast: Contrast) -> bool:
    return any(arm.seeds == 1 and arm.trainings for arm in (contrast.before, contrast.after))
