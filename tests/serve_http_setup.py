"""A server whose model does what its prompts say, and servers as processes. Nothing here needs torch.

As a program: the scripted server, until a signal ends it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import httpx

from ramify.base.config import Sampling
from ramify.base.errors import DataError, ModelError
from ramify.base.types import Conversation, Stop
from ramify.sample.service import Piece, Request, Ticket, Token
from ramify.serve.http.app import build
from ramify.serve.http.process import bind, run, server_of, url_of

CHAT = "/v1/chat/completions"
PLAIN = "/v1/completions"


class Letters:
    """Every byte is a token; a conversation is the text of its turns."""

    def prompt_ids(self, prompt: Conversation) -> tuple[int, ...]:
        return self.plain_ids(self.text(prompt))

    def plain_ids(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def text(self, prompt: Conversation) -> str:
        return "".join(message.content for message in prompt)


@dataclass
class ScriptedTicket:
    """Says the prompt back, word by word, unless the prompt begins with an order."""

    request: Request
    cancelled: int = 0
    news: SimpleQueue[bool] = field(default_factory=SimpleQueue)

    def __iter__(self) -> Iterator[Piece]:
        text = bytes(self.request.ids).decode()
        if text.startswith("fail"):
            raise ModelError("the model failed", hint="this is a test")
        if text.startswith("crash"):
            raise RuntimeError("a secret of the server")
        words = re.findall(r"\s*\S+", text) or [""]
        for index in range(self.request.settings.n):
            for at, word in enumerate(words):
                time.sleep(0.05 * text.startswith("slow"))
                token = Token(at, word.encode(), -0.5, ((at, word.encode(), -0.5),) * self.request.alternatives)
                yield Piece(index, word, (token,), Stop.LENGTH if at == len(words) - 1 else None)
                if text.startswith("wait") and not self.news.get():
                    return

    def cancel(self) -> None:
        self.cancelled += 1
        self.news.put(False)


@dataclass
class ScriptedService:
    """`wait …` says one word and waits until it is cancelled, `slow …` takes its time, `fail` and `crash` raise; other
    prompts come back at once."""

    name: str = "echo"
    max_length: int = 2000
    tickets: list[ScriptedTicket] = field(default_factory=list)

    def submit(self, request: Request) -> Ticket:
        if not all(0 <= each < 256 for each in request.ids):
            raise DataError("the prompt holds numbers that are no tokens")
        self.tickets.append(ScriptedTicket(request))
        return self.tickets[-1]

    def close(self) -> None:
        for ticket in self.tickets:
            ticket.cancel()


@dataclass
class ScriptedVoice:
    """What the server asks of a voice."""

    name: str
    service: ScriptedService
    renderer: Letters = field(default_factory=Letters)
    settings: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, max_new_tokens=50))

    def close(self) -> None:
        self.service.close()


def scripted(name: str = "echo", *, max_length: int = 2000) -> ScriptedVoice:
    """A voice of its own service."""
    return ScriptedVoice(name, ScriptedService(name, max_length))


@contextmanager
def serving(*voices: ScriptedVoice, **options: Any) -> Iterator[httpx.Client]:
    """A server on a free port, in a thread; a client that knows where it is."""
    bound = bind("127.0.0.1", 0)
    bound.listen()  # the thread may not run for a while, and clients that come before it wait
    server = server_of(build(voices, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        with httpx.Client(base_url=url_of(bound), timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        for voice in voices:
            voice.close()


def said(text: str, **fields: Any) -> dict[str, Any]:
    """Body of a chat request."""
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}


def until(client: httpx.Client, **counts: int) -> None:
    """Wait until the server says so of its requests in hand."""
    for _ in range(2000):
        health = client.get("/health").json()
        if all(health[name] == value for name, value in counts.items()):
            return
        time.sleep(0.005)
    raise AssertionError(f"{health}, waited for {counts}")


@dataclass
class Served:
    """The process of `ramify serve`.

    Attributes:
        url: its address, once it has told it.
        lines: what it wrote on standard error; read as it comes, so that it never waits for a reader.
    """

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            found = re.match(r"(http://\S+)/v1 serves", line)
            if found:
                self.url = found[1]
                self.told.set()
        self.told.set()


@contextmanager
def process(*command: str, **environment: str) -> Iterator[Served]:
    """A server as a process of Python that has told its address; SIGTERM ends it behind the block, and it ends well."""
    command = (sys.executable, *command)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as server:
        served = Served(server)
        reader = threading.Thread(target=served.follow)
        reader.start()
        try:
            served.told.wait()
            assert served.url, served.lines
            yield served
        finally:
            server.terminate()
            code = server.wait(timeout=60)
            reader.join()
            assert code == 0, served.lines


if __name__ == "__main__":
    with bind("127.0.0.1", 0) as bound:
        told = f"{url_of(bound)}/v1 serves echo"
        run(build([scripted()]), bound, lambda: print(told, file=sys.stderr, flush=True))
