"""Let a model judge two evaluations: any engine, resumable, in a folder of its own.

run.json           command, settings of the judge, hashes, the two evaluations as parents
problems.jsonl     what the judge was asked: two a pair, one for each order
samples.jsonl      what it said
verdicts.jsonl     what was read in it
judgements.jsonl   how each pair was judged, and what the grader of the task had found
judge.json         win rate, position bias, agreement with the rules; written last
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError
from ramify.base.records import to_plain, write_json, write_jsonl
from ramify.base.runs import Run
from ramify.base.types import Problem, Reason, Verdict
from ramify.evaluate.folder import check_folder, digest, drawing, open_draft, publish
from ramify.evaluate.judge.asking import (
    CRITERIA,
    Judged,
    JudgeTask,
    Order,
    Pairing,
    Preference,
    asked,
    asked_id,
    judged,
)
from ramify.evaluate.judge.scores import Judgement, judgement
from ramify.evaluate.options import sort_scores
from ramify.evaluate.run import Evaluator, Watcher, evaluator
from ramify.evaluate.stages import Stage, same_questions
from ramify.sample.endpoint.usage import Usage, accounted, usage_from
from ramify.sample.engines import free_of_cost
from ramify.tasks.collection import Collection


@dataclass(frozen=True)
class Case:
    """What is to be judged.

    Attributes:
        pairings: the first answers of both evaluations to each problem they have in common.
        criteria: a sentence on what makes an answer better.
        left_out: problems that only one of the two was asked.
    """

    before: Stage
    after: Stage
    pairings: tuple[Pairing, ...]
    criteria: str = CRITERIA
    left_out: int = 0

    @classmethod
    def of(cls, before: Stage, after: Stage, criteria: str = CRITERIA, limit: int | None = None) -> Case:
        """The case of two evaluations, or of the first `limit` problems they have in common.

        Raises:
            DataError: there is no common problem, one id means two different questions, or an answer is missing.
        """
        same_questions(before, after)
        theirs = {problem.id for problem in before.problems}
        common = [problem for problem in after.problems if problem.id in theirs]
        sides = [_first_answers(stage, common) for stage in (before, after)]
        pairings = [
            Pairing(problem, sides[0][problem.id][0], sides[1][problem.id][0], _preferred(problem, sides))
            for problem in common[:limit]
        ]
        left_out = len(before.problems) + len(after.problems) - 2 * len(common)
        return cls(before, after, tuple(pairings), criteria, left_out)

    @cached_property
    def questions(self) -> list[Problem]:
        """What the judge is asked."""
        return asked(self.pairings, self.criteria)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a judge made of a case.

    Attributes:
        judge: the model that judged.
        words: what it said, by `judge.asked_id`; None where that cannot be read.
        found: how each pairing was judged, in order.
        usage: what an endpoint was asked for it, in all calls; nothing with other engines.
    """

    judge: str
    case: Case
    words: Mapping[str, str | None]
    found: tuple[Judged, ...]
    judgement: Judgement
    usage: Usage = field(default_factory=Usage)


def rule_on(
    case: Case,
    config: RunConfig,
    folder: Path,
    *,
    judge: Evaluator | None = None,
    on_sample: Watcher | None = None,
    overwrite: bool = False,
) -> Ruling:
    """Have the model of `config` judge a case, and write the folder. What was stopped is gone on with.

    Args:
        judge: what to ask in place of the model that `config` names.
        overwrite: the folder may hold the judgement of something else, which is replaced.

    Raises:
        ConfigError: more than one sample is asked for, or a setting does nothing.
        RunError: the folder holds something else, or cannot be written.
    """
    if config.sample.n > 1:
        raise ConfigError(f"sample.n = {config.sample.n}: a judge is asked once in each order", hint="leave it out")
    config = config.model_copy(update={"out": folder})
    check_folder(folder, config, case.questions, overwrite)
    asks = replace(evaluator(config) if judge is None else judge, task=JudgeTask()) if case.questions else None
    try:
        hashes = {} if asks is None else {**asks.hashes, "prompts": digest(asks.prompts(case.questions))}
        run = open_draft(folder, config, case.questions, hashes, overwrite)
        run.update(parents=[str(case.before.folder), str(case.after.folder)])
        with drawing(run), accounted(run, free_of_cost if asks is None else asks.usage):
            words = {} if asks is None else _words(asks, config, case.questions, run, on_sample)
        ruling = replace(_ruling(config.model, case, words), usage=usage_from(run.record))
        write_jsonl(run.folder / "judgements.jsonl", _rows(ruling))
        write_json(run.folder / "judge.json", _as_plain(ruling))
        run.update(status="finished")
        publish(run, folder)
        return ruling
    finally:
        if asks is not None:
            asks.close()


def default_folder(before: Stage, after: Stage) -> Path:
    """runs/judge-BEFORE-AFTER."""
    return Path("runs") / f"judge-{Path(before.name).name}-{Path(after.name).name}"


def _words(
    judge: Evaluator, config: RunConfig, questions: Sequence[Problem], run: Run, on_sample: Watcher | None
) -> dict[str, str | None]:
    """What the judge says to each question, as far as it can be read."""
    kept = Collection.open(run, questions, judge.task)
    found = judge.measure(questions, config.sample, seed=config.seed, on_sample=on_sample, kept=kept)
    kept.sort(questions)
    sort_scores(run.folder, questions)
    return {each.problem_id: None if each.answer is None else str(each.answer) for each in found.verdicts}


def _ruling(judge: str, case: Case, words: Mapping[str, str | None]) -> Ruling:
    found = judged(case.pairings, words)
    return Ruling(judge, case, words, tuple(found), judgement(case.pairings, found, words))


def _first_answers(stage: Stage, problems: Sequence[Problem]) -> dict[str, tuple[str, Verdict]]:
    """Text and verdict of the sample with the lowest index of each problem."""
    verdicts = {(each.problem_id, each.sample_index): each for each in stage.verdicts}
    first: dict[str, tuple[str, Verdict]] = {}
    for sample in sorted(stage.samples, key=lambda each: each.index):
        verdict = verdicts.get((sample.problem_id, sample.index))
        if verdict is not None:
            first.setdefault(sample.problem_id, (sample.text, verdict))
    missing = next((problem.id for problem in problems if problem.id not in first), None)
    if missing is not None:
        raise DataError(f"{stage.folder}: problem {missing!r} has no graded answer", hint="evaluate it again")
    return first


def _preferred(problem: Problem, sides: Sequence[Mapping[str, tuple[str, Verdict]]]) -> Preference | None:
    """Which answer the task's grader prefers: the one that is correct where the other is not."""
    reasons = [side[problem.id][1].reason for side in sides]
    if Reason.ERROR in reasons:
        return None
    before, after = (reason is Reason.CORRECT for reason in reasons)
    return Preference.TIE if before is after else Preference.AFTER if after else Preference.BEFORE


def _rows(ruling: Ruling) -> list[dict[str, object]]:
    return [
        {
            "problem_id": each.problem.id,
            "category": each.problem.category,
            "judged": outcome.value,
            **{order.value: ruling.words.get(asked_id(each.problem.id, order)) for order in Order},
            "rules": None if each.rules is None else each.rules.value,
        }
        for each, outcome in zip(ruling.case.pairings, ruling.found, strict=True)
    ]


def _as_plain(ruling: Ruling) -> dict[str, object]:
    case = ruling.case
    named = {"judge": ruling.judge, "before": case.before.name, "after": case.after.name, "criteria": case.criteria}
    return {"kind": "judgement", **named, "left_out": case.left_out, **to_plain(ruling.judgement)}
