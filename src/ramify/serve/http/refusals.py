"""Errors as OpenAI words them: `{"error": {"message", "type", "param", "code"}}` with a status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ramify.base.errors import DataError, LengthError, RamifyError

TOO_LONG = "context_length_exceeded"
NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients would send what has just taken too long twice again


class RefusedError(DataError):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        param: the field it is about, as a path into the body (`messages[0].content`), or None.
        code: OpenAI's name for the case, or None.
        headers: that belong to the answer.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def as_refused(error: RamifyError, param: str | None = None) -> RefusedError:
    """Any error raised on purpose, with its status: 400 where data is at fault, which came with the request, else 500.

    Args:
        param: the field that the data came in.
    """
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, LengthError):
        return RefusedError(error.message, param=param, code=TOO_LONG, hint=error.hint)
    if isinstance(error, DataError):
        return RefusedError(error.message, param=param, hint=error.hint)
    return RefusedError(error.message, 500, hint=error.hint)


def body_of(error: RefusedError) -> dict[str, Any]:
    """The body of an error's answer."""
    fields = {"message": str(error), "type": _kind(error.status), "param": error.param, "code": error.code}
    return {"error": fields}


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def seen(value: object) -> str:
    """A value as a message quotes it: as JSON, cut, and with nothing in it that a terminal would obey."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
