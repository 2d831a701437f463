"""Samples, evaluations and training rows from an endpoint: a real server process answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_setup import ramify
from endpoint_setup import Server, process, server

from ramify.base.config import Endpoint, Prompting, Sampling
from ramify.base.errors import DataError, ModelError
from ramify.base.records import read_jsonl
from ramify.base.rng import key
from ramify.base.types import Message, Problem, Sample, Stop
from ramify.sample.endpoint.pace import BackOff
from ramify.sample.endpoint.sampler import EndpointSampler
from ramify.sample.endpoint.usage import Usage
from ramify.sample.prompting import Turns, prompt_of
from ramify.sample.sampler import PromptTokens

__all__ = ["process", "server"]
SOON = BackOff(first=0.001, longest=0.002)
WARM = Sampling(n=3, temperature=0.7)


def sampler(server: Server, **settings: Any) -> EndpointSampler:
    return EndpointSampler(Endpoint(base_url=server.url, **settings), "teacher", SOON)


def prompts(count: int = 4, prompting: Prompting | None = None) -> list[PromptTokens]:
    asker = Turns(Prompting() if prompting is None else prompting)
    return [prompt_of(asker, Problem(f"p{n}", (Message("user", f"q{n}"),))) for n in range(count)]


def seed_of(problem: int, index: int) -> int:
    return key("sample", 7, f"p{problem}", index) & 0x7FFFFFFF


@pytest.mark.parametrize("parallel", [1, 3, 50])
def test_samples_come_in_order_whoever_answers_first(parallel: int, server: Server) -> None:
    server.next(*[{"hang": 0.2}, {}, {"hang": 0.1}, {}])
    drawing, told = sampler(server, parallel=parallel), list[Sample]()
    found = drawing.sample(prompts(), WARM, seed=7, on_sample=told.append)
    assert [[(each.problem_id, each.index) for each in group] for group in found] == [
        [(f"p{p}", index) for index in range(3)] for p in range(4)
    ]
    expected = Sample("p2", 1, (), (), f"q2 => {seed_of(2, 1)}", Stop.EOS, "teacher", 7)
    assert found[2][1] == expected
    assert sorted(told, key=lambda each: (each.problem_id, each.index)) == [each for group in found for each in group]
    assert drawing.usage == Usage(requests=12, prompt_tokens=120, completion_tokens=36)
    assert server.seen()["at_once"] <= parallel


def test_requests_are_under_way_at_once(server: Server) -> None:
    server.next(*[{"hang": 0.5}] * 6)
    sampler(server, parallel=6).sample(prompts(6), Sampling(), seed=7)
    assert server.seen()["at_once"] > 1


def test_what_is_not_of_openai_is_sent_only_where_it_is_set(server: Server) -> None:
    sampler(server).sample(prompts(1), Sampling(), seed=7)
    settings = Sampling(
        temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, repetition_penalty=1.2, stop=("\n", "#"), max_new_tokens=9
    )
    sampler(server).sample(prompts(1), settings, seed=7)
    plain, full = (each["body"] for each in server.seen()["requests"])
    turns = {"model": "teacher", "messages": [{"role": "user", "content": "q0"}], "seed": seed_of(0, 0)}
    assert plain == {**turns, "max_tokens": 128, "temperature": 0.0, "top_p": 1.0}
    extras = {"top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "stop": ["\n", "#"]}
    assert full == {**turns, "max_tokens": 9, "temperature": 0.5, **extras}


def test_system_turn_and_worked_turns_are_sent(server: Server, tmp_path: Path) -> None:
    worked = tmp_path / "worked.yaml"
    worked.write_text("system: from the file\nturns:\n  - user: a?\n    assistant: b.\n", encoding="utf-8")
    sampler(server).sample(prompts(1, Prompting(fewshot=worked, system="mine")), Sampling(), seed=7)
    [request] = server.seen()["requests"]
    assert [(each["role"], each["content"]) for each in request["body"]["messages"]] == [
        ("system", "mine"),
        ("user", "a?"),
        ("assistant", "b."),
        ("user", "q0"),
    ]


def test_stop_strings_that_an_endpoint_leaves_in_are_cut(server: Server) -> None:
    server.say({"q0": "one two # three", "q1": "nothing"})
    first, second = sampler(server).sample(prompts(2), Sampling(stop=("#",)), seed=7)
    assert (first[0].text, first[0].stop) == ("one two ", Stop.STOP_STRING)
    assert (second[0].text, second[0].stop) == ("nothing", Stop.EOS)


def test_only_the_indices_asked_for_are_drawn(server: Server) -> None:
    drawing = sampler(server)
    found = drawing.sample(prompts(3), WARM, seed=7, indices={"p1": [2, 0], "p2": []})
    assert [[each.index for each in group] for group in found] == [[], [0, 2], []]
    assert drawing.sample(prompts(3), WARM, seed=7, indices={}) == [[], [], []]
    assert drawing.usage.requests == 2


def test_prompts_of_another_kind_are_refused(server: Server) -> None:
    with pytest.raises(DataError, match="problem id 'p' appears twice"):
        sampler(server).sample([PromptTokens("p", (1,))] * 2, Sampling(), seed=7)
    with pytest.raises(DataError, match="problem 'p': an endpoint is asked with turns"):
        sampler(server).sample([PromptTokens("p", (1, 2))], Sampling(), seed=7)
    assert server.seen()["requests"] == []


def test_a_refusal_for_good_stops_and_keeps_what_was_drawn(server: Server) -> None:
    """The third request is refused; those under way are waited for, and no more begin."""
    server.next({}, {}, {"status": 400, "body": {"error": {"message": "context too long"}}})
    told: list[Sample] = []
    drawing = sampler(server, parallel=1)
    with pytest.raises(ModelError, match="400 Bad Request: context too long"):
        drawing.sample(prompts(9), Sampling(), seed=7, on_sample=told.append)
    assert [each.problem_id for each in told] == ["p0", "p1"]
    assert drawing.usage == Usage(requests=3, prompt_tokens=20, completion_tokens=6)
    server.next({"hang": 0.3}, {"status": 401}, {"hang": 0.3})
    told.clear()
    with pytest.raises(ModelError, match="401 Unauthorized"):
        sampler(server, parallel=3).sample(prompts(9), Sampling(), seed=7, on_sample=told.append)
    assert len(told) == 2


def test_an_interrupt_ends_it_at_once(server: Server) -> None:
    told: list[Sample] = []

    def stop_at_the_second(sample: Sample) -> None:
        told.append(sample)
        if len(told) == 2:
            raise KeyboardInterrupt

    drawing = sampler(server, parallel=2)
    with pytest.raises(KeyboardInterrupt):
        drawing.sample(prompts(40), Sampling(), seed=7, on_sample=stop_at_the_second)
    assert len(told) == 2
    assert 2 <= drawing.usage.requests < 40


# --- the commands ---


def units(folder: Path, count: int = 6) -> Path:
    """Questions whose answer is a number, as a file."""
    rows = [{"question": f"How many grams are in {n} kg?", "answer": 1000.0 * n} for n in range(1, count + 1)]
    path = folder / "units.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def right_answers(count: int = 6) -> dict[str, str]:
    return {f"How many grams are in {n} kg?": f"<answer>{1000 * n}</answer>" for n in range(1, count + 1)}


@pytest.fixture
def key_in_environment(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    return "endpoint.key_env=MY_KEY"


def holds(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_an_endpoint_is_evaluated_as_any_model(
    server: Server,
    key_in_environment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = units(tmp_path)
    server.say({**right_answers(), "How many grams are in 2 kg?": "<answer>7</answer>"})
    at = f"endpoint.base_url={server.url}"
    out = tmp_path / "eval"
    command = ("eval", "org/teacher", "--engine", "openai", at, key_in_environment, "--problems", asked, "--out", out)
    code, shown, told = ramify(monkeypatch, capsys, *command)
    assert code == 0, told
    assert "83.3 %" in shown
    assert "org/teacher by openai on unit_conversion" in told
    assert "spent: 6 requests, 60 prompt and 6 new tokens" in told
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["usage"] == {
        "requests": 6,
        "repeated": 0,
        "prompt_tokens": 60,
        "completion_tokens": 6,
        "uncounted": 0,
    }
    assert record["config"]["engine"] == "openai"
    assert {each["authorization"] for each in server.seen()["requests"]} == {"Bearer sk-secret-123"}
    assert holds(tmp_path, "sk-secret") == []
    assert "sk-secret" not in shown + told
    shutil.copytree(out, tmp_path / "again")
    code, shown, told = ramify(monkeypatch, capsys, "compare", out, tmp_path / "again")
    assert code == 0, told


def test_a_stopped_evaluation_asks_for_what_is_missing_only(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = units(tmp_path), tmp_path / "eval"
    server.say(right_answers())
    server.next({}, {}, {"status": 403, "body": {"error": {"message": "not today"}}})
    at = (f"endpoint.base_url={server.url}", "endpoint.parallel=1")
    command = ("eval", "teacher", "--engine", "openai", *at, "--problems", asked, "--out", out)
    code, _, told = ramify(monkeypatch, capsys, *command)
    assert code != 0
    assert "403 Forbidden: not today" in told
    assert len(server.seen()["requests"]) == 3
    code, _, told = ramify(monkeypatch, capsys, *command)
    assert code == 0, told
    assert "going on with 2 of 6 samples" in told
    assert len(server.seen()["requests"]) == 4
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["usage"]["requests"] == 7


def test_a_teacher_writes_training_rows(
    server: Server,
    key_in_environment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked, out = units(tmp_path), tmp_path / "draws"
    wrong = "How many grams are in 4 kg?"
    server.say({question: f"It is {text}" for question, text in right_answers().items() if question != wrong})
    settings = ("model=teacher", f"data.train={asked}", "sample.n=2", "sample.temperature=0.7", key_in_environment)
    at = f"endpoint.base_url={server.url}"
    code, _, told = ramify(monkeypatch, capsys, "sample", *settings, at, "--engine", "openai", "--out", out)
    assert code == 0, told
    rows = [row for _, row in read_jsonl(out / "rows.jsonl")]
    assert len(rows) == 5
    assert len([row for _, row in read_jsonl(out / "samples.jsonl")]) == 12
    assert "spent: 12 requests" in told
    assert f"next: ramify train model=YOUR_MODEL data.train={out} out={out}-sft" in told
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["usage"]["requests"] == 12
    assert holds(tmp_path, "sk-secret") == []
    code, _, told = ramify(monkeypatch, capsys, "train", out / "config.yaml", "method=sft", f"out={tmp_path / 'x'}")
    assert code != 0
    assert "engine = openai draws samples; training is done by engine own" in told
    ramify(monkeypatch, capsys, "data", "check", out / "rows.jsonl", "model=nano")


def test_a_teacher_that_fails_is_gone_on_with(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = units(tmp_path), tmp_path / "draws"
    server.say(right_answers())
    server.next({}, {}, {}, {"status": 400, "body": "no"})
    at = (f"endpoint.base_url={server.url}", "endpoint.parallel=1")
    command = ("sample", "model=teacher", f"data.train={asked}", *at, "--engine", "openai", "--out", out)
    code, _, told = ramify(monkeypatch, capsys, *command)
    assert code != 0
    assert "400 Bad Request: no" in told
    server.seen()
    code, _, told = ramify(monkeypatch, capsys, *command, "--resume", "endpoint.parallel=3")
    assert code == 0, told
    assert len(server.seen()["requests"]) == 3
    assert "spent: 7 requests" in told


def test_completions_of_a_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = tmp_path / "prompts.txt", tmp_path / "rows.jsonl"
    asked.write_text("one\ntwo\nthree\n", encoding="utf-8")
    server.say({"one": "1", "two": "2", "three": "3"})
    server.next({}, {"status": 404, "body": {"error": {"message": "no such model"}}})
    at = ("--model", "teacher", "--engine", "openai", f"endpoint.base_url={server.url}", "endpoint.parallel=1")
    code, _, told = ramify(monkeypatch, capsys, "generate", asked, *at, "--out", out)
    assert code != 0
    assert "404 Not Found: no such model" in told
    assert "spent: 2 requests, 10 prompt and 1 new tokens" in told
    server.seen()
    code, _, told = ramify(monkeypatch, capsys, "generate", asked, *at, "--out", out, "--resume")
    assert code == 0, told
    assert [row["completion"] for _, row in read_jsonl(out)] == ["1", "2", "3"]
    assert len(server.seen()["requests"]) == 2


def test_settings_of_the_own_engine_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = f"endpoint.base_url={server.url}"
    for setting, said in (
        ("train.dtype=bf16", "train.dtype: does nothing with engine = openai"),
        ("train.device=cpu", "train.device: does nothing with engine = openai"),
        ("sample.live=2", "sample.live = 2 does nothing with engine = openai"),
    ):
        code, _, told = ramify(monkeypatch, capsys, "eval", "teacher", "--engine", "openai", at, setting)
        assert code != 0
        assert said in told
    assert server.seen()["requests"] == []
