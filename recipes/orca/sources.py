"""Make small stand-ins for the six sources of the mix: `python recipes/orca/sources.py --out data/orca-sources`.

Each file has the columns of the data set it stands in for, and rows that are written here from lists of words and from
numbers: nobody's data is copied. Answers are right. Some rows occur twice and some of GSM8K are also in its test file,
so that a mix has something to leave out. The same seed writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ramify.base import rng

NAMES = "Amara Bo Celia Dario Esra Finn Greta Hugo Ilse Jonas Kira Luca Maya Nils Oona Pavel Rosa Sven Tilda Yusuf"
THINGS = "apples books candles drums eggs forks gloves hats jars kites lamps mugs needles oranges pens"
PLACES = "harbour mill orchard quarry library bakery forge station market school"
TOWNS = "Alden Brisk Corvale Dunmore Eastby Farrow Glenhall Holmwick Ivybridge Juniper Kestrel Larkfield"
ANIMALS = {"sparrow": 30, "rabbit": 2_000, "fox": 6_000, "sheep": 80_000, "horse": 500_000, "elephant": 5_000_000}
USES = {
    "umbrella": "staying dry in the rain",
    "ladder": "reaching a high shelf",
    "needle": "sewing on a button",
    "oven": "baking bread",
    "saw": "cutting a plank",
    "lamp": "reading in the dark",
    "kettle": "boiling water",
    "broom": "sweeping the floor",
}
SYSTEMS = (
    "You are a patient teacher. Explain each step so that a child of ten can follow it, then give the answer.",
    "You are an assistant who thinks step by step and justifies the answer. Be brief, but leave no step out.",
    "Given a task, first restate it in your own words, then solve it faithfully, then check the result.",
    "You will be given a task. Answer as if to someone in a hurry who still wants to know why.",
    "",
)
LABELS = "ABCDE"
Row = dict[str, Any]
Maker = Callable[[random.Random], Row]


def slimorca(g: random.Random) -> Row:
    """ShareGPT turns with a detailed system turn, and an answer that follows it."""
    system = g.choice(SYSTEMS)
    question, steps, answer = g.choice((_sorting, _counting, _sharing))(g)
    said = f"{steps} So the answer is {answer}." if system else f"{answer}"
    turns = [("human", question), ("gpt", said)]
    if system:
        turns.insert(0, ("system", system))
    return {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]}


def _sorting(g: random.Random) -> tuple[str, str, str]:
    words = g.sample(THINGS.split(), 4)
    ordered = ", ".join(sorted(words))
    first = f"We compare first letters: {', '.join(f'{word} begins with {word[0]}' for word in words)}."
    return f"Put these words in alphabetical order: {', '.join(words)}.", first, ordered


def _counting(g: random.Random) -> tuple[str, str, str]:
    word = "".join(g.choice("aeioulmnrst") for _ in range(g.randint(6, 10)))
    letter = g.choice(word)
    places = [str(at) for at, each in enumerate(word, start=1) if each == letter]
    steps = f"We go through {' '.join(word)} letter by letter; {letter} stands at {', '.join(places)}."
    return f"How often does the letter {letter} occur in {word}?", steps, str(len(places))


def _sharing(g: random.Random) -> tuple[str, str, str]:
    people, each, rest = g.randint(3, 9), g.randint(4, 20), g.randint(0, 2)
    total, things = people * each + rest, g.choice(THINGS.split())
    steps = f"{people} times {each} is {people * each}, which is {rest} less than {total}."
    question = (
        f"{total} {things} are shared equally among {people} children. How many does each get, how many are left?"
    )
    return question, steps, f"{each} each, {rest} left"


def arc(g: random.Random) -> Row:
    """Question, four choices under `choices`, and the letter of the right one."""
    chosen = g.sample(sorted(ANIMALS), 4)
    most = g.random() < 0.5
    right = (max if most else min)(chosen, key=ANIMALS.__getitem__)
    place, town = g.choice(PLACES.split()), g.choice(TOWNS.split())
    asked = (
        f"Near the {place} of {town} live four animals. Which of them usually weighs the {'most' if most else 'least'}?"
    )
    return {"id": f"{town}_{g.randrange(10**6)}", "question": asked, **_choices(chosen, right)}


def commonsense(g: random.Random) -> Row:
    """As ARC, with five choices and a concept."""
    thing = g.choice(sorted(USES))
    others = g.sample([use for name, use in USES.items() if name != thing], 4)
    name, town = g.choice(NAMES.split()), g.choice(TOWNS.split())
    options = g.sample([USES[thing], *others], 5)
    asked = f"{name} of {town} went to the shop to buy a {thing}. What was it for?"
    return {
        "id": f"{g.getrandbits(64):016x}",
        "question": asked,
        "question_concept": thing,
        **_choices(options, USES[thing]),
    }


def _choices(options: list[str], right: str) -> Row:
    labels = list(LABELS[: len(options)])
    return {"choices": {"text": options, "label": labels}, "answerKey": labels[options.index(right)]}


def gsm8k(g: random.Random) -> Row:
    """A word problem; its answer is a chain that ends in `#### number`."""
    name, thing = g.choice(NAMES.split()), g.choice(THINGS.split())
    boxes, each, given = g.randint(3, 12), g.randint(6, 24), g.randint(2, 15)
    question = f"{name} packs {boxes} boxes of {each} {thing} and gives {given} {thing} away. How many are left?"
    total = boxes * each
    left = total - given
    chain = f"The boxes hold {boxes} * {each} = <<{boxes}*{each}={total}>>{total} {thing}.\n"
    chain += f"{name} has {total} - {given} = <<{total}-{given}={left}>>{left} left.\n#### {left}"
    return {"question": question, "answer": chain}


def metamath(g: random.Random) -> Row:
    """`query` and `response`, as MetaMathQA has them."""
    a, b, x = g.randint(2, 12), g.randint(1, 40), g.randint(1, 20)
    query = f"If {a} times a number plus {b} is {a * x + b}, what is the number?"
    response = f"We subtract {b} from {a * x + b} and get {a * x}. Divided by {a} this is {x}.\nThe answer is: {x}"
    return {"query": query, "response": response, "type": "GSM_FOBAR", "original_question": query}


def squad(g: random.Random) -> Row:
    """A paragraph, a question about it, and the answer as a span."""
    town, place, name, year = (
        g.choice(TOWNS.split()),
        g.choice(PLACES.split()),
        g.choice(NAMES.split()),
        g.randint(1600, 1950),
    )
    origin = g.choice([each for each in TOWNS.split() if each != town])
    context = (
        f"The {place} of {town} was founded in {year}. For many years it was led by {name} from {origin}. "
        f"Today about {g.randint(2, 90)} people work there."
    )
    question, answer = g.choice(
        (
            (f"When was the {place} of {town} founded?", str(year)),
            (f"Who led the {place} of {town} for many years?", name),
        )
    )
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return {
        "id": f"{g.getrandbits(96):024x}",
        "title": town,
        "context": context,
        "question": question,
        "answers": answers,
    }


SOURCES: dict[str, tuple[Maker, int]] = {
    "slimorca": (slimorca, 1200),
    "arc-challenge": (arc, 120),
    "commonsense-qa": (commonsense, 300),
    "gsm8k": (gsm8k, 300),
    "metamath": (metamath, 600),
    "squad": (squad, 400),
}
"""Each source with its rows; that of ARC is far below its share, as the real one is."""
REPEATED, LEAKED = 0.02, 20


def rows(name: str, seed: int) -> list[Row]:
    """All rows of a source; a few occur twice."""
    make, count = SOURCES[name]
    made = [make(rng.generator("orca", seed, name, number)) for number in range(count)]
    return made + made[: int(count * REPEATED)]


def write(path: Path, content: list[Row]) -> None:
    """A file of JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False) for row in content)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def make(out: Path, seed: int) -> int:
    """All files; how many rows they have."""
    out.mkdir(parents=True)
    written = 0
    for name in SOURCES:
        content = rows(name, seed)
        write(out / f"{name}.jsonl", content)
        written += len(content)
    unseen = [gsm8k(rng.generator("orca", seed, "gsm8k-test", number)) for number in range(30)]
    write(out / "gsm8k-test.jsonl", unseen + rows("gsm8k", seed)[-LEAKED - 50 : -50])
    return written


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if a.out.exists():
        sys.exit(f"error: {a.out} exists\nhint: choose a new folder")
    print(f"{a.out}: {make(a.out, a.seed):,} rows of {len(SOURCES)} sources")


if __name__ == "__main__":
    main()
