"""Prompt erasure measured four ways: what is asked of whom, and what the four figures say."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from train_setup import make_config, model_folder, pairs_file

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError
from ramify.base.records import write_json, write_jsonl
from ramify.base.runs import Run, create_run
from ramify.base.types import Message, Problem, Reason, Sample, Stop, Verdict
from ramify.cli.erasure import _show, erasure
from ramify.evaluate.compare import facts
from ramify.evaluate.erasure import NAMES, Erasure, four_ways, measure
from ramify.evaluate.run import Watcher, evaluate
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import Stage
from ramify.train import sft

__all__ = ["model_folder"]


@pytest.fixture(scope="module")
def tuned(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erasure")
    rows = pairs_file(folder / "pairs.json", rows=6)
    config = make_config(model_folder, rows, folder / "tuned", evaluate={"problems": str(rows)})
    return sft.run(config).folder


def unwatched(name: str, n: int) -> AbstractContextManager[Watcher]:
    assert name in NAMES and n == 6
    return nullcontext(lambda sample: None)


def ways(tuned: Path, out: Path, **prompt: Any) -> dict[str, RunConfig]:
    config = evaluation_config(str(tuned)).model_copy(update={"out": out})
    return four_ways(config, config.prompt.model_copy(update=prompt))


def test_each_way_is_the_evaluation_of_that_name(model_folder: Path, tuned: Path, tmp_path: Path) -> None:
    configs = ways(tuned, tmp_path / "four", system="Answer at length.")
    assert [(name, each.model, each.prompt.system) for name, each in configs.items()] == [
        ("start-with", str(model_folder), "Answer at length."),
        ("start-without", str(model_folder), None),
        ("tuned-with", str(tuned), "Answer at length."),
        ("tuned-without", str(tuned), None),
    ]
    found = measure(configs, watch=unwatched)
    for name, config in configs.items():
        alone = evaluate(config.model_copy(update={"out": None}))
        assert tuple(Stage(name, tmp_path / "four" / name).samples) == alone.samples
    assert len({tuple(stage.samples) for stage in found.stages}) == 4
    written = json.loads((tmp_path / "four" / "erasure.json").read_text(encoding="utf-8"))
    assert written["finding"] == found.headline and set(written["accuracy"]) == set(NAMES)
    report = (tmp_path / "four" / "report.html").read_text(encoding="utf-8")
    assert "Prompt erasure" in report and "the variance between seeds is not covered" in report
    assert report.count("<polyline") == 1, "one training, measured in two ways, has one curve"


def test_the_start_is_the_adapter_that_the_run_began_with(model_folder: Path, tuned: Path, tmp_path: Path) -> None:
    config = make_config(model_folder, "rows.jsonl", tmp_path / "next", adapter=str(tuned))
    create_run(tmp_path / "next", config)
    found = ways(tmp_path / "next", tmp_path / "out", fewshot="unit_conversion")
    assert found["start-with"].adapter == str(tuned) and found["tuned-with"].adapter is None
    assert found["start-with"].prompt.fewshot == "unit_conversion" and found["tuned-without"].prompt.fewshot is None


def test_a_prompt_that_was_not_erased_is_refused(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the one the run is prompted with"):
        ways(tuned, tmp_path / "out")


def test_a_result_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="nano is no run folder"):
        erasure("nano", system="Be brief.", start="nano")


def answered(folder: Path, right: range, n: int = 200) -> Stage:
    """An evaluation whose problems of these numbers were answered correctly."""
    create_run(folder, None)
    names = [str(number) for number in range(n)]
    problems = [Problem(name, (Message("user", name),), 1.0) for name in names]
    reasons = [Reason.CORRECT if number in right else Reason.WRONG for number in range(n)]
    write_jsonl(folder / "problems.jsonl", problems)
    write_jsonl(folder / "samples.jsonl", [Sample(name, 0, (1,), (0.0,), "", Stop.EOS) for name in names])
    write_jsonl(
        folder / "verdicts.jsonl", [Verdict(name, 0, 0.0, why) for name, why in zip(names, reasons, strict=True)]
    )
    write_json(folder / "scores.json", {})
    return Stage(folder.name, Run(folder).folder)


@pytest.mark.parametrize(
    ("right", "moved", "says"),
    [
        ((160, 10, 150, 130), 0.8, "The prompt is worth +75.0 (+68.6 to +80.5) points"),
        ((160, 10, 150, 11), 1 / 150, "Without the prompt no gain can be shown: +0.5"),
        ((11, 10, 150, 130), None, "It cannot be shown that the prompt helps the start model: +0.5"),
        ((10, 160, 150, 130), None, "It cannot be shown that the prompt helps the start model: −75.0"),
    ],
)
def test_what_moved_is_a_share_of_what_the_prompt_was_worth(
    right: tuple[int, ...], moved: float | None, says: str, tmp_path: Path
) -> None:
    found = Erasure(*(answered(tmp_path / name, range(n)) for name, n in zip(NAMES, right, strict=True)))
    assert found.moved == (None if moved is None else pytest.approx(moved))
    assert says in found.headline
    assert [each.paired.difference for each in found.differences.values()] == pytest.approx(
        [
            (right[0] - right[1]) / 200,
            (right[3] - right[1]) / 200,
            (right[3] - right[0]) / 200,
            (right[3] - right[2]) / 200,
        ]
    )


def test_the_terminal_says_of_a_difference_what_the_report_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six of 200 more: an interval above 0 by itself, and not shown among six comparisons."""
    right = {"start-with": range(16), "start-without": range(10), "tuned-with": range(60), "tuned-without": range(60)}
    found = Erasure(*(answered(tmp_path / name, right[name]) for name in NAMES))
    worth = found.differences["the start model with the prompt, against itself without"]
    assert worth.paired.shown and worth.paired.p < 0.05 and not worth.shown and worth.tests == 6
    assert found.moved is None and "It cannot be shown that the prompt helps" in found.headline
    _show(found)
    line = next(each for each in capsys.readouterr().out.splitlines() if each.startswith("the start model with"))
    assert line.endswith("cannot be told")
    table = facts.overall(found.comparison.contrasts)
    assert ["start-without → start-with", "cannot be told"] in [list(row[:2]) for row in table.rows]
