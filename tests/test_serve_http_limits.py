"""How much is taken on: places and turns, time limits, clients that leave, models that fail."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import serve_http_setup as setup
from serve_http_setup import CHAT, PLAIN, ScriptedVoice, said, scripted, serving, until

from ramify.base.errors import ConfigError
from ramify.serve.http import process
from ramify.serve.http.limits import Limits

WAIT = said("wait for it")


@pytest.fixture
def voice() -> ScriptedVoice:
    return scripted()


@pytest.fixture
def server(voice: ScriptedVoice) -> Iterator[httpx.Client]:
    with serving(voice, limits=Limits(parallel=2, queue=1)) as client:
        yield client


def events(text: str) -> list[Any]:
    """The data of an event stream; the last one as text where it is no JSON."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


class Waiting:
    """Requests that are not answered until they are left."""

    def __init__(self, server: httpx.Client) -> None:
        self._address = (server.base_url.host, int(server.base_url.port or 0))
        self._open: list[socket.socket] = []

    def ask(self, body: Any, path: str = CHAT) -> socket.socket:
        raw = json.dumps(body).encode()
        connection = socket.create_connection(self._address)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        self._open.append(connection)
        return connection

    def leave(self) -> None:
        while self._open:
            self._open.pop().close()


@pytest.fixture
def waiting(server: httpx.Client) -> Iterator[Waiting]:
    made = Waiting(server)
    yield made
    made.leave()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_turn(
    server: httpx.Client, waiting: Waiting, voice: ScriptedVoice, stream: bool
) -> None:
    waiting.ask({**WAIT, "stream": stream})
    until(server, active=1)
    waiting.leave()
    until(server, active=0, waiting=0)
    assert [ticket.cancelled for ticket in voice.service.tickets] == [1]


def test_a_client_that_leaves_gives_up_all_its_prompts(
    server: httpx.Client, waiting: Waiting, voice: ScriptedVoice
) -> None:
    waiting.ask({"model": "echo", "prompt": ["wait here", "wait there"]}, PLAIN)
    until(server, active=1)
    waiting.leave()
    until(server, active=0, waiting=0)
    assert [ticket.cancelled for ticket in voice.service.tickets] == [1, 1]


def test_a_client_that_leaves_while_it_waits_frees_its_place(
    server: httpx.Client, waiting: Waiting, voice: ScriptedVoice
) -> None:
    for _ in range(2):
        waiting.ask(WAIT)
    until(server, active=2)
    third = waiting.ask(WAIT)
    until(server, active=2, waiting=1)
    third.close()
    until(server, active=2, waiting=0)
    assert len(voice.service.tickets) == 2  # the third was never computed


def test_who_finds_no_place_is_told_to_come_later(server: httpx.Client, waiting: Waiting) -> None:
    for _ in range(3):
        waiting.ask(WAIT)
    until(server, active=2, waiting=1)
    answer = server.post(CHAT, json=said("hi"))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "rate_limit_error"
    waiting.leave()
    until(server, active=0, waiting=0)
    assert server.post(CHAT, json=said("hi")).status_code == 200


def test_turns_are_given_first_come_first_served(server: httpx.Client, waiting: Waiting, voice: ScriptedVoice) -> None:
    first, _ = waiting.ask(WAIT), waiting.ask(WAIT)
    until(server, active=2)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, CHAT, json=said("at last"))
        until(server, active=2, waiting=1)
        first.close()
        assert answer.result().json()["choices"][0]["message"]["content"] == "at last"


def test_threads_are_as_many_as_turns() -> None:
    before = threading.active_count()
    with serving(scripted(), limits=Limits(parallel=3, queue=50)) as client:
        made = Waiting(client)
        for _ in range(40):
            made.ask(WAIT)
        until(client, active=3, waiting=37)
        assert threading.active_count() - before <= 3 + 1 + 1  # turns, the reader, the server itself
        made.leave()
        until(client, active=0, waiting=0)


def test_what_takes_too_long_is_ended_with_the_reason(voice: ScriptedVoice) -> None:
    with serving(voice, limits=Limits(timeout=1.0)) as client:
        answer = client.post(CHAT, json=WAIT)
        assert answer.status_code == 504
        assert answer.json()["error"]["message"] == "the time limit of 1 s is over: 1 tokens were drawn"
        assert answer.headers["x-should-retry"] == "false"
        until(client, active=0, waiting=0)
        assert voice.service.tickets[0].cancelled == 1


def test_a_stream_that_takes_too_long_ends_with_an_error_event(voice: ScriptedVoice) -> None:
    with serving(voice, limits=Limits(timeout=1.0)) as client:
        answer = client.post(CHAT, json={**WAIT, "stream": True})
        assert answer.status_code == 200
        *before, last = events(answer.text)
        assert [event["choices"][0]["delta"]["content"] for event in before] == ["", "wait"]
        assert last["error"]["code"] == "timeout"


def test_a_body_that_does_not_come_is_not_waited_for(voice: ScriptedVoice) -> None:
    with serving(voice, limits=Limits(timeout=0.3)) as client:
        with socket.create_connection((client.base_url.host, int(client.base_url.port or 0))) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        until(client, active=0, waiting=0)


def test_a_client_that_stops_reading_does_not_keep_its_turn() -> None:
    """More is said than fits between server and client; the time limit ends it."""
    with serving(scripted(max_length=300_000), limits=Limits(timeout=1.0)) as client:
        made = Waiting(client)
        made.ask(said("wordword " * 15_000, stream=True, logprobs=True, top_logprobs=20))
        until(client, active=1)
        until(client, active=0, waiting=0)
        made.leave()


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_is_told(server: httpx.Client, stream: bool) -> None:
    answer = server.post(CHAT, json=said("fail", stream=stream))
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["type"], error["message"]) == ("server_error", "the model failed (hint: this is a test)")
    assert server.post(CHAT, json=said("hi")).status_code == 200


def test_what_nobody_foresaw_is_shown_to_the_server_alone(
    server: httpx.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = server.post(CHAT, json=said("crash"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a secret of the server" in capfd.readouterr().err
    until(server, active=0, waiting=0)


def test_a_model_that_is_closed_ends_its_requests(server: httpx.Client, voice: ScriptedVoice) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, CHAT, json=WAIT)
        until(server, active=1)
        voice.close()
        assert answer.result().status_code == 503


def test_a_server_that_ends_gives_up_what_takes_too_long(voice: ScriptedVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 1)
    with serving(voice) as client:
        made = Waiting(client)
        made.ask(WAIT)
        until(client, active=1)
    assert voice.service.tickets[0].cancelled == 2  # by the server, and when its model was closed
    made.leave()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_when_its_requests_are_answered(number: signal.Signals) -> None:
    with setup.process(setup.__file__) as served:
        with httpx.stream("POST", f"{served.url}{CHAT}", json=said("slow " * 20, stream=True)) as stream:
            lines = stream.iter_lines()
            head = next(lines)
            served.process.send_signal(number)
            answer = events("\n".join([head, *lines]))
        assert answer[-1] == "[DONE]"
        assert len(answer) == 1 + 20 + 1
        assert served.process.wait(timeout=30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/health")


def test_a_signal_before_the_first_request_ends_the_server_too() -> None:
    """It comes as soon as the address is told, which is before uvicorn listens to signals."""
    lines = (
        "import signal",
        "from ramify.serve.http.process import bind, run",
        "from serve_http_setup import build, scripted",
        "with bind('127.0.0.1', 0) as bound:",
        "    run(build([scripted()]), bound, lambda: signal.raise_signal(signal.SIGTERM))",
    )
    folder = Path(setup.__file__).parent
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=folder, timeout=60, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("wrong", [{"parallel": 0}, {"queue": -1}, {"body": 0}, {"timeout": 0.0}, {"timeout": 1e999}])
def test_limits_that_leave_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)
