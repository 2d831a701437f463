"""Preference optimisation: sharing changes nothing, the reference is the right one, resumed equals straight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file
from typer.testing import CliRunner

import ramify
from ramify.base.config import DPO, RunConfig
from ramify.base.errors import ConfigError, DataError, ModelError, TrainingError
from ramify.base.runs import Run, open_run
from ramify.cli.main import app
from ramify.model.load import load_model
from ramify.model.quantize import is_quantised
from ramify.train import dpo, sft
from ramify.train.dryrun import dry_run
from ramify.train.pairs import PairSet, read_preferences, render_pairs
from ramify.train.preference import Preference, Reference
from ramify.train.prepare import prepare
from ramify.train.reference import compute_references

__all__ = ["model_folder"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return preferences_file(tmp_path / "t.jsonl")


def configured(model: Path, rows: Path, out: Path, **sections: Any) -> RunConfig:
    return make_config(model, rows, out, method="dpo", **sections)


def result(run: Run) -> dict[str, torch.Tensor]:
    """The trained weights at the end of a run."""
    [file] = [*run.folder.glob("adapter/adapter_model.safetensors"), *run.folder.glob("model/model.safetensors")]
    return load_file(str(file))


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def measured(run: Run) -> list[dict[str, Any]]:
    """Lines of metrics without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in run.metrics()]


def logprobs_apart(network: Any, pairs: PairSet) -> Reference:
    """Every sequence in a padded-free forward pass of its own, through the model's own head."""
    sums: list[float] = []
    for sequence in pairs.sequences():
        ids = torch.tensor([sequence.ids])
        with torch.no_grad():
            scores = torch.log_softmax(network(input_ids=ids).logits[0, :-1].double(), -1)
        picked = scores[torch.arange(len(sequence.ids) - 1), ids[0, 1:]]
        sums.append(float(picked @ torch.tensor(sequence.weights[1:], dtype=torch.float64)))
    return Reference(*np.split(np.array(sums, np.float32), 2))


def test_sharing_changes_neither_loss_nor_gradient(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    """All pairs in one tree, in a few, and each pair alone: the same loss and gradients within 1e-5."""
    config = configured(model_folder, rows, tmp_path / "run", lora=None)
    prepared = prepare(config)
    network = prepared.loaded.network
    pairs = render_pairs(config, prepared.renderer, 512, read_preferences(config, "train"), ()).train
    apart = logprobs_apart(network, pairs)
    shifted = Reference(apart.chosen - 2, apart.rejected + 1)
    objective = Preference(pairs, shifted, DPO(sft_weight=0.1))
    losses, gradients, counts = {}, {}, {}
    for tokens in (8192, 120, 1):
        parts = objective.micro_batches(range(len(pairs)), tokens)
        counts[tokens] = len(parts)
        losses[tokens] = 0.0
        for part in parts:
            share = objective.share(network, part, objective.divisor(range(len(pairs))))
            share.loss.backward()
            losses[tokens] += share.loss.item()
        gradients[tokens] = {name: each.grad for name, each in network.named_parameters()}
        network.zero_grad(set_to_none=True)
    assert counts[8192] == 1 and 2 <= counts[120] <= 5 and counts[1] == len(pairs) == 10
    largest = max(float(each.abs().max()) for each in gradients[1].values())
    for tokens in (8192, 120):
        assert losses[tokens] == pytest.approx(losses[1], abs=1e-5)
        for name, gradient in gradients[tokens].items():
            assert float((gradient - gradients[1][name]).abs().max()) <= 1e-5 * largest
    found = compute_references(network, pairs, None, 100, Watcher())
    np.testing.assert_allclose(found.train.chosen, apart.chosen, atol=2e-4)
    np.testing.assert_allclose(found.train.rejected, apart.rejected, atol=2e-4)
    assert found.computed_tokens < found.tokens == pairs.tokens


@pytest.mark.parametrize("lora", [{"r": 4}, None])
def test_micro_batches_never_change_the_run(lora: Any, model_folder: Path, rows: Path, tmp_path: Path) -> None:
    """8x1 and 1x8: everything at once, and each pair alone."""
    found = {}
    for tokens in (8192, 1):
        settings = {"micro_tokens": tokens, "batch_size": 8, "lr": 0.002}
        config = configured(model_folder, rows, tmp_path / str(tokens), lora=lora, train=settings)
        found[tokens] = dpo.run(config, progress=Watcher())
    one, other = (found[tokens].metrics("train") for tokens in (8192, 1))
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in other], rel=1e-5)
    assert [row["margin"] for row in one] == pytest.approx([row["margin"] for row in other], abs=1e-5)
    assert one[-1]["computed_tokens"] < other[-1]["computed_tokens"] < other[-1]["tokens"] == one[-1]["tokens"]
    for name, weight in result(found[8192]).items():
        torch.testing.assert_close(result(found[1])[name], weight, rtol=1e-5, atol=2e-5)


def test_a_run_leaves_its_account(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    valid = preferences_file(tmp_path / "v.jsonl", 2, start=4)
    watcher = Watcher()
    run = dpo.run(configured(model_folder, rows, tmp_path / "run", data={"valid": str(valid)}), progress=watcher)
    record = run.record
    assert record["status"] == "finished" and record["steps"] == 6
    assert record["data"]["rows"] == 10 and record["data"]["sequences"] == 20 and record["data"]["leaked"] == 2
    for name in ("data_seconds", "training_seconds", "seconds"):
        assert record[name] > 0
    reference = record["reference"]
    assert reference["weights"] == "without adapter" and reference["seconds"] > 0
    assert reference["saved_tokens"] == reference["tokens"] - reference["computed_tokens"] > 0
    assert record["saved_tokens"] == record["tokens"] - record["computed_tokens"] > 0
    assert record["trained_pairs"] == 20
    assert [stage[:2] for stage in watcher.stages] == [("reference", 1), ("training", 6)]
    first, last = run.metrics("train")[0], run.metrics("train")[-1]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5) and last["loss"] < 0.5
    assert last["margin"] == pytest.approx(last["reward_chosen"] - last["reward_rejected"], abs=1e-5)
    assert last["margin"] > 0.5 and last["accuracy"] == 1.0
    evaluated = run.metrics("eval")
    assert [row["step"] for row in evaluated] == [0, 3, 6]
    assert evaluated[0]["margin"] == pytest.approx(0, abs=1e-5) and evaluated[-1]["margin"] > 0.5
    assert evaluated[-1]["logprob_chosen"] < 0 and evaluated[-1]["length_chosen"] == 8
    assert {"reward_chosen", "reward_rejected", "accuracy", "logprob_rejected", "length_rejected"} <= set(evaluated[0])


def test_metrics_are_means_over_their_window(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    """Weighted by pairs: the third step of an epoch has two of the ten."""
    each = dpo.run(configured(model_folder, rows, tmp_path / "each"), progress=Watcher()).metrics("train")
    settings = {"log_every": 3}
    some = dpo.run(configured(model_folder, rows, tmp_path / "some", train=settings), progress=Watcher())
    [first, _] = some.metrics("train")
    for name in ("loss", "margin", "reward_chosen", "accuracy", "logprob_rejected", "length_chosen"):
        mean = sum(weight * row[name] for weight, row in zip((4, 4, 2), each, strict=False)) / 10
        assert first[name] == pytest.approx(mean, rel=1e-5)


CASES: dict[str, dict[str, Any]] = {
    "adapter": {},
    "full weights": {"lora": None},
    "dropout": {"lora": {"dropout": 0.3}},
    "ipo, lines of metrics": {"dpo": {"loss": "ipo", "group_by": "prefix"}, "train": {"log_every": 4}},
    "simpo": {"dpo": {"loss": "simpo", "sft_weight": 0.1}},
}


@pytest.mark.parametrize("case", CASES)
def test_resume_equals_the_straight_run(case: str, model_folder: Path, rows: Path, tmp_path: Path) -> None:
    valid = preferences_file(tmp_path / "v.jsonl", 2, start=9)
    settings = {"data": {"valid": str(valid)}, **CASES[case]}
    straight = dpo.run(configured(model_folder, rows, tmp_path / "straight", **settings), progress=Watcher())
    config = configured(model_folder, rows, tmp_path / "stopped", **settings)
    stop_at = 2 if case == "simpo" else 3  # the reference is a stage with an update of its own
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2 of 6"):
        dpo.run(config, progress=Watcher(stop_at=stop_at))
    watcher = Watcher()
    resumed = dpo.run(config, resume=True, progress=watcher)
    assert equal(result(resumed), result(straight))
    assert measured(resumed) == measured(straight)
    assert [stage for stage, *_ in watcher.stages] == ["training"]
    assert (resumed.folder / "reference.npz").exists() is (case != "simpo")


@pytest.mark.parametrize("case", ["adapter", "full weights", "trained adapter"])
def test_a_reference_that_is_lost_is_computed_again(case: str, model_folder: Path, rows: Path, tmp_path: Path) -> None:
    """From the weights the run began with, not from those it has reached."""
    settings: dict[str, Any] = {"lora": None} if case == "full weights" else {}
    if case == "trained adapter":
        before = make_config(model_folder, pairs_file(tmp_path / "s.json"), tmp_path / "sft")
        settings = {"adapter": str(sft.run(before, progress=Watcher()).folder)}
    straight = dpo.run(configured(model_folder, rows, tmp_path / "straight", **settings), progress=Watcher())
    config = configured(model_folder, rows, tmp_path / "stopped", **settings)
    with pytest.raises(KeyboardInterrupt):
        dpo.run(config, progress=Watcher(stop_at=4))
    kept = tmp_path / "stopped" / "reference.npz"
    kept.write_bytes(kept.read_bytes()[:-20])
    watcher = Watcher()
    resumed = dpo.run(config, resume=True, progress=watcher)
    assert [stage for stage, *_ in watcher.stages] == ["reference", "training"]
    assert equal(result(resumed), result(straight))


def test_a_reference_of_another_layout_is_computed_again(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    straight = dpo.run(configured(model_folder, rows, tmp_path / "straight"), progress=Watcher())
    with pytest.raises(KeyboardInterrupt):
        dpo.run(configured(model_folder, rows, tmp_path / "run"), progress=Watcher(stop_at=4))
    watcher = Watcher()
    config = configured(model_folder, rows, tmp_path / "run", train={"micro_tokens": 100})
    resumed = dpo.run(config, resume=True, progress=watcher)
    [(stage, parts, _), _] = watcher.stages
    assert stage == "reference" and parts > 1
    for name, weight in result(straight).items():
        torch.testing.assert_close(result(resumed)[name], weight, rtol=1e-5, atol=2e-5)


def test_a_lost_reference_of_weights_that_have_changed_is_refused(
    model_folder: Path, rows: Path, tmp_path: Path
) -> None:
    first, second = (
        sft.run(make_config(model_folder, pairs_file(tmp_path / "s.json", n), tmp_path / f"sft{n}"), progress=Watcher())
        for n in (4, 8)
    )
    config = configured(model_folder, rows, tmp_path / "run", adapter=str(first.folder))
    with pytest.raises(KeyboardInterrupt):
        dpo.run(config, progress=Watcher(stop_at=4))
    (tmp_path / "run" / "reference.npz").unlink()
    weights = "adapter/adapter_model.safetensors"
    (first.folder / weights).write_bytes((second.folder / weights).read_bytes())
    with pytest.raises(TrainingError, match="the weights the run began with have changed"):
        dpo.run(config, resume=True, progress=Watcher())


@pytest.mark.parametrize("reference", ["start", "base"])
def test_an_sft_adapter_is_the_reference_or_its_base_is(
    reference: str, model_folder: Path, rows: Path, tmp_path: Path
) -> None:
    before = make_config(model_folder, pairs_file(tmp_path / "s.json"), tmp_path / "sft")
    trained = sft.run(before, progress=Watcher())
    sections: dict[str, Any] = {"adapter": str(trained.folder), "dpo": {"reference": reference}}
    config = configured(model_folder, rows, tmp_path / "run", **sections)
    run = dpo.run(config, progress=Watcher())
    first = run.metrics("train")[0]["loss"]
    assert (abs(first - 0.693147) < 1e-5) is (reference == "start")
    kept = np.load(run.folder / "reference.npz")
    loaded = load_model(str(model_folder), adapter=str(trained.folder), dtype="fp32", device="cpu")
    pairs = render_pairs(config, prepare(config).renderer, 512, read_preferences(config, "train"), ()).train
    if reference == "start":
        apart = logprobs_apart(loaded.network, pairs)
    else:
        with loaded.without_adapter():
            apart = logprobs_apart(loaded.network, pairs)
    np.testing.assert_allclose(kept["train_chosen"], apart.chosen, atol=2e-4)
    np.testing.assert_allclose(kept["train_rejected"], apart.rejected, atol=2e-4)


def test_a_finished_run_is_a_model_to_start_from(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    """An adapter run goes on as its adapter; a full one as its weights."""
    for lora in ({"r": 4}, None):
        name = "full" if lora is None else "adapter"
        before = make_config(model_folder, pairs_file(tmp_path / "s.json"), tmp_path / name, lora=lora)
        trained = sft.run(before, progress=Watcher())
        config = configured(trained.folder, rows, tmp_path / f"dpo-{name}", lora=lora)
        run = dpo.run(config, progress=Watcher())
        assert run.metrics("train")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
        assert str(trained.folder) in run.record["parents"]
        assert (run.model if lora is None else run.adapter) is not None


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_losses_without_a_reference_compute_none(loss: str, model_folder: Path, rows: Path, tmp_path: Path) -> None:
    config = configured(model_folder, rows, tmp_path / "run", dpo={"loss": loss, "beta": 1.0}, train={"epochs": 4})
    watcher = Watcher()
    run = dpo.run(config, progress=watcher)
    assert [stage for stage, *_ in watcher.stages] == ["training"]
    assert not (run.folder / "reference.npz").exists() and "reference" not in run.record
    assert run.metrics("train")[-1]["loss"] < run.metrics("train")[0]["loss"]


@pytest.mark.parametrize(("dtype", "limit"), [("fp32", 1e-5), ("bf16", 0.01)])
@pytest.mark.parametrize("lora", [{"r": 4}, None])
def test_the_first_loss_is_that_of_two_equal_networks(
    dtype: str, limit: float, lora: Any, model_folder: Path, rows: Path, tmp_path: Path
) -> None:
    """In bf16 the layout of the reference's trees is not that of the first batch: rounding is allowed for."""
    settings = {"dtype": dtype, "max_steps": 1}
    run = dpo.run(configured(model_folder, rows, tmp_path / "run", train=settings, lora=lora), progress=Watcher())
    assert abs(run.metrics("train")[0]["loss"] - 0.693147) < limit


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_model_that_differs_from_its_reference_is_not_trained(
    dtype: str, model_folder: Path, rows: Path, tmp_path: Path
) -> None:
    """Each forward pass moves the weights a little, as a layer that is not deterministic would."""
    loaded = load_model(str(model_folder), dtype=dtype, device="cpu")
    norm: Any = loaded.network.model.norm

    def drift(*_: Any) -> None:
        norm.weight.data.mul_(1.2)

    norm.register_forward_pre_hook(drift)
    config = configured(model_folder, rows, tmp_path / "run", train={"dtype": dtype})
    with pytest.raises(TrainingError, match="before the first step") as raised:
        dpo.run(config, progress=Watcher(), loaded=loaded)
    assert raised.value.hint
    assert open_run(tmp_path / "run").record["status"] == "failed"


def test_the_loop_passes_on_what_the_watch_says(model_folder: Path, tmp_path: Path) -> None:
    """Rejected completions that begin as the chosen ones do pull those down with them."""
    given = [{"prompt": f"q {n}", "chosen": "a" * 12 + "b" * n, "rejected": "a" * 40 + "c" * n} for n in range(1, 9)]
    rows = tmp_path / "t.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in given))
    watcher = Watcher()
    dpo.run(configured(model_folder, rows, tmp_path / "run", train={"epochs": 4}), progress=watcher)
    assert sum("the margin follows the length" in note for note in watcher.notes) == 1


def test_what_cannot_be_trained_on_makes_no_folder(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no preference pairs"):
        dpo.run(configured(model_folder, pairs_file(tmp_path / "p.json"), tmp_path / "run"), progress=Watcher())
    with pytest.raises(ModelError, match=r"unknown layer 'query'.*allowed: down_proj, gate_proj, k_proj"):
        dpo.run(configured(model_folder, rows, tmp_path / "run", lora={"targets": ["query"]}), progress=Watcher())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge", "label_smoothing": 0.1}, r"dpo.label_smoothing = 0.1: dpo.loss = hinge does not use it"),
        ({"gamma": 0.7}, r"dpo.gamma = 0.7: dpo.loss = sigmoid does not use it"),
        ({"loss": "orpo", "reference": "base"}, r"dpo.reference = base: dpo.loss = orpo does not use it"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    settings: dict[str, Any], message: str, model_folder: Path, rows: Path, tmp_path: Path
) -> None:
    config = configured(model_folder, rows, tmp_path / "run", dpo=settings)
    for run in (dpo.run, dry_run):
        with pytest.raises(ConfigError, match=message):
            run(config)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_what_the_run_does(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    config = configured(model_folder, rows, tmp_path / "run")
    found = dry_run(config)
    record = dpo.run(config, progress=Watcher()).record
    assert (found.rows, found.tokens, found.longest) == (10, record["tokens"] / 2, record["data"]["longest"])
    assert found.steps == record["steps"] == 6


def test_the_command_line_trains_and_shows_both_sides(model_folder: Path, rows: Path, tmp_path: Path) -> None:
    runner, model = CliRunner(), f"model={model_folder}"
    shown = runner.invoke(app, ["data", "show", str(rows), model, "prompt.chat_template=plain", "--n", "1"])
    assert shown.exit_code == 0, shown.output
    assert "chosen: 8 of" in shown.stdout and "rejected: " in shown.stdout and " bad" in shown.stdout
    settings = ["method=dpo", model, f"data.train={rows}", "prompt.chat_template=plain", "train.max_steps=1"]
    counted = runner.invoke(app, ["train", *settings, "--dry-run", "--out", str(tmp_path / "run")])
    assert counted.exit_code == 0 and "dry run: dpo" in counted.stdout
    done = runner.invoke(app, ["train", *settings, "train.dtype=fp32", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert open_run(tmp_path / "run").record["config"]["method"] == "dpo"


def test_pairs_in_memory_are_trained_on_from_python(model_folder: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"q {n}", "chosen": "yes", "rejected": "no"} for n in range(4)]
    model = ramify.load(model_folder, dtype="fp32", device="cpu", chat_template="plain")
    run = ramify.train(model, pairs, "dpo", out=tmp_path / "run", epochs=1, beta=0.2, dtype="fp32", tensorboard=False)
    assert run.record["config"]["dpo"]["beta"] == 0.2 and run.adapter is not None
    assert run.metrics("train")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    further = ramify.train(run, pairs, "dpo", out=tmp_path / "on", epochs=1, dtype="fp32", tensorboard=False)
    assert str(run.folder) in further.record["parents"]
    assert further.metrics("train")[0]["logprob_chosen"] > run.metrics("train")[0]["logprob_chosen"]


def test_a_model_held_in_4_bits_is_trained_in_4_bits(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install 'ramify[quant]'")
    pairs = [{"prompt": f"q {n}", "chosen": "yes", "rejected": "no"} for n in range(4)]
    model = ramify.load(model_folder, dtype="nf4", device="cpu", chat_template="plain")
    run = ramify.train(model, pairs, "dpo", out=tmp_path / "run", epochs=1, tensorboard=False)
    assert run.record["config"]["train"]["quantize"] == "nf4" and run.record["dtype"] == "bfloat16"
    assert run.metrics("train")[0]["loss"] == pytest.approx(0.693147, abs=0.01)
    assert is_quantised(run.load().loaded.network)
    assert not is_quantised(ramify.load(run.folder, dtype="fp32").loaded.network)
    with pytest.raises(ConfigError, match="nf4 trains adapters only"):
        ramify.train(model, pairs, "dpo", None, out=tmp_path / "full")
