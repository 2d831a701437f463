"""What draws, by name: the own engine, llama.cpp, an OpenAI-compatible endpoint, vLLM.

    opened = open_engine(config, config.prompt)
    opened.sampler.sample([prompt_of(opened.asker, problem) for problem in problems], config.sample, seed=config.seed)

The same task, problems and grading work on each, so their results can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ramify.base.config import Prompting, RunConfig
from ramify.base.errors import ConfigError
from ramify.base.records import sha256_file
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import fit_template
from ramify.model.outline import load_outline
from ramify.prompts.renderer import Renderer
from ramify.sample.endpoint.sampler import EndpointSampler
from ramify.sample.endpoint.usage import Usage
from ramify.sample.engine import TreeSampler
from ramify.sample.prompting import Asker, Turns
from ramify.sample.sampler import Sampler

GGUF = ".gguf"


def nothing_to_close() -> None:
    """Of an engine that lets its memory go by itself."""


def free_of_cost() -> Usage:
    """What an engine on this machine spends."""
    return Usage()


@dataclass(frozen=True)
class OpenedEngine:
    """Something that draws, and what makes its prompts.

    Attributes:
        max_length: longest prompt with completion in tokens; None: the engine tells when it is asked.
        hashes: of the weights, as far as they can be had: what decides a result and is in no setting.
        loaded: the model, of the own engine only.
        usage: what was spent so far with others.
        close: lets the memory go.
    """

    sampler: Sampler
    asker: Asker
    max_length: int | None
    hashes: Mapping[str, str] = field(default_factory=dict)
    loaded: LoadedModel | None = None
    usage: Callable[[], Usage] = free_of_cost
    close: Callable[[], None] = nothing_to_close


def open_engine(config: RunConfig, prompting: Prompting, loaded: LoadedModel | None = None) -> OpenedEngine:
    """Open what `config.engine` names.

    Args:
        prompting: how prompts are made.
        loaded: the model, loaded already (own engine).

    Raises:
        ConfigError: something that the engine needs is not installed or not set.
        ModelError: the model cannot be had.
    """
    openers = {"llamacpp": _open_llamacpp, "openai": _open_endpoint, "vllm": _open_vllm}
    if config.engine in openers:
        return openers[config.engine](config, prompting)
    if config.model.lower().endswith(GGUF):
        raise ConfigError(f"{config.model}: the own engine reads no GGUF files", hint="--engine llamacpp does")
    return open_own(load(config) if loaded is None else loaded, prompting)


def load(config: RunConfig) -> LoadedModel:
    """The model that `config` names, on its device and in its type."""
    return load_model(
        config.model,
        adapter=config.adapter,
        revision=config.revision,
        dtype=config.train.quantize or config.train.dtype,
        device=config.train.device,
    )


def open_own(loaded: LoadedModel, prompting: Prompting) -> OpenedEngine:
    """The own engine on a loaded model."""
    fitted, renderer, _ = fit_template(loaded, prompting)
    return OpenedEngine(TreeSampler(fitted), renderer, fitted.max_length, loaded=fitted)


def _open_llamacpp(config: RunConfig, prompting: Prompting) -> OpenedEngine:
    from ramify.sample.llamacpp.model import open_gguf
    from ramify.sample.llamacpp.sampler import LlamaCppSampler

    path = Path(config.model)
    if path.suffix.lower() != GGUF:
        raise ConfigError(f"engine = llamacpp reads GGUF files, found {config.model}", hint="ramify export makes one")
    model = open_gguf(path)
    renderer = Renderer(model.tokenizer, prompting, stop_ids=model.stop_ids)
    return OpenedEngine(
        LlamaCppSampler(model), renderer, model.max_length, {"weights": sha256_file(path)}, close=model.close
    )


def _open_endpoint(config: RunConfig, prompting: Prompting) -> OpenedEngine:
    sampler = EndpointSampler(config.endpoint, config.model)
    return OpenedEngine(sampler, Turns(prompting), None, usage=lambda: sampler.usage)


def _open_vllm(config: RunConfig, prompting: Prompting) -> OpenedEngine:
    from ramify.sample.vllm_sampler import open_vllm

    outline = load_outline(config.model, adapter=config.adapter, revision=config.revision)
    renderer = Renderer(outline.tokenizer, prompting, stop_ids=outline.stop_ids)
    sampler = open_vllm(config, renderer.stop_ids)
    return OpenedEngine(sampler, renderer, sampler.max_length)
