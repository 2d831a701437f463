"""Small evaluations on disk, as `ramify eval` leaves them, and the trainings they measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ramify.base.config import Data, RunConfig, Sampling
from ramify.base.records import write_json, write_jsonl
from ramify.base.runs import create_run
from ramify.base.types import Message, Problem, Reason, Sample, Stop, Verdict

LETTERS = {
    "r": Reason.CORRECT,
    "w": Reason.WRONG,
    "n": Reason.NO_ANSWER,
    "t": Reason.TRUNCATED,
    "e": Reason.ERROR,
}


def problem(number: int, categories: int = 0) -> Problem:
    """A question whose answer is its number."""
    asked = (Message("user", f"How many eggs are {number} eggs?"),)
    category = f"kind {number % categories}" if categories else ""
    return Problem(f"p{number}", asked, float(number), category=category)


def write_evaluation(
    folder: Path,
    found: Sequence[str],
    *,
    config: RunConfig | None = None,
    categories: int = 0,
    tokens: int = 2,
) -> Path:
    """An evaluation: of each problem a letter for each sample (see `LETTERS`)."""
    problems = [problem(i, categories) for i in range(len(found))]
    samples, verdicts = [], []
    for asked, letters in zip(problems, found, strict=True):
        for index, letter in enumerate(letters):
            reason = LETTERS[letter]
            text = f"{asked.answer}" if letter == "r" else f"not {asked.answer}"
            stop = Stop.LENGTH if reason is Reason.TRUNCATED else Stop.EOS
            samples.append(Sample(asked.id, index, (1,) * tokens, (0.0,) * tokens, text, stop))
            verdicts.append(Verdict(asked.id, index, float(letter == "r"), reason))
    k = max(len(letters) for letters in found)
    settings = config or RunConfig(sample=Sampling(n=k, temperature=0.7 if k > 1 else 0.0))
    return record(folder, settings, problems, samples, verdicts, hashes={"problems": f"{len(found)} {categories}"})


def record(
    folder: Path,
    config: RunConfig,
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
    hashes: Mapping[str, str] | None = None,
) -> Path:
    """The folder of a finished evaluation."""
    create_run(folder, config, hashes=hashes or {}).update(kind="evaluation", status="finished")
    for name, rows in (("problems", problems), ("samples", samples), ("verdicts", verdicts)):
        write_jsonl(folder / f"{name}.jsonl", rows)
    write_json(folder / "scores.json", {"n": len(problems)})
    return folder


def write_training(
    folder: Path, found: Sequence[str], *, seed: int = 1, rows: str | None = None, lr: float = 1e-3
) -> Path:
    """A training that was evaluated, with what run.json says of one."""
    config = RunConfig(seed=seed, out=folder, data=Data(train=rows)).model_copy()
    config = config.model_copy(update={"train": config.train.model_copy(update={"lr": lr})})
    create_run(folder, config, hashes={"data.train": "abc"}).update(
        status="finished", data={"rows": 12}, steps=7, tokens=900, trained_tokens=350.0, training_seconds=1.5
    )
    write_evaluation(folder / "eval", found, config=RunConfig(model=str(folder), seed=seed))
    return folder


def answers(right: int, n: int, *, begin: int = 0, other: str = "w") -> list[str]:
    """One letter a problem: `right` of them right, from the problem `begin` on."""
    return ["r" if begin <= i < begin + right else other for i in range(n)]
