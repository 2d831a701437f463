"""Make small chats for the embedded model: `python recipes/chat/rows.py --out data/chat`.

    train.jsonl, valid.jsonl    conversations in ShareGPT's form, one to three questions each
    problems.jsonl              questions of quantities that no conversation holds, with their answers

All of it is written here from lists of units and numbers. The same seed writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FACTORS = {
    ("kg", "g"): 1000,
    ("km", "m"): 1000,
    ("m", "cm"): 100,
    ("l", "ml"): 1000,
    ("h", "min"): 60,
    ("min", "s"): 60,
    ("days", "h"): 24,
    ("dozen", "pieces"): 12,
}
OPENINGS = ("Hi!", "Hello.", "Good morning.", "Hey, can you help me?")
WELCOMES = ("Hello! What would you like to know?", "Hi! Ask me to convert something.")
QUESTIONS = ("How many {b} are in {n} {a}?", "What is {n} {a} in {b}?", "Please convert {n} {a} to {b}.")
FOLLOW_UPS = ("And {n} {a}?", "What about {n} {a}?", "Now {n} {a}, please.")
THANKS = ("Thanks!", "Thank you.", "Great, thanks.")
REPLIES = ("You're welcome!", "Any time.")
LARGEST = 40
HELD_OUT = 8  # one quantity in so many is asked in problems.jsonl alone, and another in valid.jsonl alone
Turn = tuple[str, str]


def split_of(n: int, a: str) -> str:
    """Which file asks for a quantity: train, valid or problems."""
    return {3: "problems", 6: "valid"}.get((n * 31 + len(a) * 7) % HELD_OUT, "train")


def answer(n: int, a: str, b: str) -> str:
    """The whole sentence: the factor first, so that the product can be read off."""
    factor = FACTORS[a, b]
    return f"{n} * {factor} = {n * factor}, so {n} {a} are {n * factor} {b}."


def conversation(g: random.Random, split: str) -> list[Turn]:
    """A few turns about one pair of units, with quantities of this split."""
    a, b = g.choice(list(FACTORS))
    turns: list[Turn] = []
    if g.random() < 0.3:
        turns += [("human", g.choice(OPENINGS)), ("gpt", g.choice(WELCOMES))]
    numbers = [n for n in range(2, LARGEST) if split_of(n, a) == split]
    for place, n in enumerate(g.sample(numbers, g.choice((1, 1, 2, 3)))):
        asked = g.choice(FOLLOW_UPS if place else QUESTIONS).format(n=n, a=a, b=b)
        turns += [("human", asked), ("gpt", answer(n, a, b))]
    if g.random() < 0.2:
        turns += [("human", g.choice(THANKS)), ("gpt", g.choice(REPLIES))]
    return turns


def rows(g: random.Random, count: int, split: str) -> Iterable[dict[str, Any]]:
    """Conversations as ShareGPT has them."""
    for _ in range(count):
        yield {"conversations": [{"from": speaker, "value": text} for speaker, text in conversation(g, split)]}


def problems(g: random.Random, count: int) -> Iterable[dict[str, Any]]:
    """Held-out questions, at most `count`."""
    found = [(n, a, b) for a, b in FACTORS for n in range(2, LARGEST) if split_of(n, a) == "problems"]
    g.shuffle(found)
    for n, a, b in found[:count]:
        yield {"question": g.choice(QUESTIONS).format(n=n, a=a, b=b), "answer": str(n * FACTORS[a, b])}


def write(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """One JSON line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in values)


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1200, help="conversations to train on")
    parser.add_argument("--seed", type=int, default=3407)
    asked = parser.parse_args()
    g = random.Random(asked.seed)
    write(asked.out / "train.jsonl", rows(g, asked.rows, "train"))
    write(asked.out / "valid.jsonl", rows(g, asked.rows // 20, "valid"))
    write(asked.out / "problems.jsonl", problems(g, 40))


if __name__ == "__main__":
    main()
