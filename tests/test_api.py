"""The Python interface: its documented examples, its settings, and that it loads nothing before it is used."""

from __future__ import annotations

import doctest
import inspect
import os
import pydoc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from train_setup import model_folder, pairs_file

import ramify
from ramify.base.config import LoRA, RunConfig
from ramify.base.errors import ConfigError, DataError, LengthError, ModelError, RunError
from ramify.base.runs import Run
from ramify.base.types import Message
from ramify.train import sft

__all__ = ["model_folder"]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> ramify.Model:
    return ramify.load(model_folder, dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def run(model: ramify.Model, tmp_path_factory: pytest.TempPathFactory) -> ramify.TrainedRun:
    rows = [[f"{n} kg?", 1000.0 * n] for n in range(1, 9)]
    settings = {"epochs": 1, "batch_size": 4, "chat_template": "plain", "tensorboard": False, "max_new_tokens": 4}
    out = tmp_path_factory.mktemp("runs") / "mine"
    trained: ramify.TrainedRun = ramify.train(model, rows, lora=LoRA(r=4), out=out, dtype="fp32", **settings)
    return trained


def test_importing_ramify_loads_nothing_heavy(root: Path) -> None:
    code = (
        "import ramify, sys; print(sorted({'torch', 'transformers', 'numpy', 'rich', 'pydantic'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_train_and_evaluate_are_functions_and_packages() -> None:
    import ramify.evaluate.scores
    from ramify.train import sft

    assert callable(ramify.train) and callable(ramify.evaluate)
    assert ramify.evaluate.scores.paired and sft.run
    assert set(ramify.__all__) <= set(dir(ramify))
    name = "tarin"
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        getattr(ramify, name)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_on_train_and_evaluate_is_that_of_the_functions(name: str) -> None:
    from ramify import api

    package, function = getattr(ramify, name), getattr(api, name)
    assert inspect.signature(package) == inspect.signature(function)
    shown = pydoc.plain(pydoc.render_doc(package))
    assert f"{name}(" in shown and "Args:" in shown and "overwrite: replace" in shown


def test_generate_batch_returns_a_list_or_a_list_a_prompt(model: ramify.Model) -> None:
    prompts = ["one", "two two", "three"]
    texts = model.generate_batch(prompts, max_new_tokens=6)
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
    assert [model.generate(prompt, max_new_tokens=6) for prompt in prompts] == texts
    groups = model.generate_batch(prompts, num_return_sequences=2, temperature=1.0, max_new_tokens=6)
    assert [len(group) for group in groups] == [2, 2, 2]
    assert model.generate_batch(prompts, 2, 1.0, max_new_tokens=6) == groups
    assert model.generate_batch(prompts, 2, 1.0, max_new_tokens=6, seed=1) != groups
    assert [group[0] for group in model.generate_batch(prompts, num_return_sequences=1, max_new_tokens=6)] == texts
    assert model.generate_batch([]) == []


def test_prompts_are_questions_or_conversations(model: ramify.Model) -> None:
    plain = model.generate("How many?", max_new_tokens=6)
    assert model.generate([{"role": "user", "content": "How many?"}], max_new_tokens=6) == plain
    assert model.generate([Message("user", "How many?")], max_new_tokens=6) == plain
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    assert model.generate(turns, max_new_tokens=6) != plain


def test_settings_that_do_not_exist_are_named(model: ramify.Model) -> None:
    with pytest.raises(ConfigError, match="max_new_token"):
        model.generate("x", max_new_token=3)
    with pytest.raises(ConfigError, match="temperature"):
        model.generate("x", temperature=-1)
    with pytest.raises(LengthError, match="512"):
        model.generate("x", max_new_tokens=600)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        ramify.train(model, "task", epoch=3)
    with pytest.raises(ConfigError, match="several sections: data, evaluate"):
        ramify.train(model, "task", limit=3)
    with pytest.raises(ConfigError, match="fewshots"):
        ramify.load("nano", fewshots="x")
    with pytest.raises(ModelError, match="did you mean 'nano'"):
        ramify.load("nanno")


def test_training_leaves_the_given_model_alone(model: ramify.Model, run: ramify.TrainedRun) -> None:
    before = model.generate("3 kg?", max_new_tokens=6)
    assert isinstance(run, Run) and run.record["status"] == "finished"
    assert run.record["config"]["train"]["epochs"] == 1 and run.record["config"]["lora"]["r"] == 4
    assert model.generate("3 kg?", max_new_tokens=6) == before
    assert run.folder.with_name("mine.rows.jsonl").is_file()


def test_rows_in_memory_are_written_last(model: ramify.Model, run: ramify.TrainedRun, tmp_path: Path) -> None:
    kept = run.folder.with_name("mine.rows.jsonl")
    before, other = kept.read_bytes(), [["9 kg?", 9000.0]]
    with pytest.raises(RunError, match="holds a run already"):
        ramify.train(model, other, out=run.folder)
    with pytest.raises(RunError, match="cannot resume, the run began with other rows"):
        ramify.train(model, other, out=run.folder, resume=True)
    with pytest.raises(ConfigError, match=r"train\.lr"):
        ramify.train(model, other, out=run.folder, overwrite=True, lr=-1)
    for rows, message in (
        ([["9 kg?", 9000.0], ["10 kg?", "ten"]], r"^row 2: answer: a finite number is needed, found 'ten'"),
        ([["9 kg?", {9000.0}]], r"^row 1: cannot be written as JSON: found set"),
        ([["9 kg?", float("nan")]], r"^row 1: NaN is not a number"),
        ([["\ud800", 1.0]], r"^row 1: cannot be written as JSON"),
        ([], r"^rows: the file is empty"),
    ):
        with pytest.raises(DataError, match=message):
            ramify.train(model, rows, out=run.folder, overwrite=True)
    with pytest.raises(ModelError, match="no/such"):
        ramify.train("no/such", other, out=run.folder, overwrite=True)
    assert kept.read_bytes() == before and run.adapter is not None
    with pytest.raises(ConfigError, match=r"train\.lr"):
        ramify.train(model, other, out=tmp_path / "new", lr=-1)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers(model: ramify.Model) -> None:
    rows = [["3 kg?", numpy.float32(3000)], ["4 kg?", numpy.int64(4000)]]
    found = ramify.evaluate(model, problems=rows, max_new_tokens=2)
    assert [problem.answer for problem in found.problems] == [3000.0, 4000.0]


def test_settings_that_would_be_ignored_are_refused(model: ramify.Model) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'n' \(found 3\).*num_return_sequences"):
        model.generate("x", n=3)
    with pytest.raises(ConfigError, match=r"generate gives one completion.*generate_batch"):
        model.generate("x", num_return_sequences=3)
    with pytest.raises(ConfigError, match=r"takes a list of prompts, found a text.*generate\(prompt\)"):
        model.generate_batch("text")
    with pytest.raises(ConfigError, match=r"sample.temperature is 0"):
        model.generate_batch(["x"], num_return_sequences=3)
    with pytest.raises(ConfigError, match=r"sample\.n = 0"):
        model.generate_batch(["x"], num_return_sequences=0)
    with pytest.raises(ConfigError, match=r"train\.early_stop .*data\.valid"):
        ramify.train(model, "task", early_stop=2)


def test_a_run_is_loaded_and_measured_as_it_was_trained(run: ramify.TrainedRun) -> None:
    trained = run.load()
    assert trained.prompting.chat_template == "plain"
    rows = [[f"{n} kg?", 1000.0 * n] for n in range(11, 15)]
    found = run.evaluate(problems=rows, n=3)
    assert found.n == 3 and found.folder is not None and found.folder.match(f"{run.folder.name}/eval-*")
    other = run.evaluate(problems=[["99 kg?", 99000.0]], n=3)
    assert other.folder is not None and other.folder.parent == run.folder and other.folder != found.folder
    again = ramify.evaluate(run.folder, problems=rows, n=3, out=run.folder / "eval-again")
    assert again.samples == found.samples and again.accuracy == found.accuracy


def test_a_trained_model_is_trained_on(run: ramify.TrainedRun, tmp_path: Path) -> None:
    settings = {"max_steps": 1, "tensorboard": False, "dtype": "fp32"}
    further = ramify.train(run.load(), [["9 kg?", 9000.0]], out=tmp_path / "further", **settings)
    assert further.record["config"]["model"] == str(run.folder) and str(run.folder) in further.record["parents"]
    assert further.record["config"]["prompt"]["chat_template"] == "plain"
    assert ramify.evaluate(run.load(), problems=[["3 kg?", 3000.0]], max_new_tokens=2).n == 1


def test_a_model_of_a_revision_is_trained_at_it(
    model: ramify.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RunConfig] = []

    def watch(config: RunConfig, **_: object) -> Run:
        asked.append(config)
        return Run(tmp_path)

    monkeypatch.setattr(sft, "run", watch)
    at = ramify.Model(replace(model.loaded, revision="X"), model.prompting)
    ramify.train(at, [["How many g are in 6 kg?", 6000]], out=tmp_path / "run")
    assert asked[0].revision == "X"


def test_a_loaded_model_is_measured_where_it_is(model: ramify.Model, tmp_path: Path) -> None:
    problems = pairs_file(tmp_path / "pairs.json", rows=4)
    found = ramify.evaluate(model, problems=problems, max_new_tokens=4, sample={"n": 2})
    assert (found.n, len(found.samples), found.folder) == (4, 8, None)
    with pytest.raises(DataError, match="answer"):
        ramify.evaluate(model, problems=["no answer to this"])


def test_the_documented_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify import api

    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(api, optionflags=doctest.ELLIPSIS)
    assert (failed, tried > 6) == (0, True)
