"""What the llama.cpp tests share: nano and a random tiny model as GGUF files, and both in Transformers."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sample_setup import as_loaded
from tiny_models import tiny_model
from tiny_tokenizers import byte_level

from ramify import nano
from ramify.base.types import Message
from ramify.export.gguf.writer import write_gguf
from ramify.model.load import LoadedModel, load_model
from ramify.prompts.renderer import Renderer
from ramify.sample.llamacpp.runtime import PACKAGES
from ramify.sample.sampler import PromptTokens

HERE = tuple(package for package in PACKAGES if find_spec(package) is not None)
"""Packages with llama.cpp that are installed: each is tested."""
QUESTIONS = (
    "How many hours are in 3 days?",
    "Convert 5 km to metres.",
    "What is 3 + 4?",
    "Tell me a story about a fox.",
    "How many grams are in 6 kg?",
    "Who are you?",
)
SYSTEM = "You convert units. Show each step, write the numbers out, and put the final number last, without a unit."


@cache
def nano_loaded() -> LoadedModel:
    return load_model("nano", dtype="fp32", device="cpu")


def nano_gguf(folder: Path, kind: str = "f32") -> Path:
    target = folder / f"nano-{kind}.gguf"
    write_gguf(nano.path(), target, kind)
    return target


@cache
def tiny_loaded() -> LoadedModel:
    """Random weights and a byte-level vocabulary: what it writes is mostly broken letters."""
    tokenizer = byte_level()
    network = tiny_model("llama", vocab_size=len(tokenizer))
    return as_loaded(network, tokenizer)


def tiny_gguf(folder: Path, kind: str = "f32") -> Path:
    loaded, source, target = tiny_loaded(), folder / "tiny", folder / f"tiny-{kind}.gguf"
    loaded.network.save_pretrained(str(source))
    loaded.tokenizer.save_pretrained(str(source))
    write_gguf(source, target, kind)
    return target


def prompts() -> list[PromptTokens]:
    """Chat prompts of nano, with a beginning that they share."""
    renderer = Renderer(nano_loaded().tokenizer)
    asked = [(Message("system", SYSTEM), Message("user", question)) for question in QUESTIONS]
    return [PromptTokens(f"p{number}", renderer.prompt_ids(turns)) for number, turns in enumerate(asked)]


def expected_logits(loaded: LoadedModel, ids: tuple[int, ...]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        found: npt.NDArray[np.float32] = loaded.network(torch.tensor([ids])).logits[0].float().numpy()
    return found
