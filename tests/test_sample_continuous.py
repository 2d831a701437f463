"""The service against `TreeSampler`: whoever else is served, and whatever was known before, changes nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sample_setup import as_loaded, loaded_model
from tiny_models import VOCABULARY, tiny_model

from ramify.base.config import Sampling
from ramify.base.errors import DataError, LengthError, ModelError
from ramify.base.types import Sample, Stop
from ramify.model import rates
from ramify.model.load import LoadedModel
from ramify.sample import continuous, flow
from ramify.sample.continuous import ContinuousService
from ramify.sample.engine import TreeSampler
from ramify.sample.pieces import Answers
from ramify.sample.sampler import PromptTokens
from ramify.sample.service import Piece, Request, Service, Token

FAMILIES = ["llama", "mistral", "gemma2", "gpt2"]


def some_ids(draw: random.Random, length: int) -> tuple[int, ...]:
    return tuple(draw.randrange(3, VOCABULARY) for _ in range(length))


def requests_of(seed: int, many: int = 9, **settings: Any) -> list[Request]:
    """Requests of all kinds, some with a common beginning."""
    draw = random.Random(seed)
    start = some_ids(draw, 40)
    found = []
    for number in range(many):
        ids = start[: draw.choice([0, 20, 33, 40])] + some_ids(draw, draw.randint(1, 30))
        chosen: dict[str, Any] = {
            "n": draw.choice([1, 1, 3]),
            "temperature": draw.choice([0.0, 0.7, 1.3]),
            "top_k": draw.choice([0, 10]),
            "top_p": draw.choice([1.0, 0.8]),
            "min_p": draw.choice([0.0, 0.05]),
            "repetition_penalty": draw.choice([1.0, 1.0, 1.8]),
            "max_new_tokens": draw.randint(1, 24),
            "stop": draw.choice([(), (), ("e",)]),
        }
        found.append(Request(ids, Sampling(**{**chosen, **settings}), seed=number, alternatives=draw.choice([0, 3])))
    return found


def expected_of(loaded: LoadedModel, request: Request, adapter: bool = True) -> list[Sample]:
    """What the sampler draws, alone."""
    sampler = TreeSampler(loaded, adapter=adapter)
    return sampler.sample([PromptTokens("", request.ids)], request.settings, seed=request.seed)[0]


def by_index(pieces: Sequence[Piece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.index, []).append(piece)
    return found


def ids_of(pieces: Sequence[Piece]) -> tuple[int, ...]:
    return tuple(token.id for piece in pieces for token in piece.tokens)


def assert_answered(pieces: Sequence[Piece], samples: Sequence[Sample]) -> None:
    answers = by_index(pieces)
    assert sorted(answers) == [sample.index for sample in samples]
    for sample in samples:
        parts = answers[sample.index]
        assert ids_of(parts) == sample.token_ids
        assert "".join(part.text for part in parts) == sample.text
        assert [part.stop for part in parts] == [None] * (len(parts) - 1) + [sample.stop]
        assert all(part.text for part in parts[:-1])
        logprobs = [token.logprob for part in parts for token in part.tokens]
        assert logprobs == pytest.approx(sample.logprobs, abs=1e-4)


def in_threads(services: Sequence[Service], requests: Sequence[Request]) -> list[list[Piece]]:
    """Every request from a thread of its own, all at once; request r goes to service r modulo their number."""
    found: list[list[Piece]] = [[] for _ in requests]
    gate = threading.Barrier(len(requests))

    def ask(number: int) -> None:
        gate.wait()
        found[number].extend(services[number % len(services)].submit(requests[number]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots that fill, and prompts of several chunks, on tiny sequences."""
    monkeypatch.setattr(continuous, "OWN", 12)
    monkeypatch.setattr("ramify.sample.intake.COPIED", 6)
    monkeypatch.setattr(flow, "CHUNK", 24)
    monkeypatch.setattr(flow, "CHUNK_BESIDE", 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_together_is_as_alone(family: str) -> None:
    loaded, requests = loaded_model(family), requests_of(seed=1)
    expected = [expected_of(loaded, request) for request in requests]
    with closing(ContinuousService(loaded, slots=6)) as service:
        for pieces, samples in zip(in_threads([service], requests), expected, strict=True):
            assert_answered(pieces, samples)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("family", "slots", "kept"),
    [("llama", 1, 0), ("llama", 4, 10_000), ("mistral", 3, 150), ("gemma2", 4, 150), ("gpt_oss", 5, 10_000)],
)
def test_whatever_is_cut_and_kept_changes_nothing(family: str, slots: int, kept: int) -> None:
    """Slots that fill up, prompts in chunks, keys and values from before, and hardly room for them."""
    loaded, requests = loaded_model(family, stop_ids=()), requests_of(seed=2, many=4, max_new_tokens=20, stop=())
    expected = [expected_of(loaded, request) for request in requests]
    with closing(ContinuousService(loaded, slots=slots, kept=kept)) as service:
        for _ in range(2):
            for pieces, samples in zip(in_threads([service], requests), expected, strict=True):
                assert_answered(pieces, samples)


def test_one_after_the_other() -> None:
    loaded, requests = loaded_model(), requests_of(seed=4)
    with closing(ContinuousService(loaded)) as service:
        for request in requests:
            assert_answered(list(service.submit(request)), expected_of(loaded, request))


def test_prompts_are_computed_once() -> None:
    loaded, draw = loaded_model(), random.Random(5)
    ids, settings = some_ids(draw, 50), Sampling(n=4, temperature=1.0, max_new_tokens=12)
    with closing(ContinuousService(loaded)) as service:
        assert service.prompt_tokens == 0
        for seed in (0, 0, 1):
            request = Request(ids, settings, seed=seed)
            assert_answered(list(service.submit(request)), expected_of(loaded, request))
            assert service.prompt_tokens == 50
        longer = Request(ids + some_ids(draw, 20), settings)
        assert_answered(list(service.submit(longer)), expected_of(loaded, longer))
        assert service.prompt_tokens == 70


def test_a_chats_next_turn_computes_the_new_turn_alone() -> None:
    loaded, draw = loaded_model(stop_ids=()), random.Random(6)
    settings = Sampling(temperature=1.0, max_new_tokens=20)
    ids, computed = some_ids(draw, 30), 30
    with closing(ContinuousService(loaded)) as service:
        for turn in range(5):
            request = Request(ids, settings, seed=turn)
            pieces = list(service.submit(request))
            assert_answered(pieces, expected_of(loaded, request))
            assert service.prompt_tokens == computed
            ids += ids_of(pieces) + some_ids(draw, 10)
            computed += 1 + 10  # the last token that was drawn has not been through the network


def test_many_clients_of_one_system_prompt_compute_it_once() -> None:
    loaded, draw = loaded_model(), random.Random(7)
    system = some_ids(draw, 64)
    requests = [
        Request((*system, 3 + number, *some_ids(draw, 19)), Sampling(max_new_tokens=6), seed=number)
        for number in range(12)
    ]
    expected = [expected_of(loaded, request) for request in requests]
    with closing(ContinuousService(loaded, slots=16)) as service:
        for pieces, samples in zip(in_threads([service], requests), expected, strict=True):
            assert_answered(pieces, samples)
        assert service.prompt_tokens == 64 + 12 * 20


def test_what_is_kept_gives_the_same_logits() -> None:
    """Log-probabilities of all tokens, from keys and values of a turn before, against a fresh service."""
    loaded, draw = loaded_model(stop_ids=()), random.Random(8)
    ids, settings = some_ids(draw, 40), Sampling(max_new_tokens=16)
    with closing(ContinuousService(loaded)) as service, closing(ContinuousService(loaded)) as fresh:
        turn = ids_of(list(service.submit(Request(ids, settings))))
        request = Request(ids + turn + some_ids(draw, 9), settings, alternatives=20)
        known, new = ([token for piece in each.submit(request) for token in piece.tokens] for each in (service, fresh))
    assert [token.id for token in known] == [token.id for token in new]
    for one, other in zip(known, new, strict=True):
        assert [each[:2] for each in one.top] == [each[:2] for each in other.top]
        assert [each[2] for each in one.top] == pytest.approx([each[2] for each in other.top], abs=2e-6)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_alternatives_are_the_models_own(temperature: float) -> None:
    loaded, ids = loaded_model(), some_ids(random.Random(9), 12)
    settings = Sampling(temperature=temperature, top_k=2, max_new_tokens=8, repetition_penalty=1.5)
    with closing(ContinuousService(loaded)) as service:
        pieces = list(service.submit(Request(ids, settings, seed=2, alternatives=5)))
    tokens = [token for piece in pieces for token in piece.tokens]
    whole = torch.tensor([ids + ids_of(pieces)])
    with torch.no_grad():
        rows = loaded.network(input_ids=whole, use_cache=False).logits[0].log_softmax(-1)[len(ids) - 1 :]
    for row, token in zip(rows, tokens, strict=False):
        best = row.topk(5)
        assert [each[0] for each in token.top] == best.indices.tolist()
        assert [each[2] for each in token.top] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-5)


def test_pieces_never_break_letters_or_stop_strings() -> None:
    loaded = as_loaded(tiny_model("llama", vocab_size=400), stop_ids=())
    settings = Sampling(temperature=1.6, max_new_tokens=60, n=6)
    with closing(ContinuousService(loaded)) as service:
        plain = by_index(list(service.submit(Request((5, 6, 7), settings))))
        text = "".join(piece.text for piece in plain[0])
        stop = text[len(text) // 2 :][:3]
        cut = by_index(list(service.submit(Request((5, 6, 7), settings.model_copy(update={"stop": (stop,)})))))
    for index, pieces in plain.items():
        assert not any(piece.text.endswith("\ufffd") for piece in pieces[:-1])
        whole, shown = "".join(piece.text for piece in pieces), "".join(piece.text for piece in cut[index])
        assert shown == whole.split(stop)[0]
        assert (cut[index][-1].stop is Stop.STOP_STRING) == (stop in whole)
    assert cut[0][-1].stop is Stop.STOP_STRING
    spelled = b"".join(token.piece for piece in plain[0] for token in piece.tokens)
    special = set(loaded.tokenizer.all_special_ids)
    if not special & set(ids_of(plain[0])):
        assert spelled.decode(errors="replace") == text


def test_cancelled_requests_make_room() -> None:
    loaded = loaded_model(stop_ids=())
    endless = Request((5, 6, 7), Sampling(max_new_tokens=400, temperature=1.0, n=2))
    short = Request((8, 9), Sampling(max_new_tokens=5))
    with closing(ContinuousService(loaded, slots=2)) as service:
        running, waiting, behind = service.submit(endless), service.submit(endless), service.submit(short)
        pieces = iter(running)
        next(pieces)
        waiting.cancel()
        assert list(waiting) == []
        running.cancel()
        assert len(list(pieces)) < 800
        assert_answered(list(behind), expected_of(loaded, short))
        behind.cancel()
        running.cancel()
        assert list(running) == []


class Turns:
    """A flow without a thread: what a turn does can be counted."""

    def __init__(self, service: ContinuousService, shared: Any) -> None:
        self.flow, self._service = service._new_flow(shared), service

    def ask(self, request: Request) -> Answers:
        order = continuous.Order(request.settings, continuous.ending(self._service._loaded, request.settings))
        answers = Answers(request, self._service._loaded.tokenizer, self._service._bytes, lambda: None)
        self.flow.accept(answers, order)
        return answers

    def drawn(self, answers: Answers) -> int:
        """Tokens that have come so far."""
        found = 0
        while not answers._queue.empty():
            piece = answers._queue.get()
            found += len(piece.tokens) if isinstance(piece, Piece) else 0
        return found


@pytest.fixture
def turns() -> Iterator[Turns]:
    loaded = as_loaded(tiny_model("llama", vocab_size=400), stop_ids=())
    with continuous.made_ready(loaded.network) as shared, torch.inference_mode():
        yield Turns(ContinuousService(loaded, slots=4), shared)


def test_a_long_prompt_delays_nobody_by_more_than_a_chunk(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "CHUNK_BESIDE", 8)
    draw = random.Random(10)
    first = turns.ask(Request((50,), Sampling(max_new_tokens=40)))
    turns.flow.turn()
    before = turns.drawn(first)
    long = turns.ask(Request(some_ids(draw, 80), Sampling(max_new_tokens=4)))
    for number in range(1, 10):
        turns.flow.turn()
        assert turns.flow.prompt_tokens == 1 + 8 * number
        assert turns.flow._live._drawn[0] == number + 2
    assert turns.drawn(first) > before and turns.drawn(long) == 0
    turns.flow.turn()
    turns.flow.turn()
    assert turns.flow._live.count == 2


def test_a_long_prompt_leaves_half_a_chunk_to_others(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "CHUNK", 24)
    monkeypatch.setattr(flow, "CHUNK_BESIDE", 24)
    draw = random.Random(19)
    turns.ask(Request(some_ids(draw, 90), Sampling(max_new_tokens=4)))
    short = [turns.ask(Request(some_ids(draw, 6), Sampling(max_new_tokens=4))) for _ in range(2)]
    turns.flow.turn()
    assert turns.flow.prompt_tokens == 24 and turns.flow._live.count == 2
    for _ in range(4):
        turns.flow.turn()
    assert all(each._left == 0 for each in short)


def test_a_cancelled_request_is_gone_before_the_next_step(turns: Turns) -> None:
    asked = [turns.ask(Request((7, number), Sampling(max_new_tokens=50, n=2))) for number in range(10, 13)]
    turns.flow.turn()
    assert turns.flow._live.count == 4
    asked[0].cancel()
    turns.flow.turn()
    assert turns.flow._live.count == 4 and len(turns.flow._waiting) == 0
    for each in asked:
        each.cancel()
    turns.flow.turn()
    assert turns.flow._live.count == 0 and not turns.flow.busy
    assert not turns.flow._owners and all(node.held == 0 for node in nodes(turns.flow))


def nodes(found: flow.Flow) -> list[Any]:
    waiting, every = [*found._known.root.below], []
    while waiting:
        every.append(waiting.pop())
        waiting += every[-1].below
    return every


def test_what_is_kept_is_bounded_and_counted(turns: Turns) -> None:
    draw, known = random.Random(11), turns.flow._known
    known._most = 120
    for number in range(12):
        turns.ask(Request(some_ids(draw, draw.randint(5, 60)), Sampling(max_new_tokens=10, n=2), seed=number))
        while turns.flow.busy:
            turns.flow.turn()
        assert known.tokens == sum(len(node.ids) for node in nodes(turns.flow)) <= 120
        for node in nodes(turns.flow):
            assert node.held == 0 and len(node.segment) == len(node.ids)
            assert node.segment.stored.keys[0].shape[1] == len(node.ids)  # not a view of something larger
            assert node.segment.first == sum(len(each.ids) for each in node.path()[:-1])
    assert known.tokens > 60


def test_a_chat_is_one_run(turns: Turns) -> None:
    ids, draw = some_ids(random.Random(12), 30), random.Random(13)
    for turn in range(4):
        answers = turns.ask(Request(ids, Sampling(max_new_tokens=20, temperature=1.0), seed=turn))
        while turns.flow.busy:
            turns.flow.turn()
        ids += ids_of(list(answers)) + some_ids(draw, 5)
        assert [len(node.ids) for node in nodes(turns.flow)] == [len(ids) - 6]


def test_a_request_that_cannot_be_drawn_fails_alone() -> None:
    loaded, draw = loaded_model(), random.Random(14)
    broken = 95
    loaded.network.model.embed_tokens.weight.data[broken] = float("nan")
    bad = Request((*some_ids(draw, 5), broken), Sampling(max_new_tokens=8, n=2))
    good = [replace(each, ids=tuple(i if i != broken else 3 for i in each.ids)) for each in requests_of(15, many=5)]
    good = [replace(each, settings=each.settings.model_copy(update={"temperature": 0.0})) for each in good]
    expected = [expected_of(loaded, each) for each in good]
    with closing(ContinuousService(loaded)) as service:
        tickets = [service.submit(each) for each in (good[0], bad, *good[1:], bad)]
        for ticket in (tickets[1], tickets[-1]):
            for _ in range(2):
                with pytest.raises(ModelError, match="logits are NaN or infinite in float32"):
                    list(ticket)
        for ticket, samples in zip([tickets[0], *tickets[2:-1]], expected, strict=True):
            assert_answered(list(ticket), samples)


def test_a_network_that_raises_fails_what_it_computed_and_goes_on() -> None:
    loaded, draw = loaded_model(), random.Random(16)

    def refuse(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if bool((inputs[0] == 95).any()):
            raise RuntimeError("out of memory\nmore lines")

    loaded.network.model.embed_tokens.register_forward_pre_hook(refuse)
    good = Request((7, 8, 9), Sampling(max_new_tokens=1))
    bad = Request((*some_ids(draw, 5), 95), Sampling(max_new_tokens=8))
    with closing(ContinuousService(loaded)) as service:
        tickets = [service.submit(each) for each in (good, bad, good)]
        with pytest.raises(ModelError, match=r"^the model failed: RuntimeError: out of memory$"):
            list(tickets[1])
        assert ids_of(list(tickets[0])) == ids_of(list(tickets[2])) == ids_of(list(service.submit(good)))


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", torch.float32), ("gemma2", torch.float32), ("qwen3", torch.bfloat16)]
)
def test_base_and_tuned_side_by_side(family: str, kind: torch.dtype) -> None:
    """Weights of their own for both (llama), one network that is switched (gemma2), weights that are turned (qwen3)."""
    network: Any = tiny_model(family).to(kind)
    tuned = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    loaded, requests = as_loaded(tuned), requests_of(seed=17, many=4, max_new_tokens=8)
    with rates.assume_native():
        expected = [expected_of(loaded, each, adapter=number % 2 == 0) for number, each in enumerate(requests)]
        other = [expected_of(loaded, each, adapter=number % 2 == 1) for number, each in enumerate(requests)]
        assert [s[0].token_ids for s in expected] != [s[0].token_ids for s in other]
        with_adapter, without = ContinuousService(loaded), ContinuousService(loaded, adapter=False)
        with closing(with_adapter), closing(without):
            for pieces, samples in zip(in_threads([with_adapter, without], requests), expected, strict=True):
                assert_answered(pieces, samples)


@pytest.mark.parametrize("first", [0, 1])
def test_the_network_is_left_as_it_was(first: int) -> None:
    network = tiny_model("gemma2").to(torch.bfloat16)
    tuned = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    loaded = as_loaded(tuned.train())
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    wanted = {name: value.requires_grad for name, value in tuned.named_parameters()}
    request = Request((5, 6, 7), Sampling(max_new_tokens=5))
    services = [ContinuousService(loaded), ContinuousService(loaded, adapter=False)]
    answers = [ids_of(list(each.submit(request))) for each in services]
    services[first].close()
    assert ids_of(list(services[1 - first].submit(request))) == answers[1 - first]
    services[1 - first].close()
    after = tuned.state_dict()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)
    assert tuned.training and tuned.config._attn_implementation == "eager"
    assert {name: value.requires_grad for name, value in tuned.named_parameters()} == wanted


def test_closing_ends_what_runs() -> None:
    service = ContinuousService(loaded_model(stop_ids=()))
    ticket = service.submit(Request((5, 6), Sampling(max_new_tokens=500)))
    pieces = iter(ticket)
    next(pieces)
    service.close()
    assert len(list(pieces)) < 499
    service.close()
    with pytest.raises(ModelError, match="tiny: the model has been closed"):
        service.submit(Request((5, 6), Sampling()))
    unused = ContinuousService(loaded_model())
    unused.close()


def test_bad_requests_are_refused() -> None:
    with closing(ContinuousService(loaded_model(max_position_embeddings=32))) as service:
        assert (service.name, service.max_length) == ("tiny", 32)
        with pytest.raises(LengthError, match=r"prompt \(30 tokens\) and 3 new tokens exceed the 32 tokens of tiny"):
            service.submit(Request((5,) * 30, Sampling(max_new_tokens=3)))
        with pytest.raises(DataError, match="the prompt has no tokens"):
            service.submit(Request((), Sampling(max_new_tokens=3)))
        for wrong in (-1, VOCABULARY):
            with pytest.raises(DataError, match=rf"no tokens \(allowed: 0 to {VOCABULARY - 1}\)"):
                service.submit(Request((5, wrong), Sampling(max_new_tokens=3)))
        with pytest.raises(DataError, match=r"21 alternatives \(allowed: 0 to 20\)"):
            service.submit(Request((5,), Sampling(max_new_tokens=3), alternatives=21))
        whole = list(service.submit(Request((5,) * 29, Sampling(max_new_tokens=3))))
        assert whole[-1].stop in (Stop.LENGTH, Stop.EOS)


def test_turns_are_handed_on_in_order() -> None:
    turns, order, numbers = continuous.Shared().turns, list[int](), count()
    started = threading.Event()

    def always(name: int) -> None:
        for _ in range(20):
            with turns:
                started.wait()
                order.append(name)
                next(numbers)

    threads = [threading.Thread(target=always, args=(name,)) for name in (0, 1)]
    for thread in threads:
        thread.start()
    while len(turns._queue) < 1:
        pass
    started.set()
    for thread in threads:
        thread.join()
    assert len(order) == 40 and order[:2] in ([0, 1], [1, 0])


def test_tokens_are_spelled_in_bytes() -> None:
    from tiny_tokenizers import byte_level, metaspace

    for tokenizer in (byte_level(tokens=("<|im_end|>",)), metaspace()):
        spelled = continuous.TokenBytes(tokenizer)
        for text in ("6 kg is 6000 g", "Über 東京 🙂", " a\nb\t."):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert b"".join(map(spelled, ids)) in (text.encode(), b" " + text.encode())
        assert spelled(tokenizer.eos_token_id) == b"</s>"
        assert spelled(100_000) == b""


def test_records_are_what_the_protocol_says() -> None:
    with closing(ContinuousService(loaded_model())) as service:
        ticket = service.submit(Request((5, 6), Sampling(max_new_tokens=2)))
        assert all(isinstance(token, Token) and token.top == () for piece in ticket for token in piece.tokens)
