"""Tasks: problems, grader and completion agree, and a user's own task file is loaded or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.config import Task as TaskSettings
from ramify.base.errors import DataError, TaskError
from ramify.base.types import Message, Problem, Reason, Sample, Stop
from ramify.data.sources import read_problems
from ramify.tasks.math import Math, parse_final
from ramify.tasks.registry import load_task
from ramify.tasks.task import (
    Split,
    Task,
    answer_examples,
    check_golds,
    load_problems,
)
from ramify.tasks.unit_conversion import UnitConversion


def sample_of(text: str, stop: Stop = Stop.EOS) -> Sample:
    return Sample("p", 0, (), (), text, stop)


def problem_of(answer: float | str | None, solution: str | None = None) -> Problem:
    return Problem("p", (Message("user", "?"),), answer, solution, "rows.json:3")


def reason(task: Task, answer: float | str | None, text: str) -> Reason:
    return task.grade(problem_of(answer), sample_of(text)).reason


def test_tasks_by_name_take_their_settings() -> None:
    assert load_task(TaskSettings()) == UnitConversion(tolerance=0.05, rows=1000, seed=0)
    assert load_task(TaskSettings(tolerance=0.01, rows=5, seed=3)) == UnitConversion(tolerance=0.01, rows=5, seed=3)
    assert load_task(TaskSettings(name="math")) == Math(tolerance=None)
    assert load_task(TaskSettings(name="math", tolerance=0.1)) == Math(tolerance=0.1)


def test_an_unknown_name_gets_the_nearest() -> None:
    allowed = "chat, grading, math, unit_conversion"
    with pytest.raises(TaskError, match=rf"unknown task 'maths'; did you mean 'math'\? \(allowed: {allowed}\)"):
        load_task(TaskSettings(name="maths"))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_generated_problem_accepts_its_gold_and_its_worked_chain(split: Split) -> None:
    task = UnitConversion(rows=1000)
    problems = task.problems(split, 1000)
    assert len(problems) == 1000
    check_golds(problems, task)
    for problem in problems:
        assert problem.solution is not None
        assert task.grade(problem, sample_of(problem.solution)).reason is Reason.CORRECT


def test_generated_splits_follow_seed_and_size() -> None:
    task = UnitConversion(rows=40, seed=1)
    assert len(task.problems("train")) == 40
    assert len(task.problems("valid")) == 500
    assert task.problems("train") == task.problems("train")
    assert task.problems("train") != UnitConversion(rows=40, seed=2).problems("train")
    assert len(task.problems("valid", 7)) == 7


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_both_graders_accept_every_gold(gold: float) -> None:
    check_golds([problem_of(gold)], UnitConversion())
    if gold == 0 or abs(gold) >= 0.01:
        check_golds([problem_of(round(gold, 3))], Math())
        check_golds([problem_of(gold)], Math(tolerance=0.05))


def test_unit_conversion_grades_by_tolerance() -> None:
    assert reason(UnitConversion(), 6000.0, "<answer>5,800 g") is Reason.CORRECT
    assert reason(UnitConversion(tolerance=0.01), 6000.0, "<answer>5,800 g") is Reason.WRONG
    verdict = UnitConversion().grade(problem_of(6000.0), sample_of("<answer>5,800 g"))
    assert verdict.notes == ("thousands_separator", "unit_after_number", "unclosed_tag")
    assert (verdict.answer, verdict.reward) == (5800.0, 1.0)


@pytest.mark.parametrize(
    ("text", "value", "notes"),
    [
        ("5 + 5 = 10.\n#### 10", 10.0, ()),
        ("#### 1,200", 1200.0, ("thousands_separator",)),
        ("#### $5.50 \n#### 7", 5.5, ("currency",)),
        ("#### 72!!!", 72.0, ()),
        ("#### **72**.", 72.0, ()),
        ("#### -3", -3.0, ()),
        ("####", None, ()),
        ("#### many", None, ()),
        ("so <answer>6</answer>", 6.0, ()),
        ("the answer is 6", None, ()),
    ],
)
def test_final_numbers(text: str, value: float | None, notes: tuple[str, ...]) -> None:
    parsed = parse_final(text)
    assert (parsed.value, parsed.notes) == (value, notes)


@pytest.mark.parametrize(
    ("text", "value", "notes"),
    [
        ("the answer is 6", 6.0, ("last_number",)),
        ("It costs $1,200.50.", 1200.5, ("currency", "thousands_separator", "last_number")),
        ("first 3, then 4", 4.0, ("last_number",)),
        ("from 7 to -2", -2.0, ("last_number",)),
        ("#### 5 and then 6 or 7", None, ()),
        ("<answer>5</answer> 6", 5.0, ()),
        ("none", None, ()),
    ],
)
def test_the_last_number_is_taken_only_when_asked_for(text: str, value: float | None, notes: tuple[str, ...]) -> None:
    parsed = parse_final(text, last_number=True)
    assert (parsed.value, parsed.notes) == (value, notes)


def test_math_is_exact_unless_a_tolerance_is_given() -> None:
    assert reason(Math(), 100.0, "#### 100.0") is Reason.CORRECT
    assert reason(Math(), 0.1 + 0.2, "#### 0.3") is Reason.CORRECT
    assert reason(Math(), 100.0, "#### 101") is Reason.WRONG
    assert reason(Math(tolerance=0.05), 100.0, "#### 101") is Reason.CORRECT
    assert reason(Math(), 0.0, "#### 0") is Reason.CORRECT
    assert reason(Math(), 1.0, "#### nan") is Reason.WRONG


def test_math_has_no_problems_of_its_own() -> None:
    with pytest.raises(TaskError, match=r"no problems of its own.*hint: give a file"):
        Math().problems("train")


@pytest.mark.parametrize("task", [UnitConversion(), Math()])
@pytest.mark.parametrize("answer", [None, "Paris"])
def test_a_gold_that_is_no_number_is_the_files_fault(task: Task, answer: str | None) -> None:
    with pytest.raises(DataError, match=r"rows.json:3: answer: "):
        task.grade(problem_of(answer), sample_of("#### 6"))


def test_files_of_pairs_are_checked_gold_by_gold(tmp_path: Path) -> None:
    path = tmp_path / "valid.json"
    path.write_text(json.dumps([["1 m in cm?", 99.99999999], ["0 m in cm?", 0], ["1 mm in km?", 1e-6]]))
    assert [problem.answer for problem in load_problems(path, UnitConversion())] == [99.99999999, 0.0, 1e-6]
    path.write_text("[\n" + json.dumps({"question": "?", "answer": "Paris"}) + ',\n["q", 1], "p"]')
    with pytest.raises(DataError, match=r"valid.json:2: answer: a number is needed, found 'Paris'"):
        load_problems(path, UnitConversion())


def test_problems_without_gold_cannot_be_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('["a",\n"b"]')
    with pytest.raises(
        DataError, match=r"prompts.json:1: answer: .*does not accept the gold answer None \(and 1 more\)"
    ):
        load_problems(path, UnitConversion())


def test_direct_completions_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "triples.json"
    path.write_text('[["1 m in cm?", 100, "1 m is 100 cm. <answer>100</answer>"]]')
    (example,) = answer_examples(read_problems(path), UnitConversion())
    assert (example.completions[0].text, example.source) == ("<answer>100</answer>", f"{path}:1")


@pytest.mark.parametrize("file", ["test.jsonl", "train_first3000.jsonl", "test_socratic_first600.jsonl"])
def test_the_grader_accepts_every_gsm8k_gold(shared: Path, file: str) -> None:
    path = shared / "data" / "gsm8k" / file
    if not path.is_file():
        pytest.skip("GSM8K is not in the shared data")
    problems = load_problems(path, Math())
    assert len(problems) == {"test.jsonl": 1319, "train_first3000.jsonl": 3000}.get(file, 600)
    number_only = [problem_of(problem.answer) for problem in problems]
    check_golds(number_only, Math())


def test_published_model_solutions_are_judged_as_published(shared: Path) -> None:
    """OpenAI's 6B and 175B solutions of GSM8K's test split, with their own verdict on each."""
    path = shared / "data" / "gsm8k" / "example_model_solutions.jsonl"
    if not path.is_file():
        pytest.skip("GSM8K's model solutions are not in the shared data")
    judged = agreed = 0
    task = Math(last_number=True)
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        gold = parse_final(row["ground_truth"].rsplit("A: ", 1)[1], last_number=True).value
        for entry in row.values():
            if isinstance(entry, dict):
                judged += 1
                agreed += (reason(task, gold, entry["solution"]) is Reason.CORRECT) == entry["is_correct"]
    assert judged == 4 * 1319
    assert agreed / judged > 0.99


OWN_TASK = """
from __future__ import annotations
from dataclasses import dataclass
from ramify.base.types import Message, Problem, Reason, Verdict

@dataclass
class Capitals:
    name: str = "capitals"
    fewshot: str | None = None
    system: str | None = None

    def problems(self, split, n=None):
        return [Problem("fr", (Message("user", "Capital of France?"),), "Paris")][:n]

    def grade(self, problem, sample):
        if sample.text == "crash":
            raise RuntimeError("grader broke")
        if sample.text == "leave":
            raise SystemExit(3)
        right = sample.text.strip() == problem.answer
        return Verdict(problem.id, sample.index, float(right), Reason.CORRECT if right else Reason.WRONG)

    def completion(self, problem):
        return problem.answer

task = Capitals()
"""


def own_task(folder: Path, text: str = OWN_TASK) -> Task:
    path = folder / "capitals.py"
    path.write_text(text)
    return load_task(TaskSettings(name=str(path)))


def test_a_users_task_from_a_file(tmp_path: Path) -> None:
    task = own_task(tmp_path)
    assert (task.name, task.fewshot, task.system) == ("capitals", None, None)
    (problem,) = task.problems("valid", None)
    check_golds([problem], task)
    assert task.grade(problem, sample_of("Lyon")).reason is Reason.WRONG
    assert [each.completions[0].text for each in answer_examples([problem], task)] == ["Paris"]


def test_a_grader_that_fails_is_a_reason_not_a_wrong_answer(tmp_path: Path) -> None:
    task = own_task(tmp_path)
    (problem,) = task.problems("valid", 1)
    verdict = task.grade(problem, sample_of("crash"))
    assert (verdict.reason, verdict.notes) == (Reason.ERROR, ("RuntimeError: grader broke",))
    verdict = task.grade(problem, sample_of("leave"))
    assert (verdict.reason, verdict.notes) == (Reason.ERROR, ("SystemExit: 3",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"capitals.py: defines no `task` \(hint: end the file with: task = MyTask\(\)\)"),
        ("", r"capitals.py: defines no `task`"),
        ("def f(:\n", r"capitals.py:1: SyntaxError: "),
        ("import absent_module_of_mine\n", r"capitals.py:1: ModuleNotFoundError: No module named"),
        ("x = 1\ny = x / 0\n", r"capitals.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')", r"capitals.py:1: SystemExit: no"),
        ("class A: pass\ntask = A", r"capitals.py: `task` is the class A \(hint: write: task = A\(\)\)"),
        (
            "class A:\n  name = 'a'\ntask = A()",
            r"`task` lacks fewshot, system, problems\(\), grade\(\), completion\(\)",
        ),
        (OWN_TASK.replace("def grade", "def grad"), r"`task` lacks grade\(\) \(hint: a task has name, "),
    ],
)
def test_a_broken_task_file_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        own_task(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_missing_task_file_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"absent.py: no such file \(hint: it must define `task`\)"):
        load_task(TaskSettings(name=str(tmp_path / "absent.py")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return problem.answer", "return problem.anser", r"capitals.py:\d+: completion: AttributeError"),
        ("return problem.answer", "raise SystemExit(3)", r"capitals.py:\d+: completion: SystemExit: 3"),
        ("return [Problem(", "exit(3) or [(", r"capitals.py:\d+: problems: SystemExit: 3"),
        ("return problem.answer", "return 6", r"capitals.py: completion must return a text, not int"),
        ("return Verdict(", "return tuple((", r"capitals.py: grade must return a Verdict, not tuple"),
        ("return [Problem(", "return [str(", r"capitals.py:\d+: problems: TypeError"),
        ("return [Problem(", "return 'ab' or [(", r"capitals.py: problems must return Problem objects, not str"),
    ],
)
def test_a_users_faulty_method_gets_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = OWN_TASK.replace(old, new)
    if "tuple((" in new:
        text = text.replace("Reason.WRONG)", "Reason.WRONG))")
    task = own_task(tmp_path, text)
    with pytest.raises(TaskError, match=message):
        check_golds(task.problems("valid", None), task)
