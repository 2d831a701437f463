"""Turns of a conversation in a row: a prompt, or a list of messages with roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramify.base.types import Conversation, Message
from ramify.data.fields import Place, optional_text, text_field

_SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""What stands under `role` or `from`, and the role it is."""
_TOOLS = "calls of tools are not trained; data.bad_rows says which share of such rows may be left out"


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


def system_column(row: Mapping[str, Any], turns: Conversation, place: Place, column: str = "system") -> Conversation:
    """The system turn that stands in a column of its own, before the turns given; none where there is none.

    Raises:
        DataError: it is no text, or the turns begin with another one.
    """
    value = optional_text(row, column, place)
    if value is None:
        return ()
    system = Message("system", value)
    if turns[0].role != "system":
        return (system,)
    if turns[0] != system:
        raise place.error(column, value, "one system turn (the conversation begins with another one)")
    return ()


def read_turns(value: Any, field: str, place: Place) -> Conversation:
    """Messages `{"role", "content"}`, or turns `{"from", "value"}`; content is a text or a list of text parts.

    A system turn of nothing but white space is none: there is one turn less than entries.

    Raises:
        DataError: one is malformed, has an unknown role, calls a tool, or is a system turn that does not come first.
    """
    if not isinstance(value, list) or not value:
        raise place.error(field, value, "a list of {role, content} with at least one entry")
    turns = []
    for index, each in enumerate(value):
        # Nearly all turns are of this kind: not even the name of their field is made for them.
        if type(each) is dict and len(each) == 2:
            name, content = (
                (each["from"], each.get("value")) if "from" in each else (each.get("role"), each.get("content"))
            )
            role = _SPEAKERS.get(name) if type(name) is str else None
            if role and type(content) is str and content and not content.isspace() and (role != "system" or not index):
                turns.append(Message(role, content))
                continue
        turns.append(_message(each, f"{field}[{index}]", index, place))
    if turns[0].role == "system" and not turns[0].content.strip():
        del turns[0]
    if not turns:
        raise place.error(field, value, "a turn of user or assistant")
    return tuple(turns)


def _message(value: Any, at: str, index: int, place: Place) -> Message:
    if not isinstance(value, dict):
        raise place.error(at, value, "an object with role and content")
    spoken = value.get("from") is not None or ("from" in value and value.get("role") is None)
    role_field, content_field = ("from", "value") if spoken else ("role", "content")
    if role_field not in value or content_field not in value:
        raise place.error(at, value, "an object with role and content")
    role = _role(value[role_field], f"{at}.{role_field}", place, spoken=spoken)
    if role == "system" and index:
        raise place.error(f"{at}.{role_field}", role, "user or assistant (a system turn comes first)")
    if value.get("tool_calls"):
        raise place.error(f"{at}.tool_calls", value["tool_calls"], "a turn without them", _TOOLS)
    content = value[content_field]
    if isinstance(content, list):
        content = "".join([_part(part, f"{at}.content[{place_in}]", place) for place_in, part in enumerate(content)])
    if not isinstance(content, str) or (role == "user" and not content.strip()):
        raise place.error(f"{at}.content", content, "text")
    return Message(role, content)


def _role(name: Any, field: str, place: Place, *, spoken: bool) -> str:
    role = _SPEAKERS.get(name) if isinstance(name, str) else None
    if role is None:
        is_tool = isinstance(name, str) and name.startswith(("tool", "function", "observation", "ipython"))
        allowed = "system, human or gpt" if spoken else "system, user or assistant"
        raise place.error(field, name, allowed, _TOOLS if is_tool else None)
    return role


def _part(part: Any, field: str, place: Place) -> str:
    text = part.get("text") or part.get("value") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise place.error(field, part, 'a part {"type": "text", "text": …}')
    return text
