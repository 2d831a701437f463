"""From data on disk to what is imitated: rows are read one at a time, and nothing of them is kept.

    for turns in read_turns(config, "train"):      # one row each: an example for each assistant turn that is trained
        ...

What a row becomes is decided here: texts to imitate as they stand, bare answers in the task's own words, one turn of a
conversation or all of them. `render` makes token ids of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Literal, Protocol, TypeVar

from ramify.base.config import Data, RunConfig
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Conversation, Example, Problem
from ramify.data.checks import prompt_key
from ramify.data.decoded import Decoded
from ramify.data.source import training_source
from ramify.data.sources import Row, RowStream, stream_rows
from ramify.tasks.registry import load_task
from ramify.tasks.task import Task, answer_examples, load_problems

Split = Literal["train", "valid"]
Turns = tuple[Example, ...]
"""What one row trains, in order; the prompt of a conversation's later turn begins with its earlier turns."""
VALID_ROWS = 200
"""Rows of a task's own validation during training."""
_AHEAD = 2048
"""Rows that are read before anything is loaded: what is wrong with a small file is known at once."""


class TurnStream:
    """Rows to imitate, read while they are iterated; that can be done once.

    Args:
        rows: of a file, a folder or a hub data set.
        config: says which turns are trained, and which task words bare answers.

    Raises:
        DataError: the first rows cannot be used; later ones raise it while they are iterated.
    """

    def __init__(self, rows: RowStream, config: RunConfig) -> None:
        self._rows, self._config = rows, config
        self._imitate = Imitation(config)
        self._empty = 0
        self._first: Row | None = None
        turns = self._turns()
        self._unread = chain(list(islice(turns, _AHEAD)), turns)

    def __iter__(self) -> Iterator[Turns]:
        return self._unread

    @property
    def read(self) -> int:
        """Rows read so far."""
        return self._rows.count

    @property
    def unused(self) -> int:
        """Rows so far that could not be read, or hold nothing to imitate."""
        return self._empty + self._rows.bad.count

    @property
    def left_out(self) -> str | None:
        """What was read and left out so far, when something was."""
        if self._first is None:
            return self._rows.summary() if self._rows.leaves_out else None
        first = self._first.place.source
        return f"{self._rows.summary()}; {self._empty:,} of them hold nothing to imitate (first: {first})"

    def _turns(self) -> Iterator[Turns]:
        for row in self._rows:
            found = self._imitate(row.decoded)
            if found:
                yield found
            else:
                self._empty, self._first = self._empty + 1, self._first or row
        if self._first is not None and self.unused > self._config.data.bad_rows * self._rows.count:
            raise _nothing_to_imitate(self._first, self._empty, self._rows.count)


class Imitation:
    """Says what a decoded row gives to imitate: its own texts, or its bare answer in the task's words."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._task: Task | None = None

    def __call__(self, decoded: Decoded) -> Turns:
        """Nothing, when there is neither.

        Raises:
            DataError: the task does not accept the answer.
        """
        problem, found = decoded.problem, decoded.examples
        if not found and problem is not None and problem.answer is not None:
            if self._task is None:
                self._task = load_task(self._config.task)
            found = tuple(answer_examples([problem], self._task))
        return found[-1:] if self._config.data.turns == "last" else found


def read_turns(config: RunConfig, split: Split) -> Iterable[Turns]:
    """Training or validation rows as `data` asks: a file, folder or hub data set, a run with rows, or the task's own.

    Raises:
        ConfigError: no rows are named.
        DataError: they cannot be used.
    """
    if str(config.data.train if split == "train" else config.data.valid) != "task":
        return TurnStream(stream_rows(training_source(config.data, split)), config)
    task = load_task(config.task)
    own = task.problems("train", _own_rows(config)) if split == "train" else _unmeasured(config, task)
    return [(each,) for each in answer_examples(own, task)]


def read_examples(config: RunConfig, split: Split) -> list[Example]:
    """The same as one list of examples, all in memory.

    Raises:
        ConfigError: no rows are named.
        DataError: they cannot be used.
    """
    return [example for turns in read_turns(config, split) for example in turns]


def read_training_problems(config: RunConfig) -> list[Problem]:
    """The problems that rejection sampling asks.

    Raises:
        ConfigError: none are named.
        DataError: the file cannot be used.
    """
    if config.data.train is None:
        raise ConfigError(
            "data.train is not set", hint="data.train=FILE with questions and answers, or data.train=task"
        )
    task = load_task(config.task)
    if str(config.data.train) == "task":
        return task.problems("train", _own_rows(config))
    return load_problems(training_source(config.data, "train"), task)


def has_validation(data: Data) -> bool:
    """Whether validation rows are named."""
    return data.valid is not None or data.valid_split is not None


class Prompted(Protocol):
    """A row that has a prompt."""

    @property
    def prompt(self) -> Conversation:
        """The turns up to where the model speaks."""


Asked = TypeVar("Asked", bound=Prompted)


def leaks(train: Iterable[Prompted], valid: Iterable[Asked]) -> list[Asked]:
    """Validation rows whose prompt occurs in training, white space and letter case aside."""
    known = {prompt_key(example.prompt) for example in train}
    return [example for example in valid if prompt_key(example.prompt) in known]


def length_limit(data: Data, model_limit: int) -> int:
    """Tokens that a sequence may have.

    Raises:
        ConfigError: more is asked than the model allows.
    """
    if data.max_length is not None and data.max_length > model_limit:
        raise ConfigError(f"data.max_length = {data.max_length}: the model allows {model_limit} tokens")
    return data.max_length or model_limit


def measured_prompts(config: RunConfig) -> Sequence[Conversation]:
    """Prompts of the questions of `ramify eval`, when they are the task's own."""
    return [each.prompt for each in load_task(config.task).problems("valid", config.evaluate.limit)]


def _unmeasured(config: RunConfig, task: Task) -> list[Problem]:
    """The task's own validation questions that lie beyond those that evaluation asks; all of them where none do."""
    measured = len(task.problems("valid", config.evaluate.limit))
    found = task.problems("valid", measured + VALID_ROWS)
    return found[measured:] or found


def _own_rows(config: RunConfig) -> int:
    return min(config.task.rows, config.data.limit or config.task.rows)


def _nothing_to_imitate(first: Row, empty: int, count: int) -> DataError:
    pair = first.decoded.pair is not None
    return DataError(
        f"{empty} of {count} rows hold nothing to imitate: "
        f"{'they are preference pairs' if pair else 'no answer'} (first: {first.place.source})",
        path=first.place.path,
        hint="method=dpo trains on preference pairs"
        if pair
        else "rows to imitate have an answer, a solution or reasoning, completions, or messages",
    )
