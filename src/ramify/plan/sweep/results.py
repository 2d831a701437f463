"""What a sweep found: a rate with its interval for each setting, the highest one, and whether it is better than others.

The highest of many rates is partly luck. So the setting that has it is held against every other one, problem by
problem, and what is claimed is corrected for the number of these comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ramify.base.errors import DataError
from ramify.evaluate import words
from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.compare.contrasts import Contrast, contrasts
from ramify.evaluate.scores import Rate
from ramify.evaluate.stages import Stage, same_questions
from ramify.evaluate.statistics.findings import Outcome
from ramify.plan.sweep.runs import SweepRun


@dataclass(frozen=True)
class Row:
    """A run and what came of it.

    Attributes:
        stage: its evaluation; None: it is not finished.
        error: why it failed; None: it did not.
        seconds: that training took; peak: bytes that its process had at most, where they were measured.
    """

    run: SweepRun
    stage: Stage | None = None
    error: str | None = None
    seconds: float | None = None
    peak: int | None = None

    @property
    def status(self) -> str:
        """finished, failed, or waiting."""
        return "failed" if self.error is not None else "waiting" if self.stage is None else "finished"


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed, as far as they are finished."""

    label: str
    settings: Mapping[str, str]
    rows: tuple[Row, ...]

    @cached_property
    def arm(self) -> Arm | None:
        """Its evaluations; None while there are none."""
        stages = tuple(row.stage for row in self.rows if row.stage is not None)
        return Arm(self.label, stages) if stages else None

    @cached_property
    def accuracy(self) -> Rate | None:
        """Share of correct answers, over all seeds, with Wilson's interval over problems."""
        return None if self.arm is None else self.arm.scores.accuracy


@dataclass(frozen=True)
class SweepResult:
    """All settings of a sweep, in the order they were asked for.

    Attributes:
        contrasts: the highest setting against each other one, corrected together.
    """

    settings: tuple[Setting, ...]
    best: Setting | None
    contrasts: tuple[Contrast, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of all runs."""
        return tuple(row for setting in self.settings for row in setting.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Runs that failed."""
        return tuple(row for row in self.rows if row.status == "failed")

    @property
    def ranked(self) -> tuple[Setting, ...]:
        """Settings by their rate, the highest first, those without one last."""
        return tuple(sorted(self.settings, key=_height, reverse=True))

    @property
    def alike(self) -> tuple[str, ...]:
        """Settings that the highest one is not shown to be better than."""
        return tuple(each.before.name for each in self.contrasts if each.overall.outcome is not Outcome.BETTER)

    @property
    def verdict(self) -> str:
        """Which setting is best, as far as that can be said."""
        if self.best is None or self.best.accuracy is None:
            return "no run is finished"
        found = f"{self.best.label}: {words.rate(self.best.accuracy)}"
        if len(self.settings) == 1 and self.best.arm is not None:
            return f"one setting: {found}, seeds: {self.best.arm.seeds}"
        if not self.contrasts:
            return f"only {found} is finished"
        others = len(self.contrasts)
        if not self.alike:
            return f"best: {found}, better than {'the other setting' if others == 1 else f'all {others} others'}"
        told = ", ".join(self.alike) if len(self.alike) <= 3 else f"{len(self.alike)} of {others} other settings"
        return f"highest: {found}, but it cannot be told apart from {told}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know besides the figures."""
        found = []
        if self.best is not None and self.contrasts:
            found.append(
                f"The highest of {len(self.contrasts) + 1} settings was chosen on the problems that measured it, so "
                "that its rate is likely a little too high: measure it on other problems before it is reported."
            )
        if len(self.contrasts) > 1:
            found.append(
                f"It was held against {len(self.contrasts)} others; intervals are those of single comparisons, and a "
                "difference counts as shown only where its p, corrected for all of them (Holm), is at most 0.05."
            )
        found += self._of_seeds
        if self.failed:
            found.append(f"{len(self.failed)} of {len(self.rows)} runs failed and are in none of the figures.")
        return tuple(found)

    @property
    def _of_seeds(self) -> list[str]:
        """Whether differences cover the variance between training seeds: all, some or none of them do."""
        alone = [each.before.name for each in self.contrasts if not each.across_seeds]
        if not self.contrasts:
            return []
        if not alone:
            return ["Differences cover the variance between seeds; the rates' own intervals are over problems."]
        if len(alone) < len(self.contrasts):
            return [
                f"The variance between seeds is covered by {len(self.contrasts) - len(alone)} of "
                f"{len(self.contrasts)} differences, and not by those to {', '.join(alone)}: more seeds are needed."
            ]
        return ["The variance between seeds is not covered, as a setting needs several for that: seed=1,2,3 adds them."]


def result_of(rows: Sequence[Row]) -> SweepResult:
    """What is known when these rows are. A run that was measured on other problems than the first has failed."""
    groups: dict[str, list[Row]] = {}
    for row in _comparable(rows):
        groups.setdefault(row.run.label, []).append(row)
    settings = tuple(Setting(label, own[0].run.settings, tuple(own)) for label, own in groups.items())
    best = max(settings, key=_height, default=None)
    if best is None or best.arm is None:
        return SweepResult(settings, None, ())
    others = [each.arm for each in settings if each.arm is not None and each is not best]
    return SweepResult(settings, best, contrasts([(other, best.arm) for other in others]) if others else ())


def _comparable(rows: Sequence[Row]) -> list[Row]:
    first = next((row.stage for row in rows if row.stage is not None), None)
    found = []
    for row in rows:
        try:
            if first is not None and row.stage is not None:
                same_questions(first, row.stage)
            found.append(row)
        except DataError as error:
            found.append(replace(row, stage=None, error=str(error)))
    return found


def record_of(result: SweepResult) -> dict[str, Any]:
    """The result as JSON-ready values."""
    return {
        "runs": [_row_record(row) for row in result.rows],
        "settings": [
            {
                "label": each.label,
                "settings": dict(each.settings),
                "accuracy": _rate_record(each),
                "answer_rate": None if each.arm is None else each.arm.scores.answer_rate.value,
            }
            for each in result.settings
        ],
        "highest": None if result.best is None else result.best.label,
        "is_best": bool(result.contrasts) and not result.alike,
        "verdict": result.verdict,
        "against": [_contrast_record(each) for each in result.contrasts],
        "notes": result.notes,
    }


def _height(setting: Setting) -> float:
    return -1.0 if setting.accuracy is None else setting.accuracy.value


def _row_record(row: Row) -> dict[str, Any]:
    scores = None if row.stage is None else row.stage.scores
    return {
        "name": row.run.name,
        "settings": dict(row.run.settings),
        "seed": row.run.seed,
        "status": row.status,
        "error": row.error,
        "seconds": row.seconds,
        "peak_memory": row.peak,
        "accuracy": None if scores is None else scores.accuracy,
        "answer_rate": None if scores is None else scores.answer_rate,
        "problems": None if scores is None else scores.n,
    }


def _rate_record(setting: Setting) -> dict[str, Any] | None:
    rate = setting.accuracy
    if rate is None or setting.arm is None:
        return None
    return {"value": rate.value, "low": rate.low, "high": rate.high, "seeds": setting.arm.seeds}


def _contrast_record(each: Contrast) -> dict[str, Any]:
    pair = each.overall.paired
    return {
        "other": each.before.name,
        "difference": pair.difference,
        "low": pair.low,
        "high": pair.high,
        "p": pair.p,
        "p_adjusted": each.overall.p_adjusted,
        "outcome": each.overall.outcome.value,
        "across_seeds": each.across_seeds,
    }
