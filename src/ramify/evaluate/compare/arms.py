"""What is compared: one evaluation, or the evaluations of trainings that differ in nothing but their seed."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from ramify.base.errors import RunError
from ramify.base.runs import Run, is_run
from ramify.base.types import Reason, Sample, Verdict
from ramify.evaluate.scores import ANSWERED, Rate, Scores, graded, rate_of, score, share_of
from ramify.evaluate.stages import Stage

Holds = Callable[[Sample, Verdict], bool]
"""What is counted of an answer."""
Answers = tuple[tuple[Sample, Verdict], ...]
_FREE = frozenset({"seed", "out"})
"""Settings of a run that may differ within an arm; those of its sections may not: task.seed makes other rows."""
_OF_ROWS = frozenset({"data.train", "problems"})
_DEEPEST = 20
"""Runs that a run may stand on, one on the other."""


@dataclass(frozen=True)
class Arm:
    """One thing compared.

    Attributes:
        stages: its evaluations, one for each training seed.
    """

    name: str
    stages: tuple[Stage, ...]

    @property
    def stage(self) -> Stage:
        """Its first evaluation."""
        return self.stages[0]

    @property
    def seeds(self) -> int:
        """Trainings that differ in their seed alone; 1 where nothing was trained."""
        return len(self.stages)

    @property
    def trainings(self) -> tuple[str, ...]:
        """The training run that each evaluation measured; nothing where there was none."""
        return tuple(os.path.realpath(each.training) for each in self.stages if each.training is not None)

    @cached_property
    def answers(self) -> tuple[Answers, ...]:
        """Of each evaluation its samples with their verdicts, grader failures left out."""
        return tuple(tuple(graded(each.samples, each.verdicts)) for each in self.stages)

    @cached_property
    def scores(self) -> Scores:
        """Over all its evaluations: pass@k and maj@k are means over training seeds, all else counts every answer."""
        if self.seeds == 1:
            return self.stage.scores
        samples: list[Sample] = []
        verdicts: list[Verdict] = []
        for stage in self.stages:
            begin = 1 + max((each.index for each in samples), default=-1)
            samples += [replace(each, index=begin + each.index) for each in stage.samples]
            verdicts += [replace(each, sample_index=begin + each.sample_index) for each in stage.verdicts]
        own = [stage.scores for stage in self.stages]
        return replace(
            score(samples, verdicts),
            pass_at_k=_means([each.pass_at_k for each in own]),
            maj_at_k=_means([each.maj_at_k for each in own]),
        )

    @cached_property
    def lengths(self) -> list[dict[str, Fraction]]:
        """Of each evaluation: problem -> mean number of new tokens of its answers."""
        made = []
        for answers in self.answers:
            counts: dict[str, list[int]] = defaultdict(list)
            for sample, _ in answers:
                counts[sample.problem_id].append(len(sample.token_ids))
            made.append({name: Fraction(sum(each), len(each)) for name, each in counts.items()})
        return made

    @cached_property
    def right_counts(self) -> list[dict[str, tuple[int, int]]]:
        """Of each evaluation: problem -> its answers, and how many of them are right."""
        made = []
        for answers in self.answers:
            drawn = Counter(sample.problem_id for sample, _ in answers)
            right = Counter(sample.problem_id for sample, verdict in answers if verdict.reason is Reason.CORRECT)
            made.append({name: (count, right[name]) for name, count in drawn.items()})
        return made

    @cached_property
    def right_when_answered(self) -> Rate:
        """Share correct of the answers that could be read, over all its evaluations."""
        groups: dict[str, list[bool]] = defaultdict(list)
        for sample, verdict in chain.from_iterable(self.answers):
            if verdict.reason in ANSWERED:
                groups[sample.problem_id].append(verdict.reason is Reason.CORRECT)
        return rate_of(list(groups.values()))

    def shares(self, holds: Holds) -> list[dict[str, Fraction]]:
        """Of each evaluation: problem -> share of its answers of which `holds` is true. Counted once."""
        if holds not in self._counted:
            self._counted[holds] = [share_of((s.problem_id, holds(s, v)) for s, v in each) for each in self.answers]
        return self._counted[holds]

    @cached_property
    def _counted(self) -> dict[Holds, list[dict[str, Fraction]]]:
        return {}


def arms(stages: Sequence[Stage], *, each: bool = False) -> tuple[Arm, ...]:
    """The stages, those put together whose training settings differ in nothing but the seed.

    They need to be measured in the same way too. Two trainings with the same seed are no two seeds: the later one
    stands for itself.

    Args:
        each: keep all apart.
    """
    groups: list[tuple[str | None, list[Stage]]] = []
    for stage in stages:
        alike = None if each else _likeness(stage)
        home = next((group for known, group in groups if alike is not None and known == alike), None)
        if home is None or _seed(stage) in map(_seed, home):
            groups.append((alike, [stage]))
        else:
            home.append(stage)
    ordered = [_in_order(group) for _, group in groups]
    names = [_name(group) for group in ordered]
    return tuple(
        Arm(name if names.count(name) == 1 else ", ".join(stage.name for stage in group), group)
        for name, group in zip(names, ordered, strict=True)
    )


def _in_order(group: Sequence[Stage]) -> tuple[Stage, ...]:
    """By training seed, so that two ways to measure the same trainings pair them, in whatever order they are named."""
    return tuple(sorted(group, key=lambda stage: _seed(stage) or 0))


def _seed(stage: Stage) -> Any:
    return (stage.artefact("run.json") or {}).get("seed")


def _likeness(stage: Stage) -> str | None:
    """Equal for trainings that differ in their seed alone and were measured alike; None where nothing was trained."""
    if stage.training is None or not is_run(stage.training):
        return None
    measured = dict(stage.record.get("config") or {})
    measured |= {"model": _file_kind(str(measured.get("model"))), "adapter": None, "revision": None}
    return json.dumps([_made(stage.training), _settings(measured, 0, _FREE), _hash_of_problems(stage)], sort_keys=True)


def _file_kind(model: str) -> str:
    """Of a GGUF file its quantisation, as export names it; else nothing: what was measured is the training."""
    return Path(model).stem.rpartition("-")[2] if model.lower().endswith(".gguf") else ""


def _made(folder: Path, depth: int = 0) -> Any:
    """What decided a training, its seed aside: settings, its rows, and the same of the runs that it stands on."""
    try:
        record = Run(folder).record
    except RunError:
        return str(folder)
    settings = record.get("config") or {}
    return [_settings(settings, depth, _FREE), _rows(record, str((settings.get("data") or {}).get("train")))]


def _rows(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Hashes of what was trained on, where that does not come from a run: another seed of it gives other rows."""
    hashes = record.get("hashes") or {}
    return {} if is_run(source) else {name: value for name, value in hashes.items() if name in _OF_ROWS}


def _settings(settings: Mapping[str, Any], depth: int, free: frozenset[str] = frozenset()) -> Any:
    """The settings without the free ones; runs among them by what made them."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            kept[name] = _settings(value, depth)
        elif isinstance(value, str) and depth < _DEEPEST and name in ("model", "adapter", "train") and is_run(value):
            kept[name] = _made(Path(value), depth + 1)
        elif name not in free:
            kept[name] = value
    return kept


def _hash_of_problems(stage: Stage) -> Any:
    return (stage.record.get("hashes") or {}).get("problems")


def _name(stages: Sequence[Stage]) -> str:
    """The name of one stage, or what the names of several begin with."""
    if len(stages) == 1:
        return stages[0].name
    begin = _shared_beginning([stage.name for stage in stages]).rstrip("-_. /")
    return f"{begin.removesuffix('seed').rstrip('-_. /') or stages[0].name} ({len(stages)} seeds)"


def _shared_beginning(names: Sequence[str]) -> str:
    """What all begin with, without a part of a number: of r16-10 and r16-11 it is r16-."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    begin = "".join(letters[0] for letters in same)
    goes_on = any(name[len(begin) : len(begin) + 1].isdigit() for name in names)
    return begin.rstrip("0123456789") if goes_on else begin


def _means(found: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {k: fmean(each[k] for each in found) for k in found[0] if all(k in each for each in found)}
