"""Showing the page: who may reach it, and that it reaches nobody."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from ramify.base.errors import ConfigError
from ramify.serve.page.build import build_page
from ramify.serve.page.context import Page
from ramify.serve.page.style import CSS, theme

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'self'; object-src 'none'; form-action 'self'"
)
"""What the browser may load: this server's own, whatever an answer or a report asks for. The library builds its widgets
from code in the page, so code in the page cannot be forbidden."""
_LONGEST = "200mb"
"""Largest recording that is taken."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is shown.

    Attributes:
        host: address it listens on.
        auth: (user, password) of those who may see it; empty: everyone who reaches it.
        share: whether Gradio's own service makes it reachable from everywhere.
        open: whether it may be reached from other machines without a password (a Space).
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[tuple[str, str], ...] = ()
    share: bool = False
    open: bool = False


class Contained:
    """Adds the policy to every answer of an ASGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""

        async def sends(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, sends if scope["type"] == "http" else send)


def check_place(place: Place) -> None:
    """Refuse where the page cannot be shown, or should not, before a model is opened.

    Raises:
        ConfigError: the port is taken, the address is not this machine's, or others could reach it without a password.
    """
    if not (place.auth or place.open):
        if place.share:
            raise ConfigError("a shared page can be reached by everyone", hint="--auth asks for a password")
        if not _is_loopback(place.host):
            raise ConfigError(
                f"host {place.host} can be reached from other machines", hint="--auth asks for a password"
            )
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((place.host, place.port))
    except socket.gaierror:
        raise ConfigError(f"host {place.host}: not an address of this machine") from None
    except OSError as error:
        reason = "in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ConfigError(f"{place.host}:{place.port}: {reason}", hint="choose another one with --port") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_auth(source: str) -> tuple[tuple[str, str], ...]:
    """Users and passwords, a `USER:PASSWORD` a line, from a file or an environment variable.

    Raises:
        ConfigError: there is no such file or variable, or a line is something else. No password is in the message.
    """
    if Path(source).is_file():
        text = Path(source).read_text(encoding="utf-8")
    elif source in os.environ:
        text = os.environ[source]
    else:
        shown = "what was given" if ":" in source else source
        raise ConfigError(
            f"--auth: {shown} is neither a file nor an environment variable",
            hint="put USER:PASSWORD into one: everybody on this machine can read a command line",
        )
    found = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not found or not all(user and colon and password for user, colon, password in found):
        raise ConfigError("--auth: lines of USER:PASSWORD are needed", hint="one line for each user")
    return tuple((user, password) for user, _, password in found)


def launch_page(page: Page, place: Place) -> Any:
    """Build the page and show it; `close()` of the `Blocks` that is returned ends it.

    Raises:
        ConfigError: as `check_place`; Gradio is not installed.
    """
    check_place(place)
    blocks = build_page(page)
    from starlette.middleware import Middleware  # Gradio brings it

    blocks.launch(
        server_name=place.host,
        server_port=place.port,
        auth=list(place.auth) or None,
        share=place.share,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=_LONGEST,
        app_kwargs={} if place.open else {"middleware": [Middleware(Contained)]},
        theme=theme(),
        css=CSS,
    )
    return blocks


def show_page(page: Page, place: Place, *, say: Callable[[str], object] = print) -> None:
    """Show the page until Ctrl-C.

    Args:
        say: told the address once it can be reached.

    Raises:
        ConfigError: as `launch_page`.
    """
    with suppress(KeyboardInterrupt), ExitStack() as opened:
        opened.callback(page.cabinet.close)
        blocks = launch_page(page, place)
        opened.callback(blocks.close, verbose=False)
        say(blocks.share_url or blocks.local_url)
        Event().wait()
