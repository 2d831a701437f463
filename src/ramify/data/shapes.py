"""The shapes rows come in: each is recognised by its content and decoded to a `Problem`, `Example`s, or both.

    shape                        row                                                  becomes
    pairs                        [question, answer]                                   problem
    triples                      [question, answer, reasoning]                        problem and example
    question_answer              {"question", "answer"}; GSM8K: answer "… #### n"     problem and example
    prompt_completion            {"prompt", "completion"}                             example
    prompt_completions           {"prompt", "completions": [text | {text, weight}]}   example
    prompts                      {"prompt"} or a text                                 problem without answer
    messages                     {"messages": [{"role", "content"}, …]}               an example for each trained turn
    preference                   {"prompt", "chosen", "rejected"}; the prompt under   pair
                                 "conversations"; or the last two alone, as messages
                                 that begin alike
    problem                      Ramify's own Problem                                 problem; example of its solution

A prompt is a text, or a list of messages {"role", "content"}. Content is a text, or a list of text parts. Turns may
also be {"from": "system" | "human" | "gpt", "value"}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ramify.base.errors import DataError, nearest
from ramify.base.rng import key
from ramify.base.types import Completion, Conversation, Example, Lineage, Message, Pair, Problem
from ramify.data.fields import Place, number_field, parse_gold, text_field, weight_field
from ramify.data.turns import ending_in_user, read_prompt, read_turns

_KEYS = ("question", "answer", "prompt", "completion", "completions", "messages", "chosen", "rejected", "id")
GOLD_MARK = "####"
_TEXT_ANSWERS = 'text answers go in objects: {"question": …, "answer": "text"}; prompts stand one a line'


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one row became."""

    problem: Problem | None = None
    examples: tuple[Example, ...] = ()
    pair: Pair | None = None


def shape_of(row: Any, place: Place) -> str:
    """Name of the row's shape.

    Raises:
        DataError: it has none of the known ones; says what was found.
    """
    if isinstance(row, str):
        return "prompts"
    if isinstance(row, list):
        if len(row) in (2, 3):
            return "pairs" if len(row) == 2 else "triples"
        hint = "prompts stand one a line" if row and all(isinstance(each, str) for each in row) else None
        raise place.error("row", row, "[question, answer] or [question, answer, reasoning]", hint)
    if not isinstance(row, dict):
        raise place.error("row", row, "a list or an object")
    for keys, shape in _BY_KEYS:
        if all(name in row for name in keys):
            return shape
    raise _unknown_keys(row, place)


def decode(row: Any, shape: str, place: Place) -> Decoded:
    """The row as what it stands for.

    Raises:
        DataError: a field is missing or of the wrong type; names file, line, field, value and what is allowed.
    """
    return _DECODERS[shape](row, place)


def _unknown_keys(row: dict[str, Any], place: Place) -> DataError:
    found = ", ".join(map(str, list(row)[:8])) or "none"
    guesses = {name: nearest(str(name), _KEYS) for name in row if name not in _KEYS}
    hints = [f"did you mean {guess!r} for {name!r}?" for name, guess in guesses.items() if guess]
    allowed = (
        "question + answer, prompt + completion, prompt + completions, prompt, messages, or prompt + chosen + rejected"
    )
    return DataError(
        f"columns: {allowed} are needed, found {found}",
        path=place.path,
        line=place.line,
        hint=hints[0] if hints else None,
    )


def _list_row(row: list[Any], place: Place) -> Decoded:
    question, answer = text_field(row[0], "question", place), number_field(row[1], "answer", place, _TEXT_ANSWERS)
    prompt = (Message("user", question),)
    if len(row) == 2:
        return Decoded(_problem(prompt, answer, None, place))
    reasoning = text_field(row[2], "reasoning", place)
    return Decoded(_problem(prompt, answer, reasoning, place), (_example(prompt, reasoning, place),))


def _question_answer(row: Mapping[str, Any], place: Place) -> Decoded:
    prompt = (Message("user", text_field(row["question"], "question", place)),)
    answer = row["answer"]
    reasoning = row.get("reasoning")
    if reasoning is not None:
        reasoning = text_field(reasoning, "reasoning", place)
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
    examples = () if reasoning is None else (_example(prompt, reasoning, place),)
    return Decoded(_problem(prompt, gold, reasoning, place), examples)


def _prompt_completion(row: Mapping[str, Any], place: Place) -> Decoded:
    prompt = read_prompt(row["prompt"], place)
    completion = row["completion"]
    if isinstance(completion, list):
        turns = read_turns(completion, "completion", place)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise place.error("completion", completion, "a text or one assistant message")
        return Decoded(examples=(_example(prompt, turns[0].content, place),))
    return Decoded(examples=(_example(prompt, text_field(completion, "completion", place), place),))


def _prompt_completions(row: Mapping[str, Any], place: Place) -> Decoded:
    given = row["completions"]
    if not isinstance(given, list) or not given:
        raise place.error("completions", given, "a list of texts with at least one entry")
    completions = tuple(_completion(each, f"completions[{index}]", place) for index, each in enumerate(given))
    if not any(completion.weight for completion in completions):
        raise place.error("completions", given, "at least one weight above 0")
    return Decoded(
        examples=(
            Example(
                prompt=read_prompt(row["prompt"], place),
                completions=completions,
                source=str(row.get("source") or place.source),
                lineage=_lineage(row.get("lineage"), place),
                meta=_meta(row, place),
            ),
        )
    )


def _prompt_only(row: Any, place: Place) -> Decoded:
    prompt = read_prompt(row if isinstance(row, str) else row["prompt"], place)
    return Decoded(_problem(prompt, None, None, place))


def _conversation(row: Mapping[str, Any], place: Place) -> Decoded:
    given = row["messages"]
    turns = read_turns(given, "messages", place)
    if turns[-1].role == "user":
        return Decoded(_problem(ending_in_user(turns, "messages", place), None, None, place))
    examples: list[Example] = []
    for index, (turn, raw) in enumerate(zip(turns, given, strict=True)):
        weight = weight_field(raw.get("loss_weight", raw.get("weight", 1.0)), f"messages[{index}].weight", place)
        if turn.role == "assistant" and weight > 0:
            before = ending_in_user(turns[:index], f"messages[{index}]", place)
            examples.append(Example(before, (Completion(turn.content, weight),), place.source))
    if not examples:
        raise place.error("messages", [turn.role for turn in turns], "an assistant turn to train")
    return Decoded(examples=tuple(examples))


def _preference(row: Mapping[str, Any], place: Place) -> Decoded:
    chosen, rejected = (_side(row[name], name, place) for name in ("chosen", "rejected"))
    asked = next((name for name in ("prompt", "conversations") if name in row), None)
    if asked is not None:
        prompt = read_prompt(row[asked], place, asked)
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            if len(side) > 1 and side[:-1] != prompt:
                raise place.error(name, [turn.role for turn in side], "the answer alone, or the prompt and the answer")
    elif len(chosen) == len(rejected) == 1:
        raise place.error("prompt", [*row], "a prompt (or chosen and rejected as messages that begin with it)")
    else:
        prompt = ending_in_user(chosen[:-1], "chosen", place)
        if rejected[:-1] != prompt:
            raise place.error("rejected", row["rejected"], "messages that begin as those of chosen do")
    margin = row.get("margin")
    return Decoded(
        pair=Pair(
            prompt=prompt,
            chosen=chosen[-1].content,
            rejected=rejected[-1].content,
            margin=0.0 if margin is None else number_field(margin, "margin", place),
            source=str(row.get("source") or place.source),
            meta={name: str(value) for name, value in row.items() if name not in _OF_PAIR and value is not None},
        )
    )


def _side(value: Any, field: str, place: Place) -> Conversation:
    """A completion as a conversation whose last turn it is. An empty text is a completion that stops at once."""
    if isinstance(value, str):
        return (Message("assistant", value),)
    turns = read_turns([value] if isinstance(value, dict) else value, field, place)
    if turns[-1].role != "assistant":
        raise place.error(field, [turn.role for turn in turns], "a text, or messages that end in an assistant turn")
    return turns


def _own_problem(row: Mapping[str, Any], place: Place) -> Decoded:
    name, answer = row["id"], row.get("answer")
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise place.error("id", name, "a text")
    if answer is not None:
        answer = answer if isinstance(answer, str) else number_field(answer, "answer", place)
    solution = None if row.get("solution") is None else text_field(row["solution"], "solution", place)
    problem = Problem(
        id=str(name),
        prompt=read_prompt(row["prompt"], place),
        answer=answer,
        solution=solution,
        source=str(row.get("source") or place.source),
        category=str(row.get("category") or ""),
        options=_options(row.get("options", []), place),
        meta=_meta(row, place),
    )
    return Decoded(problem, () if solution is None else (_example(problem.prompt, solution, place),))


def _problem(prompt: Conversation, answer: str | float | None, solution: str | None, place: Place) -> Problem:
    # The id follows from what is asked and what is right, so that it survives shuffling and cutting the file.
    parts = [part for message in prompt for part in (message.role, message.content)]
    return Problem(
        id=f"{key(*parts, repr(answer)):016x}", prompt=prompt, answer=answer, solution=solution, source=place.source
    )


def _example(prompt: Conversation, text: str, place: Place) -> Example:
    return Example(prompt, (Completion(text),), place.source)


def _completion(value: Any, field: str, place: Place) -> Completion:
    if not isinstance(value, dict):
        return Completion(text_field(value, field, place))
    for name in value:
        if name not in ("text", "weight"):
            raise place.error(field, name, "text and weight, nothing else,")
    weight = weight_field(value.get("weight", 1.0), f"{field}.weight", place)
    return Completion(text_field(value.get("text"), f"{field}.text", place), weight)


def _meta(row: Mapping[str, Any], place: Place) -> dict[str, str]:
    meta = row.get("meta", {})
    if not isinstance(meta, dict):
        raise place.error("meta", meta, "an object")
    return {str(name): str(value) for name, value in meta.items()}


def _options(value: Any, place: Place) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise place.error("options", value, "a list of texts")
    return tuple(text_field(each, f"options[{index}]", place) for index, each in enumerate(value))


def _lineage(value: Any, place: Place) -> Lineage | None:
    if value is None:
        return None
    try:
        return Lineage(
            problem_id=str(value["problem_id"]),
            sample_index=int(value["sample_index"]),
            seed=int(value["seed"]),
            policy=str(value["policy"]),
            round=int(value.get("round", 0)),
        )
    except (AttributeError, TypeError, KeyError, ValueError):
        raise place.error("lineage", value, "problem_id, sample_index, seed, policy and round") from None


_OF_PAIR = ("prompt", "conversations", "chosen", "rejected", "margin", "source")
_BY_KEYS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("chosen", "rejected"), "preference"),
    (("messages",), "messages"),
    (("prompt", "completions"), "prompt_completions"),
    (("prompt", "completion"), "prompt_completion"),
    (("question", "answer"), "question_answer"),
    (("prompt", "id"), "problem"),
    (("prompt",), "prompts"),
)
_DECODERS: dict[str, Callable[[Any, Place], Decoded]] = {
    "pairs": _list_row,
    "triples": _list_row,
    "question_answer": _question_answer,
    "prompt_completion": _prompt_completion,
    "prompt_completions": _prompt_completions,
    "prompts": _prompt_only,
    "messages": _conversation,
    "preference": _preference,
    "problem": _own_problem,
}
