"""Rows that are prompts with texts to imitate, under the names that published data sets give them.

Completions that are not wanted are left out and counted, never trained: those with a reward of 0 or less, and those
whose label is false (unpaired preferences).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ramify.base.types import Completion, Conversation, Example, Lineage, Message
from ramify.data.decoded import Decoded, make_example, make_problem, meta_field
from ramify.data.fields import Place, number_field, optional_text, text_field, weight_field
from ramify.data.turns import read_prompt, read_turns, system_column

_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""What a label may be, as a text in small letters."""


def prompt_completion(row: Mapping[str, Any], place: Place) -> Decoded:
    """`prompt` and `completion`: texts, or messages; with a `reward` or a true or false `label` if there is one."""
    prompt = read_prompt(row["prompt"], place)
    prompt = system_column(row, prompt, place) + prompt
    completion = row["completion"]
    if isinstance(completion, list):
        turns = read_turns(completion, "completion", place)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise place.error("completion", completion, "a text or one assistant message")
        completion = turns[0].content
    text = text_field(completion, "completion", place)
    reward = row.get("reward")
    wanted = _is_labelled_good(row.get("label"), place) and (reward is None or _reward(reward, "reward", place) > 0)
    return Decoded(examples=(make_example(prompt, text, place),)) if wanted else Decoded(unwanted=1)


def prompt_completions(row: Mapping[str, Any], place: Place) -> Decoded:
    """`prompt` and `completions`: texts or {text, weight}; `rewards` beside them says which are imitated.

    A reward decides whether a completion is imitated (above 0) and nothing else: it is no weight, since rewards have no
    common scale.
    """
    given = row["completions"]
    if not isinstance(given, list) or not given:
        raise place.error("completions", given, "a list of texts with at least one entry")
    if isinstance(row.get("labels"), list):
        hint = "labels beside completions mark the steps of one answer, which cannot be imitated one by one"
        raise place.error("labels", row["labels"], "completions that are answers of their own", hint)
    completions = tuple([_completion(each, f"completions[{index}]", place) for index, each in enumerate(given)])
    if not any(completion.weight for completion in completions):
        raise place.error("completions", given, "at least one weight above 0")
    wanted = _rewarded(completions, row.get("rewards"), place)
    unwanted = len(completions) - len(wanted)
    if not wanted:
        return Decoded(unwanted=unwanted)
    prompt = read_prompt(row["prompt"], place)
    example = Example(
        prompt=system_column(row, prompt, place) + prompt,
        completions=wanted,
        source=str(row.get("source") or place.source),
        lineage=_lineage(row.get("lineage"), place),
        meta=meta_field(row, place),
    )
    return Decoded(examples=(example,), unwanted=unwanted)


def prompt_only(row: Any, place: Place) -> Decoded:
    """A prompt alone, as a text or under `prompt`, with a `system` column before it and a `category`."""
    prompt = read_prompt(row if isinstance(row, str) else row["prompt"], place)
    before = () if isinstance(row, str) else system_column(row, prompt, place)
    category = "" if isinstance(row, str) else str(row.get("category") or "")
    return Decoded(replace(make_problem(before + prompt, None, place), category=category))


def alpaca(row: Mapping[str, Any], place: Place) -> Decoded:
    """Alpaca: `instruction` and `output`, optionally `input`, `system` and `history` [[question, answer], …].

    Dolly's names are understood too: `response` for output, `context` for input.
    """
    asked = _with_input(row, row, place)
    output = "output" if "output" in row else "response"
    text = text_field(row[output], output, place)
    turns = (*_history(row, place), Message("user", asked))
    prompt = system_column(row, turns, place) + turns
    return Decoded(examples=(make_example(prompt, text, place),))


def instances(row: Mapping[str, Any], place: Place) -> Decoded:
    """Self-Instruct: `instruction` and `instances`, a list of one {input, output}."""
    given = row["instances"]
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        raise place.error("instances", given, "a list of one {input, output} (several go into rows of their own)")
    text = text_field(given[0].get("output"), "instances[0].output", place)
    prompt = (Message("user", _with_input(row, given[0], place)),)
    return Decoded(examples=(make_example(prompt, text, place),))


def query_response(row: Mapping[str, Any], place: Place) -> Decoded:
    """MetaMath: `query` and `response`; Orca: `question` and `response`; both with `system` (Orca: `system_prompt`) and
    `history` [[query, response], …] where they have them."""
    asked = "query" if "query" in row else "question"
    turns = (*_history(row, place), Message("user", text_field(row[asked], asked, place)))
    prompt = system_column(row, turns, place) + turns
    prompt = system_column(row, prompt, place, "system_prompt") + prompt
    return Decoded(examples=(make_example(prompt, text_field(row["response"], "response", place), place),))


def _with_input(row: Mapping[str, Any], holder: Mapping[str, Any], place: Place) -> str:
    """The instruction, and below it what it is about."""
    instruction = text_field(row["instruction"], "instruction", place)
    about = optional_text(holder, "input" if "input" in holder else "context", place)
    return instruction if about is None else f"{instruction}\n\n{about}"


def _history(row: Mapping[str, Any], place: Place) -> Conversation:
    """Earlier turns, from a column of [question, answer]; none where it is absent or empty."""
    given = row.get("history") or []
    if not isinstance(given, list) or not all(isinstance(each, list) and len(each) == 2 for each in given):
        raise place.error("history", given, "a list of [question, answer]")
    turns = []
    for index, (question, answer) in enumerate(given):
        turns.append(Message("user", text_field(question, f"history[{index}][0]", place)))
        turns.append(Message("assistant", text_field(answer, f"history[{index}][1]", place)))
    return tuple(turns)


def _rewarded(completions: tuple[Completion, ...], rewards: Any, place: Place) -> tuple[Completion, ...]:
    if rewards is None:
        return completions
    if not isinstance(rewards, list) or len(rewards) != len(completions):
        raise place.error("rewards", rewards, f"a list of {len(completions)} numbers, one a completion,")
    found = [_reward(each, f"rewards[{index}]", place) for index, each in enumerate(rewards)]
    return tuple([each for each, reward in zip(completions, found, strict=True) if reward > 0])


def _reward(value: Any, field: str, place: Place) -> float:
    """A finite number, or a text that is one; true is 1 and false is 0."""
    return float(value) if isinstance(value, bool) else number_field(value, field, place)


def _is_labelled_good(value: Any, place: Place) -> bool:
    """Whether a completion is wanted: true or false, 1 or 0, or such a text, which is all that a table has."""
    if value is None:
        return True
    found = _LABELS.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if found is None:
        hint = "label says whether the completion is wanted; give a column that says something else another name"
        raise place.error("label", value, "true or false", hint)
    return found


def _completion(value: Any, field: str, place: Place) -> Completion:
    if not isinstance(value, dict):
        return Completion(text_field(value, field, place))
    for name in value:
        if name not in ("text", "weight"):
            raise place.error(field, name, "text and weight, nothing else,")
    weight = value.get("weight")
    weight = 1.0 if weight is None else weight_field(weight, f"{field}.weight", place)
    return Completion(text_field(value.get("text"), f"{field}.text", place), weight)


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
