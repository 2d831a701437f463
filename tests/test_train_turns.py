"""Conversations of several turns: loss and gradient of the padded computation, what chats share computed once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VOCABULARY, tiny_model
from train_setup import Watcher, make_config, model_folder

from benchmarks.turns import Chat, count, show
from ramify.base.config import Train
from ramify.base.types import TokenSequence
from ramify.prompts.show import joined
from ramify.train import sft
from ramify.train.grouping import Groups
from ramify.train.objective import Supervised
from ramify.train.schedule import Schedule
from ramify.tree.pack import micro_batches, pack

__all__ = ["model_folder"]

SYSTEM = tuple(range(3, 15))


def chats(count: int, turns: int, system: tuple[int, ...] = SYSTEM) -> list[list[TokenSequence]]:
    """Random chats; a list of sequences each, one an answer."""
    draws = torch.Generator().manual_seed(7)
    found = []
    for _ in range(count):
        ids, sequences = system, []
        for _ in range(turns):
            sizes = torch.randint(2, 7, (2,), generator=draws).tolist()
            question, answer = (
                tuple(torch.randint(3, VOCABULARY, (size,), generator=draws).tolist()) for size in sizes
            )
            sequences.append(TokenSequence.of(ids + question, answer))
            ids += question + answer
        found.append(sequences)
    return found


def supervised(conversations: list[list[TokenSequence]]) -> Supervised:
    """As training has them: the turns of a chat are a group."""
    sequences = [one for each in conversations for one in each]
    starts = [sum(map(len, conversations[:place])) for place in range(len(conversations) + 1)]
    return Supervised(sequences, Groups.neighbours(torch.tensor(starts).numpy()))


def padded_loss(network: Any, conversations: list[list[TokenSequence]]) -> torch.Tensor:
    """The mean over all answer tokens of whole chats, right-padded, as Transformers computes it."""
    whole = [each for conversation in conversations for each in joined(conversation)]
    assert len(whole) == len(conversations)
    length = max(len(each.ids) for each in whole)
    ids, labels = torch.zeros(len(whole), length, dtype=torch.long), torch.full((len(whole), length), -100)
    mask = torch.zeros_like(ids)
    for row, each in enumerate(whole):
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        trained = torch.tensor(each.weights) != 0
        labels[row, : len(each.ids)][trained] = ids[row, : len(each.ids)][trained]
        mask[row, : len(each.ids)] = 1
    loss: torch.Tensor = network(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("micro_tokens", [10_000, 60])
def test_loss_and_gradient_are_those_of_whole_padded_chats(family: str, micro_tokens: int) -> None:
    conversations = chats(4, 3)
    objective = supervised(conversations)
    indices = [index for group in objective.groups for index in group]
    ours, theirs = tiny_model(family), tiny_model(family)
    shares = [
        objective.share(ours, part, objective.divisor(indices))
        for part in objective.micro_batches(indices, micro_tokens)
    ]
    loss = torch.stack([share.loss for share in shares]).sum()
    loss.backward()
    expected = padded_loss(theirs, conversations)
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)
    packed_alone = sum(len(conversation[-1].ids) for conversation in conversations)
    computed = sum(share.computed for share in shares)
    assert computed < sum(share.tokens for share in shares)
    if len(shares) == 1:
        assert computed == packed_alone - len(SYSTEM) * (len(conversations) - 1)


def test_without_a_system_turn_each_chat_is_computed_once_and_no_more() -> None:
    conversations = chats(3, 4, system=())
    sequences = [one for each in conversations for one in each]
    assert len(pack(sequences).input_ids) <= sum(len(each[-1].ids) for each in conversations)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_a_step_computes_what_its_rows_share_once(number: int, turns: int, steps: int, seed: int) -> None:
    """The turns of a chat stay neighbours in every shuffle, and those of a step that begin alike are one tree."""
    conversations = chats(number, turns)
    objective = supervised(conversations)
    batch = max(1, number * turns // steps)
    plan = Schedule.of(objective.groups, Train(batch_size=batch, epochs=1), seed)
    order = [index for step in range(plan.total) for index in plan.indices(step)]
    for group in objective.groups:
        place = order.index(group[0])
        assert tuple(order[place : place + turns]) == group
    for step in range(plan.total):
        sequences = [objective.sequences[index] for index in plan.indices(step)]
        (part,) = micro_batches(sequences, 10_000)
        distinct = {each.ids[:size] for each in sequences for size in range(1, len(each.ids) + 1)}
        assert len(pack([sequences[place] for place in part]).input_ids) == len(distinct)


def test_a_run_on_chats_computes_fewer_tokens_than_packing(model_folder: Path, tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are a careful assistant who explains every step."}
    rows = [
        {"messages": [system, *(turn for n in (number, number + 1) for turn in exchange(n))]} for number in range(8)
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = {"prompt": {"chat_template": "model"}, "train": {"batch_size": 16, "max_steps": 2}}
    record = sft.run(make_config(model_folder, path, tmp_path / "all", **template), progress=Watcher()).record
    assert record["data"]["rows"] == 8 and record["data"]["sequences"] == 16
    last = sft.run(
        make_config(model_folder, path, tmp_path / "last", data={"turns": "last"}, **template), progress=Watcher()
    ).record
    assert last["data"]["rows"] == last["data"]["sequences"] == 8
    packed_alone = 2 * last["data"]["tokens_per_epoch"]  # whole chats, in two steps of all of them
    assert record["computed_tokens"] < 0.7 * packed_alone
    page = (tmp_path / "all" / "rows.html").read_text()
    assert page.count("Several trained turns") == 1


def exchange(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"It is {number}."}]


def test_the_benchmark_s_figures_are_equal_losses_and_fewer_tokens() -> None:
    found = count("tiny", steps=1, system=20)
    assert found["loss"] == pytest.approx(found["packed_loss"], abs=1e-5)
    assert found["computed"] == found["packed"] - 7 * 20 < found["packed"] < found["tokens"]
    assert "x fewer" in show(found)
    chat = Chat((1, 2, 3, 4, 5), ((1, 2), (4, 5)))
    assert chat.sequences() == [TokenSequence.of((1,), (2,)), TokenSequence.of((1, 2, 3, 4), (5,))]
