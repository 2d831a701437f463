"""A running OpenAI-compatible server, and what a test tells it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

SERVER = Path(__file__).with_name("endpoint_server.py")


@dataclass
class Server:
    """See `endpoint_server`."""

    root: str

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def next(self, *what: dict[str, Any]) -> None:
        httpx2.post(f"{self.root}/next", json=list(what)).raise_for_status()

    def say(self, answers: dict[str, str]) -> None:
        httpx2.post(f"{self.root}/say", json=answers).raise_for_status()

    def seen(self) -> dict[str, Any]:
        """Requests since the last call, and how many of them were under way at once."""
        found: dict[str, Any] = httpx2.get(f"{self.root}/seen").json()
        return found


@pytest.fixture(scope="session")
def process() -> Iterator[Server]:
    with subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        port = int(running.stdout.readline())
        yield Server(f"http://127.0.0.1:{port}")
        running.terminate()


@pytest.fixture
def server(process: Server) -> Server:
    """The server, with nothing left of the test before."""
    process.next()
    process.say({})
    process.seen()
    return process
