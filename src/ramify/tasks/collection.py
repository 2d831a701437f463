"""Graded samples on disk: written one by one as they are graded, so that a stopped run draws only what is missing.

    samples.jsonl    one `Sample` a line
    verdicts.jsonl   one `Verdict` a line, for the same (problem, index)

A sample depends on (seed, problem, index) alone, so what is drawn after an interruption is what would have been drawn
without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ramify.base.errors import RunError, TaskError
from ramify.base.records import append_jsonl, read_jsonl, sample_from_plain, verdict_from_plain, write_jsonl
from ramify.base.runs import Run
from ramify.base.types import Problem, Reason, Sample, Verdict
from ramify.tasks.task import Task

_SAMPLES, _VERDICTS = "samples.jsonl", "verdicts.jsonl"


@dataclass(frozen=True)
class Graded:
    """A sample with its verdict."""

    sample: Sample
    verdict: Verdict


@dataclass
class Collection:
    """Graded samples of a run, in memory and on disk.

    Attributes:
        run: where they are written; None: nowhere.
        graded: by problem id.
    """

    run: Run | None
    graded: dict[str, list[Graded]] = field(default_factory=dict)

    @classmethod
    def open(cls, run: Run, problems: Sequence[Problem], task: Task) -> Collection:
        """What an earlier, stopped run has left; samples without a verdict are graded again.

        Raises:
            DataError: a line that is not the last cannot be read.
            RunError: a sample belongs to none of the problems.
        """
        found = cls(run)
        by_id = {problem.id: problem for problem in problems}
        judged = [verdict_from_plain(row) for row in whole_lines(run.folder / _VERDICTS)]
        verdicts = {(each.problem_id, each.sample_index): each for each in judged}
        for sample in map(sample_from_plain, whole_lines(run.folder / _SAMPLES)):
            if sample.problem_id not in by_id:
                raise RunError(f"{run.folder / _SAMPLES}: problem {sample.problem_id!r} is not among the questions")
            verdict = verdicts.get((sample.problem_id, sample.index))
            if verdict is None:
                verdict = task.grade(by_id[sample.problem_id], sample)
                append_jsonl(run.folder / _VERDICTS, verdict)
            found.graded.setdefault(sample.problem_id, []).append(Graded(sample, verdict))
        return found

    def missing(self, problems: Iterable[Problem], indices: Sequence[int]) -> dict[str, list[int]]:
        """The indices that each problem still lacks; problems that lack none are left out."""
        lacking: dict[str, list[int]] = {}
        for problem in problems:
            have = {each.sample.index for each in self.graded.get(problem.id, ())}
            wanted = [index for index in indices if index not in have]
            if wanted:
                lacking[problem.id] = wanted
        return lacking

    def up_to(self, index: int) -> dict[str, list[Graded]]:
        """Samples with an index below this one."""
        return {name: [each for each in found if each.sample.index < index] for name, found in self.graded.items()}

    def add(self, graded: Graded) -> None:
        """Write one graded sample.

        Raises:
            RunError: it cannot be written.
        """
        if self.run is not None:
            append_jsonl(self.run.folder / _SAMPLES, graded.sample)
            append_jsonl(self.run.folder / _VERDICTS, graded.verdict)
        self.graded.setdefault(graded.sample.problem_id, []).append(graded)

    def ordered(self, problems: Sequence[Problem]) -> list[Graded]:
        """Everything, in the order of problem and index."""
        return [
            each
            for problem in problems
            for each in sorted(self.graded.get(problem.id, ()), key=lambda one: one.sample.index)
        ]

    def sort(self, problems: Sequence[Problem]) -> None:
        """Put both files into the order of problem and index, so that equal runs leave equal files."""
        if self.run is not None:
            everything = self.ordered(problems)
            write_jsonl(self.run.folder / _SAMPLES, [each.sample for each in everything])
            write_jsonl(self.run.folder / _VERDICTS, [each.verdict for each in everything])

    def check_grader(self) -> None:
        """Refuse to go on when the grader failed on every sample.

        Raises:
            TaskError: it did; with its last error.
        """
        verdicts = [each.verdict for found in self.graded.values() for each in found]
        if verdicts and all(verdict.reason is Reason.ERROR for verdict in verdicts):
            raise TaskError(f"the grader failed on all {len(verdicts)} samples: {', '.join(verdicts[-1].notes)}")


def samples_in(folder: Path) -> int:
    """How many samples lie in a folder, one that was cut off in writing not counted."""
    path = folder / _SAMPLES
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a file; a last line that was cut off in writing is removed from it.

    Raises:
        DataError: another line cannot be read.
    """
    if not path.is_file():
        return []
    _drop_torn_line(path)
    return [row for _, row in read_jsonl(path)]


def _drop_torn_line(path: Path) -> None:
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
