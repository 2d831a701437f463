"""The server as a process: a socket known to be free before a model is loaded, and an end when it is asked to."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING

from ramify.base.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from uvicorn import Server

GRACE = 10
"""Seconds that requests in hand have to end after the server was asked to; then they are given up."""
_KEEP_ALIVE = 30
_ASKED_TO_END = (signal.SIGINT, signal.SIGTERM)


def check_installed() -> None:
    """Refuse to go on without the packages that speak HTTP.

    Raises:
        ConfigError: they are not installed.
    """
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise ConfigError("the server needs starlette and uvicorn", hint="pip install 'ramify[chat]'")


def bind(host: str, port: int) -> socket.socket:
    """A socket at this address, which nobody else has; not yet listened to.

    Args:
        host: an address, or a name of this machine.
        port: 0 takes a free one.

    Raises:
        ConfigError: the address is taken, or none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(f"{host!r} is no address of this machine: {error}") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that ended just now does not count
        found.bind(address)
    except OSError as error:
        found.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"{host}:{port} cannot be used: {reason}", hint="--port 0 takes a free one") from None
    return found


def url_of(bound: socket.socket) -> str:
    """Where clients find it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_private(bound: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ip_address(bound.getsockname()[0]).is_loopback


def run(app: Starlette, bound: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM; requests in hand may end within `GRACE`, a second Ctrl-C ends them at once.

    Args:
        app: from `build`.
        bound: from `bind`.
        ready: called when clients can connect.
    """
    server = server_of(app)
    with _signals_held(server):
        bound.listen()
        ready()
        server.run(sockets=[bound])


def server_of(app: Starlette) -> Server:
    """The HTTP server, ready to be run on a bound socket."""
    from uvicorn import Config, Server

    config = Config(
        app,
        access_log=False,
        http="h11",
        lifespan="on",
        log_config=None,
        log_level="critical",  # what goes wrong in a request is told by its endpoint
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=_KEEP_ALIVE,
        ws="none",
    )
    return Server(config)


@contextmanager
def _signals_held(server: Server) -> Iterator[None]:
    """Inside the block a signal asks the server to end, also before it has begun. uvicorn raises its signals again
    after an orderly end; then they ask for what is done."""

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in _ASKED_TO_END}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
