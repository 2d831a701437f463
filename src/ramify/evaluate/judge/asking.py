"""A model as judge of two answers: what it is asked, how its word is read, and what its votes amount to.

Each pair of answers is shown twice, in both orders (Zheng et al. 2023, arXiv 2306.05685, section 3.4): a judge that
changes its mind with the order has no opinion, so that pair is a tie, and is counted. A word that cannot be read is an
error: the pair is left out of every rate and never counts against an answer. Pairs of equal texts are ties unasked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ramify.base.errors import TaskError
from ramify.base.types import Conversation, Message, Problem, Reason, Sample, Stop, Verdict
from ramify.tasks.task import Split

CRITERIA = "Judge how well each answer does what was asked: whether it is right, helpful, clear and polite."
OPTIONS = ("Verdict: A", "Verdict: B", "Verdict: tie")
_PROMPT = """\
You compare two answers to the same request. {criteria} \
The order of the answers and their length must not influence you.

[Request]
{request}
{reference}
[Answer A]
{first}

[Answer B]
{second}

Which answer is better? Reply with one line and nothing else: "Verdict: A", "Verdict: B" or "Verdict: tie"."""
_MARK = re.compile(r"\[(?=(?:Request|Reference answer|Answer [AB])\])", re.IGNORECASE)
_BOTH = r"(?!\W{0,4}(?:and|or|vs|/|=|&)\W{0,4}(?:answer\s+)?(?-i:[AB])\b)"
"""`A and B`, `A/B`: two letters are no choice; `B, and a good one` is one."""
_SAID = re.compile(rf"verdict\W{{0,6}}(?:answer\s+|a\s+(?=tie\b))?(a|b|tie)\b{_BOTH}", re.IGNORECASE)
_ALONE = re.compile(r"\W*(?:answer\s+)?(a|b|tie)\W*", re.IGNORECASE)


class Order(Enum):
    """In which order a pair is shown."""

    STRAIGHT = "straight"  # the answer of `before` is A
    SWAPPED = "swapped"  # that of `after` is


class Preference(Enum):
    """Which of the two is better."""

    BEFORE = "before"
    AFTER = "after"
    TIE = "tie"


class Judged(Enum):
    """How a pair was judged."""

    BEFORE = "before"  # preferred in both orders
    AFTER = "after"  # preferred in both orders
    TIE = "tie"  # called a tie in both orders
    SWAYED = "swayed"  # the two orders were judged differently: a tie
    SAME = "same"  # the two texts are equal: a tie, nobody was asked
    ERROR = "error"  # a word of the judge could not be read; left out of every rate

    @property
    def preference(self) -> Preference | None:
        """What it amounts to; None: nothing is known."""
        if self is Judged.ERROR:
            return None
        return Preference(self.value) if self in (Judged.BEFORE, Judged.AFTER) else Preference.TIE


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two answers to one problem.

    Attributes:
        rules: which one the grader of the task prefers, or None where it failed.
    """

    problem: Problem
    before: str
    after: str
    rules: Preference | None

    @property
    def is_same(self) -> bool:
        """Whether the two are one text, white space around it aside."""
        return self.before.strip() == self.after.strip()


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """The judge's own task: its answer is one of `A`, `B`, `tie`; there is no right one."""

    name: str = "judge"
    fewshot: str | None = None
    system: str | None = None

    def problems(self, split: Split, n: int | None = None) -> list[Problem]:
        """Refused: what is judged comes from two evaluations.

        Raises:
            TaskError: always.
        """
        raise TaskError("a judge has no problems of its own", hint="ramify judge A B --judge MODEL")

    def check(self, problems: Sequence[Problem]) -> None:
        """Every pair can be judged: there is no answer to check."""

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """What the judge said; `correct` means that it can be read."""
        said = read_word(sample.text)
        if said is None:
            reason = Reason.TRUNCATED if sample.stop is Stop.LENGTH else Reason.NO_ANSWER
            return Verdict(problem.id, sample.index, 0.0, reason)
        return Verdict(problem.id, sample.index, 1.0, Reason.CORRECT, said)

    def completion(self, problem: Problem) -> str:
        """What a judge without an opinion says."""
        return OPTIONS[-1]


def read_word(text: str) -> str | None:
    """`A`, `B` or `tie`, as a judge's text says; None where it says nothing, or two things.

    What it thinks aloud before (`<think>…</think>`) is not what it says.
    """
    text = text.rpartition("</think>")[2]
    if "<think>" in text:
        return None
    said = {each[1].lower() for each in _SAID.finditer(text)}
    if not said:
        alone = _ALONE.fullmatch(text)
        said = {alone[1].lower()} if alone else set()
    word = said.pop() if len(said) == 1 else None
    return word if word in (None, "tie") else str(word).upper()


def asked(pairings: Sequence[Pairing], criteria: str = CRITERIA) -> list[Problem]:
    """What the judge is asked: two problems a pair, one for each order; pairs of equal texts are left out.

    The two orders of a pair have the request in common, so they share it in the prefix tree.
    """
    return [_ask(each, order, criteria) for each in pairings if not each.is_same for order in Order]


def asked_id(problem_id: str, order: Order) -> str:
    """Id of what the judge is asked about a problem."""
    return f"{problem_id}/{order.value}"


def judged(pairings: Sequence[Pairing], words: Mapping[str, str | None]) -> list[Judged]:
    """How each pair was judged, from the judge's words by `asked_id`."""
    return [Judged.SAME if each.is_same else _judged(each.problem.id, words) for each in pairings]


def _judged(problem_id: str, words: Mapping[str, str | None]) -> Judged:
    straight, swapped = (words.get(asked_id(problem_id, order)) for order in Order)
    if straight is None or swapped is None:
        return Judged.ERROR
    first = {"A": Judged.BEFORE, "B": Judged.AFTER, "tie": Judged.TIE}[straight]
    second = {"A": Judged.AFTER, "B": Judged.BEFORE, "tie": Judged.TIE}[swapped]
    return first if first is second else Judged.SWAYED


def _ask(pairing: Pairing, order: Order, criteria: str) -> Problem:
    problem = pairing.problem
    texts = (pairing.before, pairing.after) if order is Order.STRAIGHT else (pairing.after, pairing.before)
    first, second = (_quoted(text) for text in texts)
    known = None if problem.answer is None else f"\n[Reference answer]\n{_quoted(str(problem.answer))}\n"
    text = _PROMPT.format(
        criteria=criteria, request=_request(problem.prompt), reference=known or "", first=first, second=second
    )
    return Problem(
        id=asked_id(problem.id, order),
        prompt=(Message("user", text),),
        source=problem.source,
        category=problem.category,
        options=OPTIONS,
    )


def _request(prompt: Conversation) -> str:
    """What was asked: the text of a single turn, or all turns with their roles."""
    if len(prompt) == 1:
        return _quoted(prompt[0].content)
    return "\n".join(f"{turn.role}: {_quoted(turn.content)}" for turn in prompt)


def _quoted(text: str) -> str:
    """A text that cannot pass for another part of the prompt."""
    return _MARK.sub("(", text.strip()) or "(no text)"
