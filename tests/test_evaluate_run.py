"""Evaluations of a tiny model: what is written, what is refused before the first token, how runs are prompted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from train_setup import model_folder, pairs_file

from ramify.base.config import RunConfig, parse_config
from ramify.base.errors import ConfigError, DataError, LengthError, RunError
from ramify.base.records import write_json
from ramify.base.runs import Run, create_run
from ramify.base.types import Message, Problem
from ramify.evaluate.run import evaluate, problems_of
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import stage

__all__ = ["model_folder"]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs_file(tmp_path_factory.mktemp("data") / "pairs.json", rows=6)


def config(model: Path, problems: Path, out: Path | None = None, **sample: object) -> RunConfig:
    values = {
        "model": str(model),
        "evaluate": {"problems": str(problems)},
        "sample": {"max_new_tokens": 6, **sample},
        "train": {"dtype": "fp32", "device": "cpu"},
        "out": None if out is None else str(out),
    }
    return parse_config(values)


def test_evaluation_writes_a_folder_that_reads_back(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    found = evaluate(
        config(model_folder, problems, tmp_path / "e", n=2, temperature=1.0),
        on_sample=lambda sample: seen.append(sample.problem_id),
    )
    assert (found.n, len(found.samples), len(seen)) == (6, 12, 12)
    again = stage(tmp_path / "e")
    assert again.scores == found.scores
    assert tuple(again.problems) == found.problems and tuple(again.verdicts) == found.verdicts
    record = Run(tmp_path / "e").record
    assert (record["kind"], record["status"], record["parents"]) == ("evaluation", "finished", [str(model_folder)])
    assert set(record["hashes"]) == {"problems"}
    scores = json.loads((tmp_path / "e" / "scores.json").read_text(encoding="utf-8"))
    assert scores["accuracy"]["value"] == found.accuracy


def test_evaluation_depends_on_its_settings_alone(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems, n=2, temperature=1.0)
    first, second = evaluate(settings), evaluate(settings)
    assert first.samples == second.samples and first.folder is None
    fewer = evaluate(settings, problems=first.problems[3:])
    assert fewer.samples == first.samples[6:]


def test_evaluation_replaces_an_evaluation_and_nothing_else(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems, tmp_path / "e")
    evaluate(settings)
    evaluate(settings.model_copy(update={"seed": 1}))
    assert Run(tmp_path / "e").record["seed"] == 1
    create_run(tmp_path / "run", RunConfig())
    with pytest.raises(RunError, match="not an evaluation"):
        evaluate(config(model_folder, problems, tmp_path / "run"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(config(model_folder, problems, tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").is_file()


def test_prompts_too_long_are_refused_with_counts(model_folder: Path, problems: Path) -> None:
    with pytest.raises(LengthError, match=r"6 of 6 prompts with 510 new tokens exceed the model's 512"):
        evaluate(config(model_folder, problems, max_new_tokens=510))


def test_problems_that_cannot_be_graded_are_refused(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems)
    ask = (Message("user", "How many g in 1 kg?"),)
    with pytest.raises(DataError, match="no problems"):
        evaluate(settings, problems=[])
    with pytest.raises(DataError, match="twice"):
        evaluate(settings, problems=[Problem("a", ask, 1.0), Problem("a", ask, 2.0)])
    with pytest.raises(DataError, match="no answer"):
        evaluate(settings, problems=[Problem("a", ask)])
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "How many?"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="answer"):
        problems_of(config(model_folder, prompts))


def test_a_run_is_measured_as_it_was_trained(tmp_path: Path) -> None:
    trained = parse_config(
        {
            "method": "rft",
            "prompt": {"chat_template": "plain"},
            "task": {"tolerance": 0.01},
            "sample": {"n": 8, "temperature": 0.7, "max_new_tokens": 77},
            "seed": 5,
            "evaluate": {"limit": 30},
        }
    )
    create_run(tmp_path / "run", trained)
    found = evaluation_config(str(tmp_path / "run"))
    assert (found.model, found.out) == (str(tmp_path / "run"), tmp_path / "run" / "eval")
    assert (found.prompt, found.task, found.seed) == (trained.prompt, trained.task, 5)
    assert (found.sample.n, found.sample.temperature, found.sample.max_new_tokens) == (1, 0.0, 77)
    assert found.evaluate.limit == 30


def test_options_and_overrides_go_before_defaults() -> None:
    plain = evaluation_config("nano")
    assert (plain.evaluate.limit, plain.sample.n, plain.out) == (500, 1, Path("runs/eval-nano"))
    many = evaluation_config("nano", options={"sample.n": 4, "prompt.fewshot": "unit_conversion"})
    assert (many.sample.temperature, many.out) == (0.7, Path("runs/eval-nano-unit_conversion-k4"))
    file = evaluation_config("a/b", ["evaluate.problems=valid.json", "prompt.chat_template=plain"], {"seed": 3})
    assert (file.evaluate.limit, file.seed, file.out) == (None, 3, Path("runs/eval-b-plain-valid"))
    none = evaluation_config("nano", options={"prompt.fewshot": "none"})
    assert none.prompt.fewshot is None
    with pytest.raises(ConfigError, match="fewshots"):
        evaluation_config("nano", ["prompt.fewshots=x"])


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", [1])
    with pytest.raises(RunError, match=r"run\.json"):
        evaluation_config(str(tmp_path))
