"""The task `grading`: letters are judged, every gold is accepted, and rows that cannot be graded are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ramify.base.config import Task as TaskSettings
from ramify.base.errors import ConfigError, DataError, TaskError
from ramify.base.types import Message, Problem, Reason, Sample, Stop
from ramify.data.sources import read_problems
from ramify.tasks.grading import Grading, gold_rating
from ramify.tasks.registry import load_task
from ramify.tasks.task import answer_examples, load_problems

OPTIONS = tuple(json.dumps({"answer": f"{letter}. Rating {letter}"}) for letter in "ABCD")


def problem_of(answer: str | float | None = "B", options: tuple[str, ...] = OPTIONS) -> Problem:
    return Problem("p", (Message("user", "?"),), answer, source="rows.jsonl:3", options=options)


def sample_of(text: str, stop: Stop = Stop.EOS) -> Sample:
    return Sample("p", 4, (), (), text, stop)


@pytest.mark.parametrize(
    ("text", "stop", "reason", "answer"),
    [
        (OPTIONS[1], Stop.EOS, Reason.CORRECT, "B"),
        ("Answer: B", Stop.EOS, Reason.CORRECT, "B"),
        (OPTIONS[0], Stop.EOS, Reason.WRONG, "A"),
        ("I cannot say", Stop.EOS, Reason.NO_ANSWER, None),
        ("I cannot say", Stop.STOP_STRING, Reason.NO_ANSWER, None),
        ("The code first", Stop.LENGTH, Reason.TRUNCATED, None),
        ('{"answer": "B. Rat', Stop.LENGTH, Reason.CORRECT, "B"),
        ("Answer: E", Stop.EOS, Reason.NO_ANSWER, None),
    ],
)
def test_a_letter_is_judged(text: str, stop: Stop, reason: Reason, answer: str | None) -> None:
    verdict = Grading().grade(problem_of(), sample_of(text, stop))
    assert (verdict.reason, verdict.answer, verdict.reward) == (reason, answer, float(reason is Reason.CORRECT))
    assert (verdict.problem_id, verdict.sample_index) == ("p", 4)


def test_how_an_answer_was_read_is_noted() -> None:
    assert Grading().grade(problem_of(), sample_of("Answer: B")).notes == ("sentence",)
    assert Grading().grade(problem_of(), sample_of("Answer: B. Answer: C")).notes == ("several_letters",)


def test_the_completion_is_the_gold_options_text() -> None:
    assert Grading().completion(problem_of("C")) == OPTIONS[2]
    assert gold_rating(problem_of("D")) == 3
    (example,) = answer_examples([problem_of("A")], Grading())
    assert example.completions[0].text == OPTIONS[0]


@pytest.mark.parametrize("answer", ["E", "b", 1.0, "A. Rating A"])
def test_a_gold_that_is_no_option_is_named(answer: str | float) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:3: answer: one of A, B, C, D is needed"):
        Grading().grade(problem_of(answer), sample_of("B"))


def test_problems_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    meta = {"lab": "lab1", "student": "0f", "criterion": "Loops", "split": "unseen student, seen lab"}
    prompt = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "Code: …"}]
    row = {"id": "g1", "prompt": prompt, "answer": "B", "options": list(OPTIONS), "category": "lab1 / Loops"}
    path.write_text(json.dumps({**row, "meta": meta}) + "\n", encoding="utf-8")
    (problem,) = load_problems(path, load_task(TaskSettings(name="grading")))
    assert (problem.options, problem.meta, problem.category) == (OPTIONS, meta, "lab1 / Loops")
    assert problem == read_problems(path)[0]
    path.write_text(json.dumps({**row, "answer": "Z"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="one of A, B, C, D is needed, found 'Z'"):
        load_problems(path, Grading())


def test_it_has_no_problems_of_its_own() -> None:
    with pytest.raises(TaskError, match="no problems of its own") as refused:
        Grading().problems("valid", 3)
    assert "evaluate.problems=FILE" in str(refused.value.hint)


def test_settings_of_numbers_are_refused() -> None:
    assert load_task(TaskSettings(name="grading")) == Grading()
    with pytest.raises(ConfigError, match=r"task\.tolerance = 0\.1"):
        load_task(TaskSettings(name="grading", tolerance=0.1))
