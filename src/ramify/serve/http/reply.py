"""What goes back to a client: one JSON object, or a stream of server-sent events, and at most one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ramify.serve.http.refusals import RefusedError, body_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


class Reply:
    """The answer to one request.

    Attributes:
        started: whether its status is sent, so that no other one can be.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._streams = False
        self.started = False

    async def whole(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send one object as all there is."""
        from starlette.responses import Response

        self.started = True
        response = Response(encoded(content), status, headers, media_type="application/json")
        await response(self._scope, self._receive, self._send)

    async def event(self, content: Any) -> None:
        """Send one event; the first one begins the stream."""
        if not self.started:
            self.started = self._streams = True
            headers = [(name.encode(), value.encode()) for name, value in _EVENTS.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._chunk(b"data: " + encoded(content) + b"\n\n", more=True)

    async def done(self) -> None:
        """End the stream as OpenAI does."""
        await self._chunk(b"data: [DONE]\n\n", more=False)

    async def fail(self, error: RefusedError) -> None:
        """Say what went wrong: with its status, or as the last event of a stream that has begun."""
        if not self.started:
            await self.whole(body_of(error), error.status, error.headers)
        elif self._streams:
            await self._chunk(b"data: " + encoded(body_of(error)) + b"\n\n", more=False)

    async def _chunk(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def encoded(content: Any) -> bytes:
    """JSON in UTF-8; half a letter, which UTF-8 cannot write, is written as JSON escapes it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")
