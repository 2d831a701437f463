"""Pieces in OpenAI's words: letters of several tokens, stop tokens, probabilities of 0."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serve_http_setup import scripted

from ramify.base.config import Sampling
from ramify.base.types import Stop
from ramify.sample.service import Piece, Request, Token
from ramify.serve.http.answers import Answer, ChatAnswer, CompletionAnswer
from ramify.serve.http.asked import Asked
from ramify.serve.http.reply import encoded

HEART = "♥".encode()
PIECES = [
    Piece(0, "I ", (Token(5, b"I ", -0.1, ((5, b"I ", -0.1), (6, b"You ", -2.5))),)),
    Piece(0, "", (Token(7, HEART[:2], -0.2, ((7, HEART[:2], -0.2), (8, b"x", -math.inf))),)),
    Piece(0, "♥", (Token(9, HEART[2:], -0.3, ((9, HEART[2:], -0.3), (6, b"y", -1.0))),)),
    Piece(0, "", (Token(2, b"<end>", -math.inf, ((2, b"<end>", -math.inf), (6, b"z", -1.0))),), Stop.EOS),
]


def asked(alternatives: int | None, *, usage: bool = False, n: int = 1) -> Asked:
    request = Request((1, 2, 3), Sampling(n=n), 0, alternatives or 0)
    return Asked(scripted(), (request,), alternatives, True, usage)


def events(answer: Answer, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """All events of an answer, as they are sent."""
    found = list(answer.opening())
    for piece in pieces:
        answer.add(piece)
        event = answer.event(piece)
        found += [] if event is None else [event]
    return [json.loads(encoded(each)) for each in [*found, *answer.closing()]]


def test_a_chat_answer_is_what_the_client_expects() -> None:
    answer = ChatAnswer(asked(2))
    for piece in PIECES:
        answer.add(piece)
    whole = ChatCompletion.model_validate_json(encoded(answer.whole()), strict=True)
    assert answer.finished
    assert whole.choices[0].message.content == "I ♥"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (3, 4, 7)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    assert b"".join(bytes(token.bytes or []) for token in tokens) == "I ♥".encode()  # without the stop token
    assert [token.token for token in tokens] == ["I ", "\ufffd", "\ufffd"]
    assert tokens[1].top_logprobs[1].logprob == -9999.0


def test_a_stream_tells_the_same_as_the_whole() -> None:
    answer = ChatAnswer(asked(2, usage=True))
    sent = events(answer, PIECES)
    chunks = [ChatCompletionChunk.model_validate(event, strict=False) for event in sent]
    *told, last = chunks
    whole = json.loads(encoded(answer.whole()))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "I ♥"
    tokens = [token for event in sent[:-1] for token in (event["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert tokens == whole["choices"][0]["logprobs"]["content"]
    assert last.choices == []
    assert sent[-1]["usage"] == whole["usage"]
    assert all(event["usage"] is None for event in sent[:-1])


def test_pieces_without_news_are_not_sent() -> None:
    assert len(events(ChatAnswer(asked(None)), PIECES)) == 1 + 2 + 1  # who speaks, two texts, the end


def test_the_older_form_names_bytes_and_places() -> None:
    answer = CompletionAnswer(asked(2))
    sent = events(answer, PIECES)
    whole = Completion.model_validate_json(encoded(answer.whole()), strict=True)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["I ", "bytes:\\xe2\\x99", "bytes:\\xa5"]
    assert logprobs.text_offset == [0, 2, 2]
    assert logprobs.token_logprobs == [-0.1, -0.2, -0.3]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[1] == {"bytes:\\xe2\\x99": -0.2, "x": -9999.0}
    streamed = [event["choices"][0]["logprobs"] for event in sent]
    for name in ("tokens", "text_offset", "token_logprobs", "top_logprobs"):
        assert [each for columns in streamed for each in columns[name]] == getattr(logprobs, name)


def test_no_alternatives_are_no_alternatives() -> None:
    answer = CompletionAnswer(asked(0))
    for piece in PIECES:
        answer.add(Piece(0, piece.text, tuple(Token(t.id, t.piece, t.logprob) for t in piece.tokens), piece.stop))
    logprobs = answer.whole()["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] is None
    assert len(logprobs["tokens"]) == 3


@pytest.mark.parametrize(("stop", "reason"), [(Stop.EOS, "stop"), (Stop.STOP_STRING, "stop"), (Stop.LENGTH, "length")])
def test_each_end_has_its_word(stop: Stop, reason: str) -> None:
    answer = ChatAnswer(asked(None, n=2))
    answer.add(Piece(1, "b", (Token(1, b"b", -1.0),), stop))
    assert not answer.finished
    answer.add(Piece(0, "a", (Token(1, b"a", -1.0),), Stop.LENGTH))
    assert answer.finished
    first, second = answer.whole()["choices"]
    assert (first["message"]["content"], first["finish_reason"]) == ("a", "length")
    assert (second["message"]["content"], second["finish_reason"]) == ("b", reason)
