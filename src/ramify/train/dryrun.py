"""What a run would do, without its weights: settings, rows, lengths and schedule are checked and counted."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ramify.base.config import Prompting, RunConfig
from ramify.base.errors import LengthError
from ramify.model.load import load_without_weights
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import extend_tokenizer, find_template
from ramify.train.rows import read_examples, read_training_problems, render_all
from ramify.train.schedule import Schedule


@dataclass(frozen=True)
class DryRun:
    """The size of a run.

    Attributes:
        rows: training rows (sft) or questions (rft).
        tokens: of one pass over the unshared rows (sft) or of all prompts (rft).
        longest: tokens of the longest sequence (sft), or of the longest prompt with its completion (rft).
        steps: optimizer steps (sft; 0 for rft, where they depend on what is selected).
        samples: completions that will be drawn (rft).
        notes: what the user should know before the first step.
    """

    rows: int
    tokens: int
    longest: int
    steps: int
    samples: int
    notes: tuple[str, ...]


def dry_run(config: RunConfig) -> DryRun:
    """Check and count everything that can be without loading weights.

    Raises:
        RamifyError: what the run itself would refuse before its first step, save for what only weights can tell.
    """
    tokenizer, limit = load_without_weights(config.model, adapter=config.adapter, revision=config.revision)
    return _sampling(config, tokenizer, limit) if config.method == "rft" else _training(config, tokenizer, limit)


def _training(config: RunConfig, tokenizer: PreTrainedTokenizerBase, limit: int) -> DryRun:
    examples = read_examples(config, "train")
    valid = [] if config.data.valid is None else read_examples(config, "valid")
    data = render_all(config, _renderer(tokenizer, config.prompt), limit, examples, valid)
    return DryRun(
        rows=len(data.train.examples),
        tokens=data.train.tokens,
        longest=data.train.longest,
        steps=Schedule.of(data.train.groups, config.train, config.seed).total,
        samples=0,
        notes=tuple(data.notes(config)),
    )


def _sampling(config: RunConfig, tokenizer: PreTrainedTokenizerBase, limit: int) -> DryRun:
    problems = read_training_problems(config)
    _renderer(tokenizer, config.prompt)  # what training will need is refused now, not after hours of sampling
    renderer = _renderer(tokenizer, config.sample_prompt or config.prompt)
    lengths = [len(renderer.prompt_ids(problem.prompt)) for problem in problems]
    longest = max(lengths) + config.sample.max_new_tokens
    if longest > limit:
        new = config.sample.max_new_tokens
        raise LengthError(
            f"the longest prompt has {longest - new} tokens, with sample.max_new_tokens = {new} that is {longest}; "
            f"the model allows {limit}"
        )
    samples = len(problems) * config.sample.n * config.select.rounds
    return DryRun(len(problems), sum(lengths), longest, 0, samples, ())


def _renderer(tokenizer: PreTrainedTokenizerBase, prompting: Prompting) -> Renderer:
    extended, _ = extend_tokenizer(tokenizer, find_template(prompting.chat_template, tokenizer))
    return Renderer(extended, prompting)
