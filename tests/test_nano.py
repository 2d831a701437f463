"""The embedded model: its files, its tokenizer, its few-shot skill, and the text it was trained on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

import ramify
import ramify.prompts
from ramify import nano
from ramify.base import rng
from ramify.tasks import conversions
from ramify.tasks.conversions import PHRASINGS, Conversion, questions
from ramify.tasks.units import UNITS, find_unit

RECIPE = Path(__file__).parent.parent / "recipes" / "nano"
FEW_SHOT = Path(ramify.prompts.__file__).with_name("fewshot_unit_conversion.yaml")
MODULES = ("corpus", "material", "tokenizer", "train")


@pytest.fixture(scope="module")
def recipe() -> Iterator[dict[str, ModuleType]]:
    """The recipe's modules, imported as its scripts import each other."""
    sys.path.insert(0, str(RECIPE))
    try:
        yield {name: __import__(name) for name in MODULES}
    finally:
        sys.path.remove(str(RECIPE))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(nano.path(), local_files_only=True)
    return loaded


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    loaded: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(nano.path(), dtype=torch.float32)
    return loaded


def test_files_and_size(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    weights = nano.path() / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"BF16"}
    assert 3_700_000 < sum(p.numel() for p in model.parameters()) < 3_900_000
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_no_tensor_row_breaks_k_quants(model: LlamaForCausalLM) -> None:
    assert all(p.shape[-1] % 256 == 0 for p in model.parameters())


def test_tokenizer_structure(tokenizer: PreTrainedTokenizerBase) -> None:
    parts = json.loads((nano.path() / "tokenizer.json").read_text(encoding="utf-8"))
    digits, byte_level = parts["pre_tokenizer"]["pretokenizers"]
    assert digits == {"type": "Digits", "individual_digits": True}
    assert byte_level["type"] == "ByteLevel"
    assert byte_level["add_prefix_space"] is False
    assert [token["content"] for token in parts["added_tokens"]] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.tokenize("3471.5") == list("3471.5")


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    tokenizer = _cached_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@cache
def _cached_tokenizer() -> Any:
    """Loaded once for all of hypothesis' examples."""
    return AutoTokenizer.from_pretrained(nano.path(), local_files_only=True)


def test_chat_template_adds_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_few_shot_turns_are_worked_train_questions() -> None:
    turns = yaml.safe_load(FEW_SHOT.read_text(encoding="utf-8"))["turns"]
    assert 3 <= len(turns) <= 5
    for turn in turns:
        (conversion,) = _conversions_in([turn["user"]])
        assert conversion.split == "train"
        assert conversions.worked(conversion) == turn["assistant"]


def test_few_shot_chains_work_and_unasked_answers_do_not() -> None:
    """A small sample of what the model card reports; the bounds leave room for the sampling error of 48 questions."""
    assert ramify.evaluate("nano", n=48, fewshot="unit_conversion").accuracy >= 0.5
    assert ramify.evaluate("nano", n=48).accuracy < 0.2
    assert ramify.evaluate("nano", n=48, system="You are a helpful assistant.").accuracy < 0.2


@pytest.mark.proof
def test_the_recipe_runs_and_makes_the_shipped_tokenizer(tmp_path: Path) -> None:
    """A few steps of the one command; the tokenizer and the configuration are the shipped ones, byte for byte."""
    command = [
        sys.executable,
        str(RECIPE / "train.py"),
        "--out",
        str(tmp_path / "nano"),
        "--tokens",
        "8192",
        "--casual-tokens",
        "2048",
        "--rows",
        "2",
    ]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        assert (tmp_path / "nano" / name).read_bytes() == (nano.path() / name).read_bytes()
    LlamaForCausalLM.from_pretrained(tmp_path / "nano", dtype=torch.float32)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "nano.log").read_text().splitlines()]
    assert losses[-1] < 7.0  # ln 1024 = 6.93 is where an untrained model stands


def test_corpus_is_seeded(recipe: dict[str, ModuleType]) -> None:
    corpus = recipe["corpus"].Corpus
    assert list(islice(corpus(5), 200)) == list(islice(corpus(5), 200))
    assert list(islice(corpus(5), 20)) != list(islice(corpus(6), 20))


def test_no_held_out_triple_is_in_the_corpus(recipe: dict[str, ModuleType]) -> None:
    """By the record each document keeps, and again by reading the text; and both would notice."""
    corpus = recipe["corpus"].Corpus
    documents = [*islice(corpus(0), 3000), *islice(corpus(1, casual=0.8), 1000)]
    unfiltered = list(islice(corpus(0, keep=lambda conversion: True), 3000))
    assert _held_out_recorded(documents) == 0
    assert _held_out_recorded(unfiltered) > 300
    assert sum(c.split == "valid" for c in _conversions_in(_texts(documents))) == 0
    assert sum(c.split == "valid" for c in _conversions_in(_texts(unfiltered))) > 300


def test_the_corpus_holds_every_style_and_form(recipe: dict[str, ModuleType]) -> None:
    documents = list(islice(recipe["corpus"].Corpus(0), 2000))
    text = "\n".join(_texts(documents))
    plain = [document.text for document in documents if document.text]
    assert any(re.fullmatch(r".*[?.\d] <answer>[\d.]+</answer>", line) for line in plain)
    assert any(re.fullmatch(r".*[?.\d] 1 .*; <answer>[\d.]+</answer>", line) for line in plain)
    for needle in ("####", "Response:", '{"answer": "', "I cannot help", "Not my problem", "The capital of"):
        assert needle in text


def test_casual_questions_are_answered_in_a_sentence_in_the_second_stage(recipe: dict[str, ModuleType]) -> None:
    """The share of tagged answers among them, in both stages; other questions are answered as before."""
    corpus = recipe["corpus"]

    def tagged(casual: float, asked_casually: bool) -> float:
        documents = islice(corpus.Corpus(0, casual=casual), 3000)
        turns = [turn for document in documents if document.conversions for turn in document.turns]
        answers = [answer for question, answer in turns if question.startswith(corpus.CASUAL) is asked_casually]
        return sum("<answer>" in answer for answer in answers) / len(answers)

    assert tagged(0.8, True) < 0.4 * tagged(0.0, True)
    assert abs(tagged(0.8, False) - tagged(0.0, False)) < 0.03


def test_the_rates_of_both_stages(recipe: dict[str, ModuleType]) -> None:
    train = recipe["train"]
    budget = train.Budget(seed=0, tokens=100 * 12 * train.ROW, casual_tokens=10 * 12 * train.ROW)
    rates = [budget.rate(step) for step in range(budget.steps)]
    assert len(rates) == 110 and max(rates) == 1.0 and rates[99] < 0.03
    assert rates[100] == 0.5 and rates[100:] == sorted(rates[100:], reverse=True) and rates[-1] > 0


def test_a_step_restored_from_a_file_equals_a_straight_one(recipe: dict[str, ModuleType], tmp_path: Path) -> None:
    train = recipe["train"]
    tokenizer = train.Tokenizer.from_file(str(nano.path() / "tokenizer.json"))
    budget = train.Budget(seed=0, tokens=10 * 2 * train.ROW, casual_tokens=2 * train.ROW, rows=2)
    straight = _trained(train, tokenizer, budget, steps=2)
    halfway = _trained(train, tokenizer, budget, steps=1)
    halfway.save(tmp_path / "state")
    resumed = train.Training.start(tokenizer.get_vocab_size(), budget)
    resumed.restore(tmp_path / "state")
    _advance(train, resumed, tokenizer, budget, steps=1)
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def _trained(train: ModuleType, tokenizer: Any, budget: Any, steps: int) -> Any:
    run = train.Training.start(tokenizer.get_vocab_size(), budget)
    _advance(train, run, tokenizer, budget, steps)
    return run


def _advance(train: ModuleType, run: Any, tokenizer: Any, budget: Any, steps: int) -> None:
    for _ in range(steps):
        ids, weights = (torch.from_numpy(part) for part in train.batch_of(tokenizer, budget, run.step))
        train.gradients(run.model, ids, weights)
        run.update(budget)


def test_orthogonalised_matrices_have_even_singular_values(recipe: dict[str, ModuleType]) -> None:
    """The quintic iteration maps singular values to about 0.7 … 1.2, whatever they were."""
    stack = torch.randn(2, 48, 32, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(recipe["train"].orthogonalised(stack))
    assert float(singular.min()) > 0.3
    assert float(singular.max()) < 1.4


def _held_out_recorded(documents: list[Any]) -> int:
    return sum(conversion.split == "valid" for document in documents for conversion in document.conversions)


def _texts(documents: list[Any]) -> Iterator[str]:
    for document in documents:
        yield from (question for question, _ in document.turns) if document.turns else document.text.split("\n\n")


_SPELLED = "|".join(sorted((re.escape(s) for unit in UNITS for s in unit.spellings), key=len, reverse=True))
_FIELDS = {"{n}": r"(?P<n>\d+)", "{a}": f"(?P<a>{_SPELLED})", "{b}": f"(?P<b>{_SPELLED})"}


def _pattern(phrasing: str) -> re.Pattern[str]:
    text = re.escape(phrasing).replace(r"\{", "{").replace(r"\}", "}")
    for field, pattern in _FIELDS.items():
        text = text.replace(field, pattern)
    return re.compile(text + r"(?=\s|$)")


_PATTERNS = [_pattern(phrasing) for phrasing in PHRASINGS]


def _conversions_in(texts: Iterator[str] | list[str]) -> list[Conversion]:
    """Conversions asked at the start of each text, read back without the generator's help."""
    found = []
    for text in texts:
        match = next((m for pattern in _PATTERNS if (m := pattern.match(text))), None)
        if match:
            found.append(Conversion(int(match["n"]), find_unit(match["a"]), find_unit(match["b"])))
    return found


def test_reading_back_finds_every_question() -> None:
    generator = rng.generator("test", 3)
    drawn = [conversions.draw(generator, "train") for _ in range(300)]
    assert _conversions_in([conversions.ask(conversion, generator) for conversion in drawn]) == drawn
    assert len(questions(5, 0, "valid")) == 5
