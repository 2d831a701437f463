"""Evaluated runs read back from their folders: all that a comparison or a report knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ramify.base.errors import DataError, RunError
from ramify.base.records import problem_from_plain, read_jsonl, sample_from_plain, verdict_from_plain
from ramify.base.runs import EXPORT, Run, is_run, open_run
from ramify.base.types import Problem, Sample, Verdict
from ramify.evaluate.ratings import Ratings, ratings
from ramify.evaluate.scores import Scores, score
from ramify.tasks.grading import NAME

Compared = TypeVar("Compared")


@dataclass(frozen=True)
class Stage:
    """An evaluation, the name it is reported under, and the training run it measured (None: nothing was trained).

    Everything is read when it is first asked for.
    """

    name: str
    folder: Path
    training: Path | None = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """run.json of the evaluation."""
        return open_run(self.folder).record

    @cached_property
    def problems(self) -> list[Problem]:
        """What was asked."""
        return [problem_from_plain(row) for _, row in read_jsonl(self.folder / "problems.jsonl")]

    @cached_property
    def samples(self) -> list[Sample]:
        """What the model said."""
        return [sample_from_plain(row) for _, row in read_jsonl(self.folder / "samples.jsonl")]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What the grader found."""
        return [verdict_from_plain(row) for _, row in read_jsonl(self.folder / "verdicts.jsonl")]

    @cached_property
    def scores(self) -> Scores:
        """Counted again from samples and verdicts."""
        return score(self.samples, self.verdicts)

    @cached_property
    def ratings(self) -> Ratings | None:
        """Agreement with the assistant, counted again; None when the task was not grading."""
        task = (self.record.get("config") or {}).get("task") or {}
        return ratings(self.problems, self.verdicts) if task.get("name") == NAME else None

    def metrics(self, kind: str, name: str) -> list[tuple[float, float]]:
        """(step, value) of one kind of line in the training run's metrics."""
        if self.training is None:
            return []
        rows = Run(self.training).metrics(kind)
        return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None and "step" in row]

    def artefact(self, name: str) -> dict[str, Any] | None:
        """A JSON document of the training run, or None when it wrote none of that name.

        Raises:
            RunError: it cannot be read.
        """
        if self.training is None or not (self.training / name).is_file():
            return None
        path = self.training / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        return value if isinstance(value, dict) else None


def named_stages(paths: Sequence[Path | str]) -> list[Stage]:
    """The evaluations of several runs, named by their folders: the last part, or the whole path where two agree.

    Raises:
        RunError: one has no finished evaluation.
    """
    return stages_of([(str(path), evaluation_folder(Path(path))) for path in paths])


def stages_of(evaluations: Sequence[tuple[str, Path]]) -> list[Stage]:
    """Evaluations by what their user calls them, and their folders.

    Raises:
        RunError: one of the folders holds no finished evaluation.
    """
    last = [Path(name).resolve().name for name, _ in evaluations]
    return [
        stage(folder, short if last.count(short) == 1 else name)
        for (name, folder), short in zip(evaluations, last, strict=True)
    ]


def evaluation_folder(path: Path) -> Path:
    """The folder of the evaluation that `path` means, see `find_evaluation`.

    Raises:
        RunError: there is no finished evaluation, or several and none is the run's own.
    """
    found = find_evaluation(path)
    if found is not None:
        return found
    kind = "an evaluated run" if path.exists() else "there"
    raise RunError(f"{path}: not {kind} (no scores.json)", hint=f"ramify eval {path}")


def find_evaluation(path: Path) -> Path | None:
    """The finished evaluation that `path` means: itself, the `eval` folder of a run, or its only `eval-…` one.

    Raises:
        RunError: there are several, and none is the run's own.
    """
    for folder in (path, path / "eval"):
        if (folder / "scores.json").is_file():
            return folder
    found = sorted(each.parent for each in path.glob("eval-*/scores.json")) if is_run(path) else []
    if len(found) > 1:
        raise RunError(f"{path}: has several evaluations", hint=f"choose one of {', '.join(map(str, found))}")
    return found[0] if found else None


def stage(path: Path, name: str | None = None) -> Stage:
    """The evaluation that `path` means: an evaluation folder, or a training run that was evaluated.

    Raises:
        RunError: there is none.
    """
    folder = evaluation_folder(path)
    training = path if folder != path else None
    if training is None and folder.name.split("-")[0] == "eval" and (folder.parent / "run.json").is_file():
        training = folder.parent
    return Stage(name or path.name, folder, training or _measured_run(folder))


def _measured_run(folder: Path) -> Path | None:
    """The training run that an evaluation's settings name: by its folder, its adapter, or an export made of it."""
    settings = Run(folder).record.get("config") or {} if is_run(folder) else {}
    for name in (settings.get("adapter"), settings.get("model")):
        named = Path(str(name)) if name else None
        if named is not None and named.suffix.lower() == ".gguf":
            named = _exported(named.parent)
        if named is not None and is_run(named) and Run(named).record.get("kind") != "evaluation":
            return named
    return None


def _exported(folder: Path) -> Path | None:
    """What an export was made of, as it says itself."""
    try:
        source = json.loads((folder / EXPORT).read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(source) if isinstance(source, str) else None


def same_questions(before: Stage, after: Stage) -> None:
    """Refuse two evaluations that cannot be compared.

    Raises:
        DataError: they have no problem in common, or one id means two different questions.
    """
    asked = {problem.id: problem for problem in before.problems}
    common = [problem for problem in after.problems if problem.id in asked]
    if not common:
        raise DataError(f"{before.folder} and {after.folder} have no problem in common")
    for problem in common:
        other = asked[problem.id]
        if _question(problem) != _question(other):
            raise DataError(
                f"problem {problem.id!r} of {before.folder} is another question in {after.folder}",
                hint="evaluate both on the same problems",
            )


def _question(problem: Problem) -> tuple[Any, ...]:
    """What decides how an answer to it is graded."""
    return problem.prompt[-1], problem.answer, problem.rules


def pairs_to_compare(stages: Sequence[Compared]) -> list[tuple[Compared, Compared]]:
    """All pairs of up to five; of more, each against the first and against its predecessor."""
    pairs = [(a, b) for j, b in enumerate(stages) for i, a in enumerate(stages[:j])]
    if len(stages) <= 5:
        return pairs
    near = {(id(stages[j - 1]), id(stages[j])) for j in range(1, len(stages))}
    return [(a, b) for a, b in pairs if a is stages[0] or (id(a), id(b)) in near]
