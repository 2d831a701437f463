"""Rows with a chosen and a rejected answer: preference pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramify.base.types import Conversation, Message, Pair
from ramify.data.decoded import Decoded
from ramify.data.fields import Place, number_field
from ramify.data.marked import marked_turns
from ramify.data.turns import ending_in_user, read_prompt, read_turns, system_column

_OF_PAIR = ("prompt", "conversations", "chosen", "rejected", "margin", "source", "system")
_OPENAI_SIDES = ("preferred_output", "non_preferred_output")


def preference(row: Mapping[str, Any], place: Place) -> Decoded:
    """`chosen` and `rejected`, the prompt beside them or at the beginning of both.

    They are texts, messages or one message; the prompt stands under `prompt` or `conversations`, with a `system` column
    before it. Texts without a prompt are conversations with role markers (see `ramify.data.marked`).
    """
    chosen, rejected = (_side(row[name], name, place) for name in ("chosen", "rejected"))
    named = [name for name in ("prompt", "conversations") if name in row]
    asked = next((name for name in named if row[name] is not None), named[0] if named else None)
    if asked is not None:
        prompt = read_prompt(row[asked], place, asked)
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            if len(side) > 1 and side[:-1] != prompt:
                raise place.error(name, [turn.role for turn in side], "the answer alone, or the prompt and the answer")
    else:
        if len(chosen) == len(rejected) == 1:
            chosen, rejected = (_marked(row, name, place) for name in ("chosen", "rejected"))
        prompt = ending_in_user(chosen[:-1], "chosen", place)
        if rejected[:-1] != prompt:
            raise place.error("rejected", row["rejected"], "messages that begin as those of chosen do")
    return Decoded(pair=_pair(system_column(row, prompt, place) + prompt, chosen, rejected, row, place))


def preferred_output(row: Mapping[str, Any], place: Place) -> Decoded:
    """`input` {messages}, `preferred_output` and `non_preferred_output`, lists of one assistant message each."""
    given = row["input"]
    prompt = read_prompt(given.get("messages") if isinstance(given, dict) else given, place, "input.messages")
    chosen, rejected = (_side(row[name], name, place) for name in _OPENAI_SIDES)
    for name, side in zip(_OPENAI_SIDES, (chosen, rejected), strict=True):
        if len(side) > 1:
            raise place.error(name, [turn.role for turn in side], "one assistant message")
    rest = {name: value for name, value in row.items() if name not in ("input", *_OPENAI_SIDES)}
    prompt = system_column(row, prompt, place) + prompt
    return Decoded(pair=_pair(prompt, chosen, rejected, rest, place))


def _pair(
    prompt: Conversation, chosen: Conversation, rejected: Conversation, row: Mapping[str, Any], place: Place
) -> Pair:
    margin = row.get("margin")
    return Pair(
        prompt=prompt,
        chosen=chosen[-1].content,
        rejected=rejected[-1].content,
        margin=0.0 if margin is None else number_field(margin, "margin", place),
        source=str(row.get("source") or place.source),
        meta={name: str(value) for name, value in row.items() if name not in _OF_PAIR and value is not None},
    )


def _marked(row: Mapping[str, Any], name: str, place: Place) -> Conversation:
    """A whole conversation that is written out as one text."""
    turns = marked_turns(row[name], name, place) if isinstance(row[name], str) else None
    if turns is None:
        raise place.error("prompt", [*row], "a prompt (or chosen and rejected as messages that begin with it)")
    return _side(turns, name, place)


def _side(value: Any, field: str, place: Place) -> Conversation:
    """A completion as a conversation whose last turn it is. An empty text is a completion that stops at once."""
    if isinstance(value, str):
        return (Message("assistant", value),)
    turns = read_turns([value] if isinstance(value, dict) else value, field, place)
    if turns[-1].role != "assistant":
        raise place.error(field, [turn.role for turn in turns], "a text, or messages that end in an assistant turn")
    return turns
