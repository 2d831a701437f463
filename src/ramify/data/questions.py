"""Rows that are questions with a right answer or rules for one: a problem each, an example where a text is there to
imitate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from ramify.base.types import Conversation, Message, Problem
from ramify.data.decoded import Decoded, make_example, make_problem, meta_field
from ramify.data.fields import Place, number_field, optional_text, parse_gold, text_field
from ramify.data.turns import ending_in_user, read_prompt, read_turns, system_column

GOLD_MARK = "####"
_TEXT_ANSWERS = 'text answers go in objects: {"question": …, "answer": "text"}; prompts stand one a line'


def list_row(row: list[Any], place: Place) -> Decoded:
    """`[question, answer]`, or `[question, answer, reasoning]`."""
    question, answer = text_field(row[0], "question", place), number_field(row[1], "answer", place, _TEXT_ANSWERS)
    prompt = (Message("user", question),)
    if len(row) == 2:
        return Decoded(make_problem(prompt, answer, place))
    reasoning = text_field(row[2], "reasoning", place)
    return Decoded(make_problem(prompt, answer, place, solution=reasoning), (make_example(prompt, reasoning, place),))


def question_answer(row: Mapping[str, Any], place: Place) -> Decoded:
    """`question` and `answer`; in GSM8K's form the answer is worked out and ends in `#### number`.

    A `context` stands before the question, as in SQuAD, and a `system` column before both.
    """
    question, context = text_field(row["question"], "question", place), optional_text(row, "context", place)
    asked = (Message("user", question if context is None else f"{context}\n\n{question}"),)
    prompt = system_column(row, asked, place) + asked
    answer = row["answer"]
    reasoning = optional_text(row, "reasoning", place)
    if isinstance(answer, str) and GOLD_MARK in answer:
        reasoning = text_field(answer, "answer", place)
        last = answer.rsplit(GOLD_MARK, 1)[1].strip()
        gold: str | float = number_field(last, f"answer after {GOLD_MARK}", place)
    elif isinstance(answer, str):
        gold = text_field(answer, "answer", place)
        number = parse_gold(gold)
        gold = gold if number is None else number
    else:
        gold = number_field(answer, "answer", place)
    examples = () if reasoning is None else (make_example(prompt, reasoning, place),)
    problem = make_problem(prompt, gold, place, solution=reasoning)
    return Decoded(replace(problem, category=str(row.get("category") or "")), examples)


def multiple_choice(row: Mapping[str, Any], place: Place) -> Decoded:
    """ARC, CommonsenseQA: `question`, `choices` {text, label}, `answerKey`. MMLU: a list of choices, `answer` from 0.

    The prompt is the question with its options, one a line, lettered from A whatever the file calls them. The
    completion is the right line, `B. text`; every line is an option to be scored, and the gold answer is its letter.
    """
    question: Any = row["question"]
    given = row.get("choices")
    if isinstance(question, dict):  # CommonsenseQA as first published: {"stem", "choices": [{label, text}]}
        given = question.get("choices")
        question = question.get("stem")
    asked = text_field(question, "question", place)
    texts, labels = _choices(given, place)
    right = _right(row, labels, place)
    options = tuple(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))
    prompt = (Message("user", "\n".join([asked, *options])),)
    problem = make_problem(prompt, ascii_uppercase[right], place, solution=options[right], options=options)
    return Decoded(problem, (make_example(prompt, options[right], place),))


def squad(row: Mapping[str, Any], place: Place) -> Decoded:
    """`context`, `question`, `answers` {text, answer_start}: the first answer is imitated.

    A question without an answer (SQuAD 2) does not fit: what to say instead is not in the row.
    """
    context, question = (text_field(row[name], name, place) for name in ("context", "question"))
    answers = row["answers"]
    texts = answers.get("text") if isinstance(answers, dict) else None
    if isinstance(answers, list):
        texts = [each.get("text") if isinstance(each, dict) else each for each in answers]
    if not isinstance(texts, list) or not texts:
        raise place.error("answers", answers, "{text: [...]} with at least one answer")
    answer = text_field(texts[0], "answers.text[0]", place)
    prompt = (Message("user", f"{context}\n\n{question}"),)
    return Decoded(make_problem(prompt, answer, place, solution=answer), (make_example(prompt, answer, place),))


def own_problem(row: Mapping[str, Any], place: Place) -> Decoded:
    """Ramify's own problem: `id`, `prompt`, and optionally `system`, `answer`, `solution`, `options`, `rules`, …"""
    return _whole_problem(row, read_prompt(row["prompt"], place), row.get("answer"), place, name=row["id"])


def ruled(row: Mapping[str, Any], place: Place) -> Decoded:
    """A prompt (`prompt`, `question` or `messages`) and the `rules` that an answer to it must fulfil.

    `answer` is a reference answer; messages may end in it instead. Rules are names with values here: which ones there
    are is known to `ramify.tasks.chat`.
    """
    field = next((name for name in ("prompt", "question", "messages") if row.get(name) is not None), "prompt")
    turns = read_turns(row[field], field, place) if field == "messages" else read_prompt(row.get(field), place, field)
    answer = row.get("answer")
    if turns[-1].role == "assistant":
        if answer is not None:
            raise place.error("answer", answer, "one reference answer (the messages end in another one)")
        turns, answer = turns[:-1], turns[-1].content
    return _whole_problem(row, ending_in_user(turns, field, place), answer, place, name=row.get("id"))


def _whole_problem(row: Mapping[str, Any], prompt: Conversation, answer: Any, place: Place, *, name: Any) -> Decoded:
    """The problem with all that its row says about it; without a name its id follows from prompt, answer and rules."""
    if name is not None and (not isinstance(name, str | int) or isinstance(name, bool) or name == ""):
        raise place.error("id", name, "a text")
    if answer is not None:
        answer = answer if isinstance(answer, str) else number_field(answer, "answer", place)
    solution = None if row.get("solution") is None else text_field(row["solution"], "solution", place)
    prompt = system_column(row, prompt, place) + prompt
    rules = _rules(row.get("rules"), place)
    problem = Problem(
        id=make_problem(prompt, repr((answer, rules)), place).id if name is None else str(name),
        prompt=prompt,
        answer=answer,
        solution=solution,
        source=str(row.get("source") or place.source),
        category=str(row.get("category") or ""),
        options=_options(row.get("options") or [], place),
        meta=meta_field(row, place),
        rules=rules,
    )
    examples = () if solution is None else (make_example(prompt, solution, place),)
    return Decoded(problem, examples, named=name is not None)


def _rules(value: Any, place: Place) -> tuple[Mapping[str, Any], ...]:
    """Rules as maps of one name each: one map may hold several, and a name alone stands for `{name: true}`."""
    given = [{name: held} for name, held in value.items()] if isinstance(value, dict) else value or []
    if isinstance(given, list):
        rules = [{each: True} if isinstance(each, str) else each for each in given]
        if all(isinstance(each, dict) and [type(name) for name in each] == [str] for each in rules):
            return tuple(rules)
    raise place.error("rules", value, "a list of {rule: value} with one rule each")


def _choices(given: Any, place: Place) -> tuple[list[str], list[str]]:
    """Texts and labels of the choices; a list of texts is labelled A, B, …"""
    texts: Any = None
    labels: Any = None
    if isinstance(given, dict):
        texts, labels = given.get("text"), given.get("label")
    elif isinstance(given, list) and given and all(isinstance(each, dict) for each in given):
        texts, labels = ([each.get(name) for each in given] for name in ("text", "label"))
    elif isinstance(given, list):
        texts, labels = given, list(ascii_uppercase[: len(given)])
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        raise place.error("choices", given, "{text: [...], label: [...]} of one length, or a list of texts")
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise place.error("choices", given, f"2 to {len(ascii_uppercase)} choices")
    found = [text_field(each, f"choices.text[{index}]", place) for index, each in enumerate(texts)]
    names = [text_field(each, f"choices.label[{index}]", place) for index, each in enumerate(labels)]
    if len(set(names)) < len(names):
        raise place.error("choices.label", names, "a label of its own for each choice")
    return found, names


def _right(row: Mapping[str, Any], labels: list[str], place: Place) -> int:
    """Which choice is right: a label, or (MMLU) a number from 0 on."""
    field = "answerKey" if row.get("answerKey") is not None or "answer" not in row else "answer"
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return value
    if isinstance(value, str) and value in labels:
        return labels.index(value)
    raise place.error(field, value, f"one of the labels {', '.join(labels)}")


def _options(value: Any, place: Place) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise place.error("options", value, "a list of texts")
    return tuple(text_field(each, f"options[{index}]", place) for index, each in enumerate(value))
