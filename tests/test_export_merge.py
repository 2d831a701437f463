"""Merged folders: the adapter's logits, the tokenizer, the stop tokens; whole or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from export_setup import Watcher, leftovers, tiny_export
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig

from ramify import nano
from ramify.base.config import LoRA, Prompting
from ramify.base.errors import ConfigError, ModelError, RunError
from ramify.base.records import write_json
from ramify.export.gguf.writer import write_gguf
from ramify.export.merge import merge
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import add_adapter, fit_template, merged, save_trained, trainable
from ramify.sample.llamacpp.runtime import open_runtime

TEXT = "<|turn|>How many grams are in 6 kg?<|done|>"
TURNS = (
    "{%- for message in messages -%}<|turn|>{{ message['content'] }}<|done|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|turn|>{%- endif -%}"
)


def logits(loaded: LoadedModel) -> torch.Tensor:
    """[tokens, vocabulary]"""
    ids = loaded.tokenizer(TEXT, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        found: torch.Tensor = loaded.network(input_ids=ids).logits[0].float()
    return found


def trained(folder: Path, lora: LoRA, *, tokens: bool = False, base: str = "nano") -> LoadedModel:
    """A model with a random adapter, saved to `folder`; with `tokens`, its template's tokens were added and trained."""
    loaded, new = load_model(base, dtype="fp32", device="cpu"), ()
    if tokens:
        template = folder.parent / "turns.jinja"
        template.write_text(TURNS)
        loaded, _, new = fit_template(loaded, Prompting(chat_template=str(template)))
    adapted = add_adapter(loaded, lora, seed=0, train_tokens=new)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainable(adapted.network).values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    save_trained(adapted, folder)
    return adapted


@pytest.mark.parametrize("lora", [LoRA(r=4), LoRA(r=4, rslora=True), LoRA(r=4, dora=True)], ids=["lora", "rs", "dora"])
@pytest.mark.parametrize("tokens", [False, True], ids=["", "tokens"])
def test_merged_is_the_adapter(lora: LoRA, tokens: bool, tmp_path: Path) -> None:
    adapted = trained(tmp_path / "adapter", lora, tokens=tokens)
    again = load_model(str(merge(tmp_path / "adapter", tmp_path / "merged", "fp32")), dtype="fp32", device="cpu")
    torch.testing.assert_close(logits(again), logits(adapted), rtol=1e-4, atol=1e-4)
    assert set(again.stop_ids) == set(adapted.stop_ids) and len(again.tokenizer) == len(adapted.tokenizer)
    assert again.tokenizer.chat_template == adapted.tokenizer.chat_template


@pytest.mark.parametrize("dtype, kind", [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_layer_by_layer_is_all_at_once_in_fp32(dtype: str, kind: torch.dtype, tied: bool, tmp_path: Path) -> None:
    """Adding in fp32 and casting once: the same bits as of a model that is in fp32 as a whole."""
    tiny_export(tmp_path / "base", "llama", tie_word_embeddings=tied)
    trained(tmp_path / "adapter", LoRA(r=4), tokens=True, base=str(tmp_path / "base"))
    whole = load_model(str(tmp_path / "adapter"), dtype="fp32", device="cpu")
    expected: Any = merged(whole, kind).network.state_dict()
    found = load_file(str(merge(tmp_path / "adapter", tmp_path / "merged", dtype) / "model.safetensors"))
    assert ("lm_head.weight" in found) != tied
    for name, weight in found.items():
        assert weight.dtype == kind and torch.equal(weight, expected[name]), name
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == str(kind).removeprefix("torch.") and config["tie_word_embeddings"] == tied


def test_weights_of_bf16_are_merged_in_fp32(tmp_path: Path) -> None:
    """nano's files are bf16, and so is what lies in memory; a change below bf16's steps is in an f32 folder."""
    adapted = trained(tmp_path / "adapter", LoRA(r=1, alpha=1e-3))
    name = "model.layers.0.self_attn.q_proj.weight"
    found = load_file(str(merge(tmp_path / "adapter", tmp_path / "merged", "fp32") / "model.safetensors"))[name]
    expected: Any = merged(adapted).network.state_dict()[name]
    base = load_file(str(nano.path() / "model.safetensors"))[name].float()
    assert torch.equal(found, expected) and not torch.equal(found, base)
    assert (found.bfloat16() == base).float().mean() > 0.9


def test_stop_tokens_template_and_a_sharded_folder(tmp_path: Path) -> None:
    adapted = trained(tmp_path / "adapter", LoRA(r=2), tokens=True)
    out = merge(tmp_path / "adapter", tmp_path / "merged", "bf16", shard_bytes=1_000_000)
    assert len(list(out.glob("model-*.safetensors"))) > 3 and (out / "model.safetensors.index.json").is_file()
    stops = GenerationConfig.from_pretrained(str(out)).eos_token_id
    turn_end = adapted.tokenizer.convert_tokens_to_ids("<|done|>")
    assert set(stops) == set(adapted.stop_ids) and turn_end in stops
    assert AutoTokenizer.from_pretrained(str(out)).chat_template == TURNS
    close = load_model(str(out), dtype="fp32", device="cpu")
    assert (logits(close) - logits(adapted)).abs().max() < 0.2  # bf16


def test_a_full_model_is_copied_and_cast(tmp_path: Path) -> None:
    run = tmp_path / "run"
    network = tiny_export(run / "model", "qwen2")
    write_json(run / "run.json", {"status": "finished"})
    found = load_file(str(merge(run, tmp_path / "merged", "fp16") / "model.safetensors"))
    for name, weight in network.state_dict().items():
        assert torch.equal(found[name], weight.half()), name


def test_a_run_on_4_bits_is_merged_into_full_precision_and_says_so(tmp_path: Path) -> None:
    adapted = trained(tmp_path / "run" / "adapter", LoRA(r=2))
    write_json(tmp_path / "run" / "run.json", {"status": "finished", "config": {"train": {"quantize": "nf4"}}})
    watcher = Watcher()
    out = merge(tmp_path / "run", tmp_path / "merged", "fp32", progress=watcher)
    assert len(watcher.notes) == 1 and "merged into the full-precision ones" in watcher.notes[0]
    assert [stage for stage, _ in watcher.stages] == ["reading weights", "merging", "writing"] and watcher.closed == 3
    again = load_model(str(out), dtype="fp32", device="cpu")
    torch.testing.assert_close(logits(again), logits(adapted), rtol=1e-4, atol=1e-4)


def test_added_tokens_arrive_in_llama_cpp(tmp_path: Path) -> None:
    """From the adapter to the file: the same logits behind its own tokens, and it stops where it was trained to."""
    adapted = trained(tmp_path / "adapter", LoRA(r=2), tokens=True)
    out = merge(tmp_path / "adapter", tmp_path / "merged", "fp32")
    ids = adapted.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    with closing(open_runtime(write_gguf(out, tmp_path / "m.gguf", "f32").path, n_ctx=64, kv="f32")) as runtime:
        assert set(adapted.stop_ids) <= set(runtime.stop_ids)
        assert runtime.tokenize(TEXT) == ids
        found = torch.from_numpy(runtime.logits(ids))
    torch.testing.assert_close(found, logits(adapted), rtol=0, atol=2e-4)


def test_quantised_weights_are_no_base(tmp_path: Path) -> None:
    tiny_export(tmp_path / "base", "llama")
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ModelError, match=r"quantised already \(gptq\).*the full-precision model"):
        merge(tmp_path / "base", tmp_path / "out")


# --- whole or not at all ---


def test_taken_folders_types_and_rooms_are_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="taken: exists already"):
        merge("nano", tmp_path / "taken")
    with pytest.raises(ConfigError, match=r"unknown type of merged weights 'bf61'; did you mean 'bf16'\?"):
        merge("nano", tmp_path / "out", "bf61")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 20_000_000))
    with pytest.raises(RunError, match=r"out: needs 0\.02 GB, and 0\.02 GB are free"):
        merge("nano", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_beyond_f16_are_refused(tmp_path: Path) -> None:
    network = tiny_export(tmp_path / "base", "llama")
    with torch.no_grad():
        network.lm_head.weight[0, 0] = 7e4
    network.save_pretrained(str(tmp_path / "base"))
    with pytest.raises(ModelError, match=r"lm_head\.weight is not finite as torch\.float16 \(hint: use bf16"):
        merge(tmp_path / "base", tmp_path / "out", "fp16")
    assert not (tmp_path / "out").exists() and not list(leftovers(tmp_path))


def test_a_broken_adapter_is_refused(tmp_path: Path) -> None:
    adapted = trained(tmp_path / "adapter", LoRA(r=2))
    with torch.no_grad():
        next(iter(trainable(adapted.network).values()))[0, 0] = float("nan")
    save_trained(adapted, tmp_path / "adapter")
    with pytest.raises(ModelError, match="NaNs detected in the merged weights"):
        merge(tmp_path / "adapter", tmp_path / "out")


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(loaded: LoadedModel, folder: Path, **settings: Any) -> None:
        (folder / "half").write_text("of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("ramify.export.merge.save_trained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge("nano", tmp_path / "out")
    assert not list(tmp_path.iterdir())
