"""Turns of a conversation in a row: a prompt, or a list of messages with roles."""

from __future__ import annotations

from typing import Any

from ramify.base.types import Conversation, Message
from ramify.data.fields import Place, text_field

_ROLES = ("system", "user", "assistant")
_SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""What stands under `from` in {from, value} turns, and the role it is."""


def read_prompt(value: Any, place: Place, field: str = "prompt") -> Conversation:
    """A prompt: a text (one user turn), or messages that end in a user turn; `field` is what it is called in messages.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, list):
        return ending_in_user(read_turns(value, field, place), field, place)
    return (Message("user", text_field(value, field, place)),)


def ending_in_user(turns: Conversation, field: str, place: Place) -> Conversation:
    """The turns, when an assistant may speak next.

    Raises:
        DataError: there is no user turn at their end.
    """
    if not turns or turns[-1].role == "system":
        raise place.error(field, [turn.role for turn in turns], "a user turn before the assistant's")
    if turns[-1].role == "assistant":
        raise place.error(field, [turn.role for turn in turns], "turns of user and assistant that alternate")
    return turns


def read_turns(value: Any, field: str, place: Place) -> Conversation:
    """Messages `{"role", "content"}`, or turns `{"from", "value"}`; content is a text or a list of text parts.

    Raises:
        DataError: one is malformed, has an unknown role, or is a system turn that does not come first.
    """
    if not isinstance(value, list) or not value:
        raise place.error(field, value, "a list of {role, content} with at least one entry")
    return tuple(_message(each, f"{field}[{index}]", index, place) for index, each in enumerate(value))


def _message(value: Any, field: str, index: int, place: Place) -> Message:
    if isinstance(value, dict) and "from" in value and "value" in value:
        value = {"role": _speaker(value["from"], f"{field}.from", place), "content": value["value"]}
    if not isinstance(value, dict) or "role" not in value or "content" not in value:
        raise place.error(field, value, "an object with role and content")
    role = value["role"]
    if role not in _ROLES:
        raise place.error(f"{field}.role", role, "system, user or assistant")
    if role == "system" and index:
        raise place.error(f"{field}.role", role, "user or assistant (a system turn comes first)")
    content = value["content"]
    if isinstance(content, list):
        content = "".join(_part(part, f"{field}.content[{at}]", place) for at, part in enumerate(content))
    if not isinstance(content, str) or (role == "user" and not content.strip()):
        raise place.error(f"{field}.content", content, "text")
    return Message(role, content)


def _speaker(name: Any, field: str, place: Place) -> str:
    if not isinstance(name, str) or name not in _SPEAKERS:
        raise place.error(field, name, "system, human or gpt")
    return _SPEAKERS[name]


def _part(part: Any, field: str, place: Place) -> str:
    text = part.get("text", part.get("value")) if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise place.error(field, part, 'a part {"type": "text", "text": …}')
    return text
