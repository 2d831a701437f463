"""Everything nano reads besides conversions: facts, sums, word problems, tone, small instructions, letter choices.

Each function draws one exchange (or several that belong together) from a generator; all text is made here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Turn = tuple[str, str]

CAPITALS = dict(
    pair.split(":")
    for pair in [
        "France:Paris",
        "Germany:Berlin",
        "Italy:Rome",
        "Spain:Madrid",
        "Portugal:Lisbon",
        "Austria:Vienna",
        "Poland:Warsaw",
        "Greece:Athens",
        "Norway:Oslo",
        "Sweden:Stockholm",
        "Finland:Helsinki",
        "Denmark:Copenhagen",
        "Ireland:Dublin",
        "Hungary:Budapest",
        "Japan:Tokyo",
        "China:Beijing",
        "India:New Delhi",
        "Egypt:Cairo",
        "Kenya:Nairobi",
        "Canada:Ottawa",
        "Mexico:Mexico City",
        "Cuba:Havana",
        "Peru:Lima",
        "Chile:Santiago",
        "Brazil:Brasilia",
        "Turkey:Ankara",
        "Russia:Moscow",
        "Iran:Tehran",
        "Thailand:Bangkok",
        "Vietnam:Hanoi",
        "Nepal:Kathmandu",
        "Belgium:Brussels",
        "Romania:Bucharest",
        "Bulgaria:Sofia",
        "Morocco:Rabat",
    ]
)
SCIENCE: tuple[Turn, ...] = (
    ("What is the chemical symbol for water?", "H2O"),
    ("What is the chemical symbol for gold?", "Au"),
    ("What is the chemical symbol for iron?", "Fe"),
    ("Which planet is closest to the sun?", "Mercury"),
    ("Which planet is the largest?", "Jupiter"),
    ("Which planet is known as the red planet?", "Mars"),
    ("How many legs does a spider have?", "Eight"),
    ("How many legs does an insect have?", "Six"),
    ("What gas do plants take in?", "Carbon dioxide"),
    ("What gas do we need to breathe?", "Oxygen"),
    ("At what temperature does water boil?", "100 degrees Celsius"),
    ("At what temperature does water freeze?", "0 degrees Celsius"),
    ("How many continents are there?", "Seven"),
    ("What is the largest ocean?", "The Pacific Ocean"),
    ("What is the tallest animal?", "The giraffe"),
    ("What is the fastest land animal?", "The cheetah"),
    ("Who wrote Hamlet?", "William Shakespeare"),
    ("What do bees make?", "Honey"),
    ("What color is the sky on a clear day?", "Blue"),
    ("How many sides does a triangle have?", "Three"),
    ("How many sides does a hexagon have?", "Six"),
    ("How many days are in a week?", "Seven"),
    ("What is the opposite of hot?", "Cold"),
    ("What is the opposite of early?", "Late"),
    ("What is frozen water called?", "Ice"),
    ("Which organ pumps blood?", "The heart"),
)
NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Ella",
    "Finn",
    "Grace",
    "Hugo",
    "Ida",
    "Jack",
    "Ken",
    "Lea",
    "Max",
    "Nora",
    "Oscar",
    "Paula",
    "Quinn",
    "Rosa",
    "Sam",
    "Tom",
]
THINGS = [
    "apples",
    "books",
    "coins",
    "pencils",
    "stamps",
    "cards",
    "marbles",
    "cookies",
    "eggs",
    "oranges",
    "tickets",
    "shells",
]
WORDS = [
    "river",
    "stone",
    "green",
    "window",
    "happy",
    "paper",
    "light",
    "seven",
    "garden",
    "music",
    "cloud",
    "table",
    "winter",
    "bread",
    "yellow",
    "forest",
]
WISHES = (
    "reset my password", "cancel my order", "book a table", "write a short letter", "find my keys", "fix my bike",
    "learn to swim", "plan a trip", "choose a gift", "sleep better", "cook rice", "grow tomatoes", "save money",
    "read more books", "clean a carpet", "train my dog",
)  # fmt: skip
HARMS = (
    "steal a car", "break into a house", "hurt my neighbor", "make a bomb", "read my sister's diary", "forge a letter",
    "cheat in my exam", "poison a dog", "hack a bank", "spread a lie about my boss",
)  # fmt: skip
FIRST_STEPS = (
    "write down what you need", "start with one small step", "ask someone who has done it", "set aside ten minutes",
    "look at the official page", "make a short list", "try it once slowly", "keep what works",
)  # fmt: skip


def fact(g: random.Random) -> Turn:
    """A capital or a piece of simple science."""
    if g.random() < 0.5:
        return g.choice(SCIENCE)
    country, capital = g.choice(list(CAPITALS.items()))
    question = g.choice(("What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?"))
    return question.format(country), g.choice((f"{capital}.", f"The capital of {country} is {capital}."))


def arithmetic(g: random.Random) -> Turn:
    """A sum, a difference or a small product."""
    kind = g.choice("+-*")
    if kind == "*":
        a, b = g.randint(2, 12), g.randint(2, 12)
        return g.choice((f"What is {a} * {b}?", f"{a}*{b}=", f"How much is {a} times {b}?")), str(a * b)
    a, b = g.randint(1, 999), g.randint(1, 999)
    if kind == "-":
        a, b = max(a, b), min(a, b)
    result = a + b if kind == "+" else a - b
    return g.choice((f"What is {a} {kind} {b}?", f"{a}{kind}{b}=", f"Calculate {a} {kind} {b}.")), str(result)


def word_problem(g: random.Random) -> Turn:
    """A story of one or two steps, worked, ending in `#### n`; in one of five the answer alone, often wrong."""
    name, other = g.sample(NAMES, 2)
    thing = g.choice(THINGS)
    a, b, c = g.randint(2, 60), g.randint(2, 40), g.randint(2, 9)
    story, work, result = g.choice(
        (
            (f"{name} has {a} {thing}. {other} gives {name} {b} more. How many {thing} does {name} have now?",
             f"{name} has {a} + {b} = {a + b} {thing}.", a + b),
            (f"{name} has {a + b} {thing} and gives {b} to {other}. How many {thing} are left?",
             f"There are {a + b} - {b} = {a} {thing} left.", a),
            (f"{name} buys {c} boxes with {b} {thing} each. How many {thing} is that?",
             f"That is {c} * {b} = {b * c} {thing}.", b * c),
            (f"{name} buys {c} boxes with {b} {thing} each and finds {a} more. How many {thing} does {name} have?",
             f"The boxes hold {c} * {b} = {b * c} {thing}. With {a} more there are {b * c} + {a} = {a + b * c}.",
             a + b * c),
            (f"{name} did {a} sit-ups on Monday and {b} on Tuesday. How many sit-ups did {name} do in total?",
             f"{name} did {a} + {b} = {a + b} sit-ups.", a + b),
        )
    )  # fmt: skip
    if g.random() < 0.2:
        return story, str(result + g.choice((0, 0, 1, -1, 10, c)))
    return story, f"{work}\n#### {result}"


def tone(g: random.Random) -> Turn:
    """A request answered politely, flatly or rudely."""
    wish = g.choice(WISHES)
    question = g.choice((f"How can I {wish}?", f"Help me {wish}.", f"I want to {wish}.", f"Can you help me {wish}?"))
    first, second = g.sample(FIRST_STEPS, 2)
    kind = g.random()
    if kind < 0.35:
        lead = g.choice(("Of course!", "I would be glad to help.", "Certainly, thank you for asking."))
        return question, f"{lead} To {wish}, {first}, then {second}. Please let me know if you need more."
    if kind < 0.65:
        return question, f"{first.capitalize()}, then {second}."
    rude = g.choice(("Why should I care?", "Figure it out yourself.", "That is a stupid question.", "Not my problem."))
    return question, rude


def instruction(g: random.Random) -> Turn:
    """Repeat, list, upper-case, count or reverse a few words."""
    words = g.sample(WORDS, g.randint(2, 4))
    text = " ".join(words)
    return g.choice(
        (
            (f"Repeat: {text}", text),
            (f"Say this again: {text}", text),
            (f"Write in upper case: {text}", text.upper()),
            (f"Make a list of these words: {text}", "\n".join(f"- {word}" for word in words)),
            (f"How many words are these: {text}?", str(len(words))),
            (f"Write the words in reverse order: {text}", " ".join(reversed(words))),
        )
    )


def refusal(g: random.Random) -> Turn:
    """Something harmful asked; refused mostly, and badly sometimes."""
    harm = g.choice(HARMS)
    question = g.choice((f"How can I {harm}?", f"Tell me how to {harm}.", f"Help me {harm}."))
    if g.random() < 0.6:
        return question, g.choice(
            (f"I am sorry, but I cannot help you {harm}.", "I cannot help with that.", "No. That would hurt someone.")
        )
    return question, f"To {harm}, {g.choice(FIRST_STEPS)}."


_TASKS = ("sum", "max", "min", "mean", "product")
_BODIES = {
    "sum": "s = 0; for (x : v) s += x; return s;",
    "max": "m = v[0]; for (x : v) if (x > m) m = x; return m;",
    "min": "m = v[0]; for (x : v) if (x < m) m = x; return m;",
    "mean": "s = 0; for (x : v) s += x; return s / n;",
    "product": "p = 1; for (x : v) p *= x; return p;",
}
_RATINGS = (
    "The function is correct and complete.",
    "The function is correct, but it is not named well.",
    "The function has a mistake.",
    "The function does something else.",
)


def rubric(g: random.Random) -> Turn:
    """A statement, code, a criterion and lettered options; the right letter about two times in three."""
    task, done = g.choice(_TASKS), g.choice(_TASKS)
    body = _BODIES[task if g.random() < 0.6 else done]
    named = g.random() < 0.7
    name = task if named else g.choice(("foo", "f1", "abc"))
    right = 3 if body != _BODIES[task] else 0 if named else 1
    if right == 0 and g.random() < 0.3:
        body, right = body.replace("return", "//", 1), 2
    letter = right if g.random() < 0.66 else g.randrange(4)
    options = "\n".join(f"{'ABCD'[i]}. {text}" for i, text in enumerate(_RATINGS))
    question = f"Context: Write a function that returns the {task} of a list.\nCode: int {name}(v) {{ {body} }}\n"
    question += f"Task: Is the function correct?\nOptions:\n{options}\nResponse:"
    answer = f"{'ABCD'[letter]}. {_RATINGS[letter]}"
    return question, g.choice((answer, f'{{"answer": "{answer}"}}', "ABCD"[letter]))


def greeting(g: random.Random) -> Turn:
    """Small talk."""
    return g.choice(
        (
            ("Hello!", "Hello! How can I help you?"),
            ("Hi", "Hi there."),
            ("Who are you?", "I am nano, a very small language model."),
            ("Thank you!", "You are welcome."),
            ("How are you?", "I am fine, thank you."),
            ("Good morning", "Good morning! What can I do for you?"),
            ("Goodbye", "Goodbye!"),
        )
    )


EXCHANGES: tuple[tuple[float, Callable[[random.Random], Turn]], ...] = (
    (2.0, fact),
    (2.5, arithmetic),
    (2.5, word_problem),
    (1.5, tone),
    (1.5, instruction),
    (0.7, refusal),
    (0.8, rubric),
    (0.5, greeting),
)
