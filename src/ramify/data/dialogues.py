"""Rows that are conversations: an example for each trained assistant turn, or a problem that waits for an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ramify.base.types import Completion, Conversation, Example
from ramify.data.decoded import Decoded, make_problem
from ramify.data.fields import Place, text_field, weight_field
from ramify.data.marked import marked_turns
from ramify.data.turns import ending_in_user, read_turns, system_column


def messages(row: Mapping[str, Any], place: Place) -> Decoded:
    """`messages` of {role, content}; a turn's `weight` or `loss_weight` is that of its loss, 0: not trained."""
    return _conversation(row["messages"], "messages", row, place)


def conversations(row: Mapping[str, Any], place: Place) -> Decoded:
    """ShareGPT: `conversations` of {from, value} or {role, content}."""
    return _conversation(row["conversations"], "conversations", row, place)


def text(row: Mapping[str, Any], place: Place) -> Decoded:
    """`text` that is a conversation written out with role markers (see `ramify.data.marked`)."""
    whole = text_field(row["text"], "text", place)
    return _conversation(marked_turns(whole, "text", place), "text", row, place)


def _conversation(given: Any, field: str, row: Mapping[str, Any], place: Place) -> Decoded:
    turns = read_turns(given, field, place)
    before = system_column(row, turns, place) if "system" in row else ()
    if turns[-1].role == "user":
        return Decoded(make_problem(before + ending_in_user(turns, field, place), None, place))
    examples = _examples(turns, given, before, field, place)
    if not examples:
        raise place.error(field, [turn.role for turn in turns], "an assistant turn to train")
    return Decoded(examples=examples)


def _examples(
    turns: Conversation, given: Sequence[Mapping[str, Any]], before: Conversation, field: str, place: Place
) -> tuple[Example, ...]:
    source = place.source
    examples = []
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        weight = 1.0 if len(given[index]) == 2 else _weight(given[index], f"{field}[{index}]", place)
        if not weight:
            continue
        asked = turns[:index]
        if not asked or asked[-1].role != "user":
            ending_in_user(asked, f"{field}[{index}]", place)
        if not turn.content or turn.content.isspace():
            raise place.error(f"{field}[{index}].content", turn.content, "text that is not empty")
        examples.append(Example(before + asked if before else asked, (Completion(turn.content, weight),), source))
    return tuple(examples)


def _weight(turn: Mapping[str, Any], field: str, place: Place) -> float:
    for name in ("loss_weight", "weight"):
        value = turn.get(name)
        if value is not None:
            return weight_field(value, f"{field}.{name}", place)
    return 1.0
