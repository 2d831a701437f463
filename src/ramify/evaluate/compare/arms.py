"""What is compared: one evaluation, or the evaluations of trainings that differ in nothing but their seed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from ramify.base.errors import RunError
from ramify.base.runs import Run, is_run
from ramify.base.types import Sample, Verdict
from ramify.evaluate.scores import Scores, graded, score, share_of
from ramify.evaluate.stages import Stage

Holds = Callable[[Sample, Verdict], bool]
"""What is counted of an answer."""
Answers = tuple[tuple[Sample, Verdict], ...]
_FREE = frozenset({"seed", "out"})
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

    def shares(self, holds: Holds) -> list[dict[str, Fraction]]:
        """Of each evaluation: problem -> share of its answers of which `holds` is true."""
        return [share_of((s.problem_id, holds(s, v)) for s, v in answers) for answers in self.answers]


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
    return tuple(Arm(_name(group), tuple(group)) for _, group in groups)


def _seed(stage: Stage) -> Any:
    return (stage.artefact("run.json") or {}).get("seed")


def _likeness(stage: Stage) -> str | None:
    """Equal for trainings that differ in their seed alone and were measured alike; None where nothing was trained."""
    if stage.training is None or not is_run(stage.training):
        return None
    measured = dict(stage.record.get("config") or {})
    measured |= {"model": _file_kind(str(measured.get("model"))), "adapter": None, "revision": None}
    return json.dumps([_made(stage.training), _settings(measured, 0), _hash_of_problems(stage)], sort_keys=True)


def _file_kind(model: str) -> str:
    """Of a GGUF file its quantisation, as export names it; else nothing: what was measured is the training."""
    return Path(model).stem.rpartition("-")[2] if model.lower().endswith(".gguf") else ""


def _made(folder: Path, depth: int = 0) -> Any:
    """What decided a training, its seed aside: settings, and those of the runs that it stands on."""
    try:
        settings = Run(folder).record.get("config") or {}
    except RunError:
        return str(folder)
    return _settings(settings, depth)


def _settings(settings: Mapping[str, Any], depth: int) -> Any:
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            kept[name] = _settings(value, depth)
        elif isinstance(value, str) and depth < _DEEPEST and name in ("model", "adapter", "train") and is_run(value):
            kept[name] = _made(Path(value), depth + 1)
        elif name not in _FREE:
            kept[name] = value
    return kept


def _hash_of_problems(stage: Stage) -> Any:
    return (stage.record.get("hashes") or {}).get("problems")


def _name(stages: Sequence[Stage]) -> str:
    """The name of one stage, or what the names of several begin with."""
    if len(stages) == 1:
        return stages[0].name
    begin = _shared_beginning([stage.name for stage in stages]).rstrip("-_. /0123456789")
    return f"{begin.removesuffix('seed').rstrip('-_. /') or stages[0].name} ({len(stages)} seeds)"


def _shared_beginning(names: Sequence[str]) -> str:
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def _means(found: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {k: fmean(each[k] for each in found) for k in found[0] if all(k in each for each in found)}
