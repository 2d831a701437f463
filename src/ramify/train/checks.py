"""What can be refused before a folder is made and a sample is drawn: prompts, templates, adapters, lengths."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ramify.base.config import DPO, Prompting, RunConfig
from ramify.base.errors import ConfigError, LengthError
from ramify.base.types import Problem
from ramify.model.outline import Outline
from ramify.model.source import resolve
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import extend_tokenizer, find_template, missing_tokens
from ramify.train.render import render
from ramify.train.rows import Turns, length_limit

_USED_BY = {
    "label_smoothing": ("sigmoid", "robust"),
    "gamma": ("simpo",),
    "reference": ("sigmoid", "ipo", "hinge", "robust"),
}
"""Settings of preference optimisation that some losses do not know."""


def renderer_for(outline: Outline, prompting: Prompting) -> Renderer:
    """The renderer that the model will have; its weights are not needed, and its tokenizer is not changed.

    Raises:
        ConfigError: template or worked turns cannot be used.
    """
    extended, _ = extend_tokenizer(outline.tokenizer, find_template(prompting.chat_template, outline.tokenizer))
    return Renderer(extended, prompting, stop_ids=outline.stop_ids)


def check_engine(config: RunConfig) -> None:
    """Refuse to train with what only draws.

    Raises:
        ConfigError: the engine is not the own one.
    """
    if config.engine != "own":
        raise ConfigError(
            f"engine = {config.engine} draws samples; training is done by engine own",
            hint="`ramify sample` draws, then train on its rows (data.train=RUN)",
        )


def check_sampling(config: RunConfig, renderer: Renderer, problems: Sequence[Problem], limit: int) -> list[int]:
    """Lengths of all prompts in tokens, when each leaves room for its completion.

    Args:
        renderer: of `sample_prompt`, or of `prompt`.
        limit: tokens that the model allows.

    Raises:
        LengthError: the longest prompt and its completion are longer than the model allows.
    """
    lengths = [len(renderer.prompt_ids(problem.prompt)) for problem in problems]
    new = config.sample.max_new_tokens
    longest = max(lengths) + new
    if longest > limit:
        raise LengthError(
            f"the longest prompt has {longest - new} tokens, with sample.max_new_tokens = {new} that is {longest}; "
            f"the model allows {limit}"
        )
    return lengths


def check_training(
    config: RunConfig, renderer: Renderer, problems: Sequence[Problem], valid: Sequence[Turns], limit: int
) -> None:
    """Refuse what training on answers to these problems would refuse, as far as it is known without the answers.

    Args:
        renderer: of `prompt`.
        limit: tokens that the model allows.

    Raises:
        ConfigError: data.max_length is more than the model allows.
        LengthError: a prompt leaves no room for an answer, or a validation row is too long.
    """
    allowed = length_limit(config.data, limit)
    lengths = [len(renderer.prompt_ids(problem.prompt)) for problem in problems]
    long = [length for length in lengths if length >= allowed]
    if long and (len(long) == len(lengths) or not config.data.drop_long):
        raise LengthError(
            f"training rows: {len(long)} of {len(lengths)} prompts leave no room for an answer within {allowed} tokens;"
            f" the longest has {max(long)}",
            hint="data.drop_long=true leaves such rows out, counted; nothing is ever cut",
        )
    if valid:
        render(valid, renderer, allowed, config.data, "validation rows")


def check_rounds(
    config: RunConfig, outline: Outline, problems: Sequence[Problem], valid: Sequence[Turns], *, train: bool = True
) -> list[int]:
    """Lengths of all prompts that will be sampled from, when a run can draw and, if it will, train.

    Raises:
        ConfigError, LengthError: see `check_sampling`, `check_training`.
    """
    renderer = renderer_for(outline, config.sample_prompt or config.prompt)
    lengths = check_sampling(config, renderer, problems, outline.max_length)
    if train:
        check_training(config, renderer_for(outline, config.prompt), problems, valid, outline.max_length)
    return lengths


def check_adapter(config: RunConfig, tokenizer: PreTrainedTokenizerBase, adapter: str | None) -> None:
    """Refuse what cannot be trained on from an adapter.

    Args:
        tokenizer: of the start model.
        adapter: what the start model's adapter is called; None: it has none, and nothing is refused.

    Raises:
        ConfigError: full fine-tuning is asked, or a template whose tokens the adapter would neither train nor save.
    """
    if adapter is None:
        return
    if config.lora is None:
        raise ConfigError(
            f"lora is null, but {adapter} has an adapter", hint="merge it first, or leave lora on to train it on"
        )
    name = config.prompt.chat_template
    added = missing_tokens(tokenizer, find_template(name, tokenizer))
    if added:
        raise ConfigError(
            f"prompt.chat_template = {name!r} adds {', '.join(added)}, which the adapter {adapter} does not train",
            hint="merge the adapter first, or use the template it was trained with",
        )


def check_outline(config: RunConfig, outline: Outline) -> None:
    """Refuse a start model that cannot be trained on as the settings say, as far as it is known without its weights.

    Raises:
        ConfigError: see `check_adapter`.
    """
    has_adapter = resolve(config.model, config.adapter).adapter is not None
    check_adapter(config, outline.tokenizer, (config.adapter or config.model) if has_adapter else None)


def check_preference(settings: DPO) -> None:
    """Refuse settings of preference optimisation that its loss would not use.

    Raises:
        ConfigError: one of them is not at its default.
    """
    for name, losses in _USED_BY.items():
        value, default = getattr(settings, name), DPO.model_fields[name].default
        if settings.loss not in losses and value != default:
            raise ConfigError(
                f"dpo.{name} = {value}: dpo.loss = {settings.loss} does not use it",
                hint=f"leave it out, or dpo.loss={'|'.join(losses)}",
            )
