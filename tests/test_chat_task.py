"""The task `chat`: rules of rows and files come together, verdicts say why, and all is checked before a model loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cli_setup import ramify

from ramify.base.config import Task as TaskSettings
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, DataError, TaskError
from ramify.base.records import json_line, problem_from_plain
from ramify.base.types import Message, Problem, Reason, Sample, Stop
from ramify.data.sources import read_problems, read_rows
from ramify.tasks.chat.task import Chat
from ramify.tasks.registry import load_task
from ramify.tasks.task import answer_examples, load_problems


def problem_of(*rules: Mapping[str, Any], category: str = "", answer: str | float | None = None) -> Problem:
    return Problem("p", (Message("user", "?"),), answer, source="rows.jsonl:3", category=category, rules=rules)


def sample_of(text: str, stop: Stop = Stop.EOS) -> Sample:
    return Sample("p", 4, (), (), text, stop)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def book(path: Path, text: str) -> Chat:
    path.write_text(text, encoding="utf-8")
    return Chat.from_settings(TaskSettings(name="chat", rules=path))


TWO = ({"contains": "Paris"}, {"length": {"words": {"max": 4}}})


@pytest.mark.parametrize(
    ("text", "stop", "reason", "reward"),
    [
        ("It is Paris.", Stop.EOS, Reason.CORRECT, 1.0),
        ("It is Paris", Stop.STOP_STRING, Reason.CORRECT, 1.0),
        ("It is Rome.", Stop.EOS, Reason.WRONG, 0.5),
        ("I think that it is Rome.", Stop.EOS, Reason.WRONG, 0.0),
        (" \n", Stop.EOS, Reason.NO_ANSWER, 0.0),
        ("", Stop.LENGTH, Reason.TRUNCATED, 0.0),
        ("It is", Stop.LENGTH, Reason.TRUNCATED, 0.0),
        ("It is Paris", Stop.LENGTH, Reason.TRUNCATED, 0.5),  # it may yet become too long
        ("I think that it is", Stop.LENGTH, Reason.WRONG, 0.0),  # it is too long already
    ],
)
def test_an_answer_is_judged_by_all_its_rules(text: str, stop: Stop, reason: Reason, reward: float) -> None:
    verdict = Chat().grade(problem_of(*TWO), sample_of(text, stop))
    assert (verdict.reason, verdict.reward, verdict.answer) == (reason, reward, None)
    assert (verdict.problem_id, verdict.sample_index) == ("p", 4)


def test_a_cut_off_answer_whose_rules_hold_for_good_is_correct() -> None:
    assert Chat().grade(problem_of({"contains": "Paris"}), sample_of("Paris is", Stop.LENGTH)).reason is Reason.CORRECT


def test_the_notes_name_the_rules_that_fail_with_what_was_seen() -> None:
    verdict = Chat().grade(problem_of(*TWO, {"polite": True}), sample_of("I think that it is Rome."))
    assert verdict.notes == (
        "contains Paris: 'Paris' not found",
        "length {words: {max: 4}}: 6 words",
        "polite: polite words: none",
    )


def test_a_rule_that_fails_to_run_is_an_error_and_never_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.tasks.chat.patterns.SECONDS", 0.05)
    problem = problem_of({"contains": "a"}, {"regex": "(a|aa)+$"})
    verdict = Chat().grade(problem, sample_of("a" * 200 + "b"))
    assert verdict.reason is Reason.ERROR
    assert "took more than" in verdict.notes[0]


def test_rules_of_file_category_and_row_come_together_once_each(tmp_path: Path) -> None:
    task = book(tmp_path / "rules.yaml", "every: [stops]\ntone:\n  - polite\n  - contains: Paris\nother: {regex: x}\n")
    found = task.rules_of(problem_of({"contains": "Paris"}, {"ends_with": "."}, category="tone"))
    assert [str(rule) for rule in found] == ["stops", "polite", "contains Paris", "ends_with ."]
    long = [{"regex": "x" * 70 + end} for end in ("1", "2")] + [{"regex": "a  b"}, {"regex": "a b"}]
    assert len(task.rules_of(problem_of(*long))) == 5  # what differs where it is not shown differs all the same
    assert [str(rule) for rule in task.rules_of(problem_of(category="every"))] == ["stops"]
    assert [str(rule) for rule in task.rules_of(problem_of(category="unknown"))] == ["stops"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tone: [polit]", "rules.yaml: tone[0]: unknown rule 'polit'; did you mean 'polite'?"),
        ("tone: 3", "rules.yaml: tone: a list of rules is needed, found 3"),
        ("no: [polite]", "rules.yaml: the name of a category is needed, found False"),
        ("", "rules.yaml: holds no rules"),
    ],
)
def test_a_wrong_file_of_rules_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError) as refused:
        book(tmp_path / "rules.yaml", text)
    assert message in refused.value.message


def test_a_file_of_rules_must_be_there_and_be_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Chat.from_settings(TaskSettings(name="chat", rules=tmp_path / "rules.yaml"))
    with pytest.raises(ConfigError, match="not valid YAML"):
        book(tmp_path / "rules.yaml", "tone: [")


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="task chat has none"):
        load_task(TaskSettings(name="chat", tolerance=0.1))
    with pytest.raises(ConfigError, match=r"task.rules = 'r.yaml' is read by task chat alone; task.name = math"):
        parse_config({"task": {"name": "math", "rules": "r.yaml"}})


def test_rows_hold_rules_and_a_reference(tmp_path: Path) -> None:
    rules = [{"contains": "Paris"}, "polite"]
    rows = [
        {"prompt": "Where?", "category": "tone", "rules": rules, "answer": "In Paris, please."},
        {"question": "Where?", "rules": {"contains": "Paris", "polite": True}},
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "x"}], "rules": rules},
        {"id": "mine", "system": "S", "prompt": [{"role": "user", "content": "Where?"}], "rules": []},
        {"prompt": "Where to?", "category": "tone"},
    ]
    found = read_rows(lines(tmp_path / "rows.jsonl", *rows)).problems
    written = ({"contains": "Paris"}, {"polite": True})
    assert [each.rules for each in found] == [written, written, written, (), ()]
    assert [each.answer for each in found] == ["In Paris, please.", None, "x", None, None]
    assert [each.category for each in found] == ["tone", "", "", "", "tone"]
    assert [message.role for message in found[3].prompt] == ["system", "user"]
    assert found[3].id == "mine" and len({each.id for each in found}) == 5


@pytest.mark.parametrize("rules", [3, "polite", [3], [{"a": 1, "b": 2}], [{}]])
def test_a_column_of_rules_must_be_a_list_of_them(tmp_path: Path, rules: Any) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: rules: a list of \{rule: value\} with one rule each is needed"):
        read_problems(lines(tmp_path / "rows.jsonl", {"prompt": "Where?", "rules": rules}))


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "Where?", "rules": ["polite"]}
    with pytest.raises(DataError, match="id: an id of its own"):
        read_problems(lines(tmp_path / "rows.jsonl", row, row))
    one, two = read_problems(lines(tmp_path / "rows.jsonl", {**row, "id": None}, {**row, "id": None}))
    assert two.id == f"{one.id}.2"


def test_problems_survive_a_json_line_with_their_rules() -> None:
    problem = problem_of({"contains": ["a", "b"]}, {"length": {"words": [1, 2]}})
    assert problem_from_plain(json.loads(json_line(problem))) == problem
    assert "rules" not in json.loads(json_line(problem_of()))


def test_problems_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", {"prompt": "Where?", "rules": [{"contain": "Paris"}]})
    with pytest.raises(TaskError, match=r"rows.jsonl:1: rules\[0\]: unknown rule 'contain'; did you mean 'contains'"):
        load_problems(path, Chat())
    with pytest.raises(TaskError, match="no rules to grade an answer by: the row has none, and it has no category"):
        load_problems(lines(tmp_path / "rows.jsonl", {"prompt": "Where?"}), Chat())
    with pytest.raises(TaskError, match="category 'tone' has none"):
        load_problems(lines(tmp_path / "rows.jsonl", {"prompt": "Where?", "category": "tone"}), Chat())


def test_a_category_that_is_misspelt_in_the_file_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", {"prompt": "Where?", "category": "refusals"})
    with pytest.raises(TaskError, match="category 'refusal': no problem has it; did you mean 'refusals'"):
        load_problems(path, book(tmp_path / "rules.yaml", "every: [stops]\nrefusal: [refusal]\n"))
    assert load_problems(path, book(tmp_path / "rules.yaml", "every: [stops]\nmath: [{numeric: 3}]\n"))


def test_a_reference_must_fulfil_its_own_rules(tmp_path: Path) -> None:
    row = {"prompt": "Where?", "rules": [{"contains": "Paris"}], "answer": "Rome"}
    path = lines(tmp_path / "rows.jsonl", row, {**row, "prompt": "When?"}, {**row, "answer": "Paris"})
    with pytest.raises(DataError) as refused:
        load_problems(path, Chat())
    assert refused.value.message == (
        f"{path}:1: answer: the reference answer breaks its own rules: contains Paris: 'Paris' not found (and 1 more)"
    )


def test_a_reference_is_what_is_imitated() -> None:
    (example,) = answer_examples([problem_of({"contains": "Paris"}, answer="Paris.")], Chat())
    assert example.completions[0].text == "Paris."
    assert Chat().completion(problem_of({"numeric": 4}, answer=4.0)) == "4"
    with pytest.raises(DataError, match=r"rows.jsonl:3: no reference answer to imitate"):
        answer_examples([problem_of({"contains": "Paris"})], Chat())


def test_it_has_no_problems_of_its_own() -> None:
    with pytest.raises(TaskError, match="no problems of its own"):
        Chat().problems("valid", 3)


def test_an_evaluation_says_which_rule_fails_how_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"How many grams are in {n} kg?", "category": "units"} for n in (2, 3, 4, 5)]
    problems = lines(tmp_path / "rows.jsonl", {**rows[0], "rules": [{"contains": "no such words"}]}, *rows[1:])
    rules = tmp_path / "rules.yaml"
    rules.write_text("units:\n  - length: {characters: {min: 1}}\n", encoding="utf-8")
    out = tmp_path / "eval"
    asked = ("eval", "nano", "--task", "chat", "--problems", problems, "--max-new-tokens", 8, f"task.rules={rules}")
    code, shown, _ = ramify(monkeypatch, capsys, *asked, "--out", out)
    assert code == 0
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert list(scores["rules"]) == ["contains", "length"]
    assert (scores["rules"]["contains"]["rate"]["value"], scores["rules"]["contains"]["problems"]) == (0.0, 1)
    assert (scores["rules"]["length"]["rate"]["value"], scores["rules"]["length"]["problems"]) == (1.0, 4)
    assert scores["accuracy"]["value"] == 0.75
    assert "holds" in shown and "contains" in shown
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert verdicts[0]["notes"] == ["contains no such words: 'no such words' not found"]
    rules.write_text("units:\n  - length: {characters: {min: 9999}}\n", encoding="utf-8")
    assert ramify(monkeypatch, capsys, *asked, "--out", out)[0] == 0
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert scores["accuracy"]["value"] == 0.0
