"""What flows through Ramify: problems become prompts, prompts become samples, samples get verdicts.

Frozen records of the standard library, no behaviour beyond checks, no torch. Everything here can be written to
one JSON line and read back (see `records`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


Conversation = tuple[Message, ...]
SPARSE = "sparse"
"""In a field's metadata: most records do without it, so it is written only where it holds something."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to answer, with what is needed to grade the answer.

    Attributes:
        id: unique within its file and stable across runs.
        prompt: the turns up to where the model speaks; the last one is a user turn.
        answer: the gold answer in the task's own form (text; numbers as written), or None when there is none.
        solution: a text worth imitating (a worked chain, a reference answer), or None.
        source: where it came from: `file:line` or a generator's name and seed.
        category: the group it is reported under (empty: none).
        options: what may be answered when there is a choice, in order: the full text of each completion.
        meta: further groups it may be reported under, by name.
        rules: what an answer must fulfil, as written: one name with its value each (task chat).
    """

    id: str
    prompt: Conversation
    answer: str | float | None = None
    solution: str | None = None
    source: str = ""
    category: str = ""
    options: tuple[str, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    rules: tuple[Mapping[str, Any], ...] = field(default=(), metadata={SPARSE: True})


class Stop(Enum):
    """How a sample ended."""

    EOS = "eos"  # the model produced one of its stop tokens
    STOP_STRING = "stop_string"  # one of the caller's stop strings appeared; the text ends before it
    LENGTH = "length"  # max_new_tokens was reached


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of one problem.

    Attributes:
        problem_id: the `Problem` it answers.
        index: which of the k samples of that problem, from 0.
        token_ids: new tokens only; the stop token, when one was produced, is the last.
        logprobs: natural log-probability of each token under the model at temperature 1 and without
            truncation (what a trainer computes), as long as `token_ids`.
        text: the decoded new tokens without stop token and stop string.
        stop: how it ended.
        policy: the model (and adapter) that made it.
        seed: the seed of the run that made it.
    """

    problem_id: str
    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    stop: Stop
    policy: str = ""
    seed: int = 0

    @property
    def logprob(self) -> float:
        """Sum of the token log-probabilities."""
        return float(sum(self.logprobs))


class Reason(Enum):
    """What a grader found."""

    CORRECT = "correct"  # parsed, and within the task's tolerance
    WRONG = "wrong"  # parsed, and not correct
    NO_ANSWER = "no_answer"  # ended by itself, nothing that can be parsed
    TRUNCATED = "truncated"  # cut off by the length limit before an answer
    ERROR = "error"  # the grader itself failed; left out of every rate


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grader's finding on one sample.

    Attributes:
        answer: what was parsed, in the task's own form; None when nothing was.
        notes: how it was read when it was not read plainly: `thousands_separator`, `unit_after_number`,
            `exponent`, `unclosed_tag`, …
    """

    problem_id: str
    sample_index: int
    reward: float
    reason: Reason
    answer: str | float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to a prompt and how much it counts in the loss (per trained token)."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a generated training row came from."""

    problem_id: str
    sample_index: int
    seed: int
    policy: str
    round: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """The one training record that every file format decodes to: a prompt and its completions.

    A conversation with several trained assistant turns becomes one example a turn; the prefix tree makes that free. A
    prompt without turns is that of a plain text: no chat template is put around it.
    """

    prompt: Conversation
    completions: tuple[Completion, ...]
    source: str = ""
    lineage: Lineage | None = None
    meta: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One path from the root of a prefix tree to a leaf, as it is trained or scored.

    `weights[t]` is the weight of predicting `ids[t]` from `ids[:t]` (0: not trained); as long as `ids`, and
    `weights[0]` is 0 because nothing predicts the first token. Equal ids share; weights never split a prefix.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.weights):
            raise ValueError(f"{len(self.ids)} ids but {len(self.weights)} weights")
        if self.weights and self.weights[0] != 0:
            raise ValueError("the first token has nothing before it, so its weight must be 0")

    @classmethod
    def of(cls, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...], weight: float = 1.0) -> TokenSequence:
        """Prompt untrained, completion trained with one weight a token."""
        return cls(prompt_ids + completion_ids, (0.0,) * len(prompt_ids) + (weight,) * len(completion_ids))

    @property
    def trained(self) -> float:
        """Sum of the weights."""
        return float(sum(self.weights))


@dataclass(frozen=True, slots=True)
class Pair:
    """A chosen and a rejected completion of one prompt; `margin` is how far apart their grades are.

    Attributes:
        meta: further columns of its row, by name: what it is reported under.
    """

    prompt: Conversation
    chosen: str
    rejected: str
    margin: float = 0.0
    source: str = ""
    meta: dict[str, str] = field(default_factory=dict)
