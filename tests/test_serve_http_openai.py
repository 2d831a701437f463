"""The `openai` client against the process of a server with the embedded model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion
from serve_http_setup import Served, process, until

from ramify.base.types import Message
from ramify.serve.voices import Voice, open_voice

QUESTIONS = [f"How many grams are in {n} kg?" for n in range(2, 18)]
QUESTIONS += [f"How many centimetres are in {n} m?" for n in range(2, 18)]
KEY = "a key of the test"
GREEDY = {"temperature": 0.0, "max_tokens": 24}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    command = ["-m", "ramify", "serve", "nano", "--port", "0", "--parallel", "8", "--queue", "16", "--dtype", "fp32"]
    with process(*command, RAMIFY_API_KEY=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def voice() -> Iterator[Voice]:
    opened = open_voice("nano")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def alone(client: openai.OpenAI) -> list[str]:
    """The answer to each question, asked when nobody else does."""
    return [text_of(ask(client, question)) for question in QUESTIONS]


def ask(client: openai.OpenAI, question: str, **fields: object) -> ChatCompletion:
    asked = {"model": "nano", "messages": [{"role": "user", "content": question}], **GREEDY, **fields}
    answer = client.chat.completions.create(**asked)
    assert isinstance(answer, ChatCompletion)
    return answer


def text_of(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


def streamed(client: openai.OpenAI, question: str, **fields: object) -> list[openai.types.chat.ChatCompletionChunk]:
    asked = {"model": "nano", "messages": [{"role": "user", "content": question}], **GREEDY, **fields, "stream": True}
    return list(client.chat.completions.create(**asked))


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").owned_by == "ramify"
    with pytest.raises(openai.NotFoundError, match="did you mean 'nano'"):
        client.models.retrieve("nanno")


def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI) -> None:
    whole = ask(client, QUESTIONS[0])
    chunks = streamed(client, QUESTIONS[0], stream_options={"include_usage": True})
    *events, counted = chunks
    assert "".join(event.choices[0].delta.content or "" for event in events) == text_of(whole) != ""
    assert events[0].choices[0].delta.role == "assistant"
    assert [event.choices[0].finish_reason for event in events][-1] == whole.choices[0].finish_reason
    assert {event.choices[0].finish_reason for event in events[:-1]} == {None}
    assert counted.choices == []
    assert counted.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_counts_are_those_of_the_renderer(client: openai.OpenAI, voice: Voice) -> None:
    answer = ask(client, QUESTIONS[0])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(voice.renderer.prompt_ids((Message("user", QUESTIONS[0]),)))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_seed_repeats_all_choices(client: openai.OpenAI) -> None:
    def drawn(seed: int) -> list[str | None]:
        answer = ask(client, QUESTIONS[0], temperature=1.5, n=4, seed=seed)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in answer.choices]

    first = drawn(7)
    assert drawn(7) == first
    assert len(set(first)) > 1
    assert drawn(8) != first


def test_streamed_choices_are_those_of_a_whole_answer(client: openai.OpenAI) -> None:
    drawn = {"temperature": 1.5, "n": 3, "seed": 7}
    whole = ask(client, QUESTIONS[0], **drawn)
    texts = ["", "", ""]
    for chunk in streamed(client, QUESTIONS[0], **drawn):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_a_stop_string_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    whole = text_of(ask(client, QUESTIONS[0]))
    stop = whole[2:4]
    answer = ask(client, QUESTIONS[0], stop=[stop])
    assert text_of(answer) == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert "".join(c.choices[0].delta.content or "" for c in streamed(client, QUESTIONS[0], stop=stop)) == text_of(
        answer
    )


def test_a_short_answer_ends_for_its_length(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTIONS[0], max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_logprobs_are_those_of_the_model(client: openai.OpenAI, voice: Voice) -> None:
    import torch

    from ramify.model.load import load_model

    answer = ask(client, QUESTIONS[0], logprobs=True, top_logprobs=5)
    assert answer.choices[0].logprobs is not None
    found = answer.choices[0].logprobs.content
    assert found
    text = b"".join(bytes(token.bytes or []) for token in found).decode()
    assert text.strip() == text_of(answer).strip()
    loaded = load_model("nano", dtype="fp32", device="cpu")
    ids = list(voice.renderer.prompt_ids((Message("user", QUESTIONS[0]),)))
    for token in found:
        assert token.top_logprobs[0].token == token.token  # greedy
        with torch.no_grad():
            logits = loaded.network(torch.tensor([ids])).logits[0, -1].float()
        top = torch.log_softmax(logits, -1).topk(5)
        assert [each.logprob for each in token.top_logprobs] == pytest.approx(top.values.tolist(), abs=1e-3)
        ids.append(int(top.indices[0]))


def test_plain_completions_go_on_from_text_and_from_ids(client: openai.OpenAI, voice: Voice) -> None:
    prompt = voice.renderer.text((Message("user", QUESTIONS[0]),))
    ids = list(voice.renderer.prompt_ids((Message("user", QUESTIONS[0]),)))
    whole = text_of(ask(client, QUESTIONS[0]))
    answer = client.completions.create(model="nano", prompt=[ids, ids], logprobs=2, temperature=0.0, max_tokens=24)
    assert [choice.text for choice in answer.choices] == [whole, whole]
    logprobs = answer.choices[1].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == whole
    assert logprobs.text_offset == [
        len("".join((logprobs.tokens or [])[:at])) for at in range(len(logprobs.tokens or []))
    ]
    assert (
        client.completions.create(model="nano", prompt=prompt, temperature=0.0, max_tokens=24).choices[0].text == whole
    )
    stream = client.completions.create(model="nano", prompt=ids, temperature=0.0, max_tokens=24, stream=True)
    assert "".join(event.choices[0].text for event in stream) == whole


def test_equal_prompts_of_one_request_are_drawn_apart(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str]:
        answer = client.completions.create(
            model="nano", prompt=[QUESTIONS[0]] * 3, temperature=1.5, max_tokens=16, seed=seed
        )
        return [choice.text for choice in answer.choices]

    first = texts(1)
    assert len(set(first)) > 1
    assert texts(1) == first


def test_extras_arrive(client: openai.OpenAI) -> None:
    greedy = text_of(ask(client, QUESTIONS[0]))
    hot = {"temperature": 2.0, "seed": 3}
    assert text_of(ask(client, QUESTIONS[0], **hot)) != greedy
    assert text_of(ask(client, QUESTIONS[0], **hot, extra_body={"top_k": 1})) == greedy
    assert text_of(ask(client, QUESTIONS[0], **hot, extra_body={"min_p": 1.0})) == greedy
    assert text_of(ask(client, QUESTIONS[0], extra_body={"repetition_penalty": 100.0})) != greedy


def test_errors_are_those_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="tokens") as long:
        ask(client, "a " * 4000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(client, "hi", presence_penalty=1)
    assert wrong.value.param == "presence_penalty"
    with pytest.raises(openai.NotFoundError):
        ask(client, "hi", model="gpt")


def test_many_clients_get_their_own_answers_or_429(client: openai.OpenAI, alone: list[str]) -> None:
    assert len(set(alone)) > len(QUESTIONS) // 2

    def one(question: str) -> str | None:
        try:
            if QUESTIONS.index(question) % 2:
                return "".join(event.choices[0].delta.content or "" for event in streamed(client, question))
            return text_of(ask(client, question))
        except openai.RateLimitError as error:
            assert int(error.response.headers["retry-after"]) >= 1
            return None

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(one, QUESTIONS))
    answered = [(got, own) for got, own in zip(together, alone, strict=True) if got is not None]
    assert len(answered) >= 24  # as many as there are turns and places
    assert all(got == own for got, own in answered)


def test_clients_that_try_again_are_all_answered(client: openai.OpenAI, alone: list[str]) -> None:
    patient = client.with_options(max_retries=10)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda question: text_of(ask(patient, question)), QUESTIONS)) == alone


def test_a_client_that_leaves_frees_its_turn(client: openai.OpenAI, served: Served) -> None:
    """Noughts are gone on with for ever: so many completions of full length take longer than is waited for here."""
    endless = {"prompt": "0 0 0 0 0 0", "temperature": 0.0, "max_tokens": 2000, "n": 128}
    with httpx.Client(base_url=served.url, timeout=30) as watcher:
        stream = client.completions.create(model="nano", **endless, stream=True)
        next(iter(stream))
        until(watcher, active=1)
        stream.close()
        until(watcher, active=0, waiting=0)


def test_without_the_key_the_client_is_refused(served: Served) -> None:
    other = openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0, timeout=60)
    with other, pytest.raises(openai.AuthenticationError):
        ask(other, "hi")


def test_the_log_has_a_line_for_a_request_and_no_contents(served: Served, client: openai.OpenAI) -> None:
    before = len(served.lines)
    ask(client, "a secret question", max_tokens=1)
    while len(served.lines) == before:
        time.sleep(0.01)
    assert served.lines[before].split()[2:5] == ["POST", "/v1/chat/completions", "200"]
    assert "secret" not in "".join(served.lines)
    assert KEY not in "".join(served.lines)
