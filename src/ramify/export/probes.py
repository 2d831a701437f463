"""What an export is tried on: conversations that have shown, between them, every way an export goes wrong.

Accents, other scripts, emoji and runs of white space find a wrong tokenizer; several turns and a system turn a wrong
chat template; the long one a wrong scaling of rotary positions, which short prompts do not show.
"""

from __future__ import annotations

from ramify.base.types import Conversation, Message

_LONG = (
    "Chapter {n}. On the {n}. day the ferry left at {h}:{m:02d} with {p} passengers, {c} crates of pears and one goat. "
    "Nobody had counted the goat. The captain wrote all of it down, as she always did, and signed."
)


def _one(text: str) -> Conversation:
    return (Message("user", text),)


def _long(chapters: int) -> Conversation:
    told = "\n".join(
        _LONG.format(n=n, h=n * 7 % 24, m=n * 11 % 60, p=n * 13 % 97, c=n * 5 % 31) for n in range(1, chapters + 1)
    )
    return _one(f"{told}\n\nHow many crates were on board on the 3. day?")


SHORT: tuple[Conversation, ...] = (
    _one("How many grams are in 6 kg?"),
    _one("Name three colours."),
    (Message("system", "You answer in one short sentence."), Message("user", "Why is the sky blue?")),
    (
        Message("user", "7 * 8 = ?"),
        Message("assistant", "56"),
        Message("user", "And 7 * 9? Then add 12,345.678."),
    ),
    _one("Grüße aus Köln: naïve café, Łódź, 東京タワー, Привет, שלום, مرحبا. 👩‍👩‍👧‍👦🏳️‍🌈 ½ ≠ ⅓"),
    _one("def f(x):\n    if x > 0:\n\t\treturn  x ** 2   # two  spaces\n\n\n    return None\n```\n"),
    _one("  leading and trailing white space, DON'T we'll I'm 1234567 <b>&amp;</b> http://a.b/c?d=e_f  "),
)
"""Conversations of a few dozen tokens."""

LONG: tuple[Conversation, ...] = (_long(48), _long(12), _long(3))
"""From about 2,400 tokens downwards: the longest that fits the model is used."""
