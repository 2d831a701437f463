"""Supervised fine-tuning from files to a run folder: what is read, refused, reported and written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_setup import Watcher, make_config, model_folder, pairs_file, tiny_folder

from ramify.base.config import RunConfig
from ramify.base.config_file import load_config
from ramify.base.errors import ConfigError, DataError, LengthError, ModelError
from ramify.base.types import Completion, Example, Message
from ramify.model.load import load_model
from ramify.model.logprobs import sequence_logprobs
from ramify.prompts.renderer import Renderer
from ramify.tasks.registry import load_task
from ramify.train import sft
from ramify.train.dryrun import dry_run
from ramify.train.rows import leaks, read_examples
from ramify.tree.pack import pack

__all__ = ["model_folder"]


def example(question: str, source: str = "") -> Example:
    return Example((Message("user", question),), (Completion("x"),), source)


def rows_of(tmp_path: Path, rows: list[Any]) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def trained_text(config: RunConfig) -> list[tuple[str, str]]:
    return [(each.prompt[-1].content, each.completions[0].text) for each in read_examples(config, "train")]


def test_pairs_get_the_task_s_answer_and_triples_their_reasoning(model_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [["6 kg in g?", 5999.999999999999], ["2 m in cm?", 200, "2*100 <answer>200</answer>"]])
    config = make_config(model_folder, rows, tmp_path / "run")
    assert sorted(trained_text(config)) == [
        ("2 m in cm?", "2*100 <answer>200</answer>"),
        ("6 kg in g?", "<answer>6000</answer>"),
    ]
    assert len(read_examples(make_config(model_folder, rows, tmp_path / "run", data={"limit": 1}), "train")) == 1


def test_the_task_s_own_rows(model_folder: Path, tmp_path: Path) -> None:
    config = make_config(model_folder, "task", tmp_path / "run", data={"valid": "task"}, task={"rows": 7})
    train, valid = read_examples(config, "train"), read_examples(config, "valid")
    assert len(train) == 7 and len(valid) == 200
    assert not leaks(train, valid)
    measured = load_task(config.task).problems("valid", config.evaluate.limit)
    assert len(measured) == 500 and not leaks([Example(each.prompt, ()) for each in measured], valid)
    assert all(each.completions[0].text.startswith("<answer>") for each in train)


def test_choosing_on_the_measured_questions_is_said(model_folder: Path, tmp_path: Path) -> None:
    valid = str(pairs_file(tmp_path / "v.json", 3, start=50))
    for measured, told in ((valid, True), ("task", False)):
        sections = {"data": {"valid": valid}, "evaluate": {"problems": measured}}
        config = make_config(model_folder, pairs_file(tmp_path / "t.json", 3), tmp_path / "run", **sections)
        notes = dry_run(config).notes
        assert any("3 validation questions are also those of `ramify eval`" in note for note in notes) is told


def test_the_trained_sequence_is_question_space_answer_and_stop(model_folder: Path, tmp_path: Path) -> None:
    config = make_config(model_folder, rows_of(tmp_path, [["6 kg in g?", 6000.0]]), tmp_path / "run")
    loaded = load_model(str(model_folder), dtype="fp32", device="cpu")
    renderer = Renderer(loaded.tokenizer, config.prompt, stop_ids=loaded.stop_ids)
    (sequence,) = renderer.sequences(read_examples(config, "train")[0])
    assert loaded.tokenizer.decode(sequence.ids) == "6 kg in g? <answer>6000</answer><|im_end|>"
    trained = [token for token, weight in zip(sequence.ids, sequence.weights, strict=True) if weight]
    assert loaded.tokenizer.decode(trained) == " <answer>6000</answer><|im_end|>"


def test_a_run_leaves_its_account_and_events(model_folder: Path, tmp_path: Path) -> None:
    rows, valid = pairs_file(tmp_path / "t.json"), pairs_file(tmp_path / "v.json", 3, start=11)
    sections = {"data": {"valid": str(valid)}, "train": {"tensorboard": True, "eval_every": 2}}
    watcher = Watcher()
    run = sft.run(make_config(model_folder, rows, tmp_path / "run", **sections), progress=watcher)
    record = run.record
    assert record["status"] == "finished" and record["steps"] == 6 and record["seconds"] > 0
    assert record["saved_tokens"] == record["tokens"] - record["computed_tokens"] >= 0
    assert record["data"]["leaked"] == 2 and any("2 of 3 validation questions" in note for note in watcher.notes)
    assert any("only 6 steps" in note for note in watcher.notes)
    assert watcher.stages == [("training", 6, 0)] and watcher.closed == 1
    assert [done for done, _ in watcher.updates] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "tokens_per_second"} <= set(watcher.updates[0][1])
    evals = run.metrics("eval")
    assert [row["step"] for row in evals] == [0, 2, 4, 6]
    assert record["best"]["loss"] == min(row["loss"] for row in evals[1:])
    events = EventAccumulator(str(run.folder)).Reload()
    assert {"train/loss", "train/lr", "eval/loss"} <= set(events.Tags()["scalars"])
    assert [each.value for each in events.Scalars("train/loss")] == pytest.approx(
        [row["loss"] for row in run.metrics("train")]
    )


def test_load_best_ends_with_the_best_step(model_folder: Path, tmp_path: Path) -> None:
    """The weights are spoiled after step 4 of 6: the run ends with those of an earlier step, whose loss they have."""
    rows = pairs_file(tmp_path / "t.json")
    train = {"eval_every": 1, "keep": 1}
    config = make_config(model_folder, rows, tmp_path / "run", data={"valid": str(rows)}, train=train)
    loaded = load_model(str(model_folder), dtype="fp32", device="cpu")

    class Spoiler(Watcher):
        def update(self, done: int, **values: float) -> None:
            if done == 4:
                with torch.no_grad():
                    for name, each in loaded.network.named_parameters():
                        each.add_(0.5 if "lora_" in name else 0.0)

    run = sft.run(config, progress=Spoiler(), loaded=loaded)
    losses = {row["step"]: row["loss"] for row in run.metrics("eval")}
    best = min((step for step in losses if step), key=lambda step: losses[step])
    assert run.record["used_step"] == best < 4
    assert sorted(path.name for path in run.folder.glob("checkpoint-*")) == [f"checkpoint-{best}", "checkpoint-6"]
    again = load_model(str(run.folder), dtype="fp32", device="cpu")
    renderer = Renderer(again.tokenizer, config.prompt, stop_ids=again.stop_ids)
    sequences = [one for each in read_examples(config, "valid") for one in renderer.sequences(each)]
    with torch.no_grad():
        logprobs = sequence_logprobs(again.network, pack(sequences))
    assert -float(logprobs.sum()) / sum(each.trained for each in sequences) == pytest.approx(losses[best], abs=1e-5)


def test_long_rows_are_refused_with_counts_or_left_out(model_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [["short?", 1.0], ["long " * 30, 2.0], ["longer " * 30, 3.0]])
    message = r"2 of 3 sequences are longer than 100 tokens; the longest has \d+ \(.*rows\.json:1\)"
    with pytest.raises(LengthError, match=message):
        sft.run(make_config(model_folder, rows, tmp_path / "run", data={"max_length": 100}), progress=Watcher())
    assert not (tmp_path / "run").exists()
    watcher = Watcher()
    config = make_config(model_folder, rows, tmp_path / "run", data={"max_length": 100, "drop_long": True})
    run = sft.run(config, progress=watcher)
    assert run.record["data"]["too_long"] == 2 and run.record["data"]["rows"] == 1
    assert any("2 training sequences were too long" in note for note in watcher.notes)


def test_the_model_s_own_limit_holds(model_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [["word " * 120, 1.0]])
    with pytest.raises(LengthError, match="1 of 1 sequences are longer than 512"):
        sft.run(make_config(model_folder, rows, tmp_path / "run"), progress=Watcher())
    with pytest.raises(ConfigError, match="max_length = 513: the model allows 512"):
        sft.run(make_config(model_folder, rows, tmp_path / "run", data={"max_length": 513}), progress=Watcher())
    with pytest.raises(DataError, match="no row is left"):
        config = make_config(model_folder, rows, tmp_path / "run", data={"drop_long": True})
        sft.run(config, progress=Watcher())


def test_rows_past_the_length_where_embeddings_rescale_are_refused_before_a_run_folder(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10000.0}
    model = tiny_folder(tmp_path / "m", rope_parameters={**rope, "original_max_position_embeddings": 100, "factor": 4})
    rows = rows_of(tmp_path, [["short?", 1.0], ["long " * 30, 2.0]])
    with pytest.raises(LengthError, match="1 of 2 sequences are longer than 100"):
        sft.run(make_config(model, rows, tmp_path / "run"), progress=Watcher())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"data": {"train": None}}, ConfigError, r"data\.train is not set"),
        ({"data": {"train": "missing.json"}}, DataError, r"missing\.json: no such file"),
        ({"lora": {"targets": ["q_prj"]}}, ModelError, "unknown layer 'q_prj'; did you mean 'q_proj'"),
        ({"prompt": {"chat_template": "chatml2"}}, ConfigError, "did you mean 'chatml'"),
    ],
)
def test_bad_settings_make_no_folder(
    sections: dict[str, Any], error: type[Exception], message: str, model_folder: Path, tmp_path: Path
) -> None:
    config = make_config(model_folder, pairs_file(tmp_path / "t.json", 2), tmp_path / "run", **sections)
    with pytest.raises(error, match=message):
        sft.run(config, progress=Watcher())
    assert not (tmp_path / "run").exists()


def test_an_unknown_model_makes_no_folder(tmp_path: Path) -> None:
    config = make_config(Path("nan0"), pairs_file(tmp_path / "t.json", 2), tmp_path / "run")
    for run in (sft.run, dry_run):
        with pytest.raises(ModelError, match="did you mean 'nano'"):
            run(config)
    assert not (tmp_path / "run").exists()


def test_rows_without_answers_cannot_be_imitated(model_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "What?", "completion": "That."}\n{"prompt": "How?"}\n')
    with pytest.raises(DataError, match=r"1 of 2 rows hold nothing to imitate: no answer \(first: .*rows.jsonl:2\)"):
        sft.run(make_config(model_folder, rows, tmp_path / "run"), progress=Watcher())


def test_no_row_of_a_mixed_file_is_left_out(tmp_path: Path) -> None:
    """A solution is imitated, a bare number is put into words by the task, a completion is taken as it is."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"id": "a", "prompt": "A?", "answer": 6, "solution": "2*3 <answer>6</answer>"}\n'
        '{"id": "b", "prompt": "B?", "answer": 7}\n'
        '{"prompt": "C?", "completion": "See."}\n'
    )
    found = read_examples(load_config(None, [f"data.train={rows}"]), "train")
    texts = {each.prompt[0].content: each.completions[0].text for each in found}
    assert texts == {"A?": "2*3 <answer>6</answer>", "B?": "<answer>7</answer>", "C?": "See."}
    first = read_examples(load_config(None, [f"data.train={rows}", "data.limit=2"]), "train")
    assert {each.prompt[0].content for each in first} == {"A?", "B?"}


def test_leaks_ignore_white_space_and_case() -> None:
    known = [example("How many  grams?"), example("b")]
    found = leaks(known, [example("how many grams?", "v:1"), example("c", "v:2")])
    assert [each.source for each in found] == ["v:1"]


def test_a_foreign_template_s_tokens_are_added_trained_and_saved(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 4)
    config = make_config(model_folder, rows, tmp_path / "run", prompt={"chat_template": "llama3"})
    run = sft.run(config, progress=Watcher())
    before = load_model(str(model_folder), dtype="fp32", device="cpu")
    after = load_model(str(run.folder), dtype="fp32", device="cpu")
    stop = after.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert stop >= len(before.tokenizer) and stop in after.stop_ids and after.tokenizer.eos_token == "<|eot_id|>"
    renderer = Renderer(after.tokenizer, load_config(None).prompt, stop_ids=after.stop_ids)
    assert renderer.stop_id == stop
    saved = (run.folder / "adapter" / "adapter_config.json").read_text()
    assert json.loads(saved)["trainable_token_indices"]


def test_training_goes_on_from_an_adapter(model_folder: Path, tmp_path: Path) -> None:
    """Two runs in a row: the second starts with the loss that the first ended with, and names its parent."""
    rows = pairs_file(tmp_path / "t.json", 4)
    data = {"valid": str(rows)}
    first = sft.run(make_config(model_folder, rows, tmp_path / "one", data=data), progress=Watcher())
    config = make_config(model_folder, rows, tmp_path / "two", data=data, adapter=str(first.folder))
    second = sft.run(config, progress=Watcher())
    assert second.metrics("eval")[0]["loss"] == pytest.approx(first.record["best"]["loss"], abs=1e-6)
    assert second.record["parents"] == [str(first.folder)]
    assert first.adapter is not None
    with pytest.raises(ConfigError, match=r"lora is null, but .* has an adapter"):
        sft.run(config.model_copy(update={"lora": None, "out": tmp_path / "three"}), progress=Watcher())


def test_an_adapter_s_own_settings_are_kept_and_said(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 4)
    one = {"lora": {"r": 2, "alpha": 8, "targets": ["q_proj", "down_proj"]}, "train": {"epochs": 1}}
    first = sft.run(make_config(model_folder, rows, tmp_path / "one", **one), progress=Watcher())
    start = {"adapter": str(first.folder), "train": {"epochs": 1}}
    everything = {"r": 2, "alpha": 8}
    for number, (lora, told) in enumerate(((one["lora"], False), (everything, True), ({"r": 2, "alpha": 9}, True))):
        watcher = Watcher()
        config = make_config(model_folder, rows, tmp_path / f"two{number}", **start, lora=lora)
        run = sft.run(config, progress=watcher)
        said = "the adapter's own settings are kept (r 2, alpha 8); lora.* is not used"
        assert (said in watcher.notes) is told
        saved = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
        assert saved["r"] == 2 and saved["lora_alpha"] == 8
    whole = make_config(model_folder, rows, tmp_path / "whole", lora=everything, train={"epochs": 1})
    watcher = Watcher()
    start["adapter"] = str(sft.run(whole, progress=Watcher()).folder)
    sft.run(make_config(model_folder, rows, tmp_path / "again", **start, lora=everything), progress=watcher)
    assert not any("lora" in note for note in watcher.notes)


def test_tokens_that_an_adapter_would_not_train_are_refused(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 4)
    first = sft.run(make_config(model_folder, rows, tmp_path / "one", train={"epochs": 1}), progress=Watcher())
    foreign = {"prompt": {"chat_template": "llama3"}, "adapter": str(first.folder)}
    config = make_config(model_folder, rows, tmp_path / "two", **foreign)
    message = r"prompt.chat_template = 'llama3' adds <\|start_header_id\|>, .*, which the adapter .*one does not train"
    for run in (sft.run, dry_run):
        with pytest.raises(ConfigError, match=message):
            run(config)
    assert not (tmp_path / "two").exists()
    own = make_config(model_folder, rows, tmp_path / "three", prompt={"chat_template": "llama3"}, train={"epochs": 1})
    foreign["adapter"] = str(sft.run(own, progress=Watcher()).folder)
    on = make_config(model_folder, rows, tmp_path / "four", **foreign, train={"epochs": 1})
    assert sft.run(on, progress=Watcher()).adapter is not None  # the template it was trained with


def test_a_loaded_model_is_trained_in_place(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 4)
    loaded = load_model(str(model_folder), dtype="fp32", device="cpu")
    given = sft.run(make_config(model_folder, rows, tmp_path / "given"), progress=Watcher(), loaded=loaded)
    fresh = sft.run(make_config(model_folder, rows, tmp_path / "fresh"), progress=Watcher())
    assert [row["loss"] for row in given.metrics("train")] == [row["loss"] for row in fresh.metrics("train")]


def test_without_tensorboard_a_run_says_so_and_goes_on(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails, as when it is missing
    config = make_config(
        model_folder, pairs_file(tmp_path / "t.json", 2), tmp_path / "run", train={"tensorboard": True}
    )
    watcher = Watcher()
    assert sft.run(config, progress=watcher).record["status"] == "finished"
    assert any("tensorboard is not installed" in note for note in watcher.notes)


RECIPES = sorted((Path(__file__).resolve().parent.parent / "recipes" / "unit-conversion").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_dry_runs_on_nano(recipe: Path) -> None:
    config = load_config(recipe, ["model=nano", "task.rows=20", "evaluate.limit=10"])
    found = dry_run(config)
    assert found.rows == 20 and 0 < found.longest < 1024 and found.tokens > 20
    if config.method == "rft":
        assert found.samples == 20 * config.sample.n * config.select.rounds
    else:
        assert found.steps == config.train.epochs
    assert recipe.read_text().startswith("# ")


def test_a_dry_run_counts_what_the_run_does(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json")
    config = make_config(model_folder, rows, tmp_path / "run", prompt={"chat_template": "chatml"})
    found = dry_run(config)
    run = sft.run(config, progress=Watcher())
    facts = run.record["data"]
    assert (found.rows, found.tokens, found.longest) == (facts["rows"], facts["tokens_per_epoch"], facts["longest"])
    assert found.steps == run.record["steps"]
    sampling = config.sample.model_copy(update={"max_new_tokens": 600})
    with pytest.raises(LengthError, match=r"the longest prompt has .* the model allows 512"):
        dry_run(config.model_copy(update={"method": "rft", "sample": sampling}))
