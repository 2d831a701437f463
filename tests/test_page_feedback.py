"""Judgements on disk: whole lines whoever writes them, and rows that preference optimisation trains on."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from train_setup import Watcher, make_config, model_folder

from ramify.base.errors import DataError, RunError
from ramify.base.types import Message, Stop
from ramify.serve.page import feedback as module
from ramify.serve.page.feedback import Feedback, preference
from ramify.serve.page.sessions import Answer
from ramify.train import dpo

__all__ = ["model_folder"]

PROMPT = (
    Message("system", "Be brief."),
    Message("user", "hi"),
    Message("assistant", "hello"),
    Message("user", "2 kg?"),
)


def answer(text: str, model: str = "a", stop: Stop | None = Stop.EOS, prompt: tuple[Message, ...] = PROMPT) -> Answer:
    return Answer(prompt, text, model, stop)


def test_what_cannot_be_learnt_from_is_refused() -> None:
    good = answer("2000 g")
    other = answer("3 g", prompt=PROMPT[:2])
    for chosen, rejected in ((good, good), (good, other), (good, answer(" ")), (answer(""), good)):
        with pytest.raises(DataError):
            preference(chosen, rejected, "edited")
    with pytest.raises(DataError, match="cut off"):
        preference(answer("2000", stop=Stop.LENGTH), good, "edited")
    assert preference(good, answer("2000", stop=Stop.LENGTH), "edited")["rejected"] == "2000"


def test_many_writers_leave_whole_lines(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "deep" / "feedback.jsonl")
    texts = [f"{number} — «line\nbreak» \u2028 {'x' * (number * 37 % 5000)}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: feedback.add(preference(answer(text), answer("no"), "edited")), texts))
    rows = [json.loads(line) for line in feedback.path.read_bytes().split(b"\n")[:-1]]
    assert sorted(row["chosen"] for row in rows) == sorted(texts) and len(feedback) == 60


def test_a_line_that_somebody_left_open_is_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"chosen": "a", "rejected": "b", "prompt": "c"}')
    Feedback(path).add(preference(answer("yes"), answer("no"), "edited"))
    assert [json.loads(line)["chosen"] for line in path.read_text().splitlines()] == ["a", "yes"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = Feedback(tmp_path / "feedback.jsonl")
    feedback.add(preference(answer("yes"), answer("no"), "edited"))
    before = feedback.path.read_bytes()
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda file, content: real(file, content[:20]))
    with pytest.raises(RunError, match=r"feedback\.jsonl: cannot be written"):
        feedback.add(preference(answer("more"), answer("no"), "edited"))
    assert feedback.path.read_bytes() == before
    with pytest.raises(RunError):
        Feedback(feedback.path / "below").add(preference(answer("yes"), answer("no"), "edited"))


def test_preference_optimisation_trains_on_the_rows(tmp_path: Path, model_folder: Path) -> None:
    feedback = Feedback(tmp_path / "feedback.jsonl")
    for number in range(4):
        feedback.add(preference(answer(f"{number} g"), answer(f"{number} kg", "b"), "side by side"))
    config = make_config(
        model_folder,
        feedback.path,
        tmp_path / "run",
        method="dpo",
        prompt={"chat_template": "model"},
        train={"max_steps": 1},
    )
    run = dpo.run(config, progress=Watcher())
    (line,) = run.metrics("train")
    assert line["step"] == 1 and line["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: policy and reference agree
