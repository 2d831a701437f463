"""Perplexity and forgetting: equal to plain Transformers without sharing, adapter on and off in one copy of weights."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from cli_setup import ramify
from peft import LoraConfig, PeftModel, get_peft_model
from sample_setup import as_loaded, loaded_model
from tiny_models import tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from ramify.base.config import Prompting, Sampling
from ramify.base.errors import DataError, LengthError, ModelError
from ramify.base.types import Completion, Example, Message, TokenSequence
from ramify.evaluate.probe.forgetting import Couple, forgetting
from ramify.evaluate.probe.general_prompts import GENERAL
from ramify.evaluate.probe.likelihood import completion_logprobs, likelihood, mean_per_token
from ramify.evaluate.probe.run import general_prompts, held_out_rows
from ramify.model.load import LoadedModel, load_model
from ramify.prompts.renderer import Renderer
from ramify.sample.sampler import PromptTokens
from ramify.tasks.chat.task import Chat

QUESTIONS = ("How many grams are in 6 kg?", "How many grams are in 7 kg?", "Name a colour.")


def full_logprobs(network: Any, ids: tuple[int, ...]) -> Tensor:
    """[T, V] next-token log-probabilities of one row by itself, by Transformers' own attention."""
    (network.get_base_model() if isinstance(network, PeftModel) else network).set_attn_implementation("eager")
    with torch.no_grad():
        return network(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def sequences() -> list[TokenSequence]:
    start = tuple(range(3, 20))
    tails = ((5, 6, 7), (5, 6, 9, 2), (8,))
    return [TokenSequence.of(start, tail) for tail in tails] + [TokenSequence.of((30, 31), (32, 2), 0.25)]


@pytest.mark.parametrize("micro_tokens", [8, 1000])
def test_log_probabilities_are_those_of_unshared_rows(micro_tokens: int) -> None:
    loaded = loaded_model()
    found = completion_logprobs(loaded, sequences(), micro_tokens)
    for sequence, values in zip(sequences(), found, strict=True):
        count = len(values)
        rows = full_logprobs(tiny_model("llama"), sequence.ids)[-count - 1 : -1]
        expected = rows.gather(-1, torch.tensor(sequence.ids[-count:])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(values), expected, atol=2e-5, rtol=1e-4)


def test_sequences_that_are_too_long_are_refused_with_counts() -> None:
    loaded = loaded_model(max_position_embeddings=16)
    with pytest.raises(
        LengthError, match="3 of 4 answers with their prompts exceed the model's 16 tokens; the longest"
    ):
        completion_logprobs(loaded, sequences(), 100)


@pytest.fixture(scope="module")
def nano() -> LoadedModel:
    return load_model("nano", dtype="fp32", device="cpu")


def rows() -> list[Example]:
    told = [(Message("user", question),) for question in QUESTIONS]
    answers = ("It is 6000 grams.", "7000 g", "Grün")
    return [Example(prompt, (Completion(answer, 0.5),)) for prompt, answer in zip(told, answers, strict=True)]


def test_perplexity_is_that_of_transformers(nano: LoadedModel) -> None:
    """exp of the mean loss over all answers' tokens, where Transformers ignores the prompts (label -100)."""
    renderer = Renderer(nano.tokenizer, stop_ids=nano.stop_ids)
    found = likelihood(nano, renderer, rows(), 4096)
    nats, tokens = 0.0, 0
    network: Any = load_model("nano", dtype="fp32", device="cpu").network
    for example in rows():
        (sequence,) = renderer.sequences(example)
        count = sum(weight != 0 for weight in sequence.weights)
        labels = torch.tensor([[-100] * (len(sequence.ids) - count) + list(sequence.ids[-count:])])
        with torch.no_grad():
            nats += float(network(input_ids=torch.tensor([sequence.ids]), labels=labels).loss) * count
        tokens += count
    assert (found.answers, found.tokens) == (3, tokens)
    assert found.perplexity == pytest.approx(exp(nats / tokens), rel=1e-4)
    assert found.bits_per_token == pytest.approx(log(found.perplexity, 2))
    assert found.bytes == len("It is 6000 grams.7000 gGrün".encode())
    assert found.bits_per_byte * found.bytes == pytest.approx(found.bits_per_token * tokens)


def test_without_answers_there_is_nothing_to_score(nano: LoadedModel) -> None:
    with pytest.raises(DataError, match="no held-out answers"):
        likelihood(nano, Renderer(nano.tokenizer, stop_ids=nano.stop_ids), [], 100)


def adapted() -> LoadedModel:
    """A tiny model with an adapter that does something."""
    network = get_peft_model(tiny_model("llama"), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return as_loaded(network.eval())


PROMPTS = [PromptTokens("a", tuple(range(3, 12))), PromptTokens("b", (*range(3, 9), 40, 41))]


class Fixed:
    """A renderer of prompts that are token ids already."""

    def prompt_ids(self, prompt: Any) -> tuple[int, ...]:
        return PROMPTS[int(prompt[0].content)].ids


def test_the_probe_is_what_two_whole_models_would_show() -> None:
    """KL, top-1 and drop from one copy of the weights, against two forwards of Transformers, row by row."""
    couple, renderer = Couple(adapted()), cast(Renderer, Fixed())
    asked = [(Message("user", str(index)),) for index in range(2)]
    found = forgetting(couple, renderer, asked, max_new_tokens=6, micro_tokens=1000)
    answers = couple.base_answers(PROMPTS, Sampling(max_new_tokens=6))
    base, tuned = tiny_model("llama"), adapted().network
    kl, same, drop = [], [], []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = prompt.ids + answer.token_ids
        count = len(answer.token_ids)
        p, q = (full_logprobs(network, ids)[-count - 1 : -1] for network in (base, tuned))
        kl += (p.exp() * (p - q)).sum(-1).tolist()
        same += (p.argmax(-1) == q.argmax(-1)).tolist()
        drop += (p - q).gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0].tolist()
        assert p.argmax(-1).tolist() == list(answer.token_ids)  # the answers are the base's own, greedy ones
    assert found.tokens == len(kl) and found.prompts == 2
    assert found.kl.value == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert found.top1.value == pytest.approx(sum(same) / len(same))
    assert found.drop.value == pytest.approx(sum(drop) / len(drop), rel=1e-3)
    assert found.kl.value > 0.01
    assert found.kl.low <= found.kl.value <= found.kl.high
    assert [each.kl for each in found.answers] == sorted((each.kl for each in found.answers), reverse=True)


def test_an_adapter_that_does_nothing_has_forgotten_nothing(nano: LoadedModel) -> None:
    network = get_peft_model(
        cast(PreTrainedModel, load_model("nano", dtype="fp32", device="cpu").network),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    couple, renderer = Couple.of(replace(nano, network=network.eval()), None, Prompting())
    asked = [(Message("user", text),) for text in QUESTIONS]
    found = forgetting(couple, renderer, asked, max_new_tokens=8, micro_tokens=4096)
    assert (found.top1.value, found.same.value) == (1.0, 1.0)
    assert found.kl.value == pytest.approx(0, abs=1e-6) and found.drop.value == pytest.approx(0, abs=1e-6)


def test_a_base_of_its_own_gives_the_same_as_the_adapter_off(nano: LoadedModel) -> None:
    asked = [(Message("user", text),) for text in QUESTIONS]
    couple, renderer = Couple.of(nano, load_model("nano", dtype="fp32", device="cpu"), Prompting())
    found = forgetting(couple, renderer, asked, max_new_tokens=8, micro_tokens=4096)
    assert found.kl.value == pytest.approx(0, abs=1e-6)


def test_without_an_adapter_the_base_must_be_named(nano: LoadedModel) -> None:
    with pytest.raises(ModelError, match="has no adapter that could be switched off"):
        Couple.of(nano, None, Prompting())
    with pytest.raises(ModelError, match="different tokenizers"):
        Couple.of(nano, loaded_model(), Prompting(chat_template="plain"))


def test_without_prompts_nothing_can_be_asked(nano: LoadedModel) -> None:
    with pytest.raises(DataError, match="no prompts to ask"):
        forgetting(Couple(nano), Renderer(nano.tokenizer), [], max_new_tokens=8, micro_tokens=64)


def test_a_mean_per_token_weighs_answers_by_their_tokens() -> None:
    found = mean_per_token([10.0, 1.0], [9, 2], "test")
    assert found.value == 1.0
    assert (found.low, found.high) == (0.5, pytest.approx(10 / 9))
    assert found == mean_per_token([10.0, 1.0], [9, 2], "test")


def test_the_interval_covers_the_mean_of_answers() -> None:
    """The bootstrap's interval of a ratio, on 100 keyed draws of 60 answers: within Monte-Carlo error of 95 %."""
    generator = torch.Generator().manual_seed(3)
    held = 0
    for index in range(100):
        counts = torch.randint(1, 9, (60,), generator=generator)
        sums = counts * 0.5 + counts.sqrt() * torch.randn(60, generator=generator)
        found = mean_per_token(sums.tolist(), counts.tolist(), f"cover {index}")
        held += found.low <= 0.5 <= found.high
    assert 0.89 <= held / 100 <= 0.99


def test_prompts_and_rows_come_from_files_of_any_shape(tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text('{"prompt": "What is new?"}\n', encoding="utf-8")
    assert len(general_prompts(None)) == len(GENERAL) == len(set(GENERAL))
    assert general_prompts(more)[-1] == (Message("user", "What is new?"),)
    answered = {"prompt": "Where?", "rules": [{"contains": "Paris"}], "answer": "Paris."}
    more.write_text(json.dumps(answered) + "\n" + json.dumps({**answered, "answer": None}) + "\n", encoding="utf-8")
    assert [each.completions[0].text for each in held_out_rows(more, Chat())] == ["Paris."]
    more.write_text('{"prompt": "What is new?"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="holds no answers to score"):
        held_out_rows(more, Chat())


def test_rows_are_read_as_the_run_has_read_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was trained as whole texts is scored as whole texts, unless the command says otherwise."""
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    text = "<|user|>\nHello.\n<|assistant|>\nHello! How can I help you?"
    data.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    train = ("train", f"data.train={data}", "train.max_steps=1", f"out={run}", "train.dtype=fp32")
    assert ramify(monkeypatch, capsys, *train, "data.as_text=true")[0] == 0
    probed = ("probe", run, "--rows", data, "--max-new-tokens", 1)
    scored = []
    for override in ((), ("data.as_text=false",)):
        assert ramify(monkeypatch, capsys, *probed, *override)[0] == 0
        scored.append(json.loads((run / "probe.json").read_text(encoding="utf-8"))["held_out"]["base"]["bytes"])
    assert scored == [len(text), len("Hello! How can I help you?")]


def test_a_run_is_probed_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_text(
        "".join(json.dumps({"prompt": question, "completion": "I do not know."}) + "\n" for question in QUESTIONS)
    )
    train = ("train", f"data.train={data}", "train.max_steps=6", "train.lr=0.01", f"out={run}", "train.dtype=fp32")
    assert ramify(monkeypatch, capsys, *train)[0] == 0
    code, shown, _ = ramify(monkeypatch, capsys, "probe", run, "--rows", data, "--max-new-tokens", 8)
    assert code == 0
    found = json.loads((run / "probe.json").read_text(encoding="utf-8"))
    assert found["forgetting"]["prompts"] == len(GENERAL)
    assert found["held_out"]["tuned"]["perplexity"] < found["held_out"]["base"]["perplexity"]
    assert found["held_out"]["gain"]["low"] > 0
    assert found["forgetting"]["kl"]["value"] > 0
    assert "top-1" in shown and "perplexity" in shown
    for idle in ("sample.max_new_tokens=4", "train.lr=1", "out=x"):
        code, _, error = ramify(monkeypatch, capsys, "probe", run, idle)
        assert (code, error.splitlines()[0]) == (2, f"error: {idle.partition('=')[0]}: ramify probe does not read it")
    code, _, error = ramify(monkeypatch, capsys, "probe", run, "--out", run)
    assert code == 1 and "is a folder, a file is needed" in error
    code, _, error = ramify(monkeypatch, capsys, "probe", "nano")
    assert (code, error.splitlines()[0]) == (2, "error: nano is no run folder, so where is the result to go?")
    code, _, error = ramify(monkeypatch, capsys, "probe", "nano", "--out", tmp_path / "p.json")
    assert code == 2 and "has no adapter that could be switched off" in error
