"""Wrong bodies are refused with 4xx and the reason, whatever they hold; right ones are understood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_http_setup import CHAT, PLAIN, said, scripted, serving

from ramify.serve.http.bodies import ChatBody, CompletionBody, names_of
from ramify.serve.http.fields import CHAT as CHAT_FIELDS
from ramify.serve.http.fields import COMPLETION as PLAIN_FIELDS
from ramify.serve.http.limits import Limits

JSON = {"content-type": "application/json"}
USER = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with serving(scripted(), limits=Limits(body=100_000)) as client:
        yield client


def turn(**fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{**USER, **fields}]}


def plain(prompt: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "prompt": prompt, **fields}


NOT_JSON = [
    b"",
    b"{",
    b"hello",
    b'{"model": "echo",}',
    b"{'model': 'echo'}",
    b"[]",
    b"null",
    b"5",
    b'"echo"',
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b'{"model": "\xc3\x28"}',
    b'{"model": NaN}',
    b'{"model": "echo", "messages": [{"role": "user", "content": "hi"}], "temperature": NaN}',
    b'{"model": "echo", "messages": [{"role": "user", "content": "hi"}], "temperature": Infinity}',
    b'{"model": "echo", "messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}',
    b'{"model": "echo", "messages": [{"role": "user", "content": "hi"}], "temperature": -1e999}',
    b'{"model": "echo", "messages": [{"role": "user", "content": "hi"}], "seed": ' + b"9" * 6000 + b"}",
    b'{"model": "echo", "model": "echo", "messages": [{"role": "user", "content": "hi"}]}',
    b"[" * 9000 + b"]" * 9000,
    b'{"model": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
    b'{"model": "echo", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
]

WRONG_CHATS: list[tuple[Any, str]] = [
    ({}, "model"),
    ({"model": "echo"}, "messages"),
    ({"messages": [USER]}, "model"),
    (said("hi", model=5), "model"),
    (said("hi", model=["echo"]), "model"),
    (said("hi", messages=[]), "messages"),
    (said("hi", messages={}), "messages"),
    (said("hi", messages="hi"), "messages"),
    (said("hi", messages=["hi"]), "messages[0]"),
    (said("hi", messages=[USER, None]), "messages[1]"),
    (said("hi", messages=[{"content": "hi"}]), "messages[0].role"),
    (turn(role="tool"), "messages[0].role"),
    (turn(role="robot"), "messages[0].role"),
    (turn(role=5), "messages[0].role"),
    (turn(role=["user"]), "messages[0].role"),
    (turn(role={}), "messages[0].role"),
    (said("hi", messages=[USER, {"role": "assistant", "content": "so"}]), "messages[1].role"),
    (turn(content=None), "messages[0].content"),
    (turn(content=5), "messages[0].content"),
    (turn(content=[]), "messages[0].content"),
    (turn(content={"type": "text", "text": "hi"}), "messages[0].content"),
    (turn(content=["hi"]), "messages[0].content[0]"),
    (turn(content=[{"type": "image_url", "image_url": {"url": "http://x"}}]), "messages[0].content[0]"),
    (turn(content=[{"type": "text"}]), "messages[0].content[0].text"),
    (turn(content=[{"type": "text", "text": 5}]), "messages[0].content[0].text"),
    (turn(content=[{"type": "text", "text": "hi", "cache": 1}]), "messages[0].content[0]"),
    (turn(content="\ud800"), "messages[0].content"),
    (turn(content=[{"type": "text", "text": "a\udfff"}]), "messages[0].content[0].text"),
    (turn(name="Ann"), "messages[0].name"),
    (turn(tool_calls=[{"id": "1"}]), "messages[0].tool_calls"),
    (turn(weight=0), "messages[0].weight"),
    (said("hi", temperature="hot"), "temperature"),
    (said("hi", temperature="0.5"), "temperature"),
    (said("hi", temperature=True), "temperature"),
    (said("hi", temperature=-0.1), "temperature"),
    (said("hi", temperature=2.1), "temperature"),
    (said("hi", temperature=1e-9), "temperature"),
    (said("hi", temperature=10**400), "temperature"),
    (said("hi", top_p=0), "top_p"),
    (said("hi", top_p=1.5), "top_p"),
    (said("hi", top_k=-1), "top_k"),
    (said("hi", top_k=1.5), "top_k"),
    (said("hi", top_k=10**30), "top_k"),
    (said("hi", min_p=2), "min_p"),
    (said("hi", repetition_penalty=0), "repetition_penalty"),
    (said("hi", repetition_penalty=1e300), "repetition_penalty"),
    (said("hi", n=0), "n"),
    (said("hi", n=129), "n"),
    (said("hi", n=1.0), "n"),
    (said("hi", n="2"), "n"),
    (said("hi", n=True), "n"),
    (said("hi", max_tokens=0), "max_tokens"),
    (said("hi", max_tokens=-5), "max_tokens"),
    (said("hi", max_tokens=2000), "messages"),
    (said("hi", max_tokens=10**40), "messages"),
    (said("hi", max_completion_tokens=0), "max_completion_tokens"),
    (said("hi", max_tokens=5, max_completion_tokens=6), "max_tokens"),
    (said("hi" * 1000), "messages"),
    (said("hi", stop=5), "stop"),
    (said("hi", stop=[5]), "stop"),
    (said("hi", stop=[""]), "stop"),
    (said("hi", stop=["a", "b", "c", "d", "e"]), "stop"),
    (said("hi", stop="x" * 257), "stop"),
    (said("hi", stop=["\udcff"]), "stop"),
    (said("hi", seed=1.5), "seed"),
    (said("hi", seed="1"), "seed"),
    (said("hi", seed=2**63), "seed"),
    (said("hi", stream="yes"), "stream"),
    (said("hi", stream=1), "stream"),
    (said("hi", stream_options={"include_usage": True}), "stream_options"),
    (said("hi", stream=True, stream_options=[]), "stream_options"),
    (said("hi", stream=True, stream_options={"usage": True}), "stream_options.usage"),
    (said("hi", stream=True, stream_options={"include_obfuscation": True}), "stream_options.include_obfuscation"),
    (said("hi", logprobs=5), "logprobs"),
    (said("hi", top_logprobs=3), "top_logprobs"),
    (said("hi", logprobs=True, top_logprobs=21), "top_logprobs"),
    (said("hi", logprobs=True, top_logprobs=-1), "top_logprobs"),
    (said("hi", frequency_penalty=0.5), "frequency_penalty"),
    (said("hi", presence_penalty=False), "presence_penalty"),
    (said("hi", logit_bias={"5": 1}), "logit_bias"),
    (said("hi", response_format={"type": "json_object"}), "response_format"),
    (said("hi", tools=[{"type": "function"}]), "tools"),
    (said("hi", tool_choice="required"), "tool_choice"),
    (said("hi", functions=[{}]), "functions"),
    (said("hi", modalities=["audio"]), "modalities"),
    (said("hi", store=True), "store"),
    (said("hi", reasoning_effort="high"), "reasoning_effort"),
    (said("hi", user=5), "user"),
    (said("hi", metadata="x"), "metadata"),
    (said("hi", temprature=1), "temprature"),
    (said("hi", prompt="x"), "prompt"),
    ({**said("hi"), "": 1}, ""),
    ({**said("hi"), "\ud800": 1}, "\ud800"),
    ({**said("hi"), "x" * 5000: 1}, "x" * 60),
]

WRONG_COMPLETIONS: list[tuple[Any, str | None]] = [
    ({"model": "echo"}, "prompt"),
    (plain(5), "prompt"),
    (plain({}), "prompt"),
    (plain([]), "prompt"),
    (plain([[]]), "prompt"),
    (plain(["a", 5]), "prompt"),
    (plain([5, "a"]), "prompt"),
    (plain([1, 2.5]), "prompt"),
    (plain([True]), "prompt"),
    (plain([256]), None),
    (plain([-1]), None),
    (plain([10**40]), None),
    (plain([[1], "a"]), "prompt"),
    (plain([[[1]]]), "prompt"),
    (plain("\ud800"), "prompt"),
    (plain(["a", "\ud800"]), "prompt[1]"),
    (plain("x" * 1999 + "yz"), "prompt"),
    (plain(["a"] * 129), "prompt"),
    (plain(["a"] * 65, n=2), "prompt"),
    (plain(n=2, best_of=3), "best_of"),
    (plain(echo=True), "echo"),
    (plain(suffix="end"), "suffix"),
    (plain(logprobs=True), "logprobs"),
    (plain(logprobs=21), "logprobs"),
    (plain(messages=[]), "messages"),
    (plain(max_completion_tokens=5), "max_completion_tokens"),
]


def check_error(answer: httpx.Response, param: str | None) -> None:
    """OpenAI's shape, one line, about that field."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 500
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize("raw", NOT_JSON, ids=lambda raw: repr(raw[:30]))
@pytest.mark.parametrize("path", [CHAT, PLAIN])
def test_what_is_no_json_object_is_refused(server: httpx.Client, path: str, raw: bytes) -> None:
    answer = server.post(path, content=raw, headers=JSON)
    assert answer.status_code == 400, answer.text
    check_error(answer, None)


@pytest.mark.parametrize("depth", [100, 700, 900, 950, 980, 990, 1000, 2000, 9000])
def test_no_depth_is_too_deep(server: httpx.Client, depth: int) -> None:
    """Neither for the parser nor for what quotes the value in a message."""
    lists, objects = b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth
    for path, name in ((CHAT, b"messages"), (PLAIN, b"prompt"), (PLAIN, b"logprobs"), (CHAT, b"logit_bias")):
        for value in (lists, objects):
            raw = b'{"model": "echo", "messages": ["x"], "' + name + b'": ' + value + b"}"
            answer = server.post(
                path, content=raw.replace(b'"messages": ["x"], "messages"', b'"messages"'), headers=JSON
            )
            assert answer.status_code == 400, answer.text
            check_error(answer, None)


@pytest.mark.parametrize(("body", "param"), WRONG_CHATS, ids=lambda each: ascii(each)[:60])
def test_a_wrong_chat_request_is_refused_by_field(server: httpx.Client, body: Any, param: str) -> None:
    answer = server.post(CHAT, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 400, answer.text
    check_error(answer, param)


@pytest.mark.parametrize(("body", "param"), WRONG_COMPLETIONS, ids=lambda each: ascii(each)[:60])
def test_a_wrong_completion_request_is_refused_by_field(server: httpx.Client, body: Any, param: str | None) -> None:
    answer = server.post(PLAIN, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 400, answer.text
    check_error(answer, param)


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({}, b"{}", 415),
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"model=echo", 415),
        ({"content-type": "multipart/form-data"}, b"{}", 415),
        ({"content-type": "application/json; charset=latin-1"}, b"{}", 415),
        ({**JSON, "content-encoding": "gzip"}, b"{}", 415),
        (JSON, b" " * 100_001, 413),
    ],
)
def test_other_bodies_than_json_and_large_ones_are_refused(
    server: httpx.Client, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = server.post(CHAT, content=content, headers=headers)
    assert answer.status_code == status
    check_error(answer, None)


def test_a_body_that_does_not_say_how_long_it_is_is_counted(server: httpx.Client) -> None:
    answer = server.post(CHAT, content=iter([b" " * 40_000] * 3), headers=JSON)
    assert answer.status_code == 413
    check_error(answer, None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("GET", PLAIN, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
        ("GET", "/", 404),
        ("GET", "/v1/embeddings", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/%00%ff%0a", 404),
    ],
)
def test_paths_and_methods_that_are_not_there(server: httpx.Client, method: str, path: str, status: int) -> None:
    answer = server.request(method, path)
    assert answer.status_code == status
    check_error(answer, None if path != "/v1/models/other" else "model")
    assert ("allow" in answer.headers) == (status == 405)


def test_an_unknown_model_is_told_with_the_nearest(server: httpx.Client) -> None:
    for path, body in ((CHAT, said("hi", model="ecko")), (PLAIN, plain(model="ecko"))):
        answer = server.post(path, json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "did you mean 'echo'" in answer.json()["error"]["message"]


def test_an_unknown_field_is_told_with_the_nearest(server: httpx.Client) -> None:
    message = server.post(CHAT, json=said("hi", temprature=1)).json()["error"]["message"]
    assert "'temprature'; did you mean 'temperature'" in message


def test_too_long_prompts_are_refused_with_counts(server: httpx.Client) -> None:
    error = server.post(CHAT, json=said("hi" * 1500)).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "3000 tokens" in error["message"]
    assert "2000" in error["message"]


NEUTRAL = {
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "none",
    "user": "ann",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "modalities": ["text"],
    "parallel_tool_calls": True,
}


@pytest.mark.parametrize("name", sorted({*names_of(ChatBody), *CHAT_FIELDS.ignored, *CHAT_FIELDS.refused}))
def test_null_is_the_same_as_nothing(server: httpx.Client, name: str) -> None:
    if name in ("model", "messages"):
        assert server.post(CHAT, json=said("hi", **{name: None})).json()["error"]["param"] == name
    else:
        assert server.post(CHAT, json=said("hi", **{name: None})).status_code == 200


@pytest.mark.parametrize("name", NEUTRAL)
def test_values_that_ask_for_nothing_are_taken(server: httpx.Client, name: str) -> None:
    assert server.post(CHAT, json=said("hi", **{name: NEUTRAL[name]})).status_code == 200


def test_an_answer_can_be_sent_back_as_it_came(server: httpx.Client) -> None:
    message = server.post(CHAT, json=said("one two")).json()["choices"][0]["message"]
    message |= {"tool_calls": None, "annotations": [], "function_call": None, "audio": None}
    answer = server.post(CHAT, json=said("", messages=[USER, message, USER]))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "hione twohi"


def test_parts_of_text_are_lines(server: httpx.Client) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    answer = server.post(CHAT, json=turn(content=parts))
    assert answer.json()["choices"][0]["message"]["content"] == "one\ntwo"


def test_no_field_is_read_and_refused_at_once() -> None:
    for body, fields in ((ChatBody, CHAT_FIELDS), (CompletionBody, PLAIN_FIELDS)):
        assert not set(names_of(body)) & {*fields.ignored, *fields.refused}
        assert not set(fields.ignored) & set(fields.refused)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHAT_NAMES = st.sampled_from(sorted({*names_of(ChatBody), *CHAT_FIELDS.ignored, *CHAT_FIELDS.refused}))
PLAIN_NAMES = st.sampled_from(sorted({*names_of(CompletionBody), *PLAIN_FIELDS.ignored, *PLAIN_FIELDS.refused}))
fuzzed = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check_any(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        check_error(answer, None)


@fuzzed
@given(body=VALUES)
def test_any_json_is_answered_or_refused(server: httpx.Client, body: Any) -> None:
    for path in (CHAT, PLAIN):
        check_any(server.post(path, content=json.dumps(body), headers=JSON))


@fuzzed
@given(fields=st.dictionaries(CHAT_NAMES, VALUES, max_size=3))
def test_any_value_of_a_chat_field_is_answered_or_refused(server: httpx.Client, fields: dict[str, Any]) -> None:
    check_any(server.post(CHAT, content=json.dumps({**said("hi"), **fields}), headers=JSON))


@fuzzed
@given(fields=st.dictionaries(PLAIN_NAMES, VALUES, max_size=3))
def test_any_value_of_a_completion_field_is_answered_or_refused(server: httpx.Client, fields: dict[str, Any]) -> None:
    check_any(server.post(PLAIN, content=json.dumps({**plain(), **fields}), headers=JSON))


@fuzzed
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_refused(server: httpx.Client, raw: bytes) -> None:
    answer = server.post(CHAT, content=raw, headers=JSON)
    assert answer.status_code == 400
    check_error(answer, None)
