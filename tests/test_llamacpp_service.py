"""llama.cpp as a service: every request gets its own text, what left is free, what was computed is used again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from llamacpp_setup import nano_gguf, prompts, tiny_gguf

from ramify.base.config import Sampling
from ramify.base.errors import DataError, LengthError, ModelError
from ramify.base.types import Stop
from ramify.sample.llamacpp.lanes import Drawn, Lanes, Work
from ramify.sample.llamacpp.model import GgufModel, open_gguf
from ramify.sample.llamacpp.sampler import LlamaCppSampler
from ramify.sample.llamacpp.service import GgufService
from ramify.sample.sampler import PromptTokens
from ramify.sample.service import Piece, Request, Service, Token

WARM = Sampling(n=2, temperature=0.9, top_p=0.95, max_new_tokens=24)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: it hardly ever stops by itself."""
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture
def service(path: Path) -> Iterator[GgufService]:
    opened = GgufService(open_gguf(path, kv="f32"))
    yield opened
    opened.close()


def _requests(count: int) -> list[Request]:
    asked = prompts()
    return [Request(asked[n % len(asked)].ids, WARM, seed=n) for n in range(count)]


def _answer(service: Service, request: Request) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    for piece in service.submit(request):
        found.setdefault(piece.index, []).append(piece)
    return found


def _texts(answer: dict[int, list[Piece]]) -> list[str]:
    return ["".join(piece.text for piece in answer[index]) for index in sorted(answer)]


def _expected(path: Path, requests: list[Request]) -> list[list[str]]:
    model = open_gguf(path, kv="f32")
    found = []
    for request in requests:
        samples = LlamaCppSampler(model).sample([PromptTokens("", request.ids)], request.settings, seed=request.seed)
        found.append([sample.text for sample in samples[0]])
    model.close()
    return found


def test_many_requests_at_once_get_their_own_text(service: GgufService, path: Path) -> None:
    requests = _requests(16)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda request: _texts(_answer(service, request)), requests))
    assert found == _expected(path, requests)
    assert len({tuple(texts) for texts in found}) > 8


def test_pieces_tell_tokens_and_the_end(service: GgufService) -> None:
    prompt = prompts()[0].ids
    pieces = _answer(service, Request(prompt, Sampling(max_new_tokens=24), alternatives=3))[0]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert [piece.stop for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].stop is Stop.EOS
    assert tokens[-1].id in service._model.stop_ids
    assert b"".join(token.piece for token in tokens[:-1]).decode() == "".join(piece.text for piece in pieces)
    _check_alternatives(service, prompt, tokens)


def _check_alternatives(service: GgufService, prompt: tuple[int, ...], tokens: list[Token]) -> None:
    model = open_gguf(service.name, kv="f32")
    ids = (*prompt, *(token.id for token in tokens))
    logits = model.runtime.logits(ids).astype(np.float64)[len(prompt) - 1 : -1]
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for token, row in zip(tokens, logprobs, strict=True):
        assert token.logprob == pytest.approx(row[token.id], abs=1e-4)
        assert [each for each, _, _ in token.top] == np.argsort(-row)[:3].tolist()
        assert [value for _, _, value in token.top] == pytest.approx(np.sort(row)[::-1][:3], abs=1e-3)
        assert all(piece == model.runtime.piece(each) for each, piece, _ in token.top)
    model.close()


def test_text_never_ends_in_half_a_letter_or_shows_a_stop_string(endless: Path) -> None:
    service = GgufService(open_gguf(endless, kv="f32"))
    settings = Sampling(n=8, temperature=1.0, max_new_tokens=60, stop=("a", "q"))
    request = Request(tuple(range(20, 40)), settings, seed=3)
    answer = _answer(service, request)
    model = open_gguf(endless, kv="f32")
    samples = LlamaCppSampler(model).sample([PromptTokens("", request.ids)], settings, seed=3)[0]
    assert _texts(answer) == [sample.text for sample in samples]
    assert [answer[index][-1].stop for index in sorted(answer)] == [sample.stop for sample in samples]
    assert not any(letter in text for text in _texts(answer) for letter in "aq")
    assert {sample.stop for sample in samples} >= {Stop.STOP_STRING}
    service.close()
    model.close()


def test_the_next_turn_computes_only_what_is_new(service: GgufService) -> None:
    prompt = prompts()[0].ids
    pieces = _answer(service, Request(prompt, Sampling(max_new_tokens=24)))[0]
    said = tuple(token.id for piece in pieces for token in piece.tokens)
    before = service.prompt_tokens
    assert before == len(prompt)
    _answer(service, Request((*prompt, *said, 5, 6, 7), Sampling(max_new_tokens=4)))
    assert service.prompt_tokens - before == 3 + 1  # and the answer's last token, which was drawn but not computed


def test_the_next_turn_says_what_it_would_have_said_alone(service: GgufService, path: Path) -> None:
    prompt = prompts()[1].ids
    pieces = _answer(service, Request(prompt, Sampling(max_new_tokens=24)))[0]
    said = tuple(token.id for piece in pieces for token in piece.tokens)
    turn = Request((*prompt, *said, *prompts()[2].ids), WARM, seed=1)
    assert [_texts(_answer(service, turn))] == _expected(path, [turn])


def test_who_leaves_frees_the_place(endless: Path) -> None:
    service = GgufService(open_gguf(endless, n_ctx=400), lines=2, kept=1, cells=512)
    endings = Sampling(temperature=1.0, max_new_tokens=300)
    tickets = [service.submit(Request((20 + n, 30, 40), endings, seed=n)) for n in range(6)]
    first = next(iter(tickets[0]))
    assert first.text or first.tokens
    for ticket in tickets[:5]:
        ticket.cancel()
        ticket.cancel()
    assert list(tickets[0]) == []
    pieces = list(tickets[5])
    assert pieces[-1].stop is not None
    service.close()


def test_more_than_fits_waits_its_turn(endless: Path) -> None:
    service = GgufService(open_gguf(endless, n_ctx=200), lines=4, kept=3, cells=256)
    settings = Sampling(n=3, temperature=1.0, max_new_tokens=60)
    requests = [Request(tuple(range(10 + n, 60 + n)), settings, seed=n) for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda request: _answer(service, request), requests))
    assert all(len(answer) == 3 and answer[n][-1].stop is not None for answer in answers for n in range(3))
    service.close()


def test_requests_that_cannot_be_answered_are_refused(service: GgufService) -> None:
    assert service.max_length == 2048
    with pytest.raises(LengthError, match="5 tokens and 2044 new ones exceed the 2048"):
        service.submit(Request((5,) * 5, Sampling(max_new_tokens=2044)))
    with pytest.raises(DataError, match="no tokens"):
        service.submit(Request((), WARM))
    with pytest.raises(DataError, match="not in the vocabulary"):
        service.submit(Request((70000,), WARM))


def test_closing_ends_everything(endless: Path) -> None:
    service = GgufService(open_gguf(endless, n_ctx=500))
    tickets = [service.submit(Request((20, 30 + n), Sampling(temperature=1.0, max_new_tokens=450))) for n in range(12)]
    next(iter(tickets[0]))
    service.close()
    for ticket in tickets:
        assert all(piece.index == 0 for piece in ticket)
    with pytest.raises(ModelError, match="was closed"):
        service.submit(Request((20,), WARM))
    service.close()


def test_broken_weights_are_told_to_the_client(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "nan.gguf"
    data = bytearray(path.read_bytes())
    norm = next(each for each in GGUFReader(str(path)).tensors if each.name == "output_norm.weight")
    data[norm.data_offset : norm.data_offset + norm.n_bytes] = np.full(norm.n_elements, np.nan, np.float32).tobytes()
    broken.write_bytes(data)
    service = GgufService(open_gguf(broken))
    for _ in range(2):
        with pytest.raises(ModelError, match="NaN or infinite"):
            list(service.submit(Request(prompts()[0].ids, WARM)))
    service.close()


def test_two_users_of_one_opened_file_are_told_apart(path: Path) -> None:
    model = open_gguf(path)
    service = GgufService(model)
    model.runtime.logits((5, 6, 7))
    with pytest.raises(ModelError, match="something else uses the same opened file"):
        list(service.submit(Request(prompts()[0].ids, WARM)))
    service.close()


def test_whatever_comes_and_leaves_the_others_are_not_touched(endless: Path) -> None:
    model = open_gguf(endless, kv="f32")
    chance = random.Random(4)
    settings = [Sampling(temperature=1.0, max_new_tokens=12), Sampling(max_new_tokens=9)]
    works = []
    for number in range(24):
        ids = (*range(10, 10 + chance.randrange(1, 40)), chance.randrange(300))
        kind = settings[number % 2]
        works.append(Work(ids, model.order(kind), tuple(100 * number + n for n in range(chance.randrange(1, 4)))))
    expected = [_alone(model, work) for work in works]
    lanes = Lanes(model, cells=512, lines=5, kept=3)
    found: dict[Work, list[list[int]]] = {work: [[] for _ in work.keys] for work in works}
    dropped = {work for work in works if chance.random() < 0.3}
    waiting = list(works)
    while lanes.busy or waiting:
        for _ in range(chance.randrange(3)):
            if waiting:
                lanes.add(waiting.pop())
        for work in dropped:  # some before anything of them was computed
            if chance.random() < 0.1:
                lanes.drop(work)
        for event in lanes.step():
            assert isinstance(event, Drawn)
            found[event.work][event.place].append(event.token)
        for work in dropped:
            if chance.random() < 0.2:
                lanes.drop(work)
    for work, alone in zip(works, expected, strict=True):
        if work not in dropped:
            assert found[work] == alone
    model.close()


def _alone(model: GgufModel, work: Work) -> list[list[int]]:
    lanes = Lanes(model, cells=512, lines=4, kept=1)
    lanes.add(work)
    found: list[list[int]] = [[] for _ in work.keys]
    while lanes.busy:
        for event in lanes.step():
            assert isinstance(event, Drawn)
            found[event.place].append(event.token)
    return found
