"""What training has moved besides its task: the forgetting probe, and perplexity on held-out rows before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.config import Data, Prompting, RunConfig
from ramify.base.errors import DataError
from ramify.base.progress import SILENT, Progress
from ramify.base.records import to_plain, write_json
from ramify.base.types import Conversation, Example, Message
from ramify.data.source import Source
from ramify.data.sources import read_problems, read_rows
from ramify.evaluate.probe.forgetting import Couple, Forgetting, forgetting
from ramify.evaluate.probe.general_prompts import GENERAL
from ramify.evaluate.probe.likelihood import Likelihood, likelihood, mean_per_token
from ramify.evaluate.scores import Rate
from ramify.prompts.renderer import Renderer
from ramify.sample.engines import load
from ramify.tasks.registry import load_task
from ramify.tasks.task import Task, answer_examples


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Perplexity on held-out rows.

    Attributes:
        base, tuned: of the two models, on the same tokens.
        gain: nats per token by which the tuned model finds them more probable, with a 95 % interval over answers.
    """

    base: Likelihood
    tuned: Likelihood
    gain: Rate


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found.

    Attributes:
        model, base: what was compared, as named.
        held_out: None where no rows were given.
    """

    model: str
    base: str
    forgetting: Forgetting
    held_out: HeldOut | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a probe is to look at.

    Attributes:
        base: a model to compare with; None: the model without its adapter.
        rows: held-out rows with answers, or None.
        prompts: a file of general prompts besides the shipped ones, or None.
        max_new_tokens: longest answer of the base.
    """

    base: str | None = None
    rows: Path | None = None
    prompts: Path | None = None
    max_new_tokens: int = 64


def probe(config: RunConfig, wish: Wish, progress: Progress = SILENT) -> Probe:
    """Compare the model that `config` names with its base.

    General prompts are rendered with the chat template of `config` alone: its system turn and worked turns belong to
    its task. Held-out rows are read and rendered as the run's own.

    Raises:
        DataError: a file cannot be used.
        ModelError: a model cannot be had, or no base is known.
        LengthError: a row or a prompt is too long.
    """
    rows = None if wish.rows is None else held_out_rows(_source(wish.rows, config.data), load_task(config.task))
    prompts = general_prompts(wish.prompts)
    tuned = load(config)
    base = None if wish.base is None else load(config.model_copy(update={"model": wish.base, "adapter": None}))
    couple, renderer = Couple.of(tuned, base, Prompting(chat_template=config.prompt.chat_template))
    micro = config.train.micro_tokens
    found = forgetting(
        couple, renderer, prompts, max_new_tokens=wish.max_new_tokens, micro_tokens=micro, progress=progress
    )
    held_out = None
    if rows is not None:
        own = Renderer(couple.tuned.tokenizer, config.prompt, stop_ids=couple.tuned.stop_ids)
        held_out = _held_out(couple, own, rows, micro)
    return Probe(tuned.policy, wish.base or tuned.base, found, held_out)


def _source(path: Path, data: Data) -> Source:
    """A file of rows as the settings say that rows are to be understood."""
    return Source(str(path), columns=data.columns, shape=data.shape, as_text=data.as_text)


def held_out_rows(source: Source | Path, task: Task) -> list[Example]:
    """Rows with answers: to imitate, or problems whose answer the task writes; problems without one are left out.

    Raises:
        DataError: the file holds no answers.
    """
    rows = read_rows(source)
    if rows.examples:
        return list(rows.examples)
    answered = [problem for problem in rows.problems if problem.answer is not None]
    if not answered:
        raise DataError("holds no answers to score", path=rows.path, hint="rows need prompt + completion, or messages")
    return answer_examples(answered, task)


def general_prompts(path: Path | None) -> list[Conversation]:
    """The shipped prompts, and those of a file.

    Raises:
        DataError: the file holds no prompts.
    """
    own = [] if path is None else [problem.prompt for problem in read_problems(path)]
    return [*((Message("user", text),) for text in GENERAL), *own]


def write_probe(found: Probe, path: Path) -> None:
    """Write all that was found as one JSON document.

    Raises:
        RunError: it cannot be written.
    """
    held_out: dict[str, Any] | None = None
    if found.held_out is not None:
        sides = {"base": found.held_out.base, "tuned": found.held_out.tuned}
        held_out = {name: _as_plain(each) for name, each in sides.items()} | {"gain": to_plain(found.held_out.gain)}
    plain = {"kind": "probe", "model": found.model, "base": found.base, "forgetting": to_plain(found.forgetting)}
    write_json(path, {**plain, "held_out": held_out})


def _held_out(couple: Couple, renderer: Renderer, rows: Sequence[Example], micro_tokens: int) -> HeldOut:
    _, block = couple.as_base()
    with block:
        base = likelihood(couple.other or couple.tuned, renderer, rows, micro_tokens)
    tuned = likelihood(couple.tuned, renderer, rows, micro_tokens)
    gained = [a - b for (a, _), (b, _) in zip(base.by_answer, tuned.by_answer, strict=True)]
    return HeldOut(base, tuned, mean_per_token(gained, [count for _, count in base.by_answer], "gain"))


def _as_plain(found: Likelihood) -> dict[str, float]:
    return {
        "answers": found.answers,
        "tokens": found.tokens,
        "bytes": found.bytes,
        "perplexity": found.perplexity,
        "bits_per_token": found.bits_per_token,
        "bits_per_byte": found.bits_per_byte,
    }
