"""The loop equals a plain padded training, whatever the micro-batches; it stops before a bad step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from torch.nn import functional as F
from train_setup import Watcher

from ramify.base.config import Data, LoRA, RunConfig, Train
from ramify.base.errors import TrainingError
from ramify.base.runs import Run, create_run
from ramify.base.types import TokenSequence
from ramify.model.load import LoadedModel
from ramify.model.lora import add_adapter
from ramify.train.loop import Job, Loop
from ramify.train.metrics import MetricLog
from ramify.train.objective import Supervised
from ramify.train.steps import Measured, measure_all

SEQUENCES = [
    TokenSequence.of(tuple(prompt), tuple(completion))
    for prompt, completion in (
        ([5, 6, 7, 8, 9, 10], [11, 12, 2]),
        ([5, 6, 7, 8, 9, 10], [11, 13, 14, 2]),
        ([5, 6, 7, 8, 20], [21, 2]),
        ([5, 6, 30, 31], [32, 33, 34, 35, 2]),
        ([40, 41], [42, 2]),
        ([40, 41, 43], [44, 45, 2]),
        ([50], [51, 52, 53, 54, 55, 56, 2]),
        ([5, 6, 7], [8, 2]),
    )
]
SETTINGS = {"lr": 0.002, "batch_size": 8, "max_steps": 3, "warmup": 1, "dtype": "fp32", "tensorboard": False}


def objective(sequences: Sequence[TokenSequence] = SEQUENCES) -> Supervised:
    return Supervised(sequences, [(index,) for index in range(len(sequences))])


def adapted(network: Any, **lora: Any) -> Any:
    no_tokenizer: Any = None
    loaded = LoadedModel(network, no_tokenizer, "tiny", "tiny", (2,), torch.device("cpu"), torch.float32)
    return add_adapter(loaded, LoRA(r=4, **lora), seed=1).network


def full(network: Any) -> Any:
    return network.requires_grad_(True)


def job(folder: Path, network: Any, valid: Supervised | None = None, **settings: Any) -> Job:
    train = Train.model_validate({**SETTINGS, **settings})
    run = create_run(folder, RunConfig(train=train, data=Data(valid=None if valid is None else "task")))
    return Job(network, objective(), valid, train, 0, run, lambda path: save(network, path))


def save(network: Any, path: Path) -> None:
    save_file(
        {name: each.detach().clone() for name, each in trained(network).items()}, str(path / "weights.safetensors")
    )


def trained(network: Any) -> dict[str, torch.nn.Parameter]:
    return {name: each for name, each in network.named_parameters() if each.requires_grad}


def train(folder: Path, network: Any, **settings: Any) -> Run:
    made = job(folder, network, **settings)
    Loop(made, None, Watcher()).run()
    return made.run


def padded_loss(network: Any, sequences: Sequence[TokenSequence]) -> torch.Tensor:
    """Mean cross entropy of the trained tokens from right-padded rows through the unchanged model."""
    width = max(len(each.ids) for each in sequences)
    ids = torch.tensor([[*each.ids, *[0] * (width - len(each.ids))] for each in sequences])
    mask = torch.tensor([[1] * len(each.ids) + [0] * (width - len(each.ids)) for each in sequences])
    weights = torch.tensor([[*each.weights, *[0.0] * (width - len(each.ids))] for each in sequences])
    logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * weights[:, 1:]
    return losses.sum() / weights.sum()


def reference(network: Any, steps: int = 3) -> list[float]:
    """The same three steps with padded rows and torch's own AdamW, schedule written out."""
    network.train()
    optimizer = torch.optim.AdamW(trained(network).values(), lr=0.0, weight_decay=0.0)
    losses = []
    for step in range(steps):
        rate = 0.002 * (0.5 if step == 0 else (1 + math.cos(math.pi * (step - 1) / 2)) / 2)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = padded_loss(network, SEQUENCES)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained(network).values(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3"])
@pytest.mark.parametrize("make", [adapted, full])
def test_tree_training_equals_padded_training(family: str, make: Callable[[Any], Any], tmp_path: Path) -> None:
    ours, theirs = make(tiny_model(family)), make(tiny_model(family))
    run = train(tmp_path / "run", ours)
    losses = reference(theirs)
    assert [row["loss"] for row in run.metrics("train")] == pytest.approx(losses, abs=1e-5)
    assert losses[-1] < losses[0]
    for name, weight in trained(ours).items():
        torch.testing.assert_close(weight, trained(theirs)[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [adapted, full])
def test_micro_batches_never_change_the_result(make: Callable[[Any], Any], tmp_path: Path) -> None:
    """8x1, 4x2 and 1x8: budgets that cut the step into one, a few and eight micro-batches.

    Losses agree to 1e-6; weights to 5e-6, because Adam divides by the gradient's size, so that the rounding of entries
    near 0 is magnified to a share of the learning rate.
    """
    results, counts, losses = {}, {}, {}
    for tokens in (8192, 24, 1):
        network = make(tiny_model("llama"))
        made = job(tmp_path / str(tokens), network, micro_tokens=tokens)
        counts[tokens] = len(made.objective.micro_batches(range(8), tokens))
        Loop(made, None, Watcher()).run()
        results[tokens] = trained(network)
        losses[tokens] = [row["loss"] for row in made.run.metrics("train")]
    assert counts[8192] == 1 and 2 <= counts[24] <= 4 and counts[1] == 8
    for tokens in (24, 1):
        assert losses[tokens] == pytest.approx(losses[8192], rel=1e-6)
        for name, weight in results[8192].items():
            torch.testing.assert_close(results[tokens][name], weight, rtol=1e-6, atol=5e-6)


def test_gradients_do_not_depend_on_micro_batches(tmp_path: Path) -> None:
    """Before Adam can magnify rounding: the summed gradients agree to 1e-6 of the largest entry."""
    grads = {}
    for tokens in (8192, 1):
        network = full(tiny_model("llama"))
        parts = objective().micro_batches(range(8), tokens)
        divisor = objective().divisor(range(8))
        for part in parts:
            objective().share(network, part, divisor).loss.backward()
        grads[tokens] = {name: each.grad for name, each in trained(network).items()}
    largest = max(float(grad.abs().max()) for grad in grads[1].values())
    worst = max(float((grads[1][name] - grads[8192][name]).abs().max()) for name in grads[1])
    assert worst <= 1e-6 * largest


def test_adapter_at_init_has_the_loss_of_the_base(tmp_path: Path) -> None:
    base = measure_all(tiny_model("llama"), objective(), 8192).loss
    assert measure_all(adapted(tiny_model("llama")), objective(), 8192).loss == pytest.approx(base, abs=1e-6)
    with torch.no_grad():
        assert base == pytest.approx(float(padded_loss(tiny_model("llama"), SEQUENCES)), abs=1e-5)


def test_weights_of_rows_count(tmp_path: Path) -> None:
    """A row of weight 3 counts like three copies of it."""
    first, second = SEQUENCES[0], SEQUENCES[6]
    heavy = TokenSequence(second.ids, tuple(3 * weight for weight in second.weights))
    network = tiny_model("llama")
    once = measure_all(network, objective([first, heavy]), 8192).loss
    copies = measure_all(network, objective([first, second, second, second]), 8192).loss
    assert once == pytest.approx(copies, abs=1e-6)


def test_evaluation_starts_at_step_0_and_comes_with_every_epoch(tmp_path: Path) -> None:
    made = job(tmp_path / "run", adapted(tiny_model("llama")), objective(SEQUENCES[:2]), batch_size=4, max_steps=5)
    state = Loop(made, None, Watcher()).run()
    rows = made.run.metrics("eval")
    assert [row["step"] for row in rows] == [0, 2, 4, 5]
    with torch.no_grad():
        now = float(padded_loss(made.network, SEQUENCES[:2]))
    assert rows[-1]["loss"] == pytest.approx(now, abs=1e-5)
    assert state.best_loss == min(row["loss"] for row in rows[1:])


def test_metrics_count_tokens_unshared_and_computed(tmp_path: Path) -> None:
    run = train(tmp_path / "run", adapted(tiny_model("llama")))
    rows = run.metrics("train")
    assert [row["step"] for row in rows] == [1, 2, 3]
    unshared = sum(len(each.ids) for each in SEQUENCES)
    distinct = {each.ids[: end + 1] for each in SEQUENCES for end in range(len(each.ids))}
    assert [row["tokens"] for row in rows] == [unshared, 2 * unshared, 3 * unshared]
    assert [row["computed_tokens"] for row in rows] == [len(distinct), 2 * len(distinct), 3 * len(distinct)]
    values = "step epoch loss lr grad_norm tokens computed_tokens seconds tokens_per_second"
    assert set(rows[0]) == {"kind", *values.split()}


def test_log_every_averages_over_its_window(tmp_path: Path) -> None:
    each = train(tmp_path / "each", adapted(tiny_model("llama")), max_steps=4).metrics("train")
    some = train(tmp_path / "some", adapted(tiny_model("llama")), max_steps=4, log_every=3).metrics("train")
    assert [row["step"] for row in some] == [3, 4]
    assert some[0]["loss"] == pytest.approx(sum(row["loss"] for row in each[:3]) / 3)


def test_an_early_stop_leaves_no_step_out_of_the_metrics(tmp_path: Path) -> None:
    other = TokenSequence.of((50,), (60, 61, 62, 63))
    settings = {"lr": 0.01, "max_steps": 20, "eval_every": 1, "early_stop": 3, "log_every": 50}
    made = job(tmp_path / "run", full(tiny_model("llama")), objective([other]), **settings)
    state = Loop(made, None, Watcher()).run()
    assert state.stopped_early and state.step < 20
    [row] = made.run.metrics("train")
    assert row["step"] == state.step and row["grad_norm"] > 0 and row["lr"] > 0


def test_a_validation_loss_that_is_not_finite_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, float("nan"), 0.9, float("inf"), 0.7])
    monkeypatch.setattr("ramify.train.loop.measure_all", lambda *_: Measured(next(losses), {}))
    made = job(tmp_path / "run", adapted(tiny_model("llama")), objective(), max_steps=4, eval_every=1, tensorboard=True)
    watcher = Watcher()
    state = Loop(made, None, watcher).run()
    assert (state.best_step, state.best_loss) == (4, 0.7)
    assert [row["loss"] for row in made.run.metrics("eval")] == [1.0, None, 0.9, None, 0.7]
    assert "NaN" not in (made.run.folder / "metrics.jsonl").read_text()
    assert [note.split(";")[0] for note in watcher.notes] == [
        "step 1: the validation loss is nan",
        "step 3: the validation loss is inf",
    ]
    shown = [values["valid_loss"] for _, values in watcher.updates]
    assert shown[0] == 1.0 and math.isnan(shown[1]) and shown[2] == 0.9


def test_events_that_cannot_be_written_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A full disk for the file of events alone: one note, nothing on standard error, every line of metrics."""
    resource = pytest.importorskip("resource", reason="file size limits are POSIX's")
    run, watcher = create_run(tmp_path / "run", None), Watcher()
    log = MetricLog(run, 0, True, watcher)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        for step in range(1, 21):
            log.log("train", step, **{f"a long name of the loss, {number}": 1.0 for number in range(10)})
            (run.folder / "metrics.jsonl").rename(run.folder / f"metrics-{step}.jsonl")
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(list(run.folder.glob("metrics-*.jsonl"))) == 20
    [note] = watcher.notes
    assert "TensorBoard events cannot be written any more: File too large" in note
    assert not capfd.readouterr().err


def test_early_stop_and_best(tmp_path: Path) -> None:
    """Validation rows that contradict training get worse: the run stops, and the best step is kept."""
    other = TokenSequence.of((50,), (60, 61, 62, 63))
    settings = {"lr": 0.01, "max_steps": 20, "eval_every": 1, "early_stop": 3, "keep": 1}
    made = job(tmp_path / "run", full(tiny_model("llama")), objective([other]), **settings)
    state = Loop(made, None, Watcher()).run()
    losses = [row["loss"] for row in made.run.metrics("eval")][1:]
    assert state.stopped_early and state.step < 20
    assert state.best_step is not None and state.best_loss == min(losses) == losses[state.best_step - 1]
    assert len(losses) == state.best_step + 3
    assert {path.name for path in made.run.folder.glob("checkpoint-*")} == {
        f"checkpoint-{state.best_step}",
        f"checkpoint-{state.step}",
    }


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing(poison: float, tmp_path: Path) -> None:
    network = adapted(tiny_model("llama"))
    made = job(tmp_path / "run", network, max_steps=4, save_every=1)

    class Poisoner(Watcher):
        def update(self, done: int, **values: float) -> None:
            if done == 2:
                with torch.no_grad():
                    network.get_base_model().lm_head.weight[3] = poison

    loop = Loop(made, None, Poisoner())
    with pytest.raises(TrainingError, match=r"step 3: loss (nan|inf).*did not move.*checkpoint-2 is intact") as raised:
        loop.run()
    assert "learning rate" in str(raised.value.hint)
    before = {name: each.clone() for name, each in trained(network).items()}
    saved = load_file(str(made.run.folder / "checkpoint-2" / "weights.safetensors"))
    assert all(torch.equal(saved[name], each) for name, each in before.items())
    assert loop.state.step == 2


def test_gradient_that_is_not_finite_moves_nothing(tmp_path: Path) -> None:
    """The loss is finite, one gradient is not."""
    network = adapted(tiny_model("llama"))
    weight = next(iter(trained(network).values()))
    weight.register_hook(lambda grad: grad * float("inf"))
    before = {name: each.clone() for name, each in trained(network).items()}
    with pytest.raises(TrainingError, match="first seen in the gradient"):
        train(tmp_path / "run", network)
    assert all(torch.equal(before[name], each) for name, each in trained(network).items())


def test_random_state_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    network = adapted(tiny_model("llama"), dropout=0.3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(tmp_path / "run", network)
    assert torch.equal(torch.rand(3), expected)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, again = adapted(tiny_model("llama")), adapted(tiny_model("llama"))
    again.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    train(tmp_path / "plain", plain)
    train(tmp_path / "again", again)
    for name, weight in trained(plain).items():
        torch.testing.assert_close(trained(again)[name], weight, rtol=1e-5, atol=1e-6)


def test_an_interrupt_inside_the_update_saves_nothing_torn(tmp_path: Path) -> None:
    """A second Ctrl-C is not held back; if it comes while weights are moving, only older checkpoints are offered."""
    made = job(tmp_path / "run", adapted(tiny_model("llama")), max_steps=4, save_every=1)
    loop = Loop(made, None, Watcher())

    def interrupt(*arguments: Any) -> None:
        if loop.state.step == 2:
            raise KeyboardInterrupt

    loop.optimizer._adamw.register_step_post_hook(interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 2 of 4 .checkpoint-2"):
        loop.run()
    assert not (made.run.folder / "checkpoint-3").exists()
