"""From data on disk to token sequences that may be trained on: rendered, measured, checked before the first step."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar

from ramify.base.config import Data, RunConfig
from ramify.base.errors import ConfigError, DataError, LengthError
from ramify.base.runs import is_run
from ramify.base.types import Conversation, Example, Problem, TokenSequence
from ramify.data.sources import Rows, read_rows
from ramify.prompts.renderer import Renderer
from ramify.tasks.task import Task, answer_examples, load_problems, load_task
from ramify.train.material import RunData

Split = Literal["train", "valid"]
VALID_ROWS = 200
"""Rows of a task's own validation during training."""


@dataclass(frozen=True)
class TrainingSet:
    """Rendered rows.

    Attributes:
        examples: the rows that are used.
        sequences: one a completion, in the order of the examples.
        groups: indices of the sequences of each example.
        too_long: sequences left out because they were longer than allowed.
    """

    examples: tuple[Example, ...]
    sequences: tuple[TokenSequence, ...]
    groups: tuple[tuple[int, ...], ...]
    too_long: int = 0

    unit: ClassVar[str] = "sequences"
    trains: ClassVar[str] = "tokens"

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def n_sequences(self) -> int:
        """One for each completion."""
        return len(self.sequences)

    @cached_property
    def tokens(self) -> int:
        """Tokens of the unshared sequences in one pass."""
        return sum(len(sequence.ids) for sequence in self.sequences)

    @cached_property
    def trained(self) -> float:
        """Sum of the weights in one pass."""
        return sum(sequence.trained for sequence in self.sequences)

    @cached_property
    def longest(self) -> int:
        """Length of the longest sequence."""
        return max((len(sequence.ids) for sequence in self.sequences), default=0)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all ids and weights: data, template and tokenizer in one number."""
        found = hashlib.sha256()
        for sequence in self.sequences:
            found.update(len(sequence.ids).to_bytes(8, "little"))
            found.update(array("q", sequence.ids).tobytes())
            found.update(array("d", sequence.weights).tobytes())
        return found.hexdigest()


def read_examples(config: RunConfig, split: Split) -> list[Example]:
    """Training or validation rows as `data` asks: a file, a run with rows, or the task's own split.

    Raises:
        ConfigError: no training rows are named.
        DataError: a file cannot be used, or gives no row.
    """
    source = config.data.train if split == "train" else config.data.valid
    if source is None:
        raise ConfigError(
            f"data.{split} is not set", hint=f"data.{split}=FILE, or data.{split}=task for the task's own rows"
        )
    if str(source) == "task":
        task = load_task(config.task)
        own = task.problems("train", _own_rows(config)) if split == "train" else _unmeasured(config, task)
        return answer_examples(own, task)
    return _to_imitate(read_rows(rows_file(source), config.data.limit if split == "train" else None), config)


def read_training_problems(config: RunConfig) -> list[Problem]:
    """The problems that rejection sampling asks.

    Raises:
        ConfigError: none are named.
        DataError: the file cannot be used.
    """
    source = config.data.train
    if source is None:
        raise ConfigError(
            "data.train is not set", hint="data.train=FILE with questions and answers, or data.train=task"
        )
    task = load_task(config.task)
    if str(source) == "task":
        return task.problems("train", _own_rows(config))
    return load_problems(source, task)[: config.data.limit]


def rows_file(source: Path | str) -> Path:
    """The file itself, or the rows that a run selected."""
    path = Path(source)
    return path / "rows.jsonl" if is_run(path) else path


def render_all(
    config: RunConfig, renderer: Renderer, max_length: int, examples: Sequence[Example], valid: Sequence[Example]
) -> RunData[TrainingSet]:
    """Training and validation rows as token sequences.

    Args:
        max_length: what the model allows.

    Raises:
        LengthError: rows are longer than allowed.
        DataError: a row has nothing to train.
    """
    limit = length_limit(config.data, max_length)
    train_set = render(examples, renderer, limit, config.data, "training rows")
    valid_set = render(valid, renderer, limit, config.data, "validation rows") if valid else None
    used = () if valid_set is None else valid_set.examples
    leaked = tuple(each.source for each in leaks(train_set.examples, used))
    return RunData(train_set, valid_set, leaked, renderer.separate_count, _also_measured(config, used))


def render(examples: Sequence[Example], renderer: Renderer, limit: int, data: Data, name: str) -> TrainingSet:
    """Token sequences of the examples, none longer than `limit` tokens.

    Args:
        limit: what model and settings allow.
        name: of the rows, for messages.

    Raises:
        LengthError: sequences are longer and `data.drop_long` is off; says how many, the longest and the limit.
        DataError: a row has nothing to train, or nothing is left.
    """
    rendered = [(each, [one for one in renderer.sequences(each) if one.trained]) for each in examples]
    lengths = [(len(sequence.ids), example) for example, found in rendered for sequence in found]
    long = [(length, example) for length, example in lengths if length > limit]
    if long and not data.drop_long:
        longest, example = max(long, key=lambda entry: entry[0])
        raise LengthError(
            f"{name}: {len(long)} of {len(lengths)} sequences are longer than {limit} tokens; "
            f"the longest has {longest} ({example.source or 'no source'})",
            hint="data.drop_long=true leaves them out, counted; nothing is ever cut",
        )
    return _collect(rendered, limit, len(long), name)


class Prompted(Protocol):
    """A row that has a prompt."""

    @property
    def prompt(self) -> Conversation:
        """The turns up to where the model speaks."""


Row = TypeVar("Row", bound=Prompted)


def leaks(train: Iterable[Prompted], valid: Iterable[Row]) -> list[Row]:
    """Validation rows whose prompt occurs in training, white space and letter case aside."""
    known = {_asked(example.prompt) for example in train}
    return [example for example in valid if _asked(example.prompt) in known]


def length_limit(data: Data, model_limit: int) -> int:
    """Tokens that a sequence may have.

    Raises:
        ConfigError: more is asked than the model allows.
    """
    if data.max_length is not None and data.max_length > model_limit:
        raise ConfigError(f"data.max_length = {data.max_length}: the model allows {model_limit} tokens")
    return data.max_length or model_limit


def _unmeasured(config: RunConfig, task: Task) -> list[Problem]:
    """The task's own validation questions that lie beyond those that evaluation asks; all of them where none do."""
    measured = len(task.problems("valid", config.evaluate.limit))
    found = task.problems("valid", measured + VALID_ROWS)
    return found[measured:] or found


def _also_measured(config: RunConfig, valid: Sequence[Example]) -> int:
    """How many validation rows are among the questions of `ramify eval`."""
    if not valid or str(config.data.valid) != str(config.evaluate.problems):
        return 0
    if str(config.data.valid) != "task":
        return len(valid)
    measured = {_asked(each.prompt) for each in load_task(config.task).problems("valid", config.evaluate.limit)}
    return sum(_asked(example.prompt) in measured for example in valid)


def _own_rows(config: RunConfig) -> int:
    return min(config.task.rows, config.data.limit or config.task.rows)


def _to_imitate(rows: Rows, config: RunConfig) -> list[Example]:
    """Rows that carry a text to imitate, then questions with a bare answer, which the task puts into words.

    Raises:
        DataError: a row has neither.
    """
    bare = [problem for problem in rows.problems if problem.solution is None]
    empty = [problem.source for problem in bare if problem.answer is None]
    if empty:
        raise DataError(
            f"{len(empty)} of {rows.count} rows hold nothing to imitate: no answer (first: {empty[0]})",
            path=rows.path,
            hint="rows to imitate have an answer, a solution or reasoning, completions, or messages",
        )
    return [*rows.examples, *(answer_examples(bare, load_task(config.task)) if bare else ())]


def _collect(
    rendered: Sequence[tuple[Example, Sequence[TokenSequence]]], limit: int, too_long: int, name: str
) -> TrainingSet:
    examples: list[Example] = []
    sequences: list[TokenSequence] = []
    groups: list[tuple[int, ...]] = []
    for example, found in rendered:
        fitting = [sequence for sequence in found if len(sequence.ids) <= limit]
        if fitting:
            examples.append(example)
            groups.append(tuple(range(len(sequences), len(sequences) + len(fitting))))
            sequences += fitting
    if not sequences:
        raise DataError(f"{name}: no row is left to train on ({too_long} longer than {limit} tokens)")
    return TrainingSet(tuple(examples), tuple(sequences), tuple(groups), too_long)


def _asked(prompt: Conversation) -> str:
    return "\n".join(f"{turn.role}: {' '.join(turn.content.split()).casefold()}" for turn in prompt)
