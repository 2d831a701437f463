"""Ratings in the report and in `ramify compare`: measures, groups, matrices and costs, escaped and fitting a phone."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from test_cli import Ramify, ramify
from test_evaluate_report import NASTY, Page, write_evaluation
from test_report_page import check_page

from ramify.base.config_file import parse_config
from ramify.base.records import write_json, write_jsonl
from ramify.base.runs import create_run
from ramify.base.types import Message, Problem, Sample, Stop
from ramify.evaluate.compare.comparison import compare_stages
from ramify.evaluate.ratings import ratings
from ramify.evaluate.report.rating_tables import measures
from ramify.evaluate.report.write import render, write_report
from ramify.evaluate.stages import Stage, named_stages, stage
from ramify.tasks.grading import Grading

__all__ = ["ramify"]

LABS = ("lab01 sums and products", f"lab02 {NASTY}")
CRITERIA = {"Correctness of the loop": "ABCD", "Naming": "ABC", "Comments": "AB"}


def grading_problems() -> list[Problem]:
    found = []
    for lab in LABS:
        for criterion, letters in CRITERIA.items():
            for number in range(20):
                options = tuple(json.dumps({"answer": f"{letter}. {NASTY}"}) for letter in letters)
                prompt = (Message("user", f"Code: int main() {{}} {NASTY}\n" * 30),)
                meta = {"lab": lab, "criterion": criterion, "student": f"{number}"}
                meta["split"] = "unseen student, seen lab" if lab == LABS[0] else "unseen student, unseen lab"
                name, gold = f"{lab}/{criterion}/{number}", letters[number * 7 % len(letters)]
                found.append(Problem(name, prompt, gold, category=f"{lab} / {criterion}", options=options, meta=meta))
    return found


def write_grading(folder: Path, skill: float, usable: float = 0.9) -> Path:
    """An evaluation whose answers are right with that chance."""
    draw, task, samples = random.Random(skill), Grading(), []
    problems = grading_problems()
    for problem in problems:
        right = draw.random() < skill
        text = task.completion(problem) if right else draw.choice(problem.options)
        text = text if draw.random() < usable else f"no idea {NASTY}"
        samples.append(Sample(problem.id, 0, (1, 2, 3), (0.0,) * 3, text, Stop.EOS))
    verdicts = [task.grade(problem, sample) for problem, sample in zip(problems, samples, strict=True)]
    run = create_run(folder, parse_config({"task": {"name": "grading"}, "evaluate": {"problems": "test.jsonl"}}))
    run.update(kind="evaluation", status="finished")
    for name, rows in (("problems", problems), ("samples", samples), ("verdicts", verdicts)):
        write_jsonl(folder / f"{name}.jsonl", rows)
    write_json(folder / "scores.json", {"n": len(problems)})
    return folder


def write_training(folder: Path, **costs: Any) -> Path:
    run = create_run(folder, parse_config({"method": "sft"}))
    for step in range(1, 20):
        run.log("train", step=step, loss=2.0 / step)
    run.update(status="finished", **costs)
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    root = tmp_path_factory.mktemp("grading")
    sft = write_training(root / "sft", training_seconds=61.24, computed_tokens=123456, saved_tokens=98765)
    dpo = write_training(
        root / "dpo",
        data_seconds=1.5,
        reference_seconds=12.0,
        training_seconds=88.0,
        computed_tokens=222222,
        saved_tokens=3333333,
    )
    write_grading(sft / "eval", 0.6)
    write_grading(dpo / "eval", 0.7)
    folders = [write_grading(root / "base", 0.05, usable=0.4), write_grading(root / "few-shot", 0.3), sft, dpo]
    return named_stages(folders)


def test_the_report_shows_every_measure_of_every_stage(stages: list[Stage]) -> None:
    html = render(compare_stages(stages))
    page = Page(html)
    assert page.open == [] and not page.references and "script" not in page.tags
    for each in stages:
        assert each.ratings is not None
        for figure in measures(each.ratings.overall):
            assert f">{figure}<" in html
    for part in ("By lab and criterion", "By lab", "By criterion", "By split", "unusable", LABS[1], NASTY):
        assert part in page.text
    assert html.count("<table class='matrix'>") == 4 * len(CRITERIA)
    assert "Accuracy and kappa by group" in page.text


def test_matrices_hold_the_counts(stages: list[Stage]) -> None:
    found = ratings(stages[0].problems, stages[0].verdicts).overall.confusions
    html = render(compare_stages(stages[:2]))
    plain = re.sub(r"<td( class='hit')?( style='background:rgba\(42,111,151,0\.\d\d\)')?>", "<td>", html)
    for each in found:
        for letter, counts in zip(each.ratings, each.counts, strict=True):
            assert f"<tr><th>{letter}</th>{''.join(f'<td>{count}</td>' for count in counts)}</tr>" in plain
    assert html.count("class='hit'") == 2 * sum(len(each.ratings) for each in found)


def test_what_training_cost_is_shown_where_it_is_known(stages: list[Stage]) -> None:
    text = Page(render(compare_stages(stages))).text
    for part in ("data loading", "1.5 s", "reference", "12.0 s", "61.2 s", "88.0 s", "123,456", "3,333,333", "–"):
        assert part in text
    assert "data loading" not in Page(render(compare_stages(stages[:2]))).text


def test_tasks_without_ratings_show_none(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, right={1, 2}) for name in ("a", "b")]
    html = render(compare_stages(named_stages(folders)))
    assert "Agreement" not in html and "class='matrix'" not in html
    assert stage(folders[0]).ratings is None


def test_compare_prints_the_measures(ramify: Ramify, stages: list[Stage], tmp_path: Path) -> None:
    done = ramify("compare", *(each.training or each.folder for each in stages), "--out", tmp_path / "report.html")
    assert done.code == 0
    assert all(each.ratings is not None for each in stages)
    for word in ("kappa", "unusable", "most frequent", "few-shot"):
        assert word in done.out
    assert "Agreement with the assistant" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_fits_its_window(chromium: str, stages: list[Stage], tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", compare_stages(stages, title="Grading two labs"))
    check_page(chromium, tmp_path / "report.html", tmp_path)
