"""Chats of several turns behind a common system turn: tokens that are computed, against packing alone.

Packing alone computes each chat once, whole, with its answers trained: what trainers without shared prefixes do at
best. Ours has the chats of a step in one tree, so that the system turn is computed once a micro-batch. Both losses are
means over the same trained tokens; the other one is that of Transformers, chat by chat, without padding.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.setting import VOCABULARY, random_model
from ramify.base.types import TokenSequence

CHATS = 8  # in one optimizer step
TURNS = 3
SEED = 2


@dataclass(frozen=True)
class Chat:
    """One conversation.

    Attributes:
        ids: system turn, then questions and answers in turn.
        answers: where each answer starts and ends.
    """

    ids: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]

    def sequences(self) -> list[TokenSequence]:
        """One for each answer; its prompt is everything before it."""
        return [TokenSequence.of(self.ids[:start], self.ids[start:stop]) for start, stop in self.answers]


@dataclass(frozen=True)
class Counted:
    """What was computed for the chats of some steps.

    Attributes:
        tokens: of the sequences, each counted by itself; `packed` with each chat computed once, `computed` by us.
        loss: mean of ours over the steps' trained tokens; `packed_loss` that of Transformers.
    """

    tokens: int
    packed: int
    computed: int
    loss: float
    packed_loss: float


def make_chats(steps: int, system: int) -> list[Chat]:
    """Random chats: questions of 15 to 60 tokens, answers of 10 to 80."""
    draws = random.Random(SEED)
    prefix = tuple(draws.randrange(2, VOCABULARY) for _ in range(system))
    chats = []
    for _ in range(steps * CHATS):
        ids, answers = list(prefix), []
        for _ in range(TURNS):
            ids += [draws.randrange(2, VOCABULARY) for _ in range(draws.randint(15, 60))]
            start = len(ids)
            ids += [draws.randrange(2, VOCABULARY) for _ in range(draws.randint(10, 80))]
            answers.append((start, len(ids)))
        chats.append(Chat(tuple(ids), tuple(answers)))
    return chats


def count(shape: str, steps: int, system: int, micro_tokens: int = 8192) -> dict[str, Any]:
    """Loss of all chats on both sides, fp32, and the tokens it took."""
    import torch

    from ramify.base.config import Train
    from ramify.train.objective import Supervised
    from ramify.train.schedule import Schedule

    chats = make_chats(steps, system)
    sequences = [one for chat in chats for one in chat.sequences()]
    groups = [range(start, start + TURNS) for start in range(0, len(sequences), TURNS)]
    objective = Supervised(sequences, groups)
    schedule = Schedule.of(groups, Train(batch_size=CHATS * TURNS, epochs=1), SEED)
    network = random_model(shape, "fp32").eval()
    loss = computed = tokens = 0.0
    divisor = objective.divisor(range(len(sequences)))
    with torch.no_grad():
        for step in range(schedule.total):
            for part in objective.micro_batches(schedule.indices(step), micro_tokens):
                share = objective.score(network, part, divisor)
                loss, computed, tokens = loss + float(share.loss), computed + share.computed, tokens + share.tokens
    packed_loss = sum(_nll(random_model(shape, "fp32").eval(), chats)) / divisor
    packed = sum(len(chat.ids) for chat in chats)
    return asdict(Counted(int(tokens), packed, int(computed), loss, packed_loss))


def _nll(network: Any, chats: list[Chat]) -> list[float]:
    """Summed loss of the answers of each chat, by Transformers."""
    import torch

    found = []
    with torch.no_grad():
        for chat in chats:
            ids = torch.tensor([chat.ids])
            logprobs = network(input_ids=ids).logits.float().log_softmax(-1)[0]
            places = [place for start, stop in chat.answers for place in range(start, stop)]
            found.append(-float(sum(logprobs[place - 1, chat.ids[place]] for place in places)))
    return found


def show(counted: dict[str, Any]) -> str:
    """Two lines about it."""
    found = Counted(**counted)
    return (
        f"  tokens of a pass: {found.packed:,} with each chat packed once, {found.computed:,} ours "
        f"({found.packed / found.computed:.2f} x fewer; {found.tokens:,} with each turn by itself)\n"
        f"  loss: {found.packed_loss:.6f} packed, {found.loss:.6f} ours"
    )
