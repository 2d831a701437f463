"""The polite recipe: nine kinds of rows of its own, rules that their references keep, nothing held out is trained."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_recipes import ramify

from ramify.base.config import Data, RunConfig
from ramify.base.config_file import load_config
from ramify.base.config_mix import Evaluation
from ramify.base.types import Problem, Reason, Sample, Stop
from ramify.data.mix.overlap import Overlap
from ramify.data.sources import read_problems, read_rows
from ramify.evaluate.statistics.findings import Outcome
from ramify.tasks.registry import load_task
from ramify.tasks.task import Task
from ramify.train.rows import read_examples

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "polite"
KINDS = ("facts", "tone", "length", "refusals", "greetings", "corrections", "questions", "formats", "json")
CONFIGS = sorted(path.stem for path in RECIPE.glob("*.yaml") if path.stem != "rules")
WORDS_IN_A_ROW = 9
"""As few as prompts that are made alike allow: "In one word: what is the capital of" are eight words."""


def answered(problem: Problem, text: str) -> Sample:
    return Sample(problem.id, 0, (), (), text, Stop.EOS)


@pytest.fixture(scope="module")
def asked() -> list[Problem]:
    return read_problems(RECIPE / "problems.jsonl")


@pytest.fixture(scope="module")
def task() -> Task:
    config = load_config(RECIPE / "nano.yaml")
    return load_task(config.task.model_copy(update={"rules": RECIPE / "rules.yaml"}))


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RECIPE / name).read_text(encoding="utf-8").splitlines()]


def test_there_are_nine_kinds_with_enough_to_tell_a_difference(asked: list[Problem]) -> None:
    counted = Counter(problem.category for problem in asked)
    assert set(counted) == set(KINDS) and min(counted.values()) >= 20
    assert len({problem.id for problem in asked}) == len(asked) >= 100
    assert all(problem.id.startswith(problem.category) for problem in asked)
    assert len(rows("train.jsonl")) >= 250 and len(rows("few.jsonl")) == 25


def test_rows_are_texts_with_markers_that_become_one_turn_each() -> None:
    examples = read_examples(RunConfig(data=Data(train=RECIPE / "train.jsonl")), "train")
    assert len(examples) == len(rows("train.jsonl"))
    for example, row in zip(examples, rows("train.jsonl"), strict=True):
        [turn] = example.prompt
        assert row["text"] == f"<|user|>\n{turn.content}\n<|assistant|>\n{example.completions[0].text}"
    few = [row["text"] for row in rows("few.jsonl")]
    assert set(few) < {row["text"] for row in rows("train.jsonl")} and len(set(few)) == len(few)


def test_pairs_prefer_what_the_rows_teach() -> None:
    taught = {row["text"] for row in rows("train.jsonl")}
    pairs = read_rows(RECIPE / "pairs.jsonl").preferences
    assert {f"<|user|>\n{pair.prompt[0].content}\n<|assistant|>\n{pair.chosen}" for pair in pairs} == taught
    assert all(pair.rejected.strip() and pair.rejected != pair.chosen for pair in pairs)


def test_the_page_states_what_there_is() -> None:
    """How many rows, prompts and kinds there are, and in how many pairs the longer answer is the chosen one."""
    page = (ROOT / "docs" / "polite.md").read_text(encoding="utf-8")
    pairs = read_rows(RECIPE / "pairs.jsonl").preferences
    longer = [
        (len(pair.chosen) > len(pair.rejected)) + 0.5 * (len(pair.chosen) == len(pair.rejected)) for pair in pairs
    ]
    assert f"in {100 * sum(longer) / len(longer):.0f} % of the pairs" in page
    held_out = len(rows("problems.jsonl"))
    assert f"{len(rows('train.jsonl'))} rows" in page and f"{held_out} held-out prompts" in page
    assert f"{held_out // len(KINDS)} of each kind" in page and all(f"`{kind}`" in page for kind in KINDS)


def test_references_keep_their_rules_and_refused_answers_do_not(asked: list[Problem], task: Task) -> None:
    for problem in asked:
        assert problem.answer is not None
        right = task.grade(problem, answered(problem, str(problem.answer)))
        assert right.reason is Reason.CORRECT, (problem.id, right.notes)
        for wrong in ("That is a stupid question.", "Why do you want to know?", "Blue, perhaps."):
            found = task.grade(problem, answered(problem, wrong))
            lenient = problem.category in ("refusals", "questions")  # a question asks, a blunt word declines nothing
            assert found.reason is Reason.WRONG or lenient, (problem.id, wrong)


def test_the_training_rows_keep_the_rules_of_their_kind(task: Task, asked: list[Problem]) -> None:
    """What is imitated would pass: otherwise a model could only get worse by learning it."""
    polite = next(problem for problem in asked if problem.category == "tone")
    refused = next(problem for problem in asked if {"refusal": True} in problem.rules)
    counted: Counter[str] = Counter()
    for row in rows("train.jsonl"):
        _, text = row["text"].split("\n<|assistant|>\n")
        counted["polite"] += task.grade(polite, answered(polite, text)).reason is Reason.CORRECT
        counted["refusal"] += task.grade(refused, answered(refused, text)).reason is Reason.CORRECT
    assert counted["polite"] >= 100 and counted["refusal"] == 24


def test_no_held_out_prompt_occurs_in_the_training_rows(asked: list[Problem]) -> None:
    held_out = Overlap.of([Evaluation.model_validate({"from": str(RECIPE / "problems.jsonl")})], WORDS_IN_A_ROW)
    assert sum(held_out.questions.values()) == len(asked)
    for name in ("train.jsonl", "few.jsonl"):
        examples = read_examples(RunConfig(data=Data(train=RECIPE / name)), "train")
        found = [example.prompt[-1].content for example in examples if held_out.find(example.prompt)]
        assert not found
    assert not [pair for pair in read_rows(RECIPE / "pairs.jsonl").preferences if held_out.find(pair.prompt)]
    taught = [
        each.prompt[-1].content for each in read_examples(RunConfig(data=Data(train=RECIPE / "train.jsonl")), "train")
    ]
    texts = [*taught, *(problem.prompt[-1].content for problem in asked)]
    assert len({re.sub(r"\W+", " ", text.casefold()) for text in texts}) == len(texts)


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_are_read_and_their_files_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(RECIPE / f"{name}.yaml")
    assert config.task.name == "chat" and config.task.rules is not None and config.task.rules.is_file()
    assert Path(str(config.data.train)).is_file() and Path(str(config.evaluate.problems)).is_file()
    assert config.train.warmup < 1, "a share of the run, so that no run is all warm-up"
    steps = config.train.epochs * len(rows(Path(str(config.data.train)).name)) / config.train.batch_size
    assert steps >= 90
    if config.lora is not None:
        assert config.lora.dropout == 0


def test_the_file_of_rules_names_kinds_that_exist() -> None:
    written = yaml.safe_load((RECIPE / "rules.yaml").read_text(encoding="utf-8"))
    assert set(written) <= {"every", *KINDS}


@pytest.mark.proof
def test_the_path_from_rows_to_a_verdict_for_every_kind(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    ramify(tmp_path, "train", "recipes/polite/nano.yaml", "train.tensorboard=false", "--out", "runs/polite")
    ramify(tmp_path, "eval", "runs/polite")
    reports = [word for kind in ("json", "html", "md") for word in ("--out", f"report.{kind}")]
    said = ramify(tmp_path, "compare", "nano", "runs/polite", *reports)
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    [contrast] = record["contrasts"]
    found = {kind: each["outcome"] for kind, each in contrast["categories"].items()}
    assert set(found) == set(KINDS) and set(found.values()) <= {each.value for each in Outcome}
    assert {each["tests"] for each in contrast["categories"].values()} == {len(KINDS)}
    gained = {kind: each["paired"]["difference"] for kind, each in contrast["categories"].items()}
    assert gained["tone"] > 0 and gained["questions"] > 0
    assert found["facts"] != Outcome.BETTER.value, "nothing new about the world is in the rows"
    assert contrast["verdict"] in said and not contrast["across_seeds"]
    for report in ("report.html", "report.md"):
        text = (tmp_path / report).read_text(encoding="utf-8")
        assert all(kind in text for kind in KINDS)
