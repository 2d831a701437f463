"""What comes from a client: a body of bounded size, and the news that it left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ramify.serve.http.refusals import RefusedError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope


class GoneError(Exception):
    """The client left; nobody is there to be told anything."""


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it is larger than `most` bytes, said beforehand or found on the way; or not sent as JSON.
        GoneError: the client left before its end.
    """
    headers = dict(scope["headers"])
    _check_kind(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        more = message.get("more_body", False)
    return bytes(body)


def _check_kind(content_type: bytes, encoding: bytes) -> None:
    kind, _, parameters = content_type.decode("latin-1").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"') if "charset=" in parameters else "utf-8"
    if kind.strip() != "application/json" or charset not in ("utf-8", "utf8"):
        raise RefusedError("the body must be sent as Content-Type: application/json, in UTF-8", 415)
    if encoding not in (b"", b"identity"):
        raise RefusedError("compressed bodies are not read here", 415)


def _too_large(most: int) -> RefusedError:
    return RefusedError(f"the body is larger than {most} bytes", 413, code="request_too_large")


async def left(receive: Receive) -> None:
    """Wait until the client leaves (its body was read before)."""
    while (await receive())["type"] != "http.disconnect":
        pass
