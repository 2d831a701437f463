"""Rows that are conversations: an example for each trained assistant turn, a problem where the last turn waits for one.

A conversation that has answers and then ends in a user turn is both: its answers are imitated, and the last user turn,
with nothing behind it to train, is counted as left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ramify.base.types import Completion, Conversation, Example
from ramify.data.decoded import Decoded, make_example, make_problem
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
    """`text`: a conversation written out with role markers (see `ramify.data.marked`), or, without any, a text that is
    imitated as a whole: its prompt has no turns."""
    whole = text_field(row["text"], "text", place)
    turns = marked_turns(whole, "text", place)
    return as_it_stands(row, place) if turns is None else _conversation(turns, "text", row, place)


def as_it_stands(row: Mapping[str, Any], place: Place) -> Decoded:
    """`text`, imitated as a whole: its markers are text like any other."""
    return Decoded(examples=(make_example((), text_field(row["text"], "text", place), place),))


def _conversation(given: Any, field: str, row: Mapping[str, Any], place: Place) -> Decoded:
    turns = read_turns(given, field, place)
    before = system_column(row, turns, place) if "system" in row else ()
    if turns[-1].role == "user":
        problem = make_problem(before + ending_in_user(turns, field, place), None, place)
        examples = _examples(turns, given, before, field, place) if _has_answers(turns) else ()
        return Decoded(problem, examples, unanswered=int(bool(examples)))
    examples = _examples(turns, given, before, field, place)
    if not examples:
        raise place.error(field, [turn.role for turn in turns], "an assistant turn to train")
    return Decoded(examples=examples)


def _has_answers(turns: Conversation) -> bool:
    """Whether an assistant answers somewhere; words of welcome are no answer."""
    return any(asked.role == "user" and turn.role == "assistant" for asked, turn in pairwise(turns))


def _examples(
    turns: Conversation, given: Sequence[Mapping[str, Any]], before: Conversation, field: str, place: Place
) -> tuple[Example, ...]:
    source = place.source
    examples = []
    left_out = len(given) - len(turns)  # 1 where the system turn was empty
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        entry, at = given[index + left_out], index + left_out
        weight = 1.0 if len(entry) == 2 else _weight(entry, f"{field}[{at}]", place)
        if not weight:
            continue
        asked = turns[:index]
        if not asked or asked[-1].role != "user":
            ending_in_user(asked, f"{field}[{at}]", place)
        if not turn.content or turn.content.isspace():
            raise place.error(f"{field}[{at}].content", turn.content, "text that is not empty")
        examples.append(Example(before + asked if before else asked, (Completion(turn.content, weight),), source))
    return tuple(examples)


def _weight(turn: Mapping[str, Any], field: str, place: Place) -> float:
    for name in ("loss_weight", "weight"):
        value = turn.get(name)
        if value is not None:
            return weight_field(value, f"{field}.{name}", place)
    return 1.0
