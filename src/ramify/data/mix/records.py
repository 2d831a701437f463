"""What flows through a mix: entries, why some are left out, and what became of their system turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ramify.base.types import Completion, Conversation, Example, Message
from ramify.data.sources import Row


class Kind(Enum):
    """What the entries of a mix are; all of one mix are of one kind."""

    CHAT = "conversations"  # rows to imitate
    PAIR = "preference pairs"  # a prompt with a chosen and a rejected answer
    TEXT = "plain texts"  # imitated as a whole, without turns


class Drop(Enum):
    """Why an entry is not in the mix."""

    UNFIT = "does not fit"  # the row is of no known shape, or one of its fields is not what the shape needs
    NOTHING = "nothing to imitate"  # a problem without a worked answer
    UNWANTED = "not to be imitated"  # a completion whose reward is not above 0 or whose label is false
    UNRENDERED = "cannot be rendered"  # the chat template refuses it, or a completion is empty or holds a stop token
    LONG = "longer than max_length"
    CONTAMINATED = "overlaps with an evaluation prompt"
    DUPLICATE = "duplicate"  # of an entry that stays
    NEAR = "near-duplicate"  # of an entry that stays


class Outcome(Enum):
    """What prompt erasure did to an entry."""

    ERASED = "changed"
    KEPT = "kept by share"  # the draw let it be
    OTHER = "not among `when`"  # its system turn is none of those that are changed
    ABSENT = "without a system turn"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a mix.

    Attributes:
        turns: the whole conversation; of a pair, the prompt; of a plain text, one assistant turn.
        weights: of a conversation, how much each turn counts in the loss; only those of assistant turns mean anything.
        answers: of a pair, chosen and rejected.
        margin: of a pair, how far apart the grades of its answers are.
    """

    turns: Conversation
    weights: tuple[float, ...] = ()
    answers: tuple[str, str] | None = None
    margin: float = 0.0

    @property
    def kind(self) -> Kind:
        """Conversation, pair or plain text."""
        if self.answers is not None:
            return Kind.PAIR
        return Kind.TEXT if len(self.turns) == 1 else Kind.CHAT

    @property
    def system(self) -> str | None:
        """Its system turn."""
        return self.turns[0].content if self.turns[0].role == "system" else None

    @property
    def is_weighted(self) -> bool:
        """Whether some assistant turn counts otherwise than with weight 1."""
        return any(weight != 1 for weight in self.weights)

    @property
    def prompt(self) -> Conversation:
        """What stands before the first trained words, without the system turn; a plain text stands for itself."""
        if self.kind is Kind.TEXT:
            return self.turns
        end = len(self.turns) if self.answers is not None else self._trained[0]
        return self.turns[self.system is not None : end]

    @property
    def _trained(self) -> list[int]:
        return [at for at, turn in enumerate(self.turns) if turn.role == "assistant" and self.weights[at] > 0]

    def examples(self) -> list[Example]:
        """What is rendered to count its tokens: one a trained turn, or both answers of a pair."""
        if self.answers is not None:
            return [Example(self.turns, tuple(map(Completion, self.answers)))]
        return [
            Example(self.turns[:at], (Completion(self.turns[at].content, self.weights[at]),)) for at in self._trained
        ]

    def with_system(self, text: str) -> Entry:
        """The entry with a system turn put before all others; it has none."""
        weights = (1.0, *self.weights) if self.answers is None else ()
        return replace(self, turns=(Message("system", text), *self.turns), weights=weights)

    def without_system(self) -> Entry:
        """The entry without its system turn."""
        start = int(self.system is not None)
        return replace(self, turns=self.turns[start:], weights=self.weights[start:])

    def plain(self) -> dict[str, Any]:
        """Ready for JSON: `messages` (each with `weight` where some weight is not 1), or prompt, chosen, rejected (and
        `margin` where it is not 0), or `text`."""
        turns = [{"role": turn.role, "content": turn.content} for turn in self.turns]
        if self.answers is not None:
            chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in self.answers)
            graded = {"margin": self.margin} if self.margin else {}
            return {"prompt": turns, "chosen": chosen, "rejected": rejected, **graded}
        if self.kind is Kind.TEXT:
            return {"text": self.turns[0].content}
        if self.is_weighted:
            return {"messages": [turn | {"weight": each} for turn, each in zip(turns, self.weights, strict=True)]}
        return {"messages": turns}


def entries_of(row: Row) -> list[Entry]:
    """What a decoded row is in a mix: nothing, a pair, a conversation, a plain text, or one for each completion."""
    pair, examples = row.decoded.pair, row.decoded.examples
    if pair is not None:
        return [Entry(pair.prompt, answers=(pair.chosen, pair.rejected), margin=pair.margin)]
    if len(examples) > 1:  # the trained turns of one conversation
        return [_conversation(examples)]
    return [_single(example.prompt, each) for example in examples for each in example.completions if each.weight > 0]


def _conversation(examples: tuple[Example, ...]) -> Entry:
    """The last one holds all turns; the others say which of them are trained too."""
    last = _single(examples[-1].prompt, examples[-1].completions[0])
    trained = {len(example.prompt): example.completions[0].weight for example in examples}
    weights = (trained.get(at, 0.0) if turn.role == "assistant" else 1.0 for at, turn in enumerate(last.turns))
    return replace(last, weights=tuple(weights))


def _single(prompt: Conversation, completion: Completion) -> Entry:
    """One exchange; assistant turns of the prompt are not trained."""
    weights = tuple(0.0 if turn.role == "assistant" else 1.0 for turn in prompt)
    return Entry((*prompt, Message("assistant", completion.text)), (*weights, completion.weight))


def folded(text: str) -> str:
    """A text with single spaces for all white space."""
    return " ".join(text.split())
