"""What is drawn never depends on free memory, on the type that is native here, or on the device's own numbers."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sample_setup import as_loaded, draw_samples, forked_prompts, loaded_model
from tiny_models import tiny_model
from torch import Tensor

from ramify.base.types import Sample
from ramify.model import rates
from ramify.sample import decoder, forward, weights
from ramify.sample.forward import NetworkForward
from ramify.sample.weights import fast_weights, free_memory
from ramify.train.steps import measure_all


def flat(samples: list[list[Sample]]) -> list[Sample]:
    return [sample for group in samples for sample in group]


def little_memory(monkeypatch: pytest.MonkeyPatch, free: float = 1000.0) -> None:
    for module in (weights, decoder):
        monkeypatch.setattr(module, "free_memory", lambda device=None: free)


@pytest.mark.parametrize("kind", ["llama", "gpt_oss", "adapter"])
def test_memory_does_not_decide_what_is_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a copy of bf16 weights in fp32 does not fit, each layer is turned while it is computed."""
    network: Any = tiny_model("llama" if kind == "adapter" else kind).to(torch.bfloat16)
    if kind == "adapter":
        network = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings: dict[str, Any] = {"n": 2, "temperature": 1.0, "live": 1}
    with rates.assume_native():
        expected = flat(draw_samples(as_loaded(network), forked_prompts()[:4], **settings))
        little_memory(monkeypatch)
        found = flat(draw_samples(as_loaded(network), forked_prompts()[:4], **settings))
    for one, other in zip(found, expected, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    after = network.state_dict()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_fewer_slots_are_said_once_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    expected = flat(draw_samples(loaded, prompts, n=3, temperature=1.0))
    little_memory(monkeypatch, free=60_000.0)
    weights._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "ramify"):
        for _ in range(2):
            found = flat(draw_samples(loaded, prompts, n=3, temperature=1.0))
            assert [sample.token_ids for sample in found] == [sample.token_ids for sample in expected]
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "memory has room for 2 of 21 sequences at once"
    ]


def test_file_cache_is_free_memory(tmp_path: Path) -> None:
    source = tmp_path / "meminfo"
    source.write_text("MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  5000 kB\n")
    assert weights._available(source) == 5000 * 1024
    assert weights._available(tmp_path / "none") > 0
    assert 0 < free_memory(torch.device("cpu")) <= 1.25 * weights._available()  # others take and give memory meanwhile


def test_limits_of_control_groups_count(tmp_path: Path) -> None:
    def group(name: str, limit: str, use: int, cache: int, names: tuple[str, str, str]) -> None:
        folder = tmp_path / "fs" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text(f"{use}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")

    second = ("memory.max", "memory.current", "inactive_file")
    own = tmp_path / "cgroup"
    own.write_text("0::/outer/inner\n")
    assert weights._left_in_cgroup(tmp_path / "fs", own) == float("inf")
    group("outer/inner", "max", 400, 100, second)
    assert weights._left_in_cgroup(tmp_path / "fs", own) == float("inf")
    group("outer", "1000", 500, 100, second)  # a limit from above
    assert weights._left_in_cgroup(tmp_path / "fs", own) == 600
    own.write_text("4:cpu,cpuacct:/x\n3:memory:/box\n")
    group("memory/box", "900", 500, 50, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    assert weights._left_in_cgroup(tmp_path / "fs", own) == 450


def rms_error(network: Any, exact: Any, rows: list[tuple[tuple[int, ...], Sample]]) -> tuple[float, float]:
    """Root mean square error of log-probabilities against `exact`: the samples' own, and the network's by sdpa."""
    ours, theirs = [], []
    for prompt, sample in rows:
        ids = torch.tensor([prompt + sample.token_ids])
        with torch.no_grad():
            both = [each(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1) for each in (exact, network)]
        target = torch.tensor(sample.token_ids)[:, None]
        good, sdpa = (each[len(prompt) - 1 : -1].gather(1, target)[:, 0] for each in both)
        ours.append(torch.tensor(sample.logprobs) - good)
        theirs.append(sdpa - good)
    left, right = (float(torch.cat(each).square().mean().sqrt()) for each in (ours, theirs))
    return left, right


@pytest.mark.parametrize("native", [(), (torch.bfloat16,)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_half_precision_is_no_worse_than_sdpa(family: str, native: tuple[torch.dtype, ...]) -> None:
    """Whichever type products run in here, bf16 weights give log-probabilities as good as Transformers' own."""
    network = tiny_model(family, seed=2).to(torch.bfloat16)
    exact = copy.deepcopy(network).float()
    prompts = forked_prompts()[:4]
    with rates.assume_native(*native):
        samples = draw_samples(as_loaded(network), prompts, n=8, temperature=1.0, max_new_tokens=16)
    network.set_attn_implementation("eager" if family in ("gemma2", "gpt_oss") else "sdpa")  # caps and sinks: no sdpa
    rows = [(prompt.ids, sample) for prompt, group in zip(prompts, samples, strict=True) for sample in group]
    ours, theirs = rms_error(network, exact, rows)
    assert ours <= 1.2 * theirs
    assert native or ours < 0.1 * theirs


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
def test_native_half_precision_leaves_the_weights(family: str) -> None:
    network = tiny_model(family).to(torch.bfloat16)
    with rates.assume_native(torch.bfloat16), fast_weights(network):
        assert all(weight.dtype == torch.bfloat16 for weight in network.parameters())
    with rates.assume_native(), fast_weights(network):
        assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert all(weight.dtype == torch.bfloat16 for weight in network.parameters())


class OnMps(Tensor):
    """A tensor that says it lies on an Apple GPU, and has no fp64 as there."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.device.__get__:
            return torch.device("mps")
        moved = func is Tensor.to and args[1] == torch.device("cpu")
        out = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(out, Tensor) and out.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return out.as_subclass(Tensor) if moved or func is Tensor.cpu else out


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_p": 0.7, "top_k": 30, "min_p": 0.01}], ids=str)
def test_draws_need_no_fp64_on_the_device(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, prompts = loaded_model(), forked_prompts()[:3]
    expected = draw_samples(loaded, prompts, n=2, **settings)
    plain = NetworkForward.__call__
    monkeypatch.setattr(forward, "decoder_of", lambda network, merge: None)
    monkeypatch.setattr(NetworkForward, "__call__", lambda *args: plain(*args).as_subclass(OnMps))
    found = draw_samples(loaded, prompts, n=2, **settings)
    assert [s.token_ids for s in flat(found)] == [s.token_ids for s in flat(expected)]


def test_validation_loss_needs_no_fp64_on_the_device() -> None:
    class Share:
        loss = torch.tensor(0.25).as_subclass(OnMps)
        metrics: ClassVar[dict[str, Any]] = {}
        tokens = computed = 1

    class Objective:
        groups = ((0, 1), (2,))

        def divisor(self, indices: Any) -> float:
            return float(len(indices))

        def micro_batches(self, indices: Any, tokens: int) -> list[Any]:
            return list(indices)

        def score(self, network: Any, part: Any, divisor: float) -> Share:
            return Share()

    assert measure_all(torch.nn.Linear(1, 1), Objective(), 8).loss == 0.75
