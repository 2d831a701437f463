"""Who may ask: hosts, origins and the key; and one line of log a request.

A server on the loopback is within reach of every page that the user's browser opens. Such a page cannot lie about two
things: its `Origin`, which goes with every request that could do or read something, and the name that the browser
believes it talks to, `Host`. A page whose own name was made to point at 127.0.0.1 (DNS rebinding) sends that name.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ramify.serve.http.refusals import RefusedError, seen
from ramify.serve.http.reply import Reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/health",)
"""Paths that need no key."""
ANY = "*"


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that has ended, for the log: nothing of what was said.

    Attributes:
        client: its address.
        method: of HTTP.
        path: quoted, without the query.
        status: of the answer; None: the client left before there was one.
        seconds: from its head to the last byte of its answer.
    """

    client: str
    method: str
    path: str
    status: int | None
    seconds: float


class Logged:
    """Tells of each request when it has ended."""

    def __init__(self, app: ASGIApp, tell: Callable[[Entry], None]) -> None:
        self._app, self._tell = app, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it when it has ended, however it did."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            client = scope["client"][0] if scope["client"] else "?"
            path = quote(scope["path"], safe="/:@")[:200]
            self._tell(Entry(client, scope["method"], path, status, time.perf_counter() - began))


class Doorman:
    """Lets in whom it should, before a byte of the body is read.

    Args:
        hosts: names that the server is called by, besides IP addresses, which no page can take for its own.
        origins: pages that may use it (CORS); `*` for all.
        key: what a client must bring as `Authorization: Bearer KEY`; None: nothing.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], origins: frozenset[str], key: str | None) -> None:
        self._app, self._hosts, self._origins = app, hosts, origins
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401 or 403."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RefusedError as error:
                await Reply(scope, receive, send).fail(error)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        self._check_host(host)
        if b"origin" in headers:
            self._check_origin(headers[b"origin"].decode("latin-1"), host)
        if self._key is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(headers.get(b"authorization", b""))

    def _check_host(self, host: str) -> None:
        if host and not _is_address(_name_of(host)) and _name_of(host) not in self._hosts:
            raise RefusedError(
                f"this server is not called {seen(host)}",
                403,
                code="host_not_allowed",
                hint="--allow-host NAME gives it a further name",
            )

    def _check_origin(self, origin: str, host: str) -> None:
        own = _place_of(origin)
        if origin not in self._origins and ANY not in self._origins and (not own or own != host.lower()):
            raise RefusedError(
                f"pages of {seen(origin)} may not use this server",
                403,
                code="origin_not_allowed",
                hint="--cors ORIGIN lets pages from there in",
            )

    def _check_key(self, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        assert self._key is not None
        if not hmac.compare_digest(given.strip(), self._key) or scheme.lower() != b"bearer":
            what = "wrong API key" if authorization else "no API key; send it as Authorization: Bearer KEY"
            raise RefusedError(what, 401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; empty when it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _place_of(origin: str) -> str:
    """Host and port in an Origin header, as a Host header has them; empty when it names none."""
    try:
        return urlsplit(origin).netloc.lower() if "//" in origin else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
