"""Evaluations of a tiny model: what is written, what is refused before the first token, how runs are prompted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from train_setup import model_folder, pairs_file

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, DataError, LengthError, RunError
from ramify.base.records import append_jsonl, write_json
from ramify.base.runs import Run, create_run
from ramify.base.types import Message, Problem, Sample
from ramify.evaluate.folder import drawn_before
from ramify.evaluate.run import evaluate, load, problems_of
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import evaluation_folder, stage
from ramify.tasks import collection

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
    assert set(record["hashes"]) == {"problems", "prompts", "weights"}
    scores = json.loads((tmp_path / "e" / "scores.json").read_text(encoding="utf-8"))
    assert scores["accuracy"]["value"] == found.accuracy


def test_evaluation_depends_on_its_settings_alone(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems, n=2, temperature=1.0)
    first, second = evaluate(settings), evaluate(settings)
    assert first.samples == second.samples and first.folder is None
    fewer = evaluate(settings, problems=first.problems[3:])
    assert fewer.samples == first.samples[6:]


def test_evaluation_replaces_the_same_evaluation_and_nothing_else(
    model_folder: Path, problems: Path, tmp_path: Path
) -> None:
    settings = config(model_folder, problems, tmp_path / "e")
    first = evaluate(settings)
    started = (tmp_path / "e" / "run.json").stat().st_mtime_ns
    assert evaluate(settings).samples == first.samples
    assert (tmp_path / "e" / "run.json").stat().st_mtime_ns > started
    with pytest.raises(RunError, match=r"e: holds another evaluation \(seed: 42 → 1\)") as refused:
        evaluate(settings.model_copy(update={"seed": 1}))
    assert "--overwrite" in str(refused.value.hint) and "--out" in str(refused.value.hint)
    with pytest.raises(RunError, match="other problems"):
        evaluate(settings, problems=first.problems[:2])
    assert Run(tmp_path / "e").record["seed"] == 42
    evaluate(settings.model_copy(update={"seed": 1}), overwrite=True)
    assert Run(tmp_path / "e").record["seed"] == 1
    create_run(tmp_path / "run", RunConfig())
    with pytest.raises(RunError, match="not an evaluation"):
        evaluate(config(model_folder, problems, tmp_path / "run"), overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(config(model_folder, problems, tmp_path / "mine"), overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").is_file()


def test_a_file_in_the_place_of_the_folder_is_named(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="file: is a file, a folder is needed"):
        evaluate(config(model_folder, problems, tmp_path / "file"))
    with pytest.raises(RunError, match="cannot be written: "):
        evaluate(config(model_folder, problems, tmp_path / "file" / "e"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


class StopAt:
    """Raises on the sample of that number; counts all."""

    def __init__(self, number: int | None = None, error: BaseException | None = None) -> None:
        self.number, self.error, self.seen = number, error or KeyboardInterrupt(), 0

    def __call__(self, sample: Sample) -> None:
        self.seen += 1
        if self.seen == self.number:
            raise self.error


ARTEFACTS = ("problems.jsonl", "samples.jsonl", "verdicts.jsonl")


def stopped(settings: RunConfig, at: int = 5) -> Path:
    """Stop an evaluation; where its samples are."""
    assert settings.out is not None
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings, on_sample=StopAt(at))
    return settings.out.with_name(f".{settings.out.name}.new")


@pytest.mark.parametrize("at", [1, 7, 12])
def test_a_stopped_evaluation_draws_only_what_is_missing(
    at: int, model_folder: Path, problems: Path, tmp_path: Path
) -> None:
    straight = evaluate(config(model_folder, problems, tmp_path / "straight", n=2, temperature=1.0))
    settings = config(model_folder, problems, tmp_path / "e", n=2, temperature=1.0)
    draft = stopped(settings, at)
    assert Run(draft).record["status"] == "stopped" and not (tmp_path / "e").exists()
    asked = problems_of(settings)
    assert drawn_before(settings, asked) == at
    for name in ("samples.jsonl", "verdicts.jsonl"):
        with (draft / name).open("a", encoding="utf-8") as file:
            file.write('{"problem_id": "torn')
    assert drawn_before(settings, asked) == at
    rest = StopAt()
    found = evaluate(settings, on_sample=rest)
    assert rest.seen == 12 - at and drawn_before(settings, asked) == 0
    assert (found.samples, found.verdicts, found.scores) == (straight.samples, straight.verdicts, straight.scores)
    for name in ARTEFACTS:
        assert (tmp_path / "e" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert Run(tmp_path / "e").record["status"] == "finished" and not draft.exists()
    assert found.seconds == Run(tmp_path / "e").record["seconds"] > 0


def test_a_stopped_evaluation_leaves_the_finished_one_alone(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems, tmp_path / "e")
    finished = evaluate(settings)
    stopped(settings)
    assert stage(tmp_path / "e").scores == finished.scores


def test_a_full_disk_loses_nothing(
    model_folder: Path, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth sample cannot be written; with room again the call goes on from there."""
    settings = config(model_folder, problems, tmp_path / "e")
    written: list[object] = []

    def full(path: Path, row: object) -> None:
        if path.name == "samples.jsonl" and len(written) == 3:
            raise RunError(f"{path}: cannot be written: No space left on device")
        written.extend([row] if path.name == "samples.jsonl" else [])
        append_jsonl(path, row)

    with monkeypatch.context() as patch:
        patch.setattr(collection, "append_jsonl", full)
        with pytest.raises(RunError, match="No space left on device") as refused:
            evaluate(settings)
    assert "the same command goes on" in str(refused.value.hint)
    rest = StopAt()
    assert evaluate(settings, on_sample=rest).n == 6 and rest.seen == 3


def test_samples_of_another_evaluation_are_not_mixed_in(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems, tmp_path / "e")
    draft = stopped(settings)
    kept = (draft / "samples.jsonl").read_bytes()
    other = settings.model_copy(update={"seed": 1})
    assert drawn_before(other, problems_of(other)) == 0
    with pytest.raises(RunError, match=r"a stopped evaluation of something else \(seed: 42 → 1\)"):
        evaluate(other)
    with pytest.raises(RunError, match="other problems"):
        evaluate(settings, problems=problems_of(settings)[:2])
    trained = load(settings)
    with torch.no_grad():
        next(trained.network.parameters()).add_(1.0)
    with pytest.raises(RunError, match="other weights"):
        evaluate(settings, loaded=trained)
    assert (draft / "samples.jsonl").read_bytes() == kept
    rest = StopAt()
    evaluate(other, on_sample=rest, overwrite=True)
    assert rest.seen == 6


def test_settings_that_decide_nothing_do_not_refuse(model_folder: Path, problems: Path, tmp_path: Path) -> None:
    settings = config(model_folder, problems, tmp_path / "e")
    stopped(settings)
    rest = StopAt()
    evaluate(config(model_folder, problems, tmp_path / "e", live=2), on_sample=rest)
    assert rest.seen == 1


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
    assert many.sample.temperature == 0.7 and many.out is not None
    assert re.fullmatch(r"eval-nano-unit_conversion-k4-[0-9a-f]{6}", many.out.name)
    file = evaluation_config("a/b", ["evaluate.problems=valid.json", "prompt.chat_template=plain"], {"seed": 3})
    assert (file.evaluate.limit, file.seed) == (None, 3) and file.out is not None
    assert re.fullmatch(r"eval-b-plain-valid-[0-9a-f]{6}", file.out.name)
    none = evaluation_config("nano", options={"prompt.fewshot": "none"})
    assert none.prompt.fewshot is None and none.out == plain.out
    assert evaluation_config("nano", options={"evaluate.limit": 500, "sample.live": 4}).out == plain.out
    with pytest.raises(ConfigError, match="fewshots"):
        evaluation_config("nano", ["prompt.fewshots=x"])


ASKED: list[dict[str, object]] = [
    {},
    {"task.name": "math"},
    {"task.tolerance": 0.5},
    {"adapter": "runs/x"},
    {"adapter": "other/x"},
    {"prompt.system": "Be brief."},
    {"prompt.fewshot": "unit_conversion"},
    {"prompt.fewshot": "mine/unit_conversion.yaml"},
    {"prompt.chat_template": "plain"},
    {"evaluate.problems": "plain.json"},
    {"evaluate.limit": 20},
    {"seed": 7},
    {"revision": "v2"},
    {"sample.max_new_tokens": 4},
    {"sample.temperature": 1.0},
    {"sample.top_p": 0.9},
    {"sample.n": 4},
    {"sample.n": 4, "sample.temperature": 0.1},
    {"train.dtype": "bf16"},
]


def test_different_evaluations_have_different_folders(tmp_path: Path) -> None:
    create_run(tmp_path / "run", RunConfig())
    models = ("nano", "a/model", "b/model", "model", str(tmp_path / "run"))
    folders = [evaluation_config(model, options=options).out for model in models for options in ASKED]
    assert len({str(folder) for folder in folders}) == len(models) * len(ASKED)
    assert folders[-len(ASKED)] == tmp_path / "run" / "eval"
    assert all(folder is not None and folder.parent == tmp_path / "run" for folder in folders[-len(ASKED) :])


def test_a_run_without_an_evaluation_of_its_own_means_its_only_other_one(tmp_path: Path) -> None:
    create_run(tmp_path / "run", RunConfig())
    for name in ("eval-a", "eval-b"):
        write_json(tmp_path / "run" / name / "scores.json", {})
        if name == "eval-a":
            assert evaluation_folder(tmp_path / "run") == tmp_path / "run" / name
            assert stage(tmp_path / "run" / name).training == tmp_path / "run"
    with pytest.raises(RunError, match="several evaluations") as refused:
        evaluation_folder(tmp_path / "run")
    assert "eval-a" in str(refused.value.hint) and "eval-b" in str(refused.value.hint)
    write_json(tmp_path / "run" / "eval" / "scores.json", {})
    assert evaluation_folder(tmp_path / "run") == tmp_path / "run" / "eval"


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", [1])
    with pytest.raises(RunError, match=r"run\.json"):
        evaluation_config(str(tmp_path))
