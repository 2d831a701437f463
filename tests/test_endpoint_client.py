"""An endpoint that misbehaves: what is asked again, what stops, and what is said. Against a real server process."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event
from typing import Any

import pytest
from endpoint_setup import Server, process, server

from ramify.base.config import Endpoint
from ramify.base.config_file import load_config
from ramify.base.errors import ConfigError, ModelError
from ramify.base.types import Stop
from ramify.sample.endpoint.answers import BadAnswerError, read_answer, reason_of, seconds_asked
from ramify.sample.endpoint.client import Client
from ramify.sample.endpoint.pace import BackOff, Pace, StoppedError
from ramify.sample.endpoint.usage import Usage

__all__ = ["process", "server"]
SOON = BackOff(first=0.001, longest=0.002)
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "seed": 1}
AGAIN = {"status": 429, "headers": {"retry-after": "0"}, "body": {"error": {"message": "slow down"}}}


Ask = Callable[..., Client]


@pytest.fixture
def client(server: Server) -> Iterator[Ask]:
    """Clients of the server, closed at the end."""
    made: list[Client] = []

    def new(url: str = server.url, **settings: Any) -> Client:
        made.append(Client(Endpoint(base_url=url, **settings), Event(), SOON))
        return made[-1]

    yield new
    for each in made:
        each.close()


def refused(asking: Client) -> str:
    with pytest.raises(ModelError) as caught:
        asking.ask(BODY)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_answer_has_its_text_its_end_and_its_cost(server: Server, client: Ask) -> None:
    asking = client()
    answer = asking.ask(BODY)
    assert (answer.text, answer.stop) == ("hi => 1", Stop.EOS)
    assert answer.usage == Usage(prompt_tokens=10, completion_tokens=3)
    assert asking.usage == Usage(requests=1, prompt_tokens=10, completion_tokens=3)
    [request] = server.seen()["requests"]
    assert request == {"body": BODY, "authorization": None}


PASSING: dict[str, dict[str, Any]] = {
    "429": AGAIN,
    "429 without a time": {"status": 429},
    "429 in milliseconds": {"status": 429, "headers": {"retry-after-ms": "1"}},
    "408": {"status": 408},
    "500": {"status": 500, "body": {"error": {"message": "oops"}}},
    "502": {"status": 502},
    "503": {"status": 503, "headers": {"retry-after": "nonsense"}},
    "529": {"status": 529},
    "broken JSON": {"content": '{"choices": [{"message"'},
    "no JSON": {"content": "<html>gateway</html>"},
    "not UTF-8": {"content": "é"},
    "a list": {"content": "[]"},
    "no choices": {"content": '{"choices": []}'},
    "an error with status 200": {"content": '{"error": {"message": "busy", "code": 502}}'},
    "no message": {"content": '{"choices": [{"finish_reason": "stop"}]}'},
    "no end": {"change": {"finish_reason": None}},
    "an unknown end": {"change": {"finish_reason": "tool_calls"}},
    "content of another kind": {"change": {"message": {"content": 5}}},
    "broken off": {"drop": True},
}


@pytest.mark.parametrize("what", PASSING)
def test_what_may_pass_is_asked_again(what: str, server: Server, client: Ask) -> None:
    server.next(PASSING[what], PASSING[what])
    asking = client()
    assert asking.ask(BODY).text == "hi => 1"
    assert asking.usage == Usage(requests=3, repeated=2, prompt_tokens=10, completion_tokens=3)
    assert [each["body"] for each in server.seen()["requests"]] == [BODY] * 3


def test_a_request_that_is_not_answered_is_asked_again(server: Server, client: Ask) -> None:
    server.next({"hang": 20})
    asking = client(timeout=0.5)
    assert asking.ask(BODY).text == "hi => 1"
    assert asking.usage.repeated >= 1
    server.next({"hang": 20})
    assert "no answer within 0.2 s (1 times in a row)" in refused(client(timeout=0.2, retries=0))


def test_patience_has_an_end(server: Server, client: Ask) -> None:
    server.next(*[{"status": 503, "body": {"detail": "starting"}}] * 9)
    message = refused(client(retries=3))
    assert message.startswith(f"{server.url}: 503 Service Unavailable: starting (4 times in a row)")
    assert "goes on with what was drawn so far" in message
    assert len(server.seen()["requests"]) == 4
    server.next({"status": 429, "headers": {"retry-after": "7200"}})
    assert "429 Too Many Requests; it asks to wait 7,200 s" in refused(client())


LASTING: dict[str, tuple[dict[str, Any], str]] = {
    "400": (
        {"status": 400, "body": {"error": {"message": "temperature\n too high"}}},
        "400 Bad Request: temperature too",
    ),
    "401": (
        {"status": 401, "body": {"error": {"message": "no key"}}},
        "401 Unauthorized: no key (hint: endpoint.key_env",
    ),
    "403": ({"status": 403, "body": {"error": "not you"}}, "403 Forbidden: not you"),
    "404": ({"status": 404, "body": {"detail": "Not Found"}}, "404 Not Found: Not Found (hint: does endpoint.base_url"),
    "413": ({"status": 413}, ": 413 "),
    "422": ({"status": 422, "body": {"detail": [{"loc": ["n"]}]}}, ': [{"loc": ["n"]}]'),
    "501": ({"status": 501}, "501 Not Implemented"),
    "307": ({"status": 307, "headers": {"location": "/elsewhere"}}, "307 Temporary Redirect"),
    "out of money": (
        {"status": 429, "body": {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}},
        "429 Too Many Requests: You exceeded your quota",
    ),
}


@pytest.mark.parametrize("what", LASTING)
def test_what_will_not_pass_stops_at_once_in_one_line(what: str, server: Server, client: Ask) -> None:
    answer, said = LASTING[what]
    server.next(answer, answer)
    assert said in refused(client())
    assert len(server.seen()["requests"]) == 1


def test_the_key_is_sent_and_never_said(server: Server, client: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-secret-123\n")
    asking = client(key_env="MY_KEY")
    asking.ask(BODY)
    assert server.seen()["requests"][0]["authorization"] == "Bearer sk-secret-123"
    server.next({"status": 401, "body": {"error": {"message": "Incorrect key provided: sk-secret-123."}}})
    message = refused(asking)
    assert "Incorrect key provided: ***." in message and "secret" not in message
    server.next(*[{"content": '{"error": "sk-secret-123 is busy"}'}] * 7)
    assert "secret" not in refused(asking)


@pytest.mark.parametrize(("value", "said"), [(None, "is not set"), ("  ", "is not set"), ("a b", "is no key")])
def test_a_key_that_is_not_there_is_told(
    value: str | None, said: str, client: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match=rf"MY_KEY.*{said}") as caught:
        client(key_env="MY_KEY")
    assert value is None or not value.strip() or value not in str(caught.value)


def test_endpoints_that_know_another_name_for_the_length(server: Server, client: Ask) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.next({"status": 400, "body": {"error": {"message": said}}})
    asking = client()
    assert asking.ask(BODY).text == "hi => 1"
    assert asking.ask(BODY).text == "hi => 1"
    old, *new = [each["body"] for each in server.seen()["requests"]]
    renamed = {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in BODY.items()}
    assert (old, new) == (BODY, [renamed, renamed])


def test_nobody_there_is_said_at_once(client: Ask) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    message = refused(client(url))
    assert message.startswith(f"{url}: nothing answers there") and "is endpoint.base_url right?" in message
    assert "not an address" in refused(client("http://[::1/v1"))


@pytest.mark.parametrize(
    ("choice", "text", "stop"),
    [
        ({"message": {"content": "a"}, "finish_reason": "stop"}, "a", Stop.EOS),
        ({"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "###"}, "a", Stop.STOP_STRING),
        ({"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": 2}, "a", Stop.EOS),
        ({"message": {"content": "a"}, "finish_reason": "length"}, "a", Stop.LENGTH),
        ({"message": {"content": None}, "finish_reason": "length"}, "", Stop.LENGTH),
        ({"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}, "no", Stop.EOS),
        ({"message": {"content": "a"}, "finish_reason": "content_filter"}, "a", Stop.LENGTH),
        ({"message": {"content": "a"}, "finish_reason": "eos_token"}, "a", Stop.EOS),
        ({"message": {"content": "a"}, "finish_reason": "stop_sequence"}, "a", Stop.STOP_STRING),
        (
            {"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}, "finish_reason": "stop"},
            "ab",
            Stop.EOS,
        ),
    ],
    ids=str,
)
def test_ends_and_texts_as_endpoints_tell_them(choice: dict[str, Any], text: str, stop: Stop) -> None:
    answer = read_answer(json.dumps({"choices": [choice]}).encode())
    assert (answer.text, answer.stop, answer.usage) == (text, stop, Usage(uncounted=1))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"null", b"[" * 100_000, b'{"choices": [3]}', b'{"choices": "a"}'])
def test_answers_that_are_none(content: bytes) -> None:
    with pytest.raises(BadAnswerError):
        read_answer(content)


def test_reasons_are_one_short_line() -> None:
    assert reason_of(b"plain\n text") == "plain text"
    assert reason_of(b" <html>a page</html>") == ""
    assert reason_of(b'{"message": "why"}') == "why"
    assert reason_of(b'{"error": {"message": "why", "type": "x"}}') == "why"
    assert len(reason_of(b"x" * 5_000)) == 200
    assert reason_of(b"null") == ""


def test_how_long_an_endpoint_asks_to_wait() -> None:
    assert seconds_asked({"retry-after": "3"}) == 3
    assert seconds_asked({"retry-after": "0.5"}) == 0.5
    assert seconds_asked({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    assert 3_500 < (seconds_asked({"retry-after": soon}) or 0) <= 3_600
    assert seconds_asked({"retry-after": format_datetime(datetime(2001, 1, 1, tzinfo=UTC))}) == 0
    assert seconds_asked({}) is None
    assert seconds_asked({"retry-after": "soon"}) is None


def test_waits_double_up_to_a_longest_and_differ_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    back_off = BackOff(first=1.0, longest=8.0)
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert [back_off.seconds(attempt) for attempt in (0, 1, 2, 3, 4, 5_000)] == [1, 2, 4, 8, 8, 8]
    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert back_off.seconds(2) == 2.0


class Clock(Event):
    """Stands for time itself: what is waited for passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.is_set()


def test_so_many_requests_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("ramify.sample.endpoint.pace.monotonic", lambda: clock.now)
    pace, began = Pace(30, clock), []
    for _ in range(4):
        pace.wait()
        began.append(clock.now)
    assert began == [100, 102, 104, 106]
    pace.hold(60)
    pace.wait()
    assert clock.now == 166
    clock.now += 50
    pace.wait()
    assert clock.now == 216  # turns that were not used are not saved up
    clock.set()
    with pytest.raises(StoppedError):
        pace.wait()
    free = Pace(None, Clock())
    free.wait()
    free.wait()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine=openai"], "engine = openai needs endpoint.base_url"),
        (["engine=opanai"], "'own', 'llamacpp', 'openai' or 'vllm'"),
        (["endpoint.base_url=http://a/v1"], "endpoint.base_url = 'http://a/v1': engine = own asks no endpoint"),
        (["engine=llamacpp", "endpoint.parallel=2"], "endpoint.parallel = 2: engine = llamacpp asks no endpoint"),
        (["endpoint.base_url=a.example/v1"], "endpoint.base_url = 'a.example/v1': http://host:port/v1"),
        (["endpoint.base_url=https://me:pw@a.example/v1"], "keys and passwords have no place in it"),
        (["endpoint.base_url=https://a.example/v1?key=pw"], "keys and passwords have no place in it"),
        (["endpoint.key_env=sk-pw-1"], "the name of an environment variable is needed, never the key itself"),
        (["endpoint.timeout=0"], "endpoint.timeout = 0"),
        (["endpoint.key=a"], "unknown setting 'endpoint.key'; did you mean"),
    ],
)
def test_settings_that_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter=a"], "adapter = 'a' does nothing with engine = openai"),
        (["prompt.chat_template=plain"], "prompt.chat_template = 'plain' does nothing with engine = openai"),
        (["sample_prompt.chat_template=chatml"], "sample_prompt.chat_template = 'chatml' does nothing"),
        (["sample.live=4"], "sample.live = 4 does nothing"),
        (["revision=main"], "revision = 'main' does nothing"),
        (["evaluate.scoring=options"], "evaluate.scoring = options is computed by engine own"),
    ],
)
def test_settings_that_an_endpoint_does_not_know_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["engine=openai", "endpoint.base_url=http://a/v1", *overrides])
    assert message in str(caught.value)


def test_what_was_spent_is_said_in_words() -> None:
    assert Usage(12, 0, 3_456, 789).words == "12 requests, 3,456 prompt and 789 new tokens"
    assert Usage(12, 2, 1, 1, 3).words.endswith(", 2 sent again, 3 answers without a count")
