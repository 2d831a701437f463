"""Loading, adapters, added tokens: what comes back is what went in, and every failure is one line."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ramify import nano
from ramify.base.config import LoRA, Prompting
from ramify.base.errors import ModelError
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import add_adapter, fit_template, linear_layers, merged, save_trained, trainable
from ramify.model.outline import load_outline, model_type
from ramify.model.source import resolve

TURNS = (
    "{% for message in messages %}<|turn|>{{ message['content'] }}<|done|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>{% endif %}"
)


@pytest.fixture
def loaded() -> LoadedModel:
    return load_model("nano", dtype="fp32", device="cpu")


def logits(loaded: LoadedModel, text: str = "How many grams are in 6 kg?") -> torch.Tensor:
    ids = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return loaded.network(input_ids=ids).logits[0]


def randomise_adapter(loaded: LoadedModel) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.network).values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)


def test_nano_equals_transformers(loaded: LoadedModel) -> None:
    plain = AutoModelForCausalLM.from_pretrained(str(nano.path()), dtype=torch.float32).eval()
    ids = torch.tensor([[5, 9, 40, 77, 3]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_adapter_at_init_is_the_base(loaded: LoadedModel) -> None:
    base = logits(loaded)
    adapted = add_adapter(loaded, LoRA(r=4), seed=0)
    assert torch.equal(logits(adapted), base)
    assert all(weight.dtype == torch.float32 for weight in trainable(adapted.network).values())


@pytest.mark.parametrize("lora", [LoRA(r=4), LoRA(r=4, rslora=True), LoRA(r=4, dora=True), LoRA(targets=("q_proj",))])
def test_saved_adapter_loads_in_peft_and_here(loaded: LoadedModel, lora: LoRA, tmp_path: Path) -> None:
    adapted = add_adapter(loaded, lora, seed=0)
    randomise_adapter(adapted)
    expected = logits(adapted)
    save_trained(adapted, tmp_path)
    again = load_model(str(tmp_path), dtype="fp32", device="cpu")
    torch.testing.assert_close(logits(again), expected)
    plain = AutoModelForCausalLM.from_pretrained(str(nano.path()), dtype=torch.float32)
    peft = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    ids = loaded.tokenizer("How many grams are in 6 kg?", return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(peft(input_ids=ids).logits[0], expected)


def test_without_adapter_is_the_base(loaded: LoadedModel) -> None:
    base = logits(loaded)
    adapted = add_adapter(loaded, LoRA(r=4), seed=0)
    randomise_adapter(adapted)
    assert not torch.allclose(logits(adapted), base)
    with adapted.without_adapter():
        assert torch.equal(logits(adapted), base)


def test_same_seed_same_adapter(loaded: LoadedModel) -> None:
    first = {name: each.clone() for name, each in trainable(add_adapter(loaded, LoRA(r=2), seed=7).network).items()}
    second = trainable(add_adapter(load_model("nano", dtype="fp32", device="cpu"), LoRA(r=2), seed=7).network)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unknown_target_lists_those_it_has(loaded: LoadedModel) -> None:
    with pytest.raises(ModelError, match=r"unknown layer 'q_projj'; did you mean 'q_proj'\?.*down_proj"):
        add_adapter(loaded, LoRA(targets=("q_projj",)), seed=0)
    assert "lm_head" not in linear_layers(loaded.network)


def test_merged_equals_adapter(loaded: LoadedModel) -> None:
    adapted = add_adapter(loaded, LoRA(r=4), seed=0)
    randomise_adapter(adapted)
    torch.testing.assert_close(logits(merged(adapted)), logits(adapted), rtol=1e-4, atol=1e-4)
    assert isinstance(adapted.network, PeftModel)


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_train_and_survive(tied: bool, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(nano.path(), folder)
    if not tied:
        untie(folder)
    base = load_model(str(folder), dtype="fp32", device="cpu")
    (tmp_path / "turns.jinja").write_text(TURNS)
    extended, renderer, new = fit_template(base, Prompting(chat_template=str(tmp_path / "turns.jinja")))
    assert extended.tokenizer.convert_ids_to_tokens(list(new)) == ["<|turn|>", "<|done|>"]
    assert renderer.stop_id == new[1] and new[1] in extended.stop_ids and extended.tokenizer.eos_token == "<|done|>"
    adapted = add_adapter(extended, LoRA(r=2), seed=0, train_tokens=new)
    text = "<|turn|>hello<|done|>"
    logits(adapted, text).square().mean().item()
    network = adapted.network
    ids = adapted.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    network(input_ids=ids, labels=ids).loss.backward()
    rows = {name: each for name, each in trainable(network).items() if "lora" not in name}
    assert rows, "no embedding row is trained"
    randomise_adapter(adapted)
    expected = logits(adapted, text)
    save_trained(adapted, tmp_path / "adapter")
    again = load_model(str(tmp_path / "adapter"), dtype="fp32", device="cpu")
    torch.testing.assert_close(logits(again, text), expected)
    assert new[1] in again.stop_ids and again.tokenizer.chat_template == extended.tokenizer.chat_template
    whole = merged(again)
    torch.testing.assert_close(logits(whole, text), expected, rtol=1e-4, atol=1e-4)
    save_trained(whole, tmp_path / "merged")
    reloaded = load_model(str(tmp_path / "merged"), dtype="fp32", device="cpu")
    torch.testing.assert_close(logits(reloaded, text), expected, rtol=1e-4, atol=1e-4)
    assert new[1] in reloaded.stop_ids


def untie(folder: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    head = torch.nn.Linear(network.config.hidden_size, network.config.vocab_size, bias=False)
    with torch.no_grad():
        head.weight.copy_(network.get_input_embeddings().weight + 0.01)
    network.lm_head = head
    network.config.tie_word_embeddings = False
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    shutil.rmtree(folder)
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def test_bad_names_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="unknown model 'nan0'; did you mean 'nano'"):
        load_model("nan0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="nothing: no such folder"):
        load_model(str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match="empty/nothing: no such folder"
    ):  # looks like a hub id, but the folder is here
        load_model("empty/nothing")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        load_model("nano", adapter=str(tmp_path / "empty"))


def test_half_downloaded_model_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(nano.path(), folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="half: cannot be read"):
        load_model(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="half: cannot be read"):
        load_model(str(folder))


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_are_missing_are_refused(tied: bool, tmp_path: Path) -> None:
    """Transformers would draw them at random and go on."""
    folder = tmp_path / "base"
    shutil.copytree(nano.path(), folder)
    if not tied:
        untie(folder)
    load_model(str(folder), dtype="fp32", device="cpu")
    file = folder / "model.safetensors"
    weights = load_file(str(file))
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, str(file), metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"base: 1 weights are missing \(first: model\.layers\.1\.mlp\.up_proj\.weight\)"
    ):
        load_model(str(folder), dtype="fp32", device="cpu")


@pytest.mark.parametrize("lora", [LoRA(r=2), LoRA(r=2, dora=True)])
def test_adapter_weights_that_are_missing_are_refused(loaded: LoadedModel, lora: LoRA, tmp_path: Path) -> None:
    save_trained(add_adapter(loaded, lora, seed=0), tmp_path)
    load_model(str(tmp_path), dtype="fp32", device="cpu")
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(str(file))
    del weights[max(weights)]
    save_file(weights, str(file), metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing \(first: .*lora_"):
        load_model(str(tmp_path), dtype="fp32", device="cpu")
    file.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(str(tmp_path), dtype="fp32", device="cpu")


def test_rows_made_on_loading_are_not_drawn(tmp_path: Path) -> None:
    """A tokenizer with more tokens than the model: the same rows each time, the mean of those that are there."""
    folder = tmp_path / "base"
    shutil.copytree(nano.path(), folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    rows = load_model(str(folder), dtype="fp32", device="cpu").network.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens([f"<extra{number}>" for number in range(rows - len(tokenizer) + 2)])
    tokenizer.save_pretrained(str(folder))
    weights = [load_model(str(folder), dtype="fp32", device="cpu").network.get_input_embeddings().weight for _ in "ab"]
    assert weights[0].shape[0] == rows + 2
    assert torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[0][rows:], weights[0][:rows].mean(dim=0).expand(2, -1))


def test_the_revision_of_the_base_travels_with_the_adapter(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on revision X: config, tokenizer and weights of X are what is loaded, unless another one is asked."""
    asked: list[str | None] = []
    adapted = add_adapter(replace(loaded, revision="X"), LoRA(r=2), seed=0)
    save_trained(adapted, tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()  # so that the base's tokenizer is read

    def watch(kind: type, real: Any) -> None:
        def from_pretrained(*arguments: Any, **settings: Any) -> Any:
            asked.append(settings.get("revision"))
            return real(*arguments, **settings)

        monkeypatch.setattr(kind, "from_pretrained", from_pretrained)

    for kind in (AutoConfig, AutoModelForCausalLM, AutoTokenizer):
        watch(kind, kind.from_pretrained)
    assert load_model(str(tmp_path), dtype="fp32", device="cpu").revision == "X"
    assert load_model("nano", adapter=str(tmp_path), dtype="fp32", device="cpu").revision == "X"
    assert set(asked) == {"X"} and len(asked) >= 6
    asked.clear()
    assert load_model(str(tmp_path), revision="Y", dtype="fp32", device="cpu").revision == "Y"
    assert set(asked) == {"Y"}


@pytest.mark.parametrize(
    ("settings", "own", "stops"),
    [
        ({"eos_token_id": 5}, None, {5}),
        ({"eos_token_id": 5}, {"eos_token_id": [6, 7]}, {6, 7}),
        ({"eos_token_id": 5}, {}, set()),
        ({"eos_token_id": None}, None, set()),
        ({}, None, set()),  # without an entry; Llama's own default is 2
    ],
)
def test_what_is_known_without_weights_is_what_the_loaded_model_has(
    settings: dict[str, Any], own: dict[str, Any] | None, stops: set[int], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(nano.path(), folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del written["eos_token_id"]
    (folder / "config.json").write_text(json.dumps({**written, **settings}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if own is not None:
        (folder / "generation_config.json").write_text(json.dumps(own))
    outline, loaded = load_outline(str(folder)), load_model(str(folder), dtype="fp32", device="cpu")
    assert (outline.max_length, outline.stop_ids) == (loaded.max_length, loaded.stop_ids)
    assert set(outline.stop_ids) == stops | {outline.tokenizer.eos_token_id}
    assert outline.tokenizer.get_vocab() == loaded.outline.tokenizer.get_vocab()


def test_an_index_beside_a_whole_file_is_not_looked_at(tmp_path: Path) -> None:
    """Nor does Transformers: it may be left of weights that were split."""
    shutil.copytree(nano.path(), tmp_path / "model")
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in (load_model, load_outline):
        read(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="model-00001-of-00002"):
        load_outline(str(tmp_path / "model"))


def test_a_generation_config_that_is_none_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(nano.path(), tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text("[1]")
    for read in (load_model, load_outline):
        with pytest.raises(ModelError, match=r"model: cannot be read"):
            read(str(tmp_path / "model"))


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="not in the local cache, and the hub cannot be reached"):
        load_model("HuggingFaceTB/no-such-model-here")


def test_run_folder_resolves_to_its_adapter(loaded: LoadedModel, tmp_path: Path) -> None:
    adapted = add_adapter(loaded, LoRA(r=2), seed=0)
    save_trained(adapted, tmp_path / "adapter")
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished"}))
    assert resolve(str(tmp_path)).adapter == tmp_path / "adapter"
    assert resolve(str(tmp_path)).base == "nano"
    assert resolve("nano", str(tmp_path)).adapter == tmp_path / "adapter"


@pytest.mark.parametrize("part", ["config", "tokenizer"])
@pytest.mark.parametrize("read", [load_model, load_outline, model_type])
def test_code_that_comes_with_a_model_is_never_run(
    part: str, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where somebody at the terminal would say yes."""
    folder, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(nano.path(), folder)
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    if part == "config":
        own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
        change_json(folder / "config.json", own)
    else:
        own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
        change_json(folder / "tokenizer_config.json", own)
    if part == "config" or read is not model_type:
        with pytest.raises(ModelError, match="needs code that comes with it"):
            read(str(folder))
    else:
        assert read(str(folder)) == "llama"
    assert not ran.exists()


def change_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")
