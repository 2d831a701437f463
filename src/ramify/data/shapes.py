"""The shapes rows come in: each is recognised by its content and decoded to a `Problem`, `Example`s, or a `Pair`.

    shape                row                                                          becomes
    pairs                [question, answer]                                           problem
    triples              [question, answer, reasoning]                                problem and example
    question_answer      {question, answer, context? reasoning? system?}; GSM8K:      problem and example
                         the answer is worked out and ends in "#### n"
    multiple_choice      {question, choices {text, label}, answerKey}; MMLU's answer  problem with options and example
    squad                {context, question, answers {text}}                          problem and example
    prompt_completion    {prompt, completion, reward? label?}                         example
    prompt_completions   {prompt, completions: [text | {text, weight}], rewards?}     example
    prompts              {prompt, category?} or a text                                problem without answer
    rules                {prompt | question | messages, rules, id? category?          problem graded by rules
                         answer?}: answers are open, see docs/rules.md
    messages             {messages: [{role, content}, …], system?}                    an example for each trained turn
    conversations        {conversations: [{from, value}, …], system?}: ShareGPT       an example for each trained turn
    text                 {text}, a conversation with role markers in it               an example for each trained turn
                         {text} without markers, or any with data.as_text             example without a prompt
    alpaca               {instruction, output, input? system? history?}; Dolly        example
    instances            {instruction, instances: [{input, output}]}: Self-Instruct   example
    query_response       {query, response, system? history?}: MetaMath;               example
                         {question, response, system_prompt?}: Orca
    preference           {chosen, rejected, prompt or conversations}; the last two    pair
                         alone, as messages that begin alike
    preferred_output     {input {messages}, preferred_output, non_preferred_output}   pair
    problem              Ramify's own Problem                                         problem; example of its solution

A prompt is a text, or a list of messages {role, content}. Content is a text, or a list of text parts. Turns may also be
{from: system | human | gpt, value}. Tables may mix shapes: what a row does not have is null there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from ramify.base.errors import DataError
from ramify.data import completions, dialogues, preferences, questions
from ramify.data.decoded import Decoded
from ramify.data.fields import Place


@dataclass(frozen=True, slots=True)
class Shape:
    """One way of writing rows.

    Attributes:
        columns: what a row of this shape has; each entry is one way, the usual one first. Empty: it is no object.
        optional: further columns that are read.
        keeps_rest: whether all other columns are kept too, as `meta`.
    """

    decode: Callable[[Any, Place], Decoded]
    columns: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    keeps_rest: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """Every column that means something in this shape."""
        return frozenset(self.optional).union(*self.columns)

    def fits(self, names: Collection[str]) -> bool:
        """Whether a row with these columns may be of this shape."""
        return any(all(name in names for name in each) for each in self.columns)


_MORE = ("source", "lineage", "meta")
_OF_PROBLEM = ("system", "answer", "solution", "category", "options", "source", "meta")
SHAPES = {
    "rules": Shape(
        questions.ruled,
        (("prompt", "rules"), ("question", "rules"), ("messages", "rules")),
        ("id", *_OF_PROBLEM),
    ),
    "preference": Shape(
        preferences.preference,
        (("chosen", "rejected"),),
        ("prompt", "conversations", "system", "margin", "source"),
        keeps_rest=True,
    ),
    "preferred_output": Shape(
        preferences.preferred_output,
        (("input", "preferred_output", "non_preferred_output"),),
        ("system", "margin", "source"),
        keeps_rest=True,
    ),
    "messages": Shape(dialogues.messages, (("messages",),), ("system",)),
    "conversations": Shape(dialogues.conversations, (("conversations",),), ("system",)),
    "prompt_completions": Shape(
        completions.prompt_completions, (("prompt", "completions"),), ("rewards", "system", *_MORE)
    ),
    "prompt_completion": Shape(
        completions.prompt_completion, (("prompt", "completion"),), ("reward", "label", "system")
    ),
    "squad": Shape(questions.squad, (("context", "question", "answers"),)),
    "multiple_choice": Shape(
        questions.multiple_choice,
        (("question", "choices", "answerKey"), ("question", "choices", "answer"), ("question", "answerKey")),
    ),
    "question_answer": Shape(
        questions.question_answer, (("question", "answer"),), ("context", "reasoning", "system", "category")
    ),
    "query_response": Shape(
        completions.query_response,
        (("query", "response"), ("question", "response")),
        ("system", "system_prompt", "history"),
    ),
    "alpaca": Shape(
        completions.alpaca,
        (("instruction", "output"), ("instruction", "response")),
        ("input", "context", "system", "history"),
    ),
    "instances": Shape(completions.instances, (("instruction", "instances"),)),
    "problem": Shape(
        questions.own_problem,
        (("prompt", "id"),),
        (*_OF_PROBLEM, "rules"),
    ),
    "prompts": Shape(completions.prompt_only, (("prompt",),), ("system", "category")),
    "text": Shape(dialogues.text, (("text",),)),
    "pairs": Shape(questions.list_row),
    "triples": Shape(questions.list_row),
}
"""Every shape by its name; a row is of the first one that it fits."""
FIELDS = frozenset[str]().union(*(shape.fields for shape in SHAPES.values()))
"""Every column that means something in some shape."""
_LENGTHS = {2: "pairs", 3: "triples"}


def shape_of(row: Any, place: Place) -> str:
    """Name of the row's shape.

    Raises:
        DataError: it has none of the known ones; says what was found.
    """
    if isinstance(row, dict):
        found = first_fitting(row)
        if found is None:
            raise _unknown_columns(row, place)
        return found
    if isinstance(row, str):
        return "prompts"
    if not isinstance(row, list):
        raise place.error("row", row, "a list or an object")
    if len(row) not in _LENGTHS:
        hint = "prompts stand one a line" if row and all(isinstance(each, str) for each in row) else None
        raise place.error("row", row, "[question, answer] or [question, answer, reasoning]", hint)
    return _LENGTHS[len(row)]


def first_fitting(row: dict[str, Any]) -> str | None:
    """The first shape that an object fits.

    In tables of mixed rows, what a row does not have is null, so the first one that fits without the nulls wins, unless
    it is a part of one of them: {prompt, completion: null} is no prompt to be asked, but a row without its completion.
    """
    if None not in row.values():
        return _recognised(tuple(row))
    return _among_nulls(tuple(row), tuple([name for name, value in row.items() if value is not None]))


def decode(row: Any, shape: str, place: Place) -> Decoded:
    """The row as what it stands for.

    Raises:
        DataError: it is not of this shape, or a field is missing or of the wrong type; names file, line, field, value
            and what is allowed.
    """
    return SHAPES[shape].decode(row, place)


def whole_text(row: Any, shape: str, place: Place) -> Decoded:
    """The row of the shape text as one text to imitate, whatever markers are in it.

    Raises:
        DataError: it holds no text.
    """
    return dialogues.as_it_stands(row, place)


def unread(row: Any, shape: str) -> list[str]:
    """Columns of a row that mean nothing in its shape; those that hold nothing are passed over."""
    known = SHAPES[shape]
    if known.keeps_rest or not isinstance(row, dict):
        return []
    fields = _fields(shape)
    return [name for name, value in row.items() if name not in fields and value not in (None, "", [], {})]


@lru_cache
def _fields(shape: str) -> frozenset[str]:
    return SHAPES[shape].fields


def check_fits(row: Any, shape: str, place: Place) -> None:
    """Refuse a row that cannot be of the shape that all rows are to be read as.

    Raises:
        DataError: columns are missing, or the row is of another type; says what was found.
    """
    known = SHAPES[shape]
    if isinstance(row, dict) and known.columns:
        if not known.fits(row):
            raise _columns(row, f"the shape {shape} needs {_spelled(known)}", place, _hint(row, known))
    elif not (isinstance(row, str) and shape == "prompts") and not (
        isinstance(row, list) and _LENGTHS.get(len(row)) == shape
    ):
        raise place.error("row", row, f"one of the shape {shape}")


@lru_cache(maxsize=4096)
def _recognised(names: tuple[str, ...]) -> str | None:
    return next((name for name, shape in SHAPES.items() if shape.fits(names)), None)


@lru_cache(maxsize=4096)
def _among_nulls(names: tuple[str, ...], held: tuple[str, ...]) -> str | None:
    other = _recognised(held)
    if other is None:
        return _recognised(names)
    needed = next(columns for columns in SHAPES[other].columns if all(name in held for name in columns))
    wholes = (name for name, shape in SHAPES.items() if shape.fits(names) and not shape.fits(held))
    return next((name for name in wholes if SHAPES[name].fields.issuperset(needed)), other)


def _unknown_columns(row: dict[str, Any], place: Place) -> DataError:
    """No shape fits: the error names the shape that comes nearest."""
    near = _nearest_shape(row)
    if near is None:
        needed = "rows need question + answer, prompt + completion, messages, or prompt + chosen + rejected"
        return _columns(row, needed, place, "data.columns={prompt: …, completion: …} says what the columns mean")
    known = SHAPES[near]
    needed = f"the nearest shape, {near}, needs {_spelled(known)}"
    return _columns(row, needed, place, _hint(row, known))


def _nearest_shape(row: Iterable[str]) -> str | None:
    """The shape that shares the greatest part of its columns with the row's, spelling mistakes forgiven."""
    names = [str(name) for name in row]
    shares: dict[str, float] = {}
    for name, shape in SHAPES.items():
        for columns in shape.columns[:2]:
            if columns[-1] == "rules" and not _spelt_like("rules", names):
                continue  # a prompt without rules is more likely one of something else
            held = [1.0 if each in names else 0.9 if _spelt_like(each, names) else 0.0 for each in columns]
            shares[name] = max(shares.get(name, 0.0), sum(held) / len(held))
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= 0.4 else None


def _spelt_like(name: str, known: Iterable[str]) -> str | None:
    """A known name that this one may be a slip of; closer than elsewhere, since columns are short words."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.75)), None)


def _hint(row: Collection[str], shape: Shape) -> str:
    """The misspelled column, or how to say which one is meant."""
    for name in row:
        guess = None if name in shape.fields else _spelt_like(str(name), shape.fields)
        if guess is not None:
            return f"did you mean {guess!r} for {name!r}?"
    missing = next(name for name in shape.columns[0] if name not in row)
    return f"data.columns={{{missing}: …}} says which column it is"


def _spelled(shape: Shape) -> str:
    return " or ".join(" + ".join(each) for each in shape.columns[:2])


def _columns(row: Iterable[str], needed: str, place: Place, hint: str) -> DataError:
    found = ", ".join(map(str, list(row)[:8])) or "none"
    return DataError(f"columns: found {found}; {needed}", path=place.path, line=place.line, hint=hint)
