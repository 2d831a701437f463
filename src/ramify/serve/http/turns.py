"""Messages of a chat request as turns: texts of system, user and assistant; anything else is refused with a reason."""

from __future__ import annotations

from typing import Any

from ramify.base.errors import unknown
from ramify.base.types import Conversation, Message
from ramify.serve.http.refusals import RefusedError, seen

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of the protocol, and what each is here: `developer` is the newer name of `system`."""
_NO_TOOLS = "tools are not called here"
_REASONS = {
    "name": "turns have roles here, and no names",
    "tool_calls": _NO_TOOLS,
    "tool_call_id": _NO_TOOLS,
    "function_call": _NO_TOOLS,
    "audio": "text is all that is understood here",
    "refusal": "a turn is what was said; put the refusal into content",
    "annotations": "text is all that is understood here",
}
"""Fields of a message that may be null or empty, as they are in an answer that is sent back, and why not more."""


def conversation(messages: list[Any]) -> Conversation:
    """The turns of a request.

    Raises:
        RefusedError: a message is none that is understood here, or the last one is the assistant's own.
    """
    turns = tuple(_turn(message, f"messages[{at}]") for at, message in enumerate(messages))
    if turns[-1].role == "assistant":
        raise RefusedError(
            "the last message is the assistant's own; answers are not continued here",
            param=f"messages[{len(turns) - 1}].role",
            hint="/v1/completions continues any text",
        )
    return turns


def _turn(message: Any, place: str) -> Message:
    if not isinstance(message, dict):
        raise RefusedError(f"{place} = {seen(message)}: an object with role and content is needed", param=place)
    for name, value in message.items():
        if name in ("role", "content"):
            continue
        if name not in _REASONS:
            raise RefusedError(
                f"{place}: {unknown('field', name[:60], ('role', 'content'))}", param=f"{place}.{name[:60]}"
            )
        if value not in (None, []):
            raise RefusedError(f"{place}.{name} = {seen(value)}: {_REASONS[name]}", param=f"{place}.{name}")
    return Message(_role(message.get("role"), place), _content(message.get("content"), f"{place}.content"))


def _role(role: Any, place: str) -> str:
    if role in ("tool", "function"):
        raise RefusedError(f"{place}.role = {role!r}: {_NO_TOOLS}", param=f"{place}.role")
    if not isinstance(role, str) or role not in ROLES:
        raise RefusedError(f"{place}.role = {seen(role)}: one of {', '.join(ROLES)} is needed", param=f"{place}.role")
    return ROLES[role]


def _content(content: Any, place: str) -> str:
    """The text of a message; parts are lines of it."""
    if isinstance(content, list) and content:
        return "\n".join(_part(part, f"{place}[{at}]") for at, part in enumerate(content))
    if not isinstance(content, str):
        raise RefusedError(f"{place} = {seen(content)}: text, or a list of text parts, is needed", param=place)
    return checked_text(content, place)


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict):
        raise RefusedError(f"{place} = {seen(part)}: an object with type and text is needed", param=place)
    if part.get("type") != "text":
        raise RefusedError(f"{place}.type = {seen(part.get('type'))}: text is all that is understood here", param=place)
    extra = sorted(set(part) - {"type", "text"})
    if extra:
        raise RefusedError(f"{place}: {unknown('field', extra[0][:60], ('type', 'text'))}", param=place)
    if not isinstance(part.get("text"), str):
        raise RefusedError(f"{place}.text = {seen(part.get('text'))}: text is needed", param=f"{place}.text")
    return checked_text(part["text"], f"{place}.text")


def checked_text(text: str, param: str) -> str:
    """The text itself.

    Raises:
        RefusedError: JSON can write it, and it is none: it holds one half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(
            f"{param}: half a letter (a lone surrogate) at character {error.start}", param=param
        ) from None
    return text
