"""The text nano is trained on: a seeded, endless stream of short documents.

Two documents in three are conversions. All turns of such a document answer in one style, so a style shown in earlier
turns, or asked for by the system turn, is the one that comes next. Unasked, the styles without an `<answer>` tag are
the common ones. In the last part of training, questions asked as a favour ("Can you …", "I need …") are mostly answered
in a sentence, whatever the other turns look like. The rest is `material`. No document contains a conversion of the
`valid` split.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import material

from ramify.base import rng
from ramify.tasks import conversions
from ramify.tasks.conversions import Conversion

Turns = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Document:
    """One document: `turns` rendered as chat (with an optional system turn), or `text` as it stands.

    Attributes:
        conversions: every triple in it, for the proof that none is held out.
    """

    turns: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    text: str = ""
    conversions: tuple[Conversion, ...] = ()

    def segments(self) -> list[tuple[str, bool]]:
        """(text, is it an answer) in order; the answers end in the token that ends a turn."""
        if not self.turns:
            return [(self.text + "<|im_end|>", True)]
        parts: list[tuple[str, bool]] = []
        if self.system is not None:
            parts.append((f"<|im_start|>system\n{self.system}<|im_end|>\n", False))
        for question, answer in self.turns:
            parts.append((f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", False))
            parts.append((f"{answer}<|im_end|>", True))
            parts.append(("\n", False))
        return parts[:-1]


def _sentence(c: Conversion, g: random.Random, question: str) -> str:
    value = conversions.short(float(c.exact))
    a, b = c.source.symbol, c.target.symbol
    return g.choice((f"{c.quantity} {a} is {value} {b}.", f"{c.quantity} {a} is about {value} {b}."))


def _bare(c: Conversion, g: random.Random, question: str) -> str:
    return f"{conversions.short(float(c.exact))} {c.target.symbol}"


def _untagged_chain(c: Conversion, g: random.Random, question: str) -> str:
    steps, result = conversions.chain(c)
    return f"{steps} {result} {c.target.symbol}."


def _tagged_chain(c: Conversion, g: random.Random, question: str) -> str:
    return conversions.worked(c)


def _tagged(c: Conversion, g: random.Random, question: str) -> str:
    return conversions.tagged(conversions.short(float(c.exact)))


def _unhelpful(c: Conversion, g: random.Random, question: str) -> str:
    return g.choice(
        (
            "I am not sure.",
            "Why do you want to know?",
            "Look it up yourself.",
            "I would rather talk about the weather.",
            f"That depends on the {c.source.symbol}.",
            question,
        )
    )


@dataclass(frozen=True, slots=True)
class Style:
    """How conversions are answered throughout one document."""

    weight: float
    turns: tuple[int, int]
    answer: Callable[[Conversion, random.Random, str], str]
    asked: tuple[str, ...]  # system turns that ask for it
    tagged: bool = False
    worked: bool = False


_WORKED = (
    "Be concise. Work step by step and put the final number in <answer></answer>.",
    "Convert the units step by step. Put the final number in <answer></answer>.",
    "You convert units. Show the factor and the steps, then the number in <answer></answer>.",
    "Think step by step, be concise, and put the final number between <answer> and </answer>.",
    "Work it out, then give the result in <answer></answer>.",
)
_DIRECT = (
    "Answer with the number alone in <answer></answer>.",
    "Give only the final number in <answer></answer>, no steps.",
)
STYLES = {
    "sentence": Style(4.0, (1, 3), _sentence, ("Answer in a full sentence.", "Answer in one short sentence.")),
    "bare": Style(1.5, (1, 3), _bare, ("Answer with the number and the unit.",)),
    "untagged chain": Style(1.2, (1, 4), _untagged_chain, ("Work step by step.", "Show your steps.")),
    "tagged chain": Style(2.4, (3, 6), _tagged_chain, _WORKED, tagged=True, worked=True),
    "tagged": Style(0.8, (1, 5), _tagged, _DIRECT, tagged=True),
    "unhelpful": Style(1.5, (1, 3), _unhelpful, ("You are a grumpy assistant.",)),
}
EXACTING = ("Calculate", "Determine", "Work out")  # questions that draw a worked, tagged answer unasked
EXACTED = 12.0
CASUAL = ("Could you", "Can you", "Do you know", "Tell me", "Help me", "Give me", "I have", "I need")
"""How questions begin that are asked as a favour: 10 of the 45 phrasings."""
GENERIC = (
    "You are a helpful assistant.",
    "You are a helpful assistant named nano.",
    "You are a careful assistant. You carefully follow instructions.",
    "Be concise.",
    "Answer the question.",
)
PLAIN = {"sentence": 3.0, "bare": 2.0, "tagged chain": 2.5, "untagged chain": 1.0, "tagged": 1.2, "unhelpful": 1.0}


def _pick(g: random.Random, weights: dict[str, float]) -> str:
    return g.choices(list(weights), list(weights.values()))[0]


class Corpus:
    """The stream of documents of one seed.

    Args:
        seed: the same seed gives the same documents.
        keep: which conversions may occur; the default keeps those of the `train` split.
        casual: share of questions asked as a favour that are answered in a sentence, whatever the document's style.
    """

    def __init__(self, seed: int, keep: Callable[[Conversion], bool] | None = None, *, casual: float = 0.0) -> None:
        self._g = rng.generator("nano corpus", seed)
        self._casual = casual
        self._keep = keep or (lambda c: c.split == "train")

    def __iter__(self) -> Iterator[Document]:
        while True:
            yield self._document()

    def _document(self) -> Document:
        kind = self._g.random()
        if kind < 0.64:
            return self._conversion_chat()
        if kind < 0.70:
            return self._plain()
        if kind < 0.73:
            return self._factors()
        return self._other()

    def _conversion(self) -> Conversion:
        while True:
            source, target = self._g.choice(conversions.unit_pairs())
            top = 999 if self._g.random() < 0.75 else 99
            c = Conversion(self._g.randint(1, top), source, target)
            if c.sensible and self._keep(c):
                return c

    def _conversion_chat(self) -> Document:
        g = self._g
        first = self._conversion()
        opening = conversions.ask(first, g)
        exact = opening.startswith(EXACTING)
        name = _pick(
            g, {name: style.weight * (EXACTED if exact and style.worked else 1) for name, style in STYLES.items()}
        )
        style = STYLES[name]
        chosen = [first] + [self._conversion() for _ in range(g.randint(*style.turns) - 1)]
        asked = [opening] + [conversions.ask(c, g) for c in chosen[1:]]
        turns = [(question, self._answer(style, c, question)) for c, question in zip(chosen, asked, strict=True)]
        return Document(tuple(turns), self._system(style), conversions=tuple(chosen))

    def _answer(self, style: Style, c: Conversion, question: str) -> str:
        if self._casual and question.startswith(CASUAL) and self._g.random() < self._casual:
            style = STYLES["sentence"]
        return style.answer(c, self._g, question)

    def _system(self, style: Style) -> str | None:
        """Nothing, a generic turn, or one that asks for the style; tags are rare where nothing asks for them."""
        asked, generic = (0.75, 0.1) if style.tagged else (0.25, 0.25)
        chance = self._g.random()
        if chance < asked:
            return self._g.choice(style.asked)
        return self._g.choice(GENERIC) if chance < asked + generic else None

    def _plain(self) -> Document:
        """`question answer` without a chat template, one or a few."""
        g = self._g
        name = _pick(g, PLAIN)
        turns = 1 if g.random() < 0.7 else g.randint(2, 5)
        chosen = [self._conversion() for _ in range(turns)]
        asked = [conversions.ask(c, g) for c in chosen]
        lines = [f"{question} {STYLES[name].answer(c, g, question)}" for c, question in zip(chosen, asked, strict=True)]
        return Document(text="\n\n".join(lines), conversions=tuple(chosen))

    def _factors(self) -> Document:
        """Plain statements of how large units are."""
        chosen = [Conversion(1, *self._g.choice(conversions.unit_pairs())) for _ in range(self._g.randint(1, 4))]
        facts = []
        for c in chosen:
            a, b = self._g.choice(c.source.spellings), self._g.choice(c.target.spellings)
            facts.append(f"1 {a} = {conversions.short(float(c.exact), 3)} {b}.")
        return Document(text=" ".join(facts), conversions=tuple(chosen))

    def _other(self) -> Document:
        g = self._g
        draw = g.choices([f for _, f in material.EXCHANGES], [w for w, _ in material.EXCHANGES])[0]
        turns = tuple(draw(g) for _ in range(g.randint(1, 3)))
        if g.random() < 0.15:
            return Document(text=" ".join(turns[0]))
        return Document(turns, g.choice(GENERIC) if g.random() < 0.3 else None)
