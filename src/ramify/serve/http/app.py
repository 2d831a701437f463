"""The routes, and what stands before them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ramify.base.errors import ConfigError
from ramify.serve.http.endpoint import Floor, chat, completions
from ramify.serve.http.guard import ANY, Doorman, Entry, Logged
from ramify.serve.http.limits import Limits
from ramify.serve.http.refusals import RefusedError, body_of, seen
from ramify.serve.http.reply import encoded

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response

    from ramify.serve.voices import Voice


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        key: what clients must bring; None: nothing.
        hosts: names it is called by besides localhost and IP addresses.
        origins: pages that may use it, as browsers write them (`http://localhost:3000`), or `*`; none by default.

    Raises:
        ConfigError: the key is empty or would not arrive as it is in a header, or an origin is none.
    """

    key: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.key is not None and not _arrives(self.key):
            raise ConfigError("the API key must be visible ASCII, not empty, and without space around it")
        for origin in self.origins - {ANY}:
            if "://" not in origin or origin.rstrip("/") != origin:
                raise ConfigError(f"{origin!r} is no origin", hint="for example http://localhost:3000")


def build(
    voices: Sequence[Voice],
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    tell: Callable[[Entry], None] = lambda entry: None,
) -> Starlette:
    """The ASGI application that answers for these voices. It does not close them.

    Args:
        voices: with names that differ.
        limits: how much is taken on.
        access: who may use it.
        tell: called with each request that has ended.

    Raises:
        ConfigError: two voices have one name, or there is none.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    floor = Floor.of(_by_name(voices), limits or Limits())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            floor.close()

    models = Models(floor)
    app = Starlette(
        routes=[
            Route("/health", models.health),
            Route("/v1/models", models.all),
            Route("/v1/models/{name:path}", models.one),
            Route("/v1/chat/completions", chat(floor), methods=["POST"]),
            Route("/v1/completions", completions(floor), methods=["POST"]),
        ],
        middleware=_middleware(access or Access(), tell),
        exception_handlers={HTTPException: _no_route, RefusedError: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class Models:
    """What the server has, and how it is."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._created = int(time.time())

    async def health(self, request: Request) -> Response:
        """Alive, with the requests in hand; needs no key, so it names no models."""
        gate = self._floor.gate
        return _response({"status": "ok", "active": gate.active, "waiting": gate.waiting})

    async def all(self, request: Request) -> Response:
        """The models, in the order they were named."""
        return _response({"object": "list", "data": [self._entry(name) for name in self._floor.voices]})

    async def one(self, request: Request) -> Response:
        """One model."""
        return _response(self._entry(self._floor.voice(request.path_params["name"]).name))

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "ramify"}


def _arrives(key: str) -> bool:
    """Whether a header brings the key as it is: white space around a value is no part of it."""
    return key.isascii() and key.isprintable() and key == key.strip() != ""


def _by_name(voices: Sequence[Voice]) -> dict[str, Voice]:
    named = {voice.name: voice for voice in voices}
    if not named:
        raise ConfigError("no model to serve")
    if len(named) < len(voices):
        names = [voice.name for voice in voices]
        raise ConfigError(f"two models are called {next(name for name in names if names.count(name) > 1)!r}")
    return named


def _middleware(access: Access, tell: Callable[[Entry], None]) -> list[Middleware]:
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware

    hosts = frozenset(host.lower() for host in access.hosts) | {"localhost"}
    layers = [Middleware(Logged, tell=tell)]
    if access.origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(access.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["Retry-After"],
            )
        )
    return [*layers, Middleware(Doorman, hosts=hosts, origins=access.origins, key=access.key)]


def _response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import Response

    return Response(encoded(content), status, headers, media_type="application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    status, headers = _status_of(error)
    path = seen(request.url.path)
    what = f"no such path: {path}" if status == 404 else f"{path} does not take {request.method[:20]}"
    return _response(body_of(RefusedError(what, status)), status, headers)


def _status_of(error: Exception) -> tuple[int, dict[str, str]]:
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException)
    return error.status_code, dict(error.headers or {})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _response(body_of(error), error.status, error.headers)
