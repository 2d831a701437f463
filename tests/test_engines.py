"""Engines by name: the same problems and grading on each, and what is refused where an engine is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_setup import ramify
from sample_setup import draw_samples, forked_prompts, loaded_model
from train_setup import model_folder, pairs_file

from ramify import nano
from ramify.base.config import Prompting, RunConfig, Sampling
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, LengthError, ModelError
from ramify.base.records import read_jsonl
from ramify.base.runs import Run
from ramify.base.types import Message, Problem, Stop
from ramify.evaluate.run import evaluate
from ramify.evaluate.settings import deciding, evaluation_config
from ramify.prompts.renderer import Renderer
from ramify.sample.engine import TreeSampler
from ramify.sample.engines import open_engine
from ramify.sample.prompting import Turns, prompt_of
from ramify.sample.sampler import PromptTurns
from ramify.sample.vllm_sampler import VllmSampler

__all__ = ["model_folder"]
QUESTION = Problem("a", (Message("user", "How many grams are in 2 kg?"),))


def settings(model: Path | str, **sections: object) -> RunConfig:
    return parse_config({"model": str(model), "train": {"dtype": "fp32", "device": "cpu"}, **sections})


# --- the own engine, and prompts for each kind ---


def test_the_own_engine_is_what_it_was(model_folder: Path) -> None:
    opened = open_engine(settings(model_folder), Prompting())
    assert isinstance(opened.sampler, TreeSampler) and isinstance(opened.asker, Renderer)
    assert opened.loaded is not None and opened.max_length == opened.loaded.max_length
    assert opened.usage().requests == 0
    prompt = prompt_of(opened.asker, QUESTION)
    assert prompt.ids == opened.asker.prompt_ids(QUESTION.prompt)


def test_turns_are_those_that_a_renderer_renders(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "worked.yaml").write_text("system: s\nturns:\n  - {user: u, assistant: a}\n", encoding="utf-8")
    opened = open_engine(settings(model_folder), Prompting())
    assert isinstance(opened.asker, Renderer)
    own = Problem("b", (Message("system", "own"), Message("user", "q")))
    for system in (None, "mine"):
        for fewshot in (None, tmp_path / "worked.yaml"):
            prompting = Prompting(system=system, fewshot=fewshot)
            turns, renderer = Turns(prompting), Renderer(opened.asker.tokenizer, prompting)
            for problem in (QUESTION, own):
                found = prompt_of(turns, problem)
                assert isinstance(found, PromptTurns) and found.ids == ()
                assert found.conversation == renderer.conversation(problem.prompt)


def test_files_that_an_engine_does_not_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the own engine reads no GGUF files \(hint: --engine llamacpp does\)"):
        open_engine(settings(tmp_path / "model.gguf"), Prompting())
    with pytest.raises(ConfigError, match="engine = llamacpp reads GGUF files, found nano"):
        open_engine(parse_config({"model": "nano", "engine": "llamacpp"}), Prompting())
    with pytest.raises(ModelError, match="no such file"):
        open_engine(parse_config({"model": str(tmp_path / "absent.gguf"), "engine": "llamacpp"}), Prompting())


def test_the_engine_is_a_part_of_what_is_measured() -> None:
    own = evaluation_config("nano")
    other = evaluation_config("nano", options={"engine": "vllm"})
    assert deciding(own)["engine"] == "own" and deciding(other)["engine"] == "vllm"
    assert own.out == Path("runs/eval-nano")
    assert other.out is not None and other.out.name.startswith("eval-nano-vllm-")
    at = [evaluation_config("m", [f"endpoint.base_url=http://{host}/v1", "engine=openai"]) for host in "ab"]
    assert at[0].out != at[1].out
    assert deciding(at[0]).keys() >= {"endpoint.base_url"}
    assert "endpoint.parallel" not in deciding(at[0])


def test_the_name_of_a_run_means_a_model_of_the_endpoint_there(model_folder: Path, tmp_path: Path) -> None:
    """`ramify serve RUN` lists the run by its name; asked over HTTP, its template is the server's business."""
    from ramify.base.runs import create_run

    run = create_run(tmp_path / "run", settings(model_folder, prompt={"chat_template": "plain"}))
    name = str(run.folder)
    assert evaluation_config(name).prompt.chat_template == "plain"
    over = evaluation_config(name, ["engine=openai", "endpoint.base_url=http://a/v1", "out=x"])
    assert (over.model, over.prompt.chat_template) == (name, "model")


def test_training_with_another_engine_is_refused(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pairs_file(tmp_path / "rows.json", 4)
    for method in ("sft", "rft"):
        command = (f"model={model_folder}", f"method={method}", f"data.train={rows}", "engine=vllm")
        for more in ((), ("--dry-run",)):
            code, _, told = ramify(monkeypatch, capsys, "train", *command, "--out", tmp_path / "run", *more)
            assert code != 0
            assert "engine = vllm draws samples; training is done by engine own" in told
    assert not (tmp_path / "run").exists()


# --- llama.cpp ---


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano as a GGUF file in full precision."""
    pytest.importorskip("gguf")
    pytest.importorskip("cyllama")
    from ramify.export.gguf.writer import write_gguf

    path = tmp_path_factory.mktemp("gguf") / "nano-F32.gguf"
    write_gguf(nano.path(), path, "f32")
    return path


def test_a_gguf_file_is_measured_as_the_model_it_came_from(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same task, same problems, same prompts, same answers; `compare` reads both."""
    common = ("--task", "unit_conversion", "--n", "12", "--max-new-tokens", "24")
    here, there = tmp_path / "own", tmp_path / "llamacpp"
    code, _, told = ramify(monkeypatch, capsys, "eval", "nano", *common, "--out", here, "train.dtype=fp32")
    assert code == 0, told
    code, _, told = ramify(monkeypatch, capsys, "eval", gguf, "--engine", "llamacpp", *common, "--out", there)
    assert code == 0, told
    own, other = (Run(folder).record for folder in (here, there))
    for name in ("problems", "prompts"):
        assert own["hashes"][name] == other["hashes"][name]
    assert own["hashes"]["weights"] != other["hashes"]["weights"]
    texts = [[row["text"] for _, row in read_jsonl(folder / "samples.jsonl")] for folder in (here, there)]
    assert texts[0] == texts[1]
    verdicts = [(folder / "verdicts.jsonl").read_bytes() for folder in (here, there)]
    assert verdicts[0] == verdicts[1]
    code, _, told = ramify(monkeypatch, capsys, "compare", here, there)
    assert code == 0, told


def test_a_gguf_file_draws_training_rows_and_completions(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pairs_file(tmp_path / "rows.json", 3)
    drawing = ("sample.n=2", "sample.temperature=1", "sample.max_new_tokens=8")
    command = ("sample", f"model={gguf}", f"data.train={rows}", *drawing, "--engine", "llamacpp")
    code, _, told = ramify(monkeypatch, capsys, *command, "--out", tmp_path / "draws")
    assert code == 0, told
    assert len([row for _, row in read_jsonl(tmp_path / "draws" / "samples.jsonl")]) == 6
    assert set(Run(tmp_path / "draws").record["hashes"]) >= {"problems", "weights"}
    (tmp_path / "p.txt").write_text("one\ntwo\n", encoding="utf-8")
    by_part = f"{gguf.parent}, f32"  # a folder, or a repository of the hub, and a part of the file's name
    command = ("generate", tmp_path / "p.txt", "--model", by_part, "--engine", "llamacpp", "--max-new-tokens", "4")
    code, shown, told = ramify(monkeypatch, capsys, *command)
    assert code == 0, told
    assert [json.loads(line)["id"] for line in shown.splitlines()] == ["1", "2"]


# --- vLLM ---


def test_vllm_is_refused_where_it_is_not_installed(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("ramify.sample.vllm_sampler.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs vLLM, which is not installed \(hint: pip install vllm\)"):
        open_engine(parse_config({"model": str(model_folder), "engine": "vllm"}), Prompting())


STAND_IN = '''
import sys
import torch
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from transformers import AutoModelForCausalLM


@dataclass
class SamplingParams:
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    max_tokens: int
    stop: Any
    stop_token_ids: list
    seed: int
    logprobs: int


class Steps:
    """Greedy, one request a step, the last one first: so that order is tested."""

    def __init__(self, network, length):
        self.network, self.waiting, self.aborted = network, [], []
        self.model_config = SimpleNamespace(max_model_len=length)

    def add_request(self, name, prompt, params, lora_request=None):
        self.waiting.append((name, prompt["prompt_token_ids"], params))

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def abort_request(self, names):
        self.aborted += names
        self.waiting = []

    @torch.inference_mode()
    def step(self):
        name, ids, params = self.waiting.pop()
        found, logprobs, finish, reason = list(ids), [], "length", None
        while len(found) < len(ids) + params.max_tokens and finish == "length":
            scores = self.network(torch.tensor([found])).logits[0, -1].log_softmax(-1)
            token = int(scores.argmax())
            found.append(token)
            logprobs.append({token: SimpleNamespace(logprob=float(scores[token]))})
            if token in params.stop_token_ids:
                finish, reason = "stop", token
        drawn = SimpleNamespace(
            token_ids=found[len(ids):], logprobs=logprobs, text="text", finish_reason=finish, stop_reason=reason
        )
        return [SimpleNamespace(request_id=name, finished=True, outputs=[drawn])]


class LLM:
    made = []

    def __init__(self, **settings):
        LLM.made.append(settings)
        if settings["max_num_seqs"] == 13:
            raise ValueError("No available memory\\nmore")
        network = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32).eval()
        self.llm_engine = Steps(network, 64)
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with vLLM's interface that computes with Transformers: what is tested is how vLLM is used."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vllm.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


def test_vllm_draws_what_the_own_engine_draws(stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    loaded, prompts = loaded_model(), forked_prompts()[:5]
    loaded.network.save_pretrained(str(tmp_path / "model"))
    engine = vllm.LLM(model=str(tmp_path / "model"), max_num_seqs=4)
    sampler = VllmSampler(engine, "tiny", loaded.stop_ids)
    told: list[str] = []
    found = sampler.sample(
        prompts, Sampling(max_new_tokens=10), seed=7, on_sample=lambda sample: told.append(sample.problem_id)
    )
    expected = draw_samples(loaded, prompts)
    assert told == [prompt.problem_id for prompt in reversed(prompts)]
    for [one], [other] in zip(found, expected, strict=True):
        assert (one.problem_id, one.index, one.token_ids, one.stop) == (
            other.problem_id,
            other.index,
            other.token_ids,
            other.stop,
        )
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert {each.stop for [each] in expected} <= {Stop.EOS, Stop.LENGTH}
    indices = sampler.sample(prompts, Sampling(max_new_tokens=2), seed=7, indices={"p2": [3, 1]})
    assert [[each.index for each in group] for group in indices] == [[], [], [1, 3], [], []]
    with pytest.raises(LengthError, match="the longest prompt has"):
        sampler.sample(prompts, Sampling(max_new_tokens=60), seed=7)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.sample(prompts, Sampling(max_new_tokens=2), seed=7, on_sample=stop)
    assert len(engine.llm_engine.aborted) == 4 and not engine.llm_engine.has_unfinished_requests()


def test_vllm_is_opened_with_what_the_settings_say(stand_in: None, model_folder: Path, tmp_path: Path) -> None:
    import vllm

    rows = pairs_file(tmp_path / "rows.json", 3)
    values = {"model": str(model_folder), "engine": "vllm", "evaluate": {"problems": str(rows)}}
    config = parse_config({**values, "sample": {"max_new_tokens": 5, "live": 9}, "train": {"dtype": "fp32"}})
    found = evaluate(config)
    assert found.n == 3
    [made] = vllm.LLM.made
    assert made["model"] == str(model_folder) and made["dtype"] == "float32" and made["max_num_seqs"] == 9
    assert made["seed"] == 42 and made["trust_remote_code"] is False and "enable_lora" not in made
    with pytest.raises(ModelError, match=r"vLLM cannot open it: No available memory$"):
        evaluate(parse_config({**values, "sample": {"live": 13}}))
