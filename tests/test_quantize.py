"""4-bit weights: refused in one line where they cannot be had, and real ones wherever bitsandbytes is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_models import tiny_model
from torch import nn
from train_setup import make_config, model_folder, pairs_file

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, ModelError
from ramify.base.types import TokenSequence
from ramify.evaluate.settings import evaluation_config
from ramify.model.fused import fuse
from ramify.model.load import load_model
from ramify.model.logprobs import sequence_logprobs
from ramify.model.lora import merged
from ramify.model.quantize import is_quantised, nf4_settings
from ramify.sample.decoder import decoder_of
from ramify.train import sft
from ramify.train.prepare import prepare
from ramify.tree.pack import pack

__all__ = ["model_folder"]


def quantised(model: Path, tmp_path: Path, **settings: object) -> RunConfig:
    """Settings of a short run on 4-bit weights."""
    train = {"quantize": "nf4", "dtype": "auto", **settings}
    return make_config(model, pairs_file(tmp_path / "rows.json"), tmp_path / "run", train=train)


def test_only_adapters_are_trained_on_4_bit_weights() -> None:
    with pytest.raises(ConfigError, match=r"train\.quantize = nf4 trains adapters only; set lora"):
        parse_config({"train": {"quantize": "nf4"}, "lora": None})


def test_a_type_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nf4 computes in bf16; train\.dtype = fp32 would do nothing"):
        parse_config({"train": {"quantize": "nf4", "dtype": "fp32"}})
    assert parse_config({"train": {"quantize": "nf4", "dtype": "bf16"}}).train.quantize == "nf4"


def test_other_ways_of_quantising_are_unknown() -> None:
    with pytest.raises(ConfigError, match=r"train\.quantize = 'int8': 'nf4' is needed"):
        parse_config({"train": {"quantize": "int8"}})


def test_without_the_extra_one_line_names_it(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # the import system's own mark of a module that is not there
    with pytest.raises(ModelError, match=r"need bitsandbytes, which is not installed \(hint: pip install 'ramify\[qua"):
        load_model(str(model_folder), dtype="nf4", device="cpu")
    with pytest.raises(ModelError, match="which is not installed"):
        sft.run(quantised(model_folder, tmp_path))
    assert not (tmp_path / "run").exists()  # refused before a folder was made


def package(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package called bitsandbytes in front of any other, for the time of a test."""
    (folder / "bitsandbytes.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))  # so that it is as before afterwards
    monkeypatch.delitem(sys.modules, "bitsandbytes")


def test_a_device_without_support_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, 'supported_torch_devices = {"cuda", "xpu"}', monkeypatch)
    with pytest.raises(ModelError, match=r"cannot compute on cpu \(it can on: cuda, xpu\) \(hint: train.device names"):
        nf4_settings(torch.device("cpu"))


def test_an_old_version_is_taken_to_know_cuda_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "", monkeypatch)
    with pytest.raises(ModelError, match=r"cannot compute on mps \(it can on: cuda\)"):
        nf4_settings(torch.device("mps"))


def test_a_package_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, 'raise OSError("libcudart.so: cannot open shared object file")', monkeypatch)
    with pytest.raises(ModelError, match=r"installed, but cannot be used: libcudart.so: cannot open .* \(hint: leave"):
        nf4_settings(torch.device("cpu"))


def test_an_evaluation_of_a_run_holds_its_weights_as_the_run_did(tmp_path: Path) -> None:
    config = parse_config({"train": {"quantize": "nf4"}})
    (tmp_path / "run.json").write_text('{"config": ' + config.model_dump_json() + ', "status": "finished"}')
    assert evaluation_config(str(tmp_path)).train.quantize == "nf4"
    assert evaluation_config(str(tmp_path), ["train.quantize=null"]).train.quantize is None


class Coded(nn.Linear):
    """As the layers of bitsandbytes are: a linear layer by name, whose weight only its own forward can read."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        self.scale = float(plain.weight.detach().abs().max()) / 127
        self.weight = nn.Parameter((plain.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


def test_layers_that_only_their_own_forward_can_read_are_left_to_it() -> None:
    """No hand-written layer, in training or in sampling, takes such a weight for what it multiplies with."""
    network = tiny_model("llama")
    for layer in network.model.layers:
        for parent, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
            for name in names:
                setattr(parent, f"{name}_proj", Coded(getattr(parent, f"{name}_proj")))
    batch = pack([TokenSequence.of((1, 5, 7), (9, 2)), TokenSequence.of((1, 5, 7), (8, 3, 2))])
    with torch.no_grad():
        plain = sequence_logprobs(network, batch)
        assert fuse(network) and decoder_of(network) is None
        assert torch.equal(sequence_logprobs(network, batch), plain)


def test_4_bit_weights_are_trained_on_and_never_merged(model_folder: Path, tmp_path: Path) -> None:
    package = pytest.importorskip("bitsandbytes", reason="the test extra has it on Linux alone")
    plain = load_model(str(model_folder), dtype="bf16", device="cpu")
    loaded = load_model(str(model_folder), dtype="nf4", device="cpu")
    assert is_quantised(loaded.network) and loaded.dtype == torch.bfloat16 and not is_quantised(plain.network)
    weights = dict(loaded.network.named_parameters())
    assert weights["model.layers.0.mlp.up_proj.weight"].dtype == torch.uint8
    assert weights["model.embed_tokens.weight"].dtype == torch.bfloat16
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        coded = loaded.network(ids).logits
        assert not torch.equal(coded, plain.network(ids).logits)
        for name, module in loaded.network.named_modules():
            if hasattr(getattr(module, "weight", None), "quant_state"):
                read = package.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                plain.network.get_submodule(name).weight.copy_(read)
        assert torch.equal(coded, plain.network(ids).logits)
    with pytest.raises(ModelError, match="is held in 4 bits"):
        merged(loaded)
    assert prepare(quantised(model_folder, tmp_path)).loaded.network.peft_config
    run = sft.run(quantised(model_folder, tmp_path))
    assert run.adapter is not None and run.record["status"] == "finished"
