"""Answers of an endpoint: a completion with its end and its cost, or why there is none.

Form: https://platform.openai.com/docs/api-reference/chat (vLLM, SGLang, llama-server, TGI and Ramify's own server
answer alike, with the differences that are read here).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ramify.base.types import Stop
from ramify.sample.endpoint.usage import Usage

_STOPS = {
    "stop": Stop.EOS,
    "eos": Stop.EOS,
    "eos_token": Stop.EOS,
    "end_turn": Stop.EOS,
    "stop_sequence": Stop.STOP_STRING,
    "length": Stop.LENGTH,
    "max_tokens": Stop.LENGTH,
    "content_filter": Stop.LENGTH,  # cut off from outside, not ended by the model
}
_LONGEST_REASON = 200


class BadAnswerError(Exception):
    """An answer that is not of the agreed form; the next one may be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion.

    Attributes:
        stop: how it ended; an endpoint that does not say which stop string it met says EOS.
        usage: tokens it cost.
    """

    text: str
    stop: Stop
    usage: Usage


def read_answer(content: bytes) -> Answer:
    """The first choice of a chat completion.

    Raises:
        BadAnswerError: it is none.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise BadAnswerError("the answer is not JSON") from None
    if not isinstance(record, dict):
        raise BadAnswerError("the answer is not a JSON object")
    choices = record.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        said = f": {reason_of(content)}" if record.get("error") else ""
        raise BadAnswerError(f"the answer has no choices{said}")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BadAnswerError("the answer has no message")
    return Answer(_text(message), _stop(choice), _usage(record.get("usage")))


def reason_of(content: bytes) -> str:
    """Why a request was refused, in one line; empty when the answer does not say."""
    text = content.decode("utf-8", errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _one_line(text) if not text.lstrip().startswith("<") else ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return _one_line(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False) if found else "")


def is_out_of_money(content: bytes) -> bool:
    """Whether a refusal means that an account is empty: asking again would not help."""
    return b"insufficient_quota" in content


def seconds_asked(headers: Mapping[str, str]) -> float | None:
    """How long the endpoint asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        return None


def _text(message: Mapping[str, Any]) -> str:
    """What was said; a refusal is an answer too."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if content is None:
        content = message.get("refusal") or ""
    if not isinstance(content, str):
        raise BadAnswerError(f"the message's content is {type(content).__name__}")
    return content


def _stop(choice: Mapping[str, Any]) -> Stop:
    finish = choice.get("finish_reason")
    if finish not in _STOPS:
        raise BadAnswerError(f"finish_reason {finish!r} is not known")
    met = isinstance(choice.get("stop_reason"), str)  # vLLM names the stop string it met
    return Stop.STOP_STRING if met and finish == "stop" else _STOPS[finish]


def _usage(record: Any) -> Usage:
    if isinstance(record, dict):
        prompt, new = record.get("prompt_tokens"), record.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(new, int) and min(prompt, new) >= 0:
            return Usage(prompt_tokens=prompt, completion_tokens=new)
    return Usage(uncounted=1)


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."
