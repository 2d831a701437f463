"""An adapter and its base behind one server: two names, each with its own answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serve_http_setup import PLAIN, serving

from ramify.base.config import LoRA
from ramify.cli.serve import open_models
from ramify.model.load import load_model
from ramify.model.lora import add_adapter, save_trained
from ramify.sample.service import Request
from ramify.serve.voices import Voice, open_voice

LOADING = {"adapter": None, "dtype": "fp32", "device": "cpu"}
PROMPT = "How many grams are in 6 kg?"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what is said."""
    loaded = add_adapter(load_model("nano", dtype="fp32", device="cpu"), LoRA(r=4), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, weight in loaded.network.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.2, generator=generator)
    folder = tmp_path_factory.mktemp("adapter")
    save_trained(loaded, folder)
    return folder


@pytest.fixture(scope="module")
def voices(adapter: Path) -> Iterator[list[Voice]]:
    with ExitStack() as opened:
        yield open_models([str(adapter)], LOADING, True, opened)


@pytest.fixture(scope="module")
def server(voices: list[Voice]) -> Iterator[httpx.Client]:
    with serving(*voices) as client:
        yield client


def body(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "prompt": PROMPT, "temperature": 0, "max_tokens": 16, **fields}


def text_of(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["text"])


def said_by(name: str) -> str:
    """What a model of its own says."""
    with closing(open_voice(name, **LOADING)) as voice:
        settings = voice.settings.model_copy(update={"temperature": 0.0, "max_new_tokens": 16})
        ticket = voice.service.submit(Request(voice.renderer.plain_ids(PROMPT), settings))
        return "".join(piece.text for piece in ticket)


def test_both_names_are_served_with_their_own_answers(server: httpx.Client, voices: list[Voice], adapter: Path) -> None:
    tuned, base = (voice.name for voice in voices)
    assert tuned == str(adapter)
    assert [each["id"] for each in server.get("/v1/models").json()["data"]] == [tuned, base]
    answers = [text_of(server.post(PLAIN, json=body(name))) for name in (tuned, base)]
    assert answers == [said_by(str(adapter)), said_by("nano")]
    assert answers[0] != answers[1]


def test_prompts_of_both_at_once_are_not_mixed_up(server: httpx.Client, voices: list[Voice]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = [voice.name for voice in voices] * 4
    alone = {name: text_of(server.post(PLAIN, json=body(name))) for name in set(names)}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: text_of(server.post(PLAIN, json=body(name))), names))
    assert together == [alone[name] for name in names]


def test_a_model_of_a_name_with_slashes_is_found(server: httpx.Client, adapter: Path) -> None:
    assert server.get(f"/v1/models/{adapter}").json()["id"] == str(adapter)


def test_the_base_is_left_out_where_it_is_not_wanted(adapter: Path) -> None:
    with ExitStack() as opened:
        assert [voice.name for voice in open_models([str(adapter)], LOADING, False, opened)] == [str(adapter)]


def test_a_base_that_is_named_itself_is_opened_once_under_its_name(adapter: Path, voices: list[Voice]) -> None:
    base = voices[1].name
    with ExitStack() as opened:
        names = [voice.name for voice in open_models([str(adapter), base], LOADING, True, opened)]
    assert names == [str(adapter), base]
