r"""What to know about preference pairs before they are trained on. Pure rules on texts and lengths; nothing is changed.

found = flaws(pairs)                 # {Flaw.REPEATED: (6, 9), …}: indices of the pairs, of what was found only
found |= too_long(lengths, limit=1024)
by_length(lengths)                   # how often the longer answer is the chosen one

A pair that teaches nothing (equal sides), teaches twice (repeated), teaches both (the same pair both ways round), or
teaches what nobody meant (end tokens typed as text, `\n` as two characters) still lowers the loss, so it is told here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from ramify.base.types import Conversation, Pair

END_TOKENS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "[/INST]",
)
"""What ends a turn or a text for widespread models. Typed into an answer it is text to all the others."""
LENGTH_ALONE = 0.7
"""Pairs count as separable by length alone when the rule `the longer answer` (or `the shorter one`) is right on more
than this share of them, its whole 95 % interval included."""
_BACKSLASH_N = re.compile(
    r"\\n(?!(?:abla|atural|e|earrow|eg|eq|ewcommand|ewline|exists|geq|i|leq|mid|oindent|onumber|ot|otin|u)(?![a-z]))"
)
"""The two characters, where they do not begin a command of LaTeX."""
_QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'\\.'|`[^`\n]*`")


class Flaw(Enum):
    """What can be wrong with a pair."""

    EQUAL = "pairs whose sides are equal"  # white space at the ends aside
    EMPTY = "pairs with an empty side"
    REPEATED = "pairs that stand there before"
    BOTH_WAYS = "pairs that also stand there the other way round"
    END_TOKEN = "pairs with an end token typed into an answer"
    BACKSLASH_N = r"pairs with \n as two characters, outside quotes"
    LONG_PROMPT = "pairs whose prompt leaves no room for an answer"
    LONG_ANSWER = "pairs whose prompt and longer answer are too long"


Found = dict[Flaw, tuple[int, ...]]
"""Indices of the pairs that have each flaw, in the order of `Flaw`."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of one pair, in tokens or characters; an answer is counted without its prompt."""

    prompt: int
    chosen: int
    rejected: int

    @property
    def longest(self) -> int:
        """Of the two sequences."""
        return self.prompt + max(self.chosen, self.rejected)


@dataclass(frozen=True, slots=True)
class ByLength:
    """How the lengths of chosen and rejected answers compare, pair by pair.

    Attributes:
        longer: pairs whose chosen answer is the longer one.
        tied: pairs of equal length.
        n: all pairs.
        chosen: mean length of chosen answers.
        rejected: mean length of rejected answers.
    """

    longer: int
    tied: int
    n: int
    chosen: float
    rejected: float

    @property
    def share(self) -> float:
        """How often `the longer answer` names the chosen one, a tie as half: the area under the ROC curve of the length
        within pairs. 0.5 says that length tells nothing; without pairs it is 0.5."""
        return (self.longer + self.tied / 2) / self.n if self.n else 0.5


def flaws(pairs: Sequence[Pair], end_tokens: Iterable[str] = END_TOKENS) -> Found:
    """Indices of the pairs that have each flaw; a flaw that none has is left out.

    Args:
        end_tokens: texts that end a completion, which no answer should hold before its end.
    """
    ends = tuple(end_tokens)
    keys = [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
    known, seen = frozenset(keys), set[tuple[Conversation, str, str]]()
    found: dict[Flaw, list[int]] = {}
    for index, (pair, key) in enumerate(zip(pairs, keys, strict=True)):
        for flaw in _own_flaws(pair, ends):
            found.setdefault(flaw, []).append(index)
        if key in seen:
            found.setdefault(Flaw.REPEATED, []).append(index)
        elif pair.chosen != pair.rejected and (pair.prompt, pair.rejected, pair.chosen) in known:
            found.setdefault(Flaw.BOTH_WAYS, []).append(index)
        seen.add(key)
    return _ordered(found)


def too_long(lengths: Sequence[Lengths], limit: int) -> Found:
    """Indices of the pairs that do not fit. Other trainers cut such pairs; here training refuses or leaves them out.

    Args:
        lengths: of each pair, in tokens.
        limit: tokens that a sequence may have.
    """
    found: dict[Flaw, list[int]] = {}
    for index, length in enumerate(lengths):
        if length.prompt >= limit:
            found.setdefault(Flaw.LONG_PROMPT, []).append(index)
        elif length.longest > limit:
            found.setdefault(Flaw.LONG_ANSWER, []).append(index)
    return _ordered(found)


def by_length(lengths: Collection[Lengths]) -> ByLength:
    """How far the length of an answer alone tells whether it is the chosen one."""
    n = len(lengths)
    return ByLength(
        longer=sum(each.chosen > each.rejected for each in lengths),
        tied=sum(each.chosen == each.rejected for each in lengths),
        n=n,
        chosen=sum(each.chosen for each in lengths) / max(n, 1),
        rejected=sum(each.rejected for each in lengths) / max(n, 1),
    )


def _own_flaws(pair: Pair, ends: tuple[str, ...]) -> list[Flaw]:
    """Of a pair by itself."""
    sides = (pair.chosen.strip(), pair.rejected.strip())
    texts = (*(turn.content for turn in pair.prompt), *sides)
    found = {
        Flaw.EQUAL: sides[0] == sides[1],
        Flaw.EMPTY: not all(sides),
        Flaw.END_TOKEN: any(end in side for end in ends for side in sides),
        Flaw.BACKSLASH_N: any("\\n" in text and _BACKSLASH_N.search(_QUOTED.sub("", text)) for text in texts),
    }
    return [flaw for flaw, is_there in found.items() if is_there]


def _ordered(found: dict[Flaw, list[int]]) -> Found:
    return {flaw: tuple(found[flaw]) for flaw in Flaw if flaw in found}
